"""What the tasks on fleets call: check, plan, roll, roll back, roll by themselves; their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from hardening.foundation.console import out, print_json, print_rule, print_table, print_text, say
from hardening.foundation.content import select
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError, UsageError
from hardening.foundation.process import ROLLS, interruptible
from hardening.foundation.text import one_line, visible
from hardening.gate import explain_shared, shared
from hardening.running import UNREAD
from images.context import Context
from images.documents import to_json
from images.release.revocations import over, revoked
from pipelines.cli.check_output import MemberLine, SeenLine, member_lines
from pipelines.cli.image_output import finish, told_of
from pipelines.cli.rollout_output import (
    GroupLine,
    RollbackLine,
    RollbackOutput,
    RollbackState,
    RollOutput,
    changed,
    ends,
    heading,
    markdown,
    roll_output,
    same_base,
    tables,
    towards,
)
from pipelines.cli.rollout_watch import perhaps_dead
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.members import BACK
from pipelines.fleet.violations import Judged, PolicyState, in_words, named, only_recorded, verdict_of
from pipelines.rollout.approval import adopt_flags, approve_plan, file_plan, needs_approval, read_plan
from pipelines.rollout.approved_plan import ApprovedPlan
from pipelines.rollout.base_uptake import ONCE_MORE, UptakeLine, take_up
from pipelines.rollout.plan import by_reason
from pipelines.rollout.rollout_store import View, history, missing_file, newest, require_known, tell
from pipelines.rollout.service import back, can_go_back, go_on, order_back, start
from pipelines.rollout.session import check, fleet_session
from pipelines.rollout.state import Command, DesiredState, MemberState, OperatorCommands, put_back
from pipelines.rollout.whole_plan import plan_all
from pipelines.wiring import image_context


def check_fleet(name: str, context: Context | None = None) -> list[MemberLine]:
    """Judge every member of a fleet. Raises OutsideError where the engine cannot be read: unread is not compliant."""
    context = context or image_context(looks=True)
    with fleet_session(name, context) as at:
        return member_lines(check(at))


def check_fleets(
    pattern: str, policy: str = "", context: Context | None = None
) -> tuple[dict[str, list[MemberLine]], list[GoldsmithError]]:
    """The members of each fleet that `pattern` means, judged by its own policy or by the one that is named.

    Of several, one that cannot be read stops no other: it is among what went wrong. Raises ContentError.
    """
    context = context or image_context(policy=policy, looks=True)
    fleets = load_fleets(context.settings.roots)
    found, errors = dict[str, list[MemberLine]](), list[GoldsmithError]()
    for fleet in select(pattern, fleets, "fleet"):
        by = context.by_policy(context.policy_named(policy), fleets[fleet].policy) if policy else context
        try:
            found[fleet] = [line.model_copy(update={"fleet": fleet}) for line in check_fleet(fleet, by)]
        except GoldsmithError as error:
            errors.append(told_of(fleet, error))
    return found, errors


def show_fleets(
    checked: tuple[dict[str, list[MemberLine]], list[GoldsmithError]], *, as_json: bool, everyone: bool = False
) -> int:
    """Print the members of each fleet; the exit code of `show_members`, or that of what went wrong."""
    found, errors = checked
    if as_json:
        print_json(to_json(tuple(line for lines in found.values() for line in lines)))
    codes = [0]
    for fleet, lines in found.items():
        if len(found) + len(errors) > 1 and not as_json:
            print_rule(fleet)
        codes.append(exit_code(lines) if as_json else show_members(lines, everyone=everyone))
    return finish(errors) or max(codes)


SEEN_COLUMNS = {"fleet": "fleet", "member": "name", "runs": "runs", "state": "stands"}


def scan_fleets(name: str, context: Context | None = None) -> tuple[list[SeenLine], list[GoldsmithError]]:
    """What the fleets that `name` means run: a name, a glob, or `all`; whether it is within policy, `check_fleet` says.

    It is written into the ledger. One that cannot be read stops no other: it is among what went wrong. Raises
    ContentError.
    """
    context = context or image_context(looks=True)
    lines, errors = list[SeenLine](), list[GoldsmithError]()
    for fleet in select(name, load_fleets(context.settings.roots), "fleet"):
        try:
            with fleet_session(fleet, context) as at:
                lines += [_seen(fleet, one) for one in check(at)]
        except GoldsmithError as error:
            errors.append(told_of(fleet, error))
    return lines, errors


def _seen(fleet: str, one: Judged) -> SeenLine:
    member = one.member
    verdict = verdict_of(one)
    state = UNREAD if UNREAD in verdict.rules else verdict.ailment or "healthy"
    golden = named(one.origin.golden) if one.origin.golden else ""
    said = (
        reason.what.partition("could not be read: ")[2] or reason.what
        for reason in one.standing
        if reason.rule == UNREAD
    )
    return SeenLine.of(
        member, fleet=fleet, member=member.id, golden=golden, state=state, policy=verdict.text, why=next(said, "")
    )


def scan_exit_code(lines: Sequence[SeenLine]) -> int:
    """0; 4, as for an outside world that failed, where some place could not be read."""
    return OutsideError.exit_code if any(line.state == UNREAD for line in lines) else 0


def show_members(lines: Sequence[MemberLine], *, everyone: bool = False) -> int:
    """Print the members with their violations, and how many have none, or with `everyone` those too.

    The exit code is that of `exit_code`.
    """
    if lines:
        _print_members(lines, everyone=everyone)
    else:
        say("no member runs: nothing was judged; do the fleet's selector and labels match?")
    return exit_code(lines)


def exit_code(lines: Sequence[MemberLine]) -> int:
    """4 where something could not be read; else 3 where a member violates, or where nothing was judged."""
    if any(UNREAD in line.violations for line in lines):
        return OutsideError.exit_code
    return 0 if lines and not any(line.violations for line in lines) else RefusedError.exit_code


def _print_members(lines: Sequence[MemberLine], *, everyone: bool) -> None:
    """A line for each member that somebody must look at, those out of policy first; then the reasons, each once."""
    ordered = sorted(lines, key=lambda line: (line.verdict.good, not line.verdict.ill, line.name))
    shown = [line for line in ordered if everyone or not line.verdict.well]
    good = [line for line in ordered if line.verdict.well]
    rows = [_member_row(line) for line in shown]
    if shown:
        print_table(["member", "state", "by, UTC", "runs"], rows, whole=["member", "by, UTC"])
    told = (reason for line in shown for reason in line.reasons if everyone or not only_recorded(reason))
    if found := shared(told):
        out().print()
        print_text(explain_shared(found))
    if good and not everyone:
        asks = sum(not all(map(only_recorded, line.reasons)) for line in good)
        waived = f" ({asks} by a waiver, or a rule that only records)" if asks else ""
        print_text([f"{in_words([line.verdict for line in good])}{waived}; --all lists them"])


def _member_row(line: MemberLine) -> list[str]:
    state = line.verdict.text.removeprefix(f"{PolicyState.WITHIN}, ")
    return [line.name, state, f"{line.deadline:%Y-%m-%d %H:%M}" if line.deadline else "", line.runs]


def plan_roll(
    name: str, adopt: Sequence[str] = (), output: str = "", context: Context | None = None
) -> tuple[RollOutput, ApprovedPlan]:
    """What a rollout would do; with `output`, also as a file for `roll.start --plan`, unless nothing is to be replaced.

    Raises RefusedError.
    """
    context = context or image_context(looks=not output)
    with fleet_session(name, context) as at:
        document = plan_all(at, adopt)
        roll = roll_output(document.plan).model_copy(update={"needs_approval": needs_approval(at, None)})
        if at.fleet.replacement.tag and not roll.steps:
            say(same_base(at.fleet.replacement.tag))
        if output and (roll.steps or roll.groups):
            file_plan(context, document, Path(output))
        elif output:
            older = ", and what was there stays" if Path(output).exists() else ""
            say(f"{output} was not written{older}: the plan replaces nothing, so there is nothing to approve")
        return roll, document


@interruptible(ROLLS)
def roll_fleet(
    name: str, *, apply: bool, adopt: Sequence[str] = (), file: str = "", as_owner: bool = False,
    context: Context | None = None,
) -> RollOutput:  # fmt: skip
    """Plan a rollout, or take the plan in `file`, and, with `apply`, execute it.

    `as_owner`: it begins without a second person's approval, and the audit says so. Raises UsageError where both `file`
    and `adopt` are given, RefusedError when it may not, or was rolled back.
    """
    if file and adopt:
        raise UsageError(
            "the plan in the file already says which members it adopts", hint="give --adopt to roll.plan --output"
        )
    context = context or image_context(looks=not apply)
    approved = read_plan(Path(file)) if file else None
    with fleet_session(name, context) as at:
        roll = roll_output(*start(at, apply=apply, adopt=adopt, approved=approved, as_owner=as_owner))
        wanted = not apply and not as_owner and needs_approval(at, approved)
        return roll.model_copy(update={"needs_approval": wanted})


def approve(fleet: str, file: str, reason: str = "", context: Context | None = None) -> None:
    """Approve the plan in `file`, and say what it does. Raises RefusedError where this user made it."""
    made = roll_output(approve_plan(context or image_context(), fleet, Path(file), reason).plan)
    print_text([f"{made.fleet} to {made.replacement}", *heading(made)])


@interruptible(ROLLS)
def roll_back(fleet: str, reason: str, *, apply: bool, as_json: bool = False, context: Context | None = None) -> int:
    """Bring what the fleet's newest rollout has replaced back; exit code 3 where not all went back.

    An open rollout is told to roll back, and executed here where its process is dead; if it is over, its members go
    back now. Without `apply` they are named. With `as_json` a `RollbackOutput` is printed.
    Raises RefusedError where nothing of one that is over can go back, or what it would go back to was revoked and no
    `reason` says why it is better.
    """
    context = context or image_context(looks=not apply)
    require_known(context, fleet)
    seen = newest(context, fleet)
    order = None if seen.row.open else order_back(seen)
    if not apply:
        _show_rollback(_rollback(seen, "planned", seen.row.id, can_go_back(seen)), as_json=as_json)
        why, first = f" --reason {quote(reason)}" if reason else "", put_back(missing_file(context, fleet))
        say(f"nothing was done; to do it: {first}./goldsmith roll.rollback {fleet}{why} --apply")
        return 0
    if order is None:
        done = _roll_back_open(context, seen, reason)
    else:
        _refuse_revoked(context, seen, reason)
        if reason:
            context.ledger.audit(context.now, context.actor, Command.ROLLBACK, seen.row.id, reason)
        with fleet_session(fleet, context) as at:
            ended = back(at, seen)
        done = _rollback(seen, "ended", order.rollout, ended.members, ended.state.failure)
    return _show_rollback(done, as_json=as_json)


def _roll_back_open(context: Context, seen: View, reason: str) -> RollbackOutput:
    """Tell an open rollout to roll back, unless it was told or is on its way back; execute it where no process does."""
    fleet, rollout = seen.row.fleet, seen.row.id
    told = OperatorCommands.given([given.command for given in seen.commands])
    if seen.carried or not (seen.back or told.desired_state is DesiredState.ROLLBACK):
        seen = tell(context, fleet, Command.ROLLBACK, reason)
        if seen.carried:
            dead = perhaps_dead(context, seen, f"roll.start {fleet} --apply")
            say(f"{rollout} was told to roll back; ./goldsmith roll.status {fleet} --watch shows it{dead}")
            return _rollback(seen, "told", rollout, can_go_back(seen))
        say(f"{rollout} was told to roll back")
    with fleet_session(fleet, context) as at:
        go_on(at)
        check(at)
    ended = next(one for one in history(context, fleet) if one.row.id == rollout)
    failure = ended.state.failure if ended.state and (ended.back or can_go_back(ended)) else ""
    return _rollback(seen, "ended", rollout, ended.members, failure)


def _rollback(
    seen: View, state: RollbackState, rollout: str, members: Sequence[MemberState], failure: str = ""
) -> RollbackOutput:
    ended = state == "ended"
    lines = (
        RollbackLine(
            member=one.name, before=one.before, outcome=one.phase if ended else "", note=one.said if ended else ""
        )
        for one in members
    )
    return RollbackOutput(fleet=seen.row.fleet, rollout=rollout, state=state, members=tuple(lines), failure=failure)


def _show_rollback(done: RollbackOutput, *, as_json: bool) -> int:
    """Print what becomes, or became, of members that go back; exit code 3 with a failure."""
    if as_json:
        print_json(to_json(done))
    elif done.state == "planned":
        print_table(["member", "goes back to"], [[one.member, one.before] for one in done.members])
    elif done.state == "ended":
        rows = [[one.member, one.outcome, one.note.splitlines()] for one in done.members]
        print_table(["member", "outcome", "note"], rows)
    if done.failure:
        say(f"it failed: {done.failure}")
    return 3 if done.failure else 0


def _refuse_revoked(context: Context, seen: View, reason: str) -> None:
    """Raise RefusedError where members would go back to what this ledger knows as revoked, unless a reason is given.

    No registry is asked: who goes back in need must not wait for one.
    """
    gone, ledger, fleet = list[str](), context.ledger, seen.row.fleet
    for member in can_go_back(seen):
        found = (revoked(ledger, one) for one in over(ledger, member.pinned.rpartition("@")[2]))
        if one := next((one for one in found if one.revoked_at), None):
            gone.append(f"{member.name}: {one.name} {one.digest[:19]} was revoked: {one.revoked_reason}")
    if gone and not reason.strip():
        refused = f"{len(gone)} member(s) of {fleet} would go back to what was revoked"
        hint = f'if it is better than what runs now: ./goldsmith roll.rollback {fleet} --reason "why" --apply'
        raise RefusedError(refused, evidence="\n".join(gone), hint=hint)


UPTAKE_COLUMNS = {
    "fleet": "fleet",
    "application": "image",
    "newest base": "newest",
    "rebuild": "state",
    "why": "detail",
}
NO_UPTAKE = "no application image has a golden base with a newer release"


def rebuild_applications(
    pattern: str, *, apply: bool, context: Context | None = None
) -> tuple[list[UptakeLine], list[GoldsmithError]]:
    """The applications of the fleets that `pattern` means whose base has a newer release; with `apply`, tell and ask.

    One fleet that cannot be read stops no other. Raises ContentError where no fleet has this name.
    """
    context = context or image_context(looks=not apply)
    lines, failures = list[UptakeLine](), list[GoldsmithError]()
    for fleet in select(pattern, load_fleets(context.settings.roots), "fleet"):
        try:
            with fleet_session(fleet, context) as at:
                lines += take_up(at, check(at), apply=apply, most_tries=ONCE_MORE)
        except GoldsmithError as error:
            failures.append(error)
    if apply and (failed := [line for line in lines if line.failed]):
        evidence = "\n".join(f"{line.fleet}: {line.image}: {line.detail}" for line in failed)
        failures.append(OutsideError(f"{len(failed)} rebuild(s) could not be requested", evidence=evidence))
    return lines, failures


def show_plan(planned: tuple[RollOutput, ApprovedPlan], *, as_json: bool, as_markdown: bool, file: str = "") -> None:
    """Print a plan for people, for programs, or for whoever approves it."""
    roll, document = planned
    if as_markdown:
        text = markdown(roll, document.made_by, f"{document.expires_at:%Y-%m-%d %H:%M} UTC")
        out().print(text, soft_wrap=True, end="")
    else:
        show_roll(roll, as_json=as_json, file=file, adopt=document.adopt)


def show_roll(
    roll: RollOutput, *, as_json: bool, file: str = "", as_owner: bool = False, adopt: Sequence[str] = ()
) -> int:
    """Print a rollout, planned (in `file`, if anywhere) or done; exit code 3 where it failed or an owner must act.

    What to type then repeats what was given: the members to `adopt`, the plan's file, and that the owner acts alone.
    """
    if as_json:
        print_json(to_json(roll))
    else:
        _print_roll(roll, file, adopt, as_owner=as_owner)
    return 3 if roll.failure or roll.neglected else 0


def _print_roll(roll: RollOutput, file: str, adopt: Sequence[str], *, as_owner: bool) -> None:
    goes_back = roll.rollout.endswith(BACK)  # a way back that `roll.start` has finished
    out().print(one_line(f"{roll.fleet}: {towards(roll.replacement, back=goes_back)}"), soft_wrap=True)
    print_text(heading(roll))
    if roll.failure:
        say(f"it failed: {roll.failure}")
        say(f"{roll.rollout} ended with {ends(roll)}")
    for columns, rows in tables(roll):
        if rows:
            out().print()
            print_table(columns, [[*cells, last.splitlines()] for *cells, last in rows])  # of a note
    if (changes := changed(roll)) and not roll.rollout:
        out().print()
        print_text(changes)
    for why, names in by_reason((skip.member, skip.why) for skip in roll.skipped).items():
        print_text([f"skipped: {', '.join(names)}: {why}"])
    for why, names in by_reason((one.member, one.why) for one in roll.neglected).items():
        print_text([f"their owner must act: {', '.join(names)}: {why}"])
    for one in roll.groups:
        _print_instead(one)
    if roll.rollout:
        return
    if roll.steps or roll.groups:
        _say_next(roll, quote(file) if file else "", adopt_flags(adopt), as_owner=as_owner)
    elif roll.skipped:
        say("nothing to replace: every member that is out of policy is skipped, for the reasons above")
    else:
        say(f"nothing to replace; ./goldsmith fleet.check {roll.fleet} shows why, roll.status if a rollout is open")


def _print_instead(one: GroupLine) -> None:
    """What to merge for a group that is left alone, as it is: somebody copies it."""
    if one.instead:
        out().print()
        print_text([f"to merge for {one.group.rpartition('/')[2]}, which is skipped:"])
        for line in ("", *one.instead.splitlines(), ""):
            out().out(visible(line), highlight=False)


def _say_next(roll: RollOutput, file: str, adopt: str, *, as_owner: bool) -> None:
    """Say what to type, in order: a plan that another user must approve is in a file, with those whom it adopts."""
    if roll.needs_approval:
        say("nothing was done; to do it, another user must approve the plan:")
        if not file:
            say(f"  ./goldsmith roll.plan {roll.fleet}{adopt} --output FILE")
        say(f"  ./goldsmith roll.approve {roll.fleet} --plan {file or 'FILE'}  (the other user)")
        say(f"  ./goldsmith roll.start {roll.fleet} --plan {file or 'FILE'} --apply")
    else:
        flags = (f" --plan {file}" if file else adopt) + (" --approve-as-owner" if as_owner else "")
        say(f"nothing was done; to do it: ./goldsmith roll.start {roll.fleet}{flags} --apply")
