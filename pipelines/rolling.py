"""What the tasks on fleets and the night call: check, plan, roll, nightly, report; their tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hardening.explain import explain
from hardening.foundation.console import out, print_json, print_table, print_text, say
from hardening.foundation.errors import UsageError
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
from pipelines.rollouts.approval import read_plan, write_plan
from pipelines.rollouts.sealed import Sealed
from pipelines.rollouts.shown import (
    CALL_COLUMNS,
    STEP_COLUMNS,
    WAVE_COLUMNS,
    call_rows,
    heading,
    markdown,
    step_rows,
    wave_rows,
)
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


def plan_roll(
    name: str, adopt: Sequence[str] = (), output: str = "", context: Context | None = None
) -> tuple[RollOutput, Sealed]:
    """What a rollout would do; with `output`, also as a file for `roll.start --plan`. Raises RefusedError."""
    context = context or image_context()
    with desk(name, context, engine=lambda: fleet_host(context), now=clock) as at:
        sealed = at.plan(adopt)
        if output:
            write_plan(sealed, Path(output))
        return roll_output(sealed.plan), sealed


def roll_fleet(
    name: str, *, apply: bool, adopt: Sequence[str] = (), file: str = "", context: Context | None = None
) -> RollOutput:
    """Plan a rollout, or take the plan in `file`, and, with `apply`, carry it out.

    Raises UsageError where both `file` and `adopt` are given, RefusedError when it may not, or was rolled back.
    """
    if file and adopt:
        raise UsageError("the plan in the file says whom it takes over", hint="give --adopt to roll.plan --output")
    context = context or image_context()
    approved = read_plan(Path(file)) if file else None
    with desk(name, context, engine=lambda: fleet_host(context), now=clock) as at:
        plan, state = start(at, apply=apply, adopt=adopt, approved=approved)
        return roll_output(plan, state)


def show_plan(planned: tuple[RollOutput, Sealed], *, as_json: bool, as_markdown: bool) -> None:
    """Print a plan for people, for programs, or for whoever approves it."""
    roll, sealed = planned
    if as_markdown:
        out().print(
            markdown(roll, sealed.made_by, f"{sealed.expires_at:%Y-%m-%d %H:%M} UTC"),
            markup=False,
            soft_wrap=True,
            end="",
        )
    else:
        show_roll(roll, as_json=as_json)


def show_roll(roll: RollOutput, *, as_json: bool) -> None:
    """Print a rollout, planned or done."""
    if as_json:
        print_json(to_json(roll))
        return
    out().print(f"{roll.fleet}: to {short(roll.replacement)}", markup=False, soft_wrap=True)
    print_text("\n".join(heading(roll)))
    for columns, rows in (
        (WAVE_COLUMNS, wave_rows(roll)),
        (CALL_COLUMNS, call_rows(roll.calls)),
        (STEP_COLUMNS, step_rows(roll.steps)),
    ):
        if rows:
            out().print()
            print_table(columns, rows)
    for skip in roll.skipped:
        print_text(f"left alone: {skip.member}: {skip.why}")
    if roll.steps and not roll.rollout:
        say(f"nothing was done; to do it: ./goldsmith roll.start {roll.fleet} --apply")


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
