"""What the tasks on fleets and the night call: check, plan, roll, nightly, report; their tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hardening.explain import explain
from hardening.foundation.console import out, print_json, print_table, say
from hardening.foundation.durations import shown
from hardening.foundation.settings import load_settings
from images.context import Context
from images.documents import to_json
from pipelines.contract import NightlyOutput
from pipelines.fleet.lines import MemberLine, RollOutput, member_lines, roll_output
from pipelines.host import docker_host
from pipelines.listing import finish
from pipelines.nightly import Failures, nightly
from pipelines.report import gather, short, write_report
from pipelines.roll import check, desk, start
from pipelines.wiring import clock, image_context


def check_fleet(name: str, context: Context | None = None) -> list[MemberLine]:
    """Judge every member of a fleet. Raises OutsideError where the engine cannot be read: unread is not compliant."""
    context = context or image_context()
    with desk(name, context, engine=lambda: fleet_host(context), now=clock) as at:
        return member_lines(check(at))


def fleet_host(context: Context) -> str:
    """The engine that fleets run on."""
    return docker_host(context.settings, for_builds=False)


def show_members(lines: Sequence[MemberLine], *, as_json: bool) -> int:
    """Print the members with their violations; exit code 3 where one violates, or where nothing was judged."""
    if as_json:
        print_json(to_json(tuple(lines)))
    elif not lines:
        say("no member runs: nothing was judged; do the fleet's selector and labels match?")
    for line in () if as_json else lines:
        state = ", ".join(line.violations) or "within policy"
        until = f", replace by {line.deadline:%Y-%m-%d %H:%M} UTC" if line.deadline else ""
        on = f" on base {line.base}" if line.base else ""
        out().print(f"{line.name}: {state}{until}\n  {line.release or line.image}{on}", markup=False)
        if line.reasons:
            out().print("  " + explain(line.reasons).replace("\n", "\n  "), markup=False)
    return 0 if lines and not any(line.violations for line in lines) else 3


def roll_fleet(name: str, *, apply: bool, adopt: Sequence[str] = (), context: Context | None = None) -> RollOutput:
    """Plan a rollout and, with `apply`, carry it out. Raises RefusedError when it may not, or was rolled back."""
    context = context or image_context()
    with desk(name, context, engine=lambda: fleet_host(context), now=clock) as at:
        plan, state = start(at, apply=apply, adopt=adopt)
        return roll_output(plan, state)


def show_roll(roll: RollOutput, *, as_json: bool) -> None:
    """Print a rollout, planned or done."""
    if as_json:
        print_json(to_json(roll))
        return
    rows = [[str(s.wave), s.member.rpartition("/")[2], "; ".join(s.why), s.outcome or "planned"] for s in roll.steps]
    out().print(f"{roll.fleet}: to {short(roll.replacement)}", markup=False, soft_wrap=True)
    out().print(f"{roll.method}, never below {roll.floor} of {roll.desired} serving", markup=False)
    print_table(["wave", "member", "because", "outcome"], rows)
    for skip in roll.skipped:
        out().print(f"left alone: {skip.member}: {skip.why}", markup=False)
    if roll.steps and not roll.rollout:
        command = f"./goldsmith roll.start {roll.fleet} --apply"
        say(f"nothing was done; it takes {shown(timedelta(seconds=roll.seconds))} or more: {command}")


def run_nightly(policy: str = "", only: str = "all") -> tuple[NightlyOutput, Failures]:
    """Run the night with the settings of this machine."""
    context = image_context(policy=policy)
    return nightly(context, lambda: fleet_host(context), only)


def show_nightly(result: tuple[NightlyOutput, Failures], *, as_json: bool) -> int:
    """Print a summary line for each image and fleet; the exit code says who must act."""
    night, failures = result
    if as_json:
        print_json(to_json(night))
    else:
        rows = [[line.kind, line.name, line.status, line.detail] for line in night.lines]
        print_table(["what", "name", "outcome", "detail"], rows)
        out().print(f"\n{night.summary}\nreport: {night.report}", markup=False, soft_wrap=True)
    return finish(failures)


def make_report(*, as_json: bool) -> None:
    """Write the report, or print what it would show as JSON."""
    context = image_context(load_settings())
    if as_json:
        print_json(to_json(gather(context)))
    else:
        out().print(str(write_report(context)), markup=False, soft_wrap=True)
