"""What was last found of all members' blast radius, kept for the report: asking IAM again would take it minutes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from hardening.foundation.text import visible
from images.context import Context
from images.packages.index import write_atomically
from pipelines.blast_radius.descriptions import graphviz
from pipelines.blast_radius.gathering import gather
from pipelines.blast_radius.radius import FleetRadius, KnownFacts, fleet_radius, unseen
from pipelines.cli.blast_radius_output import BlastRadiusOutput, of_fleets
from pipelines.cli.report_output import BlastRadiusReport

FILE = "blast-radius.json"
DRAWING_SECONDS = 60
MOST_DRAWN = 300_000
"""Characters of a drawing on the page; a larger one is left out."""
SIZES, LINES = 20, 50
"""Members, and lines of what was not seen, that are kept."""


def record_radius(context: Context) -> None:
    """Evaluate the blast radius of every member, and keep it for the next report."""
    world = gather(context)
    keep_radius(context, world, fleet_radius(world))


def keep_radius(context: Context, world: KnownFacts, found: FleetRadius) -> BlastRadiusOutput:
    """Write down what was found, in the place of what was found before, and give it."""
    missing = unseen(world, world.graph.reach(()), [one.node for one in world.members])
    told = of_fleets(found, *missing)
    report = BlastRadiusReport(
        at=context.now, members=len(told.sizes), size=told.size, sizes=told.sizes[:SIZES], cuts=told.cuts,
        unread=told.unread[:LINES], unseen=told.unseen[:LINES], drawing=_greatest(world, told),
    )  # fmt: skip
    file = _file(context)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, report.model_dump_json())
    return told


def recorded_radius(context: Context) -> BlastRadiusReport | None:
    """What was last kept; None where nothing was, or an earlier version wrote it."""
    with suppress(FileNotFoundError, ValidationError):
        return BlastRadiusReport.model_validate_json(_file(context).read_text(encoding="utf-8"))
    return None


def svg_of(text: str) -> str:
    """The picture of a graph. Raises OutsideError where Graphviz is not there."""
    hint = "./goldsmith setup installs Graphviz; or write a .dot file"
    return run(["dot", "-Tsvg"], stdin=text, timeout=DRAWING_SECONDS, hint=hint).stdout


def _greatest(world: KnownFacts, told: BlastRadiusOutput) -> str:
    """The graph of the first of the `sizes`; empty where it reaches nothing, or nothing draws it."""
    if not told.sizes or not (told.sizes[0].taken or told.sizes[0].exposed):
        return ""
    node = next(one.node for one in world.members if f"{one.fleet}/{one.name}" == told.sizes[0].member)
    with suppress(OutsideError):  # the tables say the same
        svg = svg_of(visible(graphviz(world.graph.reach([node]), [node], "")))
        return svg if len(svg) <= MOST_DRAWN else ""
    return ""


def _file(context: Context) -> Path:
    return context.settings.state_dir / "reports" / FILE
