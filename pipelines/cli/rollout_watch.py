"""What the tasks on current rollouts call and print: status, live or once; history; commands."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

from hardening.foundation.console import Cell, out, print_json, print_table, print_text, say, table_of
from hardening.foundation.text import one_line
from images.context import Context
from images.documents import to_json
from pipelines.cli.rollout_output import COLUMNS, MemberStatus, StatusOutput, ToldLine, lines, rows, skipped
from pipelines.contract import AuditReport, Line
from pipelines.host.capabilities import shares
from pipelines.rollout.plan import adoptions
from pipelines.rollout.rollout_store import View, history, missing_file, newest, require_known, tell, told
from pipelines.rollout.state import STEP, Command, DesiredState, OperatorCommands, Phase, RolloutStage, put_back
from pipelines.wiring import image_context

SECONDS = 1.0
SHORTENED = re.compile(r"(?<=sha256:[0-9a-f]{12})[0-9a-f]+")  # of a digest that people read


class HistoryLine(Line):
    """`roll.history`: one rollout of a fleet. `ended_at` is empty while it is open.

    `plan` is the digest of the plan that it was begun by, where one was made or approved for it. `adopted`: the members
    that it took over from another image, each as `name: old → new`.
    """

    rollout: str
    replacement: str
    begun_at: datetime
    ended_at: datetime | None
    members: int
    outcome: str
    plan: str = ""
    made_by: str = ""
    approved_by: str = ""
    approved_at: datetime | None = None
    adopted: tuple[str, ...] = ()


def status(fleet: str, context: Context | None = None) -> StatusOutput:
    """How the fleet's rollout stands, or how the last one ended. Raises ContentError, RefusedError where none was."""
    context = context or image_context(looks=True)
    require_known(context, fleet)
    seen = _status(newest(context, fleet))
    return seen.model_copy(update={"missing_file": missing_file(context, fleet)})


def _status(seen: View) -> StatusOutput:
    state = seen.state
    return StatusOutput.of(
        seen,
        fleet=seen.row.fleet,
        rollout=seen.row.id,
        stage=_stage(seen),
        wave=state.wave if state else 0,
        note=state.note if state else "",
        failure=state.failure if state else "",
        begun_at=seen.row.begun_at,
        ended_at=state.ended_at if state else None,
        carried_by=seen.lease.owner if seen.lease and seen.carried else "",
        told=tuple(map(ToldLine.of, seen.commands)),
        members=tuple(MemberStatus.of(one, member=one.id, state=one.phase, note=one.said) for one in seen.members),
        skipped=() if seen.back else skipped(seen.order.plan),
    )


def _stage(seen: View) -> RolloutStage | Literal["begun"]:
    """What it does; one that people have paused is paused also while a member is brought to a safe point."""
    if seen.state is None:
        return "begun"
    commands = OperatorCommands.given([given.command for given in seen.commands])
    paused = commands.desired_state is DesiredState.PAUSE
    return RolloutStage.PAUSED if paused and seen.state.stage is not RolloutStage.ENDED else seen.state.stage


def show_status(fleet: str, *, watch: bool, as_json: bool) -> int:
    """Print how the rollout stands; with `watch` until it is over, live in a terminal. Exit code 3 where it failed."""
    context = image_context(looks=True)
    seen = status(fleet, context)
    if watch and not as_json:
        seen = _watched(fleet, context, seen)
    elif as_json:
        print_json(to_json(seen))
    else:
        _print(seen)
    return 3 if seen.failure else 0


def _print(seen: StatusOutput) -> None:
    print_text(lines(seen, datetime.now(UTC)))
    out().print()
    print_table(COLUMNS, _cells(seen))


def _cells(seen: StatusOutput) -> list[list[Cell]]:
    """The rows of members; a note may have several lines."""
    return [[*row, note.splitlines()] for *row, note in rows(seen)]


def _watched(fleet: str, context: Context, seen: StatusOutput) -> StatusOutput:
    """Redraw it each second until it is over; where output is no terminal, a line whenever something has changed."""
    if not sys.stdout.isatty():
        return _followed(fleet, context, seen)
    from rich.console import Group
    from rich.live import Live

    def drawn(now: StatusOutput) -> Group:
        return Group(*map(one_line, lines(now, datetime.now(UTC))), "", table_of(COLUMNS, _cells(now)))

    with Live(drawn(seen), console=out(), auto_refresh=False, vertical_overflow="crop") as live:
        while seen.stage != RolloutStage.ENDED:
            time.sleep(SECONDS)
            seen = status(fleet, context)
            live.update(drawn(seen), refresh=True)
    return seen


def _followed(fleet: str, context: Context, seen: StatusOutput) -> StatusOutput:
    _print(seen)
    while seen.stage != RolloutStage.ENDED:
        time.sleep(SECONDS)
        before, seen = seen, status(fleet, context)
        for line in changes(before, seen):
            out().print(one_line(line), soft_wrap=True)
    return seen


def changes(before: StatusOutput, after: StatusOutput) -> Iterable[str]:
    """What has changed from one look to the next, a line for each."""
    stamp = f"{datetime.now(UTC):%H:%M:%S}"
    known = {member.member: member for member in before.members}
    for member, row in zip(after.members, rows(after), strict=True):
        if member != known.get(member.member):
            yield f"{stamp} {row[0]}: {row[1]}{f': {row[2]}' if row[2] else ''}"
    if (before.stage, before.wave) != (after.stage, after.wave):
        yield f"{stamp} {lines(after, datetime.now(UTC))[2]}"


def show_history(fleet: str, rollout: str, *, as_json: bool) -> None:
    """Print the fleet's rollouts, the newest first; with `rollout`, what was done in that one."""
    context = image_context(looks=True)
    require_known(context, fleet)
    if rollout:
        _show_steps(context, fleet, rollout, as_json=as_json)
        return
    found = [_history(one) for one in history(context, fleet)]
    if as_json:
        print_json(to_json(tuple(found)))
        return
    print_history(found)


def print_history(found: Iterable[HistoryLine]) -> None:
    """A row for each rollout, and below whom it adopted; its id stays in one piece, for whoever copies it into the next
    command.
    """
    found = list(found)
    cells = [[f"{one.begun_at:%Y-%m-%d %H:%M}", one.rollout, str(one.members), _ended(one)] for one in found]
    columns, empty = ["began (UTC)", "rollout", "members", "outcome"], "it has not been rolled by this ledger"
    print_table(columns, cells, empty=empty, whole=("rollout", "began (UTC)"))
    print_text(f"{one.rollout} adopted {SHORTENED.sub('', told)}" for one in found for told in one.adopted)


def _ended(one: HistoryLine) -> str:
    """How it ended, and who approved it."""
    return f"{one.outcome}; approved by {one.approved_by}" if one.approved_by else one.outcome


def _history(one: View) -> HistoryLine:
    seen = _status(one)
    outcome, plan = lines(seen, seen.begun_at)[2], one.plan
    people = {"plan": plan.digest, "made_by": plan.made_by, "approved_by": plan.approved_by} if plan else {}
    approved_at = plan.approved_at if plan else None
    more = {**people, "approved_at": approved_at, "adopted": _adopted(one)}
    return HistoryLine.of(seen, members=len(seen.members), outcome=outcome, **more)


def _adopted(one: View) -> tuple[str, ...]:
    """The members that run the new version since it took them over."""
    told = {} if one.back else adoptions(one.order.plan, one.order.adopt)
    return tuple(told[member.id] for member in one.members if member.phase is Phase.NEW and member.id in told)


def _show_steps(context: Context, fleet: str, rollout: str, *, as_json: bool) -> None:
    steps = tuple(map(AuditReport.of, told(context, fleet, rollout)))
    if as_json:
        print_json(to_json(steps))
        return
    cells = [[f"{one.at:%H:%M:%S}", one.actor, one.action.removeprefix(STEP), one.detail] for one in steps]
    print_table(["at (UTC)", "by", "did", "detail"], cells)


def command(fleet: str, what: Command, reason: str = "") -> None:
    """Tell the fleet's rollout that is under way something. Raises RefusedError where none is."""
    context = image_context()
    require_known(context, fleet)
    seen = tell(context, fleet, what, reason)
    say(f"{seen.row.id} was told to {what}{perhaps_dead(context, seen, f'roll.start {fleet} --apply')}")
    if not seen.carried:
        first = put_back(missing_file(context, fleet))
        say(f"no process is executing it: {first}./goldsmith roll.start {fleet} --apply continues it, and obeys")


def perhaps_dead(context: Context, seen: View, then: str) -> str:
    """Of a rollout whose owner counts as alive by its lease alone, until when it does, and which task `then` helps if
    it has died; empty where a lock tells whether it lives.
    """
    if not seen.carried or seen.lease is None or not shares(context.settings):
        return ""
    return f"; should {seen.lease.owner} be dead: after {seen.lease.until:%H:%M:%S} UTC, ./goldsmith {then}"
