"""What the listings and flows print, as contract lines, and their tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.foundation.console import Cell, err, out, print_json, print_table, print_text, say
from hardening.foundation.errors import GoldsmithError, RefusedError, UsageError, machine_error
from hardening.foundation.grouping import by_key

if TYPE_CHECKING:
    from hardening.findings import CheckResult
    from images.artifact import Artifact, Release
    from images.context import Context
    from images.ledger import Move
    from pipelines.contract import DefinitionLine, VerifyLine

DEFINITION_COLUMNS = {
    "image": "name",
    "built": "built_cell",
    "candidate": "candidate_cell",
    "stable": "stable_cell",
    "stable until": "expires_at",
}


def show(
    lines: Sequence[Any],
    errors: Iterable[GoldsmithError | None] = (),
    *,
    columns: dict[str, str],
    as_json: bool,
    empty: str = "nothing to show",
    long: str = "",
) -> int:
    """Print contract lines, and what went wrong; the exit code of `finish`.

    The lines are JSON for programs, else a table whose `columns` map headings to field names, of which the first names
    the line and is not folded; `empty` is said to people where there are none, and nothing went wrong. The field `long`
    may have several lines.
    """
    wrong = [error for error in errors if error is not None]
    if as_json:
        from images.documents import to_json

        print_json(to_json(tuple(lines)))
    else:
        rows = [[_cell(getattr(row, field), several=field == long) for field in columns.values()] for row in lines]
        if rows or not wrong:
            print_table(list(columns), rows, empty=empty, whole=[*columns][:1])
    return finish(wrong)


def _cell(value: Any, *, several: bool) -> Cell:
    if several:
        return str(value).splitlines()
    if value in (None, ""):
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, tuple | list):
        return [short(str(item)) for item in value]
    return short(str(value))


def definition_lines(context: Context) -> list[DefinitionLine]:
    """One line for each definition."""
    from pipelines.contract import DefinitionLine

    lines, channels = [], all_channels(context)
    newest = context.ledger.latest_artifacts(context.definitions, context.settings.platform)
    for name, loaded in sorted(context.definitions.items()):
        definition = loaded.definition
        artifact = newest.get(name)
        candidate, release = channels.get(name, NOWHERE)
        base = definition.base
        boot = base.bootstrap and f"{base.bootstrap.family} {base.bootstrap.suite}"
        digests = {"digest": artifact, "candidate": candidate, "stable": release}
        lines.append(
            DefinitionLine.of(
                definition,
                base=str(boot or base.golden or base.image),
                expires_at=release.expires_at if release else None,
                revoked=_revoked(context, artifact, candidate, release),
                **{field: found.digest if found else "" for field, found in digests.items()},
            )
        )
    return lines


def _revoked(
    context: Context, artifact: Artifact | None, candidate: Release | None, stable: Release | None
) -> tuple[str, ...]:
    """What of a definition is revoked, or stands on what is, by the ledger alone."""
    from images.release.revocations import revoked

    over = context.ledger.releases_of_content(artifact.digest) if artifact else ()
    known = {"built": over, "candidate": (candidate,), "stable": (stable,)}
    return tuple(
        what for what, found in known.items() if any(one and revoked(context.ledger, one).revoked_at for one in found)
    )


Pointed = tuple["Release | None", "Release | None"]
"""What `candidate` and `stable` point to."""
NOWHERE: Pointed = (None, None)


def channels_of(context: Context, name: str) -> Pointed:
    """What `candidate` and `stable` were last moved to, by the ledger alone: a list must not wait for a registry."""
    return _pointed(context.ledger.releases(name), lambda place: context.ledger.last_move(*place))


def all_channels(context: Context) -> Mapping[str, Pointed]:
    """The same of every definition that has releases, of which the ledger is asked at once; of others: NOWHERE."""
    moves = context.ledger.last_moves()
    found = by_key((release.name, release) for release in context.ledger.releases())
    return {name: _pointed(of_it, moves.get) for name, of_it in found.items()}


def _pointed(releases: Sequence[Release], last: Callable[[tuple[str, str]], Move | None]) -> Pointed:
    known = {release.digest: release for release in releases}
    repositories = dict.fromkeys(release.repository for release in releases)
    candidate, stable = (
        next((known.get(move.digest) for place in repositories if (move := last((place, channel)))), None)
        for channel in ("candidate", "stable")
    )
    return candidate, stable


def show_checks(lines: Sequence[VerifyLine], errors: Sequence[GoldsmithError] = (), *, as_json: bool) -> int:
    """Print the results of checks with their evidence.

    The exit code: that of `errors`; 3 where an enforced one failed, 2 where nothing is wrong but that a check broke.
    """
    from hardening.check import broken
    from hardening.foundation.settings import load_settings
    from images.documents import to_json
    from images.scan.verify import refusals

    if as_json:
        print_json(to_json(tuple(lines)))
    for line in () if as_json else lines:
        rows: list[list[Cell]] = [[r.control, r.outcome, r.enforcement, _evidence(r)] for r in line.checks]
        columns = ["control", "outcome", "enforcement", "evidence"]
        print_table(columns, rows, title=f"{line.name} {line.digest[:19]}", whole=columns[:1])
        for control, steps in line.todo.items():
            out().print(f"{control}: how to fix it on this host", style="bold")
            print_text("".join(f"  {number}. {step}\n" for number, step in enumerate(steps, 1)) + "\n")
    refused = [check for line in lines if not line.passed for check in refusals(line.checks)]
    error = broken(refused, load_settings().roots)
    if code := finish([*errors, error]):
        return code
    return 0 if all(line.passed for line in lines) else 3


def _evidence(result: CheckResult) -> list[str]:
    """The evidence in full; of what passed, as much as shows that something was looked at."""
    from hardening.findings import Outcome

    lines = result.evidence.strip().splitlines()
    if result.outcome is not Outcome.PASS:
        return lines
    return [line for line in lines if not line.endswith(":")][:1] or lines[:1]  # a heading shows nothing that was seen


def short(text: str) -> str:
    """The first twelve digits of a digest, as Docker shows one; any other text as it is."""
    return text[7:19] if text.startswith("sha256:") else text


def ended_by(error: GoldsmithError) -> str:
    """How a line names what `error` ended."""
    return "refused" if isinstance(error, RefusedError) else "failed"


def told_of(fleet: str, error: GoldsmithError) -> GoldsmithError:
    """The error, with the fleet that it is about in front."""
    error.message = f"{fleet}: {error.message}"
    return error


def finish(errors: Iterable[GoldsmithError | None]) -> int:
    """Print each distinct error on standard error; the exit code: the highest of their families, 0 without any."""
    distinct = {str(error): error for error in errors if error is not None}
    for text in distinct:
        err().print(text, style="red")
    return max((error.exit_code for error in distinct.values()), default=0)


def form_named(form: str, output: str, forms: Sequence[str], endings: Mapping[str, str]) -> str:
    """The form that is asked for, by its name or by the ending of the file it is written to; without both the first.

    Raises UsageError for a form that there is none of, and for a file whose ending says nothing.
    """
    if form and form not in forms:
        raise UsageError(f"--form: unknown form: {form}", hint=f"there are {', '.join(forms)}")
    if form or not output:
        return form or forms[0]
    longest_first = sorted(endings, key=len, reverse=True)
    found = next((endings[ending] for ending in longest_first if output.endswith(ending)), "")
    if not found:
        written = ", ".join(dict.fromkeys(endings.values()))
        raise UsageError(f"--output: the ending of {output} names no form", hint=f"add --form: {written}")
    return found


def require_place(output: str) -> Path:
    """The file `output`. Raises UsageError for no file's place."""
    target = Path(output).absolute()
    with suppress(OSError):  # a name that is too long
        if target.parent.is_dir() and not target.is_dir():
            return target
    raise UsageError(f"--output: {output} cannot be a file", hint="give a file in an existing folder")


def write_out(text: str, output: str, mode: int | None = None) -> None:
    """Write the text to a file, whole or not at all, or to standard output. `mode`: who may read the file, where not
    only we. Raises UsageError for no file's place.
    """
    if not output:
        out().out(text, highlight=False, end="")
        return
    from images.packages.index import write_atomically

    target = require_place(output)
    try:
        write_atomically(target, text, mode)
    except OSError as error:
        if machine_error(error):
            raise
        raise UsageError(f"--output: {output} cannot be written: {error.strerror}") from None
    say(f"wrote {target}")
