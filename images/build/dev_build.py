"""A development build: a machine as definition and controls stand now, built, booted, checked, and kept nowhere.

The loop of those who edit controls: what `image.build` does besides (a second boot, scans, the gate) is left out.
"""

from __future__ import annotations

from hardening.findings import CheckResult
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError
from images.boot import Level
from images.build import build, require_tools
from images.build.flow import job_for
from images.build.workspace import workspace
from images.context import Context
from images.machine.trees import private_mounts
from images.plan.plan import Action, BuildPlan
from images.plan.planner import Planner
from images.scan.judge import only_check
from images.scan.verify import verify
from images.store.oci import Store


def dev_build(
    context: Context, name: str, level: Level, control: str = ""
) -> tuple[str, tuple[CheckResult, ...]] | None:
    """Build the machine `name` as it would be built now, boot it once at `level`; its digest and the results.

    With `control`, only that one is asked. None where the newest artifact is what would be built. Raises ContentError
    where what it stands on must be built first, or the profile has no such control; and OutsideError.
    """
    planner = Planner(context)
    loaded = context.definitions[name]
    definition = loaded.definition
    asked = only_check(planner.overlay(loaded), control, definition.profile)
    *below, plan = planner.plan_all([name])
    if plan.artifact:
        return None
    _require_built(name, below)
    require_tools(definition)
    say(f"{name}: building for this boot alone, because {plan.why[0]}; image.build {name} keeps it")
    with workspace(context.settings) as work, private_mounts():
        store = Store(work / "store", below=context.store)
        job = job_for(context, planner, plan, work=work, store=store)
        built = build(job)
        checks = verify(
            definition, asked, tree=built.tree, config=built.config, digest=built.digest, store=store, work=work,
            docker_host="", level=level, twice=False,
        )  # fmt: skip
    return built.digest, checks


def _require_built(name: str, below: list[BuildPlan]) -> None:
    for plan in below:
        if plan.action is Action.BUILD:
            raise ContentError(
                f"{name} stands on {plan.name}, which has changed too: {plan.why[0]}",
                hint=f"./goldsmith image.build {plan.name}, then try {name} again",
            )
