"""What the listings and flows print, as contract lines, and their tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from hardening.foundation.console import Cell, err, out, print_json, print_table, print_text
from hardening.foundation.errors import GoldsmithError, RefusedError

if TYPE_CHECKING:
    from hardening.findings import CheckResult
    from images.artifact import Artifact, Release
    from images.context import Context
    from pipelines.cli.image import WhyOutput
    from pipelines.contract import DefinitionLine, VerifyLine

DEFINITION_COLUMNS = {
    "image": "name",
    "built": "built_cell",
    "candidate": "candidate_cell",
    "stable": "stable_cell",
    "stable until": "expires_at",
}
BUILD_COLUMNS = {"image": "name", "action": "action", "digest": "digest", "seconds": "seconds", "because": "because"}


def show(lines: Sequence[Any], columns: dict[str, str], *, as_json: bool, empty: str = "nothing to show") -> None:
    """Print contract lines: as JSON for programs, else as a table whose `columns` map headings to field names.

    `empty` is said to people where there are no lines.
    """
    if as_json:
        print_json(_json(tuple(lines)))
        return
    rows = [[_cell(getattr(row, field)) for field in columns.values()] for row in lines]
    print_table(list(columns), rows, empty=empty)


def _json(value: Any) -> Any:
    from images.documents import to_json

    return to_json(value)


def _cell(value: object) -> Cell:
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

    lines = []
    for name, loaded in sorted(context.definitions.items()):
        definition = loaded.definition
        artifact = context.ledger.latest_artifact(name, context.settings.platform)
        candidate, release = _channels(context, name)
        base = definition.base
        boot = base.bootstrap and f"{base.bootstrap.family} {base.bootstrap.suite}"
        lines.append(
            DefinitionLine(
                name=name, title=definition.title, kind=definition.kind, profile=definition.profile,
                base=str(boot or base.golden or base.image), policy=definition.policy,
                digest=artifact.digest if artifact else "", candidate=candidate.digest if candidate else "",
                stable=release.digest if release else "", expires_at=release.expires_at if release else None,
                revoked=_revoked(context, artifact, candidate, release),
            )
        )  # fmt: skip
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


def _channels(context: Context, name: str) -> list[Release | None]:
    """What `candidate` and `stable` were last moved to, by the ledger alone: a list must not wait for a registry."""
    ledger = context.ledger
    repositories = dict.fromkeys(release.repository for release in ledger.releases(name))
    return [
        next(
            (ledger.release(moves[-1].digest) for place in repositories if (moves := ledger.moves(place, channel))),
            None,
        )
        for channel in ("candidate", "stable")
    ]


def show_checks(lines: Sequence[VerifyLine], *, as_json: bool) -> int:
    """Print the results of checks with their evidence.

    The exit code: 3 where an enforced one failed, 2 where nothing is wrong but that a check broke.
    """
    from hardening.check import broken
    from hardening.foundation.settings import load_settings
    from images.scan.verify import refusals

    if as_json:
        print_json(_json(tuple(lines)))
    for line in () if as_json else lines:
        rows: list[list[Cell]] = [[r.control, r.outcome, r.enforcement, _evidence(r)] for r in line.checks]
        print_table(["control", "outcome", "enforcement", "evidence"], rows, title=f"{line.name} {line.digest[:19]}")
    refused = [check for line in lines if not line.passed for check in refusals(line.checks)]
    if error := broken(refused, load_settings().roots):
        return finish([error])
    return 0 if all(line.passed for line in lines) else 3


def _evidence(result: CheckResult) -> list[str]:
    """The evidence in full; of what passed, as much as shows that something was looked at."""
    from hardening.findings import Outcome

    lines = result.evidence.strip().splitlines()
    return lines[:1] if result.outcome is Outcome.PASS else lines


def show_why(why: WhyOutput, *, as_json: bool) -> None:
    """Print what changed since the last artifact."""
    if as_json:
        print_json(_json(why))
        return
    at = why.last_built_at
    last = f"last built {at:%Y-%m-%d %H:%M} UTC as {short(why.last_digest)}" if at else "never built"
    for text in (f"{why.name}: {last}", f"would now be: {why.would}"):
        out().print(text)
    rows = [[change.kind, change.name, short(change.old)[:40], short(change.new)[:40]] for change in why.changes]
    print_table(["input", "name", "old", "new"], rows) if rows else print_text(why.why)


def short(text: str) -> str:
    """The first twelve digits of a digest, as Docker shows one; any other text as it is."""
    return text[7:19] if text.startswith("sha256:") else text


def show_outcomes(
    outcomes: tuple[Sequence[Any], Iterable[GoldsmithError | None]], columns: dict[str, str], *, as_json: bool
) -> int:
    """Print lines as `show`, and what went wrong; the exit code of `finish`."""
    lines, errors = outcomes
    show(lines, columns, as_json=as_json)
    return finish(errors)


def ended_by(error: GoldsmithError) -> str:
    """How a line names what `error` ended."""
    return "refused" if isinstance(error, RefusedError) else "failed"


def finish(errors: Iterable[GoldsmithError | None]) -> int:
    """Print each distinct error on standard error; the exit code: the highest of their families, 0 without any."""
    distinct = {str(error): error for error in errors if error is not None}
    for text in distinct:
        err().print(text, style="red")
    return max((error.exit_code for error in distinct.values()), default=0)
