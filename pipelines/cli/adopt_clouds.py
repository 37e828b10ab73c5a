"""Shared by `adopt` for everything in a cloud: reports a drafted fleet, and writes its file on --apply."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from hardening.foundation.content import parse
from hardening.foundation.errors import UsageError
from images.catalog import sound_definitions
from images.context import Context
from images.model import Definition
from pipelines.cli.adopt import AdoptLine, FoundLine, settings_todo, steps_after, write_new
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.drafting import Draft
from pipelines.fleet.ec2.provenance import AmiProvenance
from pipelines.fleet.members import Member
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import named


def definitions(context: Context) -> dict[str, Definition]:
    """Every definition that is whole, by name."""
    return {name: one.definition for name, one in sound_definitions(context.settings.roots)[0].items()}


def told(
    context: Context, root: Path, name: str, drafted: tuple[Draft, str], source: str, members: Sequence[str],
    found: Sequence[FoundLine], adopt: str | None,
) -> AdoptLine:  # fmt: skip
    """What is told of a fleet with the text of its file, which is not written yet. `adopt` as `steps_after` has it.

    Raises UsageError where a fleet of that name is there already.
    """
    draft, becomes = drafted
    path = root / "pipelines/fleets" / f"{name}.toml"
    parse(tomllib.loads(draft.text), Fleet, path, name=name)
    if name in load_fleets(context.settings.roots):
        raise UsageError(f"the fleet {name} exists already", hint="--name gives this one another name")
    return AdoptLine(
        fleet=name,
        source=source,
        members=tuple(members),
        files=(str(path),),
        todo=(*draft.todo, *settings_todo(context.settings, root)),
        next=steps_after(context, name, becomes, adopt),
        found=tuple(found),
        written=False,
        text=draft.text,
    )


def written(context: Context, lines: Sequence[AdoptLine]) -> list[AdoptLine]:
    """The same, once all files are written, never over others, and the audit says so."""
    write_new({Path(file): line.text for line in lines for file in line.files})
    for line in lines:
        context.ledger.audit(context.now, context.actor, "adopt", line.fleet, line.source)
    return [line.model_copy(update={"written": True, "text": ""}) for line in lines]


def golden_of(origins: ProvenanceReader | AmiProvenance, members: Sequence[Member]) -> tuple[str, str]:
    """The definition whose release members run, and the release as people call it; empty where none is known."""
    golden = next((known for one in members if (known := origins.of(one).release)), None)
    return (golden.name, named(golden)) if golden else ("", "")


def fleet_as_read(kind: str, place: Mapping[str, object], selector: Mapping[str, str]) -> Fleet:
    """A fleet of that kind in a place, as it would be read. Raises ContentError for a wrong place."""
    draft = {"title": "x", "owner": "x", "kind": kind, "selector": dict(selector), kind: dict(place)}
    return parse({**draft, "replacement": {"definition": "x"}}, Fleet, "adopt", name="x")


def only_place(context: Context, regions: str, accounts: str) -> dict[str, str]:
    """The one region and account that a cluster is in, by default those of the settings. Raises UsageError for
    several.
    """
    cloud, found = context.cloud, dict[str, str]()
    for key, option, words, usual in (("region", "--regions", regions, cloud.home),
                                      ("account", "--accounts", accounts, cloud.aws.account)):  # fmt: skip
        named = re.split(r"[,\s]+", words.strip())
        if named[1:]:
            raise UsageError(f"{option} {words}: a cluster is in one", hint="adopt one by one")
        found[key] = named[0] or usual
    return found
