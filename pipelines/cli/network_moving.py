"""What `network.refactor` calls: renames a role or an address range everywhere it is used, as one change."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hardening.foundation.console import print_json, print_text
from hardening.foundation.content import parse, read_small
from hardening.foundation.errors import ContentError, UsageError, nearest
from hardening.model import Name
from images.context import Context
from images.documents import to_json
from pipelines.cli.network import changing_network
from pipelines.contract import Line
from pipelines.network import definitions
from pipelines.network.catalog import network_files
from pipelines.network.model import WORLD, Network, NetworkFile, as_range, combined
from pipelines.network.nftables import CONTROL
from pipelines.network.renaming import Moved, WayChange, changed, move
from pipelines.wiring import image_context


class NetworkMoveOutput(Line):
    """`network.refactor`: the files and keys that contain `old`, and who loses and gains access.

    Of a definition that follows a role the keys are those of its params. `applied`: whether the files were written.
    """

    old: str
    new: str
    files: dict[str, tuple[str, ...]]
    loses: tuple[str, ...]
    gains: tuple[str, ...]
    applied: bool


def refactor(old: str, new: str, *, apply: bool, context: Context | None = None) -> NetworkMoveOutput:
    """Put `new` in the place of `old` in every file of the network, and in the definitions that follow it.

    Raises UsageError where they are no names or ranges, ContentError where `old` stands nowhere or the result is no
    network, RefusedError while another process changes it. What a killed run left half done, the same command ends.
    """
    context = context or image_context(looks=not apply)
    old, new = _pair(old, new)
    with changing_network(context) if apply else nullcontext():
        return _refactored(old, new, context, apply=apply)


def _pair(old: str, new: str) -> tuple[str, str]:
    if ("/" in old) != ("/" in new):
        raise UsageError(f"{old} and {new}: a role moves to a role, and a range of addresses to another one")
    try:
        if "/" in old:
            return as_range(old), as_range(new)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if WORLD in (old, new):
        raise UsageError(f'"{WORLD}" is every address, and no role')
    parse({"name": new}, _Named, "NEW")
    return old, new


class _Named(Line):
    name: Name


def _refactored(old: str, new: str, context: Context, *, apply: bool) -> NetworkMoveOutput:
    files = network_files(context.settings.roots)
    texts = {file: read_small(file) for file in files.values()}
    raw = {file: _toml(text, file) for file, text in texts.items()}
    keeps = (
        "/" not in old
        and any(new in one.get("roles", {}) for one in raw.values())
        and any(old in one.get("roles", {}) for one in raw.values())
    )
    moved = {file: _moved(file, text, old, new, keeps_role=keeps) for file, text in texts.items()}
    names = {file: name for name, file in files.items()}
    after = _network({file: one.after for file, one in moved.items()}, names)
    if not any(one.keys for one in moved.values()):
        known = sorted({*after.roles, *(text for role in after.roles.values() for text in role.addresses)})
        raise ContentError(f"{old} is not in the network", hint=nearest(old, known))
    before = _before(texts, names)
    told = changed(before, after, old, new) if before else WayChange((), ())
    following = dict(_following(before, after, context)) if before else {}
    every = {file: one for file, one in (following | moved).items() if one.keys}  # what follows first: _write
    if apply:
        _write(every, context, f"{old} → {new}")
    if not before:
        told = WayChange(("unknown: the present network is not valid",), ("unknown",))
    return NetworkMoveOutput(
        old=old, new=new, files={str(file): one.keys for file, one in every.items()},
        loses=told.loses, gains=told.gains, applied=apply,
    )  # fmt: skip


def _toml(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ContentError(f"not TOML: {error}", file=file) from None


def _moved(file: Path, text: str, old: str, new: str, *, keeps_role: bool) -> Moved:
    try:
        return move(text, old, new, keeps_role=keeps_role)
    except ContentError as error:
        raise ContentError(error.message, file=file, hint=error.hint) from None


def _network(texts: Mapping[Path, str], names: Mapping[Path, str]) -> Network:
    """The network of these texts. Raises ContentError where they are none."""
    return combined({
        file: parse(_toml(text, file), NetworkFile, file, name=names[file]) for file, text in texts.items()
    })  # fmt: skip


def _before(texts: Mapping[Path, str], names: Mapping[Path, str]) -> Network | None:
    """The network as it stands; None where it is none, as a run that was killed in the middle leaves it."""
    try:
        return _network(texts, names)
    except ContentError:
        return None


def _following(before: Network, after: Network, context: Context) -> Iterator[tuple[Path, Moved]]:
    """The definitions that say what the network says, as the moved one says it."""
    astray = {one.file for one in definitions.steps(before, context.definitions)}
    for step in definitions.steps(after, context.definitions):
        if step.file not in astray:
            text = read_small(step.file)
            keys = [key for key in definitions.MANAGED if step.before.get(key) != step.after.get(key)]
            told = tuple(f"profile_params.{CONTROL}.{key}" for key in keys)
            yield step.file, Moved(text, definitions.with_params(text, step.after), told)


def _write(files: Mapping[Path, Moved], context: Context, what: str) -> None:
    """Write all files beside the old ones first, then put each in its place; the audit says so before and after.

    Definitions come before the network: until its last file is in its place, the same move still finds what is left.
    Whoever holds the lock writes alone, so that a name is the file of a killed run.
    """
    listed = ", ".join(map(str, files))
    context.ledger.audit(context.now, context.actor, "network", what, f"refactor begins: {listed}")
    ready: list[tuple[Path, Path]] = []
    try:
        for file, moved in files.items():
            temporary = file.with_name(f".{file.name}.moved")
            temporary.unlink(missing_ok=True)
            ready.append((temporary, file))
            with temporary.open("x") as written:
                written.write(moved.after)
                written.flush()
                os.fsync(written.fileno())
            temporary.chmod(file.stat().st_mode & 0o777)
        for temporary, file in ready:
            temporary.replace(file)
    finally:
        for temporary, _ in ready:
            temporary.unlink(missing_ok=True)
    context.ledger.audit(context.now, context.actor, "network", what, f"refactor: {listed}")


def show_move(output: NetworkMoveOutput, *, as_json: bool) -> int:
    """Print the move as whoever reviews it reads it."""
    if as_json:
        print_json(to_json(output))
        return 0
    print_text(_screen(output))
    return 0


def _screen(output: NetworkMoveOutput) -> Sequence[str]:
    lines = [f"{output.old} → {output.new} in {len(output.files)} file{'s' if len(output.files) > 1 else ''}"]
    lines += [f"  {file}: {', '.join(keys)}" for file, keys in output.files.items()]
    lines += [f"loses  {line}" for line in output.loses] + [f"gains  {line}" for line in output.gains]
    if not output.loses and not output.gains:
        lines.append("no way is lost or gained: only names change")
    lines.append("written" if output.applied else "nothing was done: --apply writes the files")
    return lines
