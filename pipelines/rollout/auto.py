"""Automated runs: a fleet is checked, and brought back into policy as far as its file lets nobody be asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hardening.foundation.errors import ContentError, RefusedError
from pipelines.contract import Line
from pipelines.fleet.model import Approval
from pipelines.fleet.violations import Judged
from pipelines.rollout.approval import file_plan, read_plan
from pipelines.rollout.approved_plan import digest
from pipelines.rollout.executor import go_on
from pipelines.rollout.journal import Event, HeldError
from pipelines.rollout.notify import Message, notifier
from pipelines.rollout.plan import Plan
from pipelines.rollout.service import plan_all, start
from pipelines.rollout.session import FleetSession, check


class AutoLine(Line):
    """`roll.auto`: one fleet. `outcome`: empty, compliant, planned, waits (for approval), skipped, rolled, refused,
    failed.
    """

    fleet: str
    outcome: str
    detail: str
    rollout: str = ""


def automated(at: FleetSession, *, apply: bool) -> AutoLine:
    """Check the fleet and, with `apply`, roll it as far as its file lets an automated run; or ask for approval.

    A rollout whose process died is finished first, also one that a person began: it was approved when it began.
    Raises RefusedError where a limit forbids the rollout or it failed, and OutsideError.
    """
    if apply:
        with suppress(HeldError):  # the process that rolls the fleet finishes it
            go_on(at)
    judged = check(at)
    violating = [one for one in judged if one.violations]
    if not judged:
        return _line(at, "empty", "no member runs; nothing was judged")
    if not violating:
        return _line(at, "compliant", f"{len(judged)} member(s) within policy")
    found = _told_of(violating, judged)
    if at.fleet.approval is Approval.REQUIRED:
        return _ask(at, found, apply=apply)
    plan, outcome = start(at, apply=apply, automated=True)
    if outcome and outcome.state.failure:
        raise RefusedError(f"{outcome.state.id}: {outcome.state.failure}")
    if outcome:
        return _line(at, "rolled", f"{found}; {outcome.state.note}{_and_left(plan)}", outcome.state.id)
    if many := len(plan.names):
        return _line(at, "planned", f"{found}; {many} would be replaced{_and_left(plan)}")
    return _line(at, "skipped", _left(plan))


def _ask(at: FleetSession, found: str, *, apply: bool) -> AutoLine:
    """Write the plan down for whoever approves it, and tell people."""
    document = plan_all(at, automated=True)
    if not document.plan.parts:
        return _line(at, "skipped", _left(document.plan))
    name = at.fleet.name
    do = f"./goldsmith roll.plan {name} --output FILE, and let somebody approve it"
    if apply:
        file = at.context.settings.state_dir / "plans" / f"{at.fleet.name}.json"
        do = f"./goldsmith roll.start {name} --plan {file} --apply"
        if _approved(at, file):
            return _line(at, "waits", f"{found}; its plan is approved: {do}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file_plan(at.context, document, file)
        do = f"./goldsmith roll.approve {name} --plan {file}, then {do}"
    detail = f"{found}{_and_left(document.plan)}; approval is required: {do}"
    if apply:
        notifier(at.context.settings)(Message(Event.APPROVAL, at.fleet.name, "", detail, at.now()))
    return _line(at, "waits", detail)


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


def _left(plan: Plan) -> str:
    return "; ".join(f"{skip.member.rpartition('/')[2]}: {skip.why}" for skip in plan.skipped)


def _and_left(plan: Plan) -> str:
    """The same, after what is done with the others."""
    return f"; left alone: {_left(plan)}" if plan.skipped else ""


def _told_of(violating: Sequence[Judged], judged: Sequence[Judged]) -> str:
    """How many violate, and what."""
    rules = sorted({rule for one in violating for rule in one.rules})
    return f"{len(violating)} of {len(judged)} member(s) {', '.join(rules)}"


def _line(at: FleetSession, outcome: str, detail: str, rollout: str = "") -> AutoLine:
    return AutoLine(fleet=at.fleet.name, outcome=outcome, detail=detail, rollout=rollout)
