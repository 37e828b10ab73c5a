"""What `fleet.blast-radius` prints, as data and as text. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

from hardening.foundation.text import listed, many
from pipelines.blast_radius.descriptions import path_words, sentence, short, told
from pipelines.blast_radius.graph import Cut, Reached
from pipelines.blast_radius.radius import FleetRadius, Radius
from pipelines.contract import Line

SHOWN, SHOWN_CUTS = 40, 5
COUNTED = ("account", "group", "host", "member", "network", "role", "user")  # kinds with a plural
Sure = Literal["certain", "possible", "exposed"]
MEANING: dict[Sure, str] = {
    "certain": "falls with it",
    "possible": "may fall with it: it depends on what is not known",
    "exposed": "can be reached, and needs a vulnerability of its own",
}


class ReachedLine(Line):
    """One reached thing. `kind`: member, host, role, user, group, boundary, account or data.

    `path`: how, a line for each step.
    """

    kind: str
    name: str
    sure: Sure
    path: tuple[str, ...]


class CutLine(Line):
    """One change that shrinks it, proved by evaluating again. `spares` is not reached after it, `weakens` less surely.

    `saves` is in units of the `size` before: ten for what falls, five for what may fall, one for what can be talked to.
    """

    what: str
    kind: str
    subject: str
    detail: str
    actions: tuple[str, ...]
    saves: int
    spares: tuple[str, ...] = ()
    weakens: tuple[str, ...] = ()


class MemberSizeLine(Line):
    """How much falls with one member, and how much can be reached from what falls."""

    member: str
    taken: int
    exposed: int


class BlastRadiusOutput(Line):
    """`fleet.blast-radius`: what is reached from `members`, and the changes that shrink it most, the best first.

    Without a name every member stands in `sizes`, the greatest first, `reached` is empty, and the changes are about the
    sum. More may be reached by what is `unread`, which could have been read, and `unseen`, which is never asked for.
    `tried` of `candidates` changes were evaluated. `seen_at`: when
    each fleet was last looked at. `drawn`: the file with the picture.
    """

    asked: str
    members: tuple[str, ...]
    reached: tuple[ReachedLine, ...]
    sizes: tuple[MemberSizeLine, ...]
    size: int
    cuts: tuple[CutLine, ...]
    tried: int
    candidates: int
    unread: tuple[str, ...]
    unseen: tuple[str, ...]
    seen_at: dict[str, datetime] = {}
    drawn: str = ""


def of_radius(asked: str, found: Radius, drawn: str = "") -> BlastRadiusOutput:
    """The output about some members."""
    reach = found.reach
    lines = [
        ReachedLine(kind=told(name)[0], name=told(name)[1], sure=sure, path=path_words(reach.path(name)))
        for sure, names in _by_sureness(reach).items()
        for name in sorted(names)
    ]
    return BlastRadiusOutput(
        asked=asked, members=tuple(told(one)[1] for one in found.sources), reached=tuple(lines), sizes=(),
        size=reach.size, tried=found.tried, candidates=found.candidates,
        unread=found.unread, unseen=found.unseen, drawn=drawn,
        cuts=tuple(_cut(one.cut, one.saves, reach, one.after) for one in found.cuts),
    )  # fmt: skip


def of_fleets(found: FleetRadius, unread: tuple[str, ...], unseen: tuple[str, ...]) -> BlastRadiusOutput:
    """The output about all members."""
    sizes = sorted(found.sizes.items(), key=lambda pair: (-pair[1][0], -pair[1][1], pair[0]))
    return BlastRadiusOutput(
        asked="", members=(), reached=(), size=found.total, tried=found.tried, candidates=found.candidates,
        unread=unread, unseen=unseen,
        sizes=tuple(MemberSizeLine(member=told(name)[1], taken=taken, exposed=met) for name, (taken, met) in sizes),
        cuts=tuple(_cut(cut, saves) for cut, saves in found.cuts),
    )  # fmt: skip


def _by_sureness(reach: Reached) -> Mapping[Sure, frozenset[str]]:
    return {"certain": reach.certain, "possible": reach.possible, "exposed": reach.exposed}


def _cut(cut: Cut, saves: int, before: Reached | None = None, after: Reached | None = None) -> CutLine:
    spares = before.all - after.all if before and after else ()
    weakens = _weaker(before, after) if before and after else ()
    return CutLine(
        what=sentence(cut), kind=cut.kind, subject=told(cut.subject)[1] if ":" in cut.subject else cut.subject,
        detail=cut.detail, actions=cut.actions, saves=saves,
        spares=tuple(sorted(map(short, spares))), weakens=tuple(sorted(map(short, weakens))),
    )  # fmt: skip


def _weaker(before: Reached, after: Reached) -> set[str]:
    """What is still reached, less surely."""
    stays = (before.certain & (after.possible | after.exposed)) | (before.possible & after.exposed)
    return set(stays)


# -- on a screen -------------------------------------------------------------------------------------------------------


def screen(output: BlastRadiusOutput) -> Iterator[str]:
    """The lines for people."""
    if output.sizes:
        yield f"{many(len(output.sizes), 'member')}, by what falls with each, and what can be talked to:"
        yield from (f"  {one.taken:6} {one.exposed:6}  {one.member}" for one in output.sizes[:SHOWN])
        yield from _more(len(output.sizes))
    elif not output.members:
        yield "no member of a fleet is known: ./goldsmith fleet.scan all finds them"
    elif not output.reached:
        yield f"{listed(output.members)}: nothing else is reached, as far as it could be seen"
    else:
        yield from _reached(output)
    yield from _cuts(output)
    for head, lines in (("could not be read (exit code 4)", output.unread), ("is not known", output.unseen)):
        if lines:
            yield ""
            yield f"more may be reached by what {head}:"
            yield from (f"  {line}" for line in lines[:SHOWN])
            yield from _more(len(lines))
    if output.seen_at:
        fleet, at = min(output.seen_at.items(), key=lambda pair: pair[1])
        yield ""
        yield f"as the fleets were last looked at, the first of them {fleet} at {at:%Y-%m-%d %H:%M} UTC"
    if output.drawn:
        yield ""
        yield f"drawn: {output.drawn}"


def _reached(output: BlastRadiusOutput) -> Iterator[str]:
    are = "is" if len(output.reached) == 1 else "are"
    yield f"{listed(output.members)}: if taken, {many(len(output.reached), 'thing')} {are} reached"
    for sure, meaning in MEANING.items():
        lines = [one for one in output.reached if one.sure == sure]
        if not lines:
            continue
        counted = Counter(sorted(one.kind for one in lines))
        yield ""
        told_of = (many(number, kind) if kind in COUNTED else f"{number} {kind}" for kind, number in counted.items())
        yield f"{sure} ({meaning}): {', '.join(told_of)}"
        for one in lines[:SHOWN]:
            yield f"  {one.kind:8} {one.name}"
            yield f"           {one.path[-1]}" if one.path else ""
        yield from _more(len(lines))


def _cuts(output: BlastRadiusOutput) -> Iterator[str]:
    if not output.cuts:
        return
    yield ""
    tried = f"{output.tried} of {output.candidates} tried"
    yield f"single changes that shrink it most, of {output.size}, each evaluated again ({tried}):"
    for one in output.cuts[:SHOWN_CUTS]:
        yield f"  -{one.saves:<6} {one.what}"
        for word, names in (("spares", one.spares), ("less sure then:", one.weakens)):
            if names:
                yield f"          {word} {listed(names)}"


def _more(number: int) -> Iterator[str]:
    if number > SHOWN:
        yield f"  … and {number - SHOWN} more (--json)"
