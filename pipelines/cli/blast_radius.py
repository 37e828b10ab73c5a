"""What `fleet.blast-radius` calls: what an attacker reaches from a member, and what shrinks that."""

from __future__ import annotations

import re
from collections.abc import Collection

from hardening.foundation.console import out, print_json, print_text
from hardening.foundation.errors import ContentError, UsageError, nearest
from hardening.foundation.text import one_line
from images.context import Context
from images.documents import to_json
from pipelines.blast_radius.descriptions import graphviz
from pipelines.blast_radius.gathering import gather
from pipelines.blast_radius.member_steps import FleetMember
from pipelines.blast_radius.radius import KnownFacts, fleet_radius, radius
from pipelines.cli.blast_radius_output import BlastRadiusOutput, of_radius, screen
from pipelines.cli.blast_radius_report import keep_radius, svg_of
from pipelines.cli.image_output import form_named, write_out
from pipelines.wiring import image_context

VULNERABILITY = re.compile(r"(CVE|DSA|DLA|GHSA|TEMP)-[\w-]+", re.IGNORECASE)
SHORTEST = 6
"""Characters of a digest that are enough to mean one."""
FORMS, ENDINGS = ("svg", "dot"), {".svg": "svg", ".dot": "dot"}


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
        for line in screen(output):
            print_text(one_line(line)) if line else out().print()
    return 4 if output.unread else 0
