"""What `fleet.blast-radius` calls: what an attacker reaches from a member, and what shrinks that.

What was last found of all members is kept for the report: asking IAM again would take it minutes.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from hardening.foundation.console import print_json, print_text
from hardening.foundation.errors import ContentError, OutsideError, UsageError, nearest
from hardening.foundation.process import run
from hardening.foundation.text import visible
from images.context import Context
from images.documents import to_json
from images.packages.index import write_atomically
from pipelines.blast_radius.descriptions import graphviz
from pipelines.blast_radius.gathering import gather
from pipelines.blast_radius.member_steps import FleetMember
from pipelines.blast_radius.radius import FleetRadius, KnownFacts, fleet_radius, radius, unseen
from pipelines.cli.blast_radius_output import BlastRadiusOutput, of_fleets, of_radius, screen
from pipelines.cli.image_output import form_named, write_out
from pipelines.cli.report_output import BlastRadiusReport
from pipelines.wiring import image_context

VULNERABILITY = re.compile(r"(CVE|DSA|DLA|GHSA|TEMP)-[\w-]+", re.IGNORECASE)
SHORTEST = 6
"""Characters of a digest that are enough to mean one."""
FORMS, ENDINGS = ("svg", "dot"), {".svg": "svg", ".dot": "dot"}
FILE = "blast-radius.json"
DRAWING_SECONDS = 60
MOST_DRAWN = 300_000
"""Characters of a drawing on the page; a larger one is left out."""
SIZES, LINES = 20, 50
"""Members, and lines of what was not seen, that are kept."""


def blast_radius(taken: str | None = None, output: str = "", context: Context | None = None) -> BlastRadiusOutput:
    """What is reached from what `taken` names: a member, an image, a vulnerability.

    Without it all members are compared, which is kept for the report. `output`: the file to draw the graph into.
    Raises ContentError where nothing matches or no member is known, UsageError for another form of file, an empty name.
    """
    if taken == "":
        raise UsageError("the name is empty", hint="leave it out to compare all members")
    form = form_named("", output, FORMS, ENDINGS) if output else ""
    if form and not taken:
        raise UsageError("--output: only the graph of a member, an image or a CVE is drawn", hint="name one")
    context = context or image_context(looks=True)
    world = gather(context)
    seen = {"seen_at": dict(world.seen_at)}
    if not world.members and not world.unread:
        hint = "./goldsmith adopt drafts the file of a fleet; ./goldsmith fleet.scan all finds its members"
        raise ContentError("no member of a fleet is known, so nothing was evaluated", hint=hint)
    if not taken:
        return keep_radius(context, world, fleet_radius(world)).model_copy(update=seen)
    nodes = sources(world, taken, context)
    found = radius(world, nodes)
    if form:
        text = graphviz(found.reach, found.sources, f"blast radius of {taken}")
        write_out(svg_of(text) if form == "svg" else text, output)
    return of_radius(taken, found, output).model_copy(update=seen)


def sources(world: KnownFacts, taken: str, context: Context) -> Collection[str]:
    """The nodes of the members that a name means. Raises ContentError where none matches, UsageError for several."""
    named = [one for one in world.members if taken in (f"{one.fleet}/{one.name}", one.name, one.instance)]
    if len({one.fleet for one in named}) > 1:
        several = ", ".join(f"{one.fleet}/{one.name}" for one in named)
        raise UsageError(f"{taken} means {len(named)} members: {several}", hint="name one of them")
    if named:
        return [one.node for one in named]
    if VULNERABILITY.fullmatch(taken):
        return _affected(world, taken, context)
    if found := [one.node for one in world.members if _runs(one, taken)]:
        return found
    known = [name for one in world.members for name in (f"{one.fleet}/{one.name}", one.golden) if name]
    hint = nearest(taken, known) if known else "./goldsmith fleet.scan all finds the members"
    raise ContentError(f"no member, and no image that a member runs, matches {taken}", hint=hint)


def _runs(member: FleetMember, name: str) -> bool:
    """Whether a member runs the image of that name, address or digest."""
    digest = name.removeprefix("sha256:")
    by_digest = len(digest) >= SHORTEST and member.release.removeprefix("sha256:").startswith(digest)
    return name in (member.golden, member.image) or by_digest


def _affected(world: KnownFacts, vulnerability: str, context: Context) -> Collection[str]:
    from pipelines.cli.affected import who_is_affected

    having = {one.name for one in who_is_affected(vulnerability, context).lines if one.kind == "member"}
    found = [one.node for one in world.members if f"{one.fleet}/{one.name}" in having]
    if not found:
        raise ContentError(
            f"no running member is known to have {vulnerability}", hint=f"./goldsmith image.affected {vulnerability}"
        )
    return found


def show_radius(output: BlastRadiusOutput, *, as_json: bool) -> int:
    """Print it; exit code 4 where something could not be read. What is never asked for does not count."""
    if as_json:
        print_json(to_json(output))
    else:
        print_text(screen(output))
    return 4 if output.unread else 0


# -- for the report ----------------------------------------------------------------------------------------------------


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
