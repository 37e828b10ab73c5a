"""What the fleets run, found anew and written into the ledger. Whether it is within policy, `fleet.check` says."""

from __future__ import annotations

from collections.abc import Iterable

from hardening.foundation.content import select
from images.context import Context
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.violations import Judged, named
from pipelines.rollout.session import UNREAD, check, fleet_session
from pipelines.wiring import image_context

SEEN_COLUMNS = {"fleet": "fleet", "member": "name", "image": "image", "golden image": "golden", "state": "state"}
NOT_READ = 4  # the exit code for an outside world that failed


class SeenLine(Line):
    """`fleet.scan`: one member, or a place that could not be read. `golden` is the release that it is judged by."""

    fleet: str
    member: str
    name: str
    image: str
    golden: str
    state: str


def scan_fleets(name: str, context: Context | None = None) -> list[SeenLine]:
    """What the fleets that `name` means run: a name, a glob, or `all`. Raises ContentError, and OutsideError."""
    context = context or image_context(looks=True)
    wanted = select(name, load_fleets(context.settings.roots), "fleet")
    return [line for fleet in wanted for line in _seen(context, fleet)]


def _seen(context: Context, fleet: str) -> list[SeenLine]:
    with fleet_session(fleet, context) as at:
        return [_line(fleet, one) for one in check(at)]


def _line(fleet: str, one: Judged) -> SeenLine:
    member = one.member
    state = UNREAD if UNREAD in one.rules else "healthy" if member.healthy else "not healthy"
    golden = named(one.origin.golden) if one.origin.golden else ""
    return SeenLine(fleet=fleet, member=member.id, name=member.name, image=member.image, golden=golden, state=state)


def exit_code(lines: Iterable[SeenLine]) -> int:
    """0; 4 where some place could not be read."""
    return NOT_READ if any(line.state == UNREAD for line in lines) else 0
