"""What the image tasks call: from names to contract lines, by way of the flows in `images`."""

from __future__ import annotations

from hardening.catalog import load_waivers
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError
from images.build import build
from images.judge import reverify
from images.planning.planner import Planner
from images.verify import refusals
from pipelines.contract import BuildLine, PlanLine, VerifyLine, WhyOutput
from pipelines.listing import build_line, plan_line
from pipelines.selection import named
from pipelines.wiring import image_context

Errors = list[GoldsmithError | None]


def plan_images(pattern: str, *, refresh: bool = False) -> list[PlanLine]:
    """What a build of `pattern` would do, parents included; `refresh` asks the mirror for its index first."""
    context = image_context(looks=True)
    names = named(context, pattern)
    planner = Planner(context)
    if refresh:
        planner.refresh(names)
    say(f"reading the package index and planning {len(names)} image(s), with what they stand on")
    return [plan_line(plan) for plan in planner.plan_all(names)]


def build_images(
    pattern: str, *, no_cache: bool, refresh: bool = False, policy: str = ""
) -> tuple[list[BuildLine], Errors]:
    """Build; one line for each image, and what went wrong. `refresh` asks the mirror for its index first.

    A machine is judged before it is kept: by its own policy, or by `policy`.
    """
    context = image_context(policy=policy)
    names = named(context, pattern)
    if refresh:
        Planner(context).refresh(names)
    outcomes = build(context, names, no_cache=no_cache)
    return [build_line(outcome) for outcome in outcomes], [outcome.error for outcome in outcomes]


def verify_images(pattern: str, *, control: str = "") -> list[VerifyLine]:
    """Check the newest artifacts again."""
    context = image_context()
    waivers, today = load_waivers(context.settings.roots), context.now.date()
    lines = []
    for name in named(context, pattern):
        say(f"{name}: verifying")
        digest, checks = reverify(context, name, control)
        lines.append(
            VerifyLine(name=name, digest=digest, passed=not refusals(checks, name, waivers, today), checks=checks)
        )
    return lines


def why_image(name: str) -> WhyOutput:
    """Which inputs of `name` differ from its last artifact's."""
    context = image_context(looks=True)
    only = named(context, name)[0]
    plan = next(p for p in Planner(context).plan_all([only]) if p.name == only)
    last = context.ledger.latest_artifact(only, plan.platform)
    return WhyOutput(
        name=only, last_built_at=last and last.built_at, last_digest=last.digest if last else "",
        would=plan.action, changes=plan.changes, why=plan.why,
    )  # fmt: skip
