"""Edge: the approval of plans: plans as files, who made and approved them, and the one rollout that uses each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from images.context import Context
from images.ledger import ApprovedPlanRow
from pipelines.fleet.model import Approval
from pipelines.rollout.approved_plan import ApprovedPlan, digest, opened, written
from pipelines.rollout.session import FleetSession
from pipelines.wiring import person

AS_OWNER = "approve as owner"


def write_plan(document: ApprovedPlan, file: Path) -> None:
    """Write the plan. Raises OutsideError where the file cannot be written."""
    try:
        file.write_text(written(document), encoding="utf-8")
    except OSError as error:
        raise OutsideError(f"{file} cannot be written: {error.strerror}") from None
    say(f"written: {file}, good until {document.expires_at:%Y-%m-%d %H:%M} UTC")


def read_plan(file: Path) -> ApprovedPlan:
    """The plan in the file. Raises ContentError where it is none, RefusedError where it was changed."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        hint = "./goldsmith roll.plan FLEET --output FILE writes one"
        raise ContentError(f"cannot be read: {error.strerror}", file=file, hint=hint) from None
    except UnicodeDecodeError:
        raise ContentError("not a rollout plan file", file=file) from None
    return opened(text, str(file))


def line_of(document: ApprovedPlan) -> ApprovedPlanRow:
    """What the ledger keeps of a plan that was just made."""
    return ApprovedPlanRow(digest(document), document.plan.fleet, document.made_by, document.made_at)


def file_plan(context: Context, document: ApprovedPlan, file: Path) -> None:
    """Write the plan for whoever approves it, and record who made it: the file alone proves nothing."""
    write_plan(document, file)
    context.ledger.record_plan(line_of(document))


def approve_plan(context: Context, fleet: str, file: Path, reason: str = "") -> ApprovedPlan:
    """Record that this user approves the plan in the file; that plan. Raises RefusedError for the user who made it."""
    document = read_plan(file)
    known = _known(context, document, fleet)
    if person(known.made_by) == person(context.actor):
        hint = f"alone: ./goldsmith roll.start {fleet} --plan {file} --approve-as-owner --apply; the audit shows it"
        raise RefusedError(f"{known.made_by} made this plan, so another user must approve it", hint=hint)
    if context.now >= document.expires_at:
        until = f"{document.expires_at:%Y-%m-%d %H:%M} UTC"
        raise RefusedError(f"this plan was good until {until}", hint=_hint_to_plan_again(fleet))
    begin = f"./goldsmith roll.start {fleet} --plan {file} --apply"
    if not context.ledger.approve_plan(known.digest, context.actor, context.now):
        refuse_used(context, document)
        raise RefusedError("this plan is approved already", hint=begin)
    context.ledger.audit(context.now, context.actor, "approve plan", fleet, f"{told(known)}. {reason}".rstrip(". "))
    say(f"approved: {known.digest}; {begin} runs it")
    return document


@contextmanager
def consented(
    at: FleetSession, document: ApprovedPlan, rollout: str, *, planned: bool, as_owner: bool = False
) -> Iterator[None]:
    """Let the rollout begin by this plan, which is used up by it; a rollout that never begins leaves it unused.

    `planned`: it comes from a file. Raises RefusedError where the fleet asks for an approval and none stands, or where
    another rollout has used the plan.
    """
    ledger, now, actor = at.context.ledger, at.now(), at.context.actor
    required = at.fleet.approval is Approval.REQUIRED
    if (required and as_owner) or (planned and not required):
        ledger.record_plan(line_of(document))
    refuse_used(at.context, document)
    if required and as_owner:
        ledger.approve_plan(digest(document), actor, now)  # where somebody else has, that stands
        ledger.audit(now, actor, AS_OWNER, rollout, "--approve-as-owner: no second person has approved")
    elif required:
        _require_approved(at.context, at.fleet.name, document, planned=planned)
    try:
        if line := ledger.plan(digest(document)):
            if not ledger.use_plan(line.digest, rollout):
                refuse_used(at.context, document)
            ledger.audit(now, actor, "begin by plan", rollout, told(line))
        yield
    except BaseException:  # also where a person stops it
        if ledger.rollout(rollout) is None:
            ledger.return_plan(digest(document), rollout)
        raise


def refuse_used(context: Context, document: ApprovedPlan) -> None:
    """Raise RefusedError where a rollout has used the plan, before what has moved since by just that is told."""
    if (line := context.ledger.plan(digest(document))) and line.rollout:
        what = f"the rollout {line.rollout} has used this plan already"
        raise RefusedError(what, hint=_hint_to_plan_again(line.fleet))


def needs_approval(at: FleetSession, document: ApprovedPlan | None) -> bool:
    """Whether another user must approve before a rollout begins: by this plan of a file, or by one not yet written."""
    if at.fleet.approval is not Approval.REQUIRED:
        return False
    line = at.context.ledger.plan(digest(document)) if document else None
    return line is None or line.approved_at is None


def told(line: ApprovedPlanRow) -> str:
    """Who made the plan, who approved it, and when."""
    made = f"plan {line.digest} made by {line.made_by} at {line.made_at:%Y-%m-%d %H:%M} UTC"
    if line.approved_at is None:
        return made
    return f"{made}, approved by {line.approved_by} at {line.approved_at:%Y-%m-%d %H:%M} UTC"


def _require_approved(context: Context, fleet: str, document: ApprovedPlan, *, planned: bool) -> None:
    """Raise RefusedError unless somebody else than its maker has approved this very plan."""
    if not planned:
        raise RefusedError(
            f'the fleet {fleet} requires an approval (approval = "required")', hint=_hint_to_plan(fleet, document.adopt)
        )
    known = _known(context, document, fleet)
    if known.approved_at is None or person(known.approved_by) == person(known.made_by):
        what = f"no second person has approved this plan, made by {known.made_by}"
        raise RefusedError(what, hint=_hint_to_approve(fleet))


def _known(context: Context, document: ApprovedPlan, fleet: str) -> ApprovedPlanRow:
    """The ledger's line of the plan: who made it is for the ledger to say, and not for the file."""
    if document.plan.fleet != fleet:
        raise RefusedError(f"the plan is for the fleet {document.plan.fleet}, not for {fleet}")
    line = context.ledger.plan(digest(document))
    if line is None:
        what = "this ledger knows no plan with that digest: it was made elsewhere, or changed since"
        raise RefusedError(what, hint=_hint_to_plan_again(fleet))
    return line


def _hint_to_plan_again(fleet: str) -> str:
    return f"./goldsmith roll.plan {fleet} --output FILE makes one"


def adopt_flags(adopt: Iterable[str]) -> str:
    """The members that are taken over as somebody typed them, each after a space."""
    return "".join(f" --adopt {quote(one)}" for one in adopt)


def _hint_to_plan(fleet: str, adopt: Iterable[str]) -> str:
    return (
        f"write the plan with ./goldsmith roll.plan {fleet}{adopt_flags(adopt)} --output FILE; "
        f"{_hint_to_approve(fleet)}"
    )


def _hint_to_approve(fleet: str) -> str:
    return (
        f"another user types ./goldsmith roll.approve {fleet} --plan FILE, then ./goldsmith roll.start {fleet} "
        "--plan FILE --apply begins; who owns the fleet alone adds --approve-as-owner, which the audit shows"
    )
