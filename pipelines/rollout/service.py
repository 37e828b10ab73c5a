"""Begins and executes rollouts: finishes earlier work, then starts, rolls back, or rolls by itself. Edge."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_hex
from threading import Lock

from hardening.foundation.console import err, say
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, UsageError
from hardening.foundation.timing import SINCE_BOOT, collected, step
from images.documents import from_json, to_json
from images.ledger import Holder, Lease
from pipelines.contract import Line
from pipelines.durable.port import Flow
from pipelines.durable.workers import LostError
from pipelines.fleet.members import BACK
from pipelines.fleet.model import Approval
from pipelines.fleet.violations import Judged, in_words, verdict_of
from pipelines.rollout.admission import outlasts
from pipelines.rollout.approval import consented, file_plan, read_plan, refuse_used
from pipelines.rollout.approved_plan import ApprovedPlan, digest
from pipelines.rollout.base_uptake import take_up
from pipelines.rollout.deployments import record, recording
from pipelines.rollout.flow import ROLLOUT, flows
from pipelines.rollout.lease import HeldError, LedgerJournal, leased
from pipelines.rollout.notify import Message, notifier
from pipelines.rollout.plan import adoptions, by_reason, neglected
from pipelines.rollout.plan_model import Plan, Skip
from pipelines.rollout.rollout_store import View, commands_of, view
from pipelines.rollout.schedule import Hold
from pipelines.rollout.session import FleetSession, check
from pipelines.rollout.state import (
    FINAL,
    Event,
    MemberState,
    Order,
    Phase,
    RolloutOutcome,
    RolloutStage,
    RolloutState,
    World,
)
from pipelines.rollout.whole_plan import plan_again, plan_all


def start(
    at: FleetSession, *, apply: bool, adopt: Sequence[str] = (), automated: bool = False,
    approved: ApprovedPlan | None = None, as_owner: bool = False, until: datetime | None = None,
) -> tuple[Plan, RolloutOutcome | None]:  # fmt: skip
    """Plan the fleet's rollout and, with `apply`, execute it; an automated run does so only if the fleet says so.

    `approved`: exactly that plan is executed, or refused with what has changed since. Where the fleet asks for an
    approval, somebody else has given it, or `as_owner` does without. What an earlier run left unfinished is
    finished first; where that failed, was stopped or went back, its plan and outcome are returned and nothing else
    begins. An automated run begins nothing that would have to wait beyond `until`, else for more than a day. Raises
    HeldBackError where that comes later, RefusedError when a limit forbids the rollout, no approval stands, or somebody
    else rolls the fleet, and OutsideError. A rollout that failed has an Outcome that says so.
    """
    act = apply and not (automated and at.fleet.approval is Approval.REQUIRED)
    until = (until or at.now() + WAITS) if automated else None
    if act:
        if last := stops_here(go_on(at, until)):
            say(f"nothing new begins after that; ./goldsmith roll.start {at.fleet.name} --apply makes a new plan")
            check(at)
            return last.order.plan, last.outcome
    else:
        for row in at.context.ledger.open_rollouts(at.fleet.name):
            say(f"the rollout {row.id} is not over; --apply continues it if its process is dead")
    if approved:
        refuse_used(at.context, approved)
    document = plan_again(at, approved) if approved else plan_all(at, adopt, automated=automated)
    if not act or not document.plan.parts or (until and _held(at, until)):
        return document.plan, None
    order = Order(_new_id(at), document.plan, at.fleet.limits, document.adopt)
    with consented(at, approved or document, order.rollout, planned=approved is not None, as_owner=as_owner):
        for told in adoptions(document.plan, document.adopt).values():
            at.context.ledger.audit(at.now(), at.context.actor, "adopt", order.rollout, told)
        outcome = execute(at, order, until)
    check(at)
    return document.plan, outcome


def back(at: FleetSession, view: View) -> RolloutOutcome:
    """Bring the members that an ended rollout has replaced back to exactly what they ran before it.

    Asked for again, it finds what it has done. Raises RefusedError as `order_back` does, and where a group has no way.
    """
    order = order_back(view)
    go_on(at)
    refuse_no_way_back(at, order)
    outcome = execute(at, order)
    check(at)
    return outcome


def order_back(view: View) -> Order:
    """The order that brings back what an ended rollout has replaced. Raises RefusedError where nothing can go back."""
    rollout, replaced = f"{view.row.id}{BACK}", can_go_back(view)
    if not replaced:
        raise RefusedError(f"{view.row.id}: nothing to roll back", hint="every member runs what it ran before")
    return replace(view.order, rollout=rollout, back=replaced)


def can_go_back(view: View) -> tuple[MemberState, ...]:
    """The members that run the new version, and those that may: what could not go back is tried again.

    If the rollout is open, also those whose old instance is kept: their wave is restored.
    """
    runs_new = (Phase.NEW, Phase.SERVING) if view.row.open else (Phase.NEW,)
    return tuple(one for one in view.members if one.phase in runs_new or (one.phase is Phase.FAILED and one.pinned))


def _new_id(at: FleetSession) -> str:
    """A rollout's name, which no other ever had: its labels say which containers are its own, also to be removed."""
    made = f"{at.fleet.name}-{at.now():%Y%m%d%H%M%S}-{token_hex(3)}"
    return _new_id(at) if at.context.ledger.rollout(made) else made


def refuse_no_way_back(at: FleetSession, order: Order) -> None:
    """Raise RefusedError where nothing but groups goes back and none of them can, with the reason of each."""
    going = {one.id: one for one in order.back}
    groups = [step.group for step in order.plan.groups if step.group.id in going]
    if not groups:
        return
    if (port := at.groups) is None:
        raise RefusedError(f"{at.fleet.name} no longer has Auto Scaling groups", hint="its file was changed since")
    reasons = [port.way_back(order.rollout, group, going[group.id].pin) for group in groups]
    if all(reasons) and len(groups) == len(going):
        hint = "move the channel back with ./goldsmith image.rollback NAME, then ./goldsmith roll.start"
        raise RefusedError("no group can go back to what it ran before", evidence="\n".join(reasons), hint=hint)


def steady_clock(start: datetime) -> Callable[[], datetime]:
    """Real time that never jumps: it starts at the given moment and goes on with the machine's clock since its boot,
    which counts the time in which the machine is suspended.
    """
    began = time.clock_gettime(SINCE_BOOT)
    return lambda: start + timedelta(seconds=time.clock_gettime(SINCE_BOOT) - began)


class HeldBackError(RefusedError):
    """An automated run leaves a rollout that may do nothing for longer than it waits: the next run goes on with it."""


def execute(at: FleetSession, order: Order, until: datetime | None = None) -> RolloutOutcome:
    """Execute an order to its end, from wherever an earlier process left it.

    Raises HeldBackError as soon as it would have to wait beyond `until`; HeldError naming the owner where somebody else
    rolls the fleet, and OutsideError, also as soon as another process has the fleet. A rollout that failed, and is back
    as it was, is no error here: its Outcome says so.
    """
    from pipelines.durable.dbos import Worker  # only here: it takes a third of a second to load

    rollout, written, ledger = order.rollout, to_json(order), at.context.ledger
    wanted = Holder(at.fleet.name, f"{at.context.actor}:{os.getpid()}-{token_hex(3)}", rollout)
    with leased(ledger, at.context.settings.database_url, wanted) as tenure:
        if ledger.rollout(rollout) is None:
            ledger.begin_rollout(rollout, at.fleet.name, wanted.owner, written, at.now())
        say(f"rollout {rollout} runs in this process; ./goldsmith roll.status {at.fleet.name} --watch shows it")
        now = steady_clock(at.now())
        ours = _flows(at, order, tenure.lease, now, until)
        with Worker.launched(tenure.claim, ours, kind=at.fleet.name, now=now) as worker:
            tenure.when_lost(worker.lose)
            try:
                with collected(at.fleet.name if err().is_terminal else ""), step("the rollout"):
                    answer = worker.execute(ROLLOUT, rollout, written)
            except LostError:
                if until and tenure.keeps():  # it came to a wait that is too long, and has said so
                    row = ledger.rollout(rollout)
                    note = from_json(RolloutState, row.state).note if row and row.state else ""
                    raise HeldBackError(f"{rollout} is left open: {note}") from None
                raise tenure.lost() from None
            except KeyboardInterrupt:
                go = f"./goldsmith roll.start {at.fleet.name} --apply continues it"
                say(f"interrupted, and {rollout} is not over: {go}")
                raise
            except Exception as error:
                if worker.broke_off(rollout):
                    raise _broken_off(at, rollout, error) from error
                raise
            if not tenure.keeps():  # another process has the fleet now, has ended it, and reports it
                raise tenure.lost()
            return from_json(RolloutOutcome, answer)


def _broken_off(at: FleetSession, rollout: str, error: Exception) -> GoldsmithError:
    """Record the end of a rollout that can never be finished, so that the fleet can be rolled again."""
    row = at.context.ledger.rollout(rollout)
    said = f"{rollout} broke off: {error.message if isinstance(error, GoldsmithError) else error}"
    if row and row.open:
        seen = view(at.context, row)
        begun = seen.state or RolloutState(rollout, row.fleet, seen.replacement, row.begun_at, 0)
        ended = replace(begun, stage=RolloutStage.ENDED, note=said, failure=said, ended_at=at.now())
        at.context.ledger.save_rollout(rollout, to_json(ended), at.now(), is_open=False)
        at.context.ledger.audit(at.now(), at.context.actor, "roll", row.fleet, said)
        record(at.context.settings, at.context.ledger, row.fleet, rollout, at.now())
    hint = (
        f"./goldsmith roll.status {at.fleet.name} shows how far each member came, ./goldsmith roll.reap what is left; "
        f"then ./goldsmith roll.start {at.fleet.name} makes a new plan"
    )
    return (OutsideError if isinstance(error, OutsideError) else UsageError)(said, hint=hint)


@dataclass(frozen=True)
class Resumed:
    """A rollout that an earlier process left, and its end. `stopped`: people had told it to abort or to roll back."""

    order: Order
    outcome: RolloutOutcome
    stopped: bool

    @property
    def stops(self) -> bool:
        """Whether nothing new may begin after it: what people wanted, or what went wrong, would be undone."""
        return self.stopped or bool(self.order.back or self.outcome.state.failure)


def stops_here(resumed: Sequence[Resumed]) -> Resumed | None:
    """The one after which nothing new may begin, one that failed before any other; None where there is none."""
    return max((one for one in resumed if one.stops), key=lambda one: bool(one.outcome.state.failure), default=None)


def go_on(at: FleetSession, until: datetime | None = None) -> tuple[Resumed, ...]:
    """Finish the rollouts that earlier processes left. Raises as `execute` does."""
    ended = list[Resumed]()
    for row in at.context.ledger.open_rollouts(at.fleet.name):
        say(f"{at.fleet.name}: the rollout {row.id} is not over; going on with it")
        order = Order.read(row.order)
        outcome = execute(at, order, until)
        said = commands_of(at.context.ledger, row.id).desired_state
        ended.append(Resumed(order, outcome, said in FINAL.values()))
        say(f"{row.id} is over: {outcome.state.failure or outcome.state.note}")
    return tuple(ended)


def _flows(
    at: FleetSession, order: Order, lease: Lease, now: Callable[[], datetime], until: datetime | None
) -> Mapping[str, Flow]:
    """The flows that a process executes for this fleet."""
    tell = recording(at.context.settings, at.context.ledger, notifier(at.context.settings))
    journal = LedgerJournal(at.context.ledger, lease, at.context.actor, now, tell, order.plan.target)
    return flows(World(at.members, journal, at, now, at.together, at.groups, until, exclusive=Lock()))


# -- automated runs ----------------------------------------------------------------------------------------------------


class AutoLine(Line):
    """`roll.auto`: one fleet. `outcome`: empty, compliant, planned, waits (for approval, or for more than a day until a
    window opens or a freeze ends), skipped, rolled, refused, failed. `neglected`: the members for which their owner
    must act, since they do not run, or are overdue and skipped; with the reason of each.
    """

    fleet: str
    outcome: str
    detail: str
    rollout: str = ""
    neglected: dict[str, str] = {}

    @property
    def refused(self) -> RefusedError | None:
        """The error where nothing was judged, or members are neglected; None where all is well."""
        if self.neglected:
            names = ", ".join(name.rpartition("/")[2] for name in self.neglected)
            what = f"{self.fleet}: no rollout brings these members back into service or policy: {names}"
            told = "\n".join(f"{name.rpartition('/')[2]}: {why}" for name, why in self.neglected.items())
            return RefusedError(what, evidence=told, hint="./goldsmith fleet.explain MEMBER shows what to do")
        if self.outcome != "empty":
            return None
        hint = "do the fleet's selector and labels match? delete the file of a fleet that is meant to be empty"
        return RefusedError(f"{self.fleet}: no member runs, so nothing was judged", hint=hint)


WAITS = timedelta(days=1)
"""How long an automated run waits at most until a fleet may be touched: longer, and the next night would be missed."""
WORK = ("planned", "waits")
"""What a look at a fleet says where an automated run has something to do there."""


def automated(
    at: FleetSession, *, apply: bool, begins: bool = True, tells: bool = False, until: datetime | None = None
) -> AutoLine:
    """Check the fleet and, with `apply`, roll it as far as its file lets an automated run; or ask for approval.

    A rollout whose process died is finished first, also one that a person began: it was approved when it began. If it
    failed, was stopped or went back, that is the line, and nothing new begins; nor does it without `begins`.
    Where applications stand on an older base, their owners are told and rebuilds asked for, with `tells` also by a
    look that finds nothing else to do. `until`: how long the whole run waits, of which the fleet is a part; else a day
    from now on. Raises RefusedError where a limit forbids the rollout or it failed, and
    OutsideError.
    """
    last, until = None, until or at.now() + WAITS
    if apply:
        with suppress(HeldError, HeldBackError):  # the process that rolls the fleet finishes it, or a later run
            last = stops_here(go_on(at, until))
    judged = check(at)
    verdicts = [verdict_of(one) for one in judged]

    def found(*, tell: bool) -> str:
        return in_words(verdicts) + "".join(f"; {line.text}" for line in take_up(at, judged, apply=tell))

    seen = found(tell=apply and begins)
    try:
        if last:
            line = _over(at, last.outcome, seen, neglected(judged, _stays(judged), at.now()))
        else:
            line = _rolled(at, judged, seen, until, apply=apply and begins)
    except HeldBackError as error:
        return _line(at, "waits", f"{seen}; {error.message}", neglected(judged, _stays(judged), at.now()))
    except RefusedError:
        if tells:
            found(tell=True)
        raise
    if tells and line.outcome not in WORK:  # who works there is told by the run that does it
        return line.model_copy(update={"detail": found(tell=True) + line.detail.removeprefix(seen)})
    return line


def _stays(judged: Iterable[Judged]) -> dict[str, str]:
    """Why members are left alone whatever is planned, by id. What a service rolls is its group's to say."""
    return {
        one.member.id: one.member.cannot_roll
        for one in judged
        if one.member.claimed_by or not (one.member.group or one.member.beside)
    }


def _rolled(at: FleetSession, judged: Sequence[Judged], found: str, until: datetime, *, apply: bool) -> AutoLine:
    if not judged:
        return _line(at, "empty", f"{found}; nothing was judged")
    if all(verdict_of(one).good for one in judged):
        return _line(at, "compliant", found, neglected(judged, {}, at.now()))
    if at.fleet.approval is Approval.REQUIRED:
        return _ask(at, found, apply=apply)
    plan, outcome = start(at, apply=apply, automated=True, until=until)
    if outcome:
        return _over(at, outcome, found, plan.neglected, f"{_and_left(plan)}{_and_late(plan)}")
    if many := len(plan.names):
        hold = _held(at, until)
        waits = f"; {_until(hold)}" if hold else ""
        detail = f"{found}; {many} would be replaced{waits}{_and_left(plan)}{_and_late(plan)}"
        return _line(at, "waits" if hold else "planned", detail, plan.neglected)
    return _line(at, "skipped", f"{found}{_and_left(plan)}", plan.neglected)


def _over(at: FleetSession, outcome: RolloutOutcome, found: str, left: Sequence[Skip], more: str = "") -> AutoLine:
    """The line of a rollout that is over. Raises RefusedError where it failed."""
    if outcome.state.failure:
        raise RefusedError(f"{outcome.state.id}: {outcome.state.failure}")
    return _line(at, "rolled", f"{found}; {outcome.state.note}{more}", left, outcome.state.id)


def _held(at: FleetSession, until: datetime) -> Hold | None:
    """What forbids to touch the fleet for longer than an automated run waits."""
    return outlasts(at.fleet.limits, at.now(), until)


def _until(hold: Hold) -> str:
    return f"{hold.why}, until {hold.until:%Y-%m-%d %H:%M} UTC" if hold.until else hold.why


def _ask(at: FleetSession, found: str, *, apply: bool) -> AutoLine:
    """Write the plan down for whoever approves it, and tell people."""
    document = plan_all(at, automated=True)
    if not document.plan.parts:
        return _line(at, "skipped", f"{found}{_and_left(document.plan)}", document.plan.neglected)
    name = at.fleet.name
    do = f"./goldsmith roll.plan {name} --output FILE, and let somebody approve it"
    if apply:
        file = at.context.settings.state_dir / "plans" / f"{at.fleet.name}.json"
        do = f"./goldsmith roll.start {name} --plan {file} --apply"
        if _approved(at, file):
            return _line(at, "waits", f"{found}; its plan is approved: {do}", document.plan.neglected)
        file.parent.mkdir(parents=True, exist_ok=True)
        file_plan(at.context, document, file)
        do = f"./goldsmith roll.approve {name} --plan {file}, then {do}"
    detail = f"{found}{_and_left(document.plan)}{_and_late(document.plan)}; approval is required: {do}"
    if apply:
        notifier(at.context.settings)(Message(Event.APPROVAL, at.fleet.name, "", detail, at.now()))
    return _line(at, "waits", detail, document.plan.neglected)


def _approved(at: FleetSession, file: Path) -> bool:
    """Whether the file holds a plan that somebody approved, that nobody has used, and that is still right."""
    if not file.exists():
        return False
    try:
        document = read_plan(file)
        line = at.context.ledger.plan(digest(document))
        if line is None or line.approved_at is None or line.rollout:
            return False
        at.same(document)
    except (ContentError, RefusedError):
        return False
    return True


def _and_left(plan: Plan) -> str:
    """Whom the plan leaves alone, by reason, after what is done with the others."""
    skipped = by_reason((skip.member, skip.why) for skip in plan.skipped)
    left = "; ".join(f"{', '.join(names)}: {why}" for why, names in skipped.items())
    return f"; skipped: {left}" if left else ""


def _and_late(plan: Plan) -> str:
    """Who cannot be replaced by the deadline, by the limit that is the cause."""
    late: dict[str, list[str]] = {}
    for one in plan.late:
        late.setdefault(one.cause, []).append(one.member.rpartition("/")[2])
    told = "; ".join(f"{len(names):,} ({names[0]}, …): {cause}" for cause, names in late.items())
    return f"; later than the deadline: {told}" if told else ""


def _line(at: FleetSession, outcome: str, detail: str, left: Sequence[Skip] = (), rollout: str = "") -> AutoLine:
    told = {one.member: one.why for one in left}
    return AutoLine(fleet=at.fleet.name, outcome=outcome, detail=detail, rollout=rollout, neglected=told)
