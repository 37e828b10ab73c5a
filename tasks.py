"""The command line: each task parses, wires, calls one flow and prints. `./goldsmith --list` shows them all.

Exit codes: 0 done, 1 usage error or broken invariant, 2 content wrong, 3 refused by policy or gate, 4 the outside world
failed.
Imports stand inside the tasks, so that listing them is quick.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

_YAML = "invoke.vendor.yaml"


def _spare(module: str, **names: Any) -> None:
    """Let `module` stand empty but for `names` while Invoke is imported: it needs it for its own tests or settings."""
    if module not in sys.modules:
        sys.modules[module] = ModuleType(module)
        sys.modules[module].__dict__.update(names, _spared=True)


def _safe_load(text: Any) -> Any:
    from importlib import import_module

    del sys.modules[_YAML]
    return import_module(_YAML).safe_load(text)


_spare("unittest.mock", Mock=object)  # with asyncio and SSL, a sixth of our start
_spare(_YAML, safe_load=_safe_load)
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read the metadata of every package for them

from invoke import Collection, Context, Exit, ParseError, Program, task  # noqa: E402

if hasattr(sys.modules["unittest.mock"], "_spared"):
    del sys.modules["unittest.mock"]  # whoever wants it gets the real one

JSON = {"json": "print JSON on standard output, for other programs"}
REFRESH = {"refresh": "ask the mirror for its package index first, as every night does"}
NAME = {"name": "a name, a glob, or `all`"}
POLICY = {"policy": "judge by this policy instead of the definitions' own"}
ADOPT = {"adopt": "take over the unknown member of this name, a glob, or `all`; repeatable"}
FLEET = {"fleet": "a fleet's name"}
REASON = {"reason": "why, for the audit"}
APPLY = {"apply": "act; without it the plan is shown and nothing happens"}


def command(
    help_texts: dict[str, str], *positional: str, iterable: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Any]:
    """An invoke task whose failures become one clear message and the exit code of their family.

    `help_texts` are by argument, `positional` the arguments that stand without a flag. A task may return its exit code.
    """

    def wrap(body: Callable[..., Any]) -> Any:
        @wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            sys.dont_write_bytecode = False  # which Invoke turns on: each command would compile all of us anew
            from hardening.foundation.errors import GoldsmithError

            try:
                code = body(*args, **kwargs)
            except GoldsmithError as error:
                raise Exit(str(error), error.exit_code) from None
            if code:
                raise Exit(code=code)

        return task(positional=list(positional), iterable=list(iterable), help=help_texts)(run)

    return wrap


# --- images ---------------------------------------------------------------------------------------------------------


@command(JSON)
def image_list(c: Context, json: bool = False) -> int:
    """Every definition: what was built last, and where its channels point."""
    from dataclasses import replace

    from pipelines.cli.image_output import DEFINITION_COLUMNS, definition_lines, finish, show
    from pipelines.wiring import image_context

    context = replace(image_context(looks=True), lenient=True)
    show(definition_lines(context), DEFINITION_COLUMNS, as_json=json)
    return finish(context.unsound.values())


@command(REFRESH | NAME | JSON, "name")
def image_plan(c: Context, name: str, refresh: bool = False, json: bool = False) -> None:
    """What a build would do, and why. Builds nothing."""
    from pipelines.cli.image import plan_images
    from pipelines.cli.image_output import show

    show(plan_images(name, refresh=refresh), {"image": "name", "action": "action", "why": "why"}, as_json=json)


@command({"no-cache": "build even what has not changed"} | POLICY | REFRESH | NAME | JSON, "name")
def image_build(
    c: Context, name: str, policy: str = "", no_cache: bool = False, refresh: bool = False, json: bool = False
) -> int:
    """Build and verify what changed, and whatever it stands on; machines are booted, scanned and judged too."""
    from pipelines.cli.image import build_images
    from pipelines.cli.image_output import BUILD_COLUMNS, show_outcomes

    return show_outcomes(
        build_images(name, no_cache=no_cache, refresh=refresh, policy=policy), BUILD_COLUMNS, as_json=json
    )


@command(NAME | JSON, "name")
def image_verify(c: Context, name: str, json: bool = False) -> int:
    """Run every control's check again on the newest artifact."""
    from pipelines.cli.image import verify_images
    from pipelines.cli.image_output import show_checks

    return show_checks(verify_images(name), as_json=json)


@command(
    {
        "name": "a machine's name",
        "quick": "without firmware, for whoever edits controls",
        "full": "with a cloud's answer for cloud-init too",
        "control": "ask only this control, and what every boot shows",
    }
    | JSON,
    "name",
)
def image_boot(
    c: Context, name: str, quick: bool = False, full: bool = False, control: str = "", json: bool = False
) -> int:
    """Boot a machine as it stands now, built for this boot where it changed, and run its live checks in it."""
    from pipelines.cli.export import boot_image
    from pipelines.cli.image_output import show_checks

    return show_checks(boot_image(name, quick=quick, full=full, control=control), as_json=json)


@command(
    {
        "name": "a machine's name",
        "output": "the file to write",
        "form": "raw or qcow2",
        "force": "also where the file is there already, in its place",
    }
    | JSON,
    "name",
)
def image_export(
    c: Context, name: str, output: str = "", form: str = "raw", force: bool = False, json: bool = False
) -> None:
    """Write a machine's disk to a file that is not there yet, for private clouds and hypervisors."""
    from pipelines.cli.export import EXPORT_COLUMNS, export_image
    from pipelines.cli.image_output import show

    show(export_image(name, form, output, force=force), EXPORT_COLUMNS, as_json=json)


@command({"ref": "a definition's name, a glob, or `all`; or registry/name:tag or @digest"} | POLICY | JSON, "ref")
def image_scan(c: Context, ref: str, policy: str = "", json: bool = False) -> int:
    """Scan images with every scanner, and say what the gate would answer."""
    from pipelines.cli.image import scan_images, show_scans

    return show_scans(ref, scan_images(ref, policy), as_json=json)


@command(NAME | POLICY | JSON, "name")
def image_publish(c: Context, name: str, policy: str = "", json: bool = False) -> int:
    """Build, scan, judge and publish to the candidate channel; re-date what nears its expiry."""
    from pipelines.cli.image import PUBLISH_COLUMNS, publish_images
    from pipelines.cli.image_output import show_outcomes

    return show_outcomes(publish_images(name, policy), PUBLISH_COLUMNS, as_json=json)


@command(NAME | {"policy": "the policy that judged it, where that is not the definition's own"} | JSON, "name")
def image_promote(c: Context, name: str, policy: str = "", json: bool = False) -> int:
    """Move `stable` to what `candidate` points to."""
    from pipelines.cli.image import CHANNEL_COLUMNS, promote_images
    from pipelines.cli.image_output import show_outcomes

    return show_outcomes(promote_images(name, policy), CHANNEL_COLUMNS, as_json=json)


@command({"name": "a definition's name", "reason": "why, where that release is expired or revoked"} | JSON, "name")
def image_rollback(c: Context, name: str, reason: str = "", json: bool = False) -> None:
    """Move `stable` back to the release it pointed to before."""
    from pipelines.cli.image import CHANNEL_COLUMNS, rollback_image
    from pipelines.cli.image_output import show

    show(rollback_image(name, reason), CHANNEL_COLUMNS, as_json=json)


@command(
    {"digest": "a digest, the beginning of one, or name:tag: whatever tables print"}
    | {"reason": "why, for everyone who meets it"}
    | JSON,
    "digest",
)
def image_revoke(c: Context, digest: str, reason: str = "", json: bool = False) -> None:
    """Take a release out of policy at once, everywhere."""
    from pipelines.cli.image import CHANNEL_COLUMNS, revoke_release
    from pipelines.cli.image_output import show

    show(revoke_release(digest, reason), CHANNEL_COLUMNS, as_json=json)


@command({"ref": "a definition's name, name:tag, registry/name:tag, or the beginning of a digest"} | JSON, "ref")
def image_show(c: Context, ref: str, json: bool = False) -> None:
    """Everything about a published image, from the registry alone."""
    from pipelines.cli.image import print_release, show_release

    print_release(show_release(ref), as_json=json)


@command({"name": "a definition's name"} | JSON, "name")
def image_why(c: Context, name: str, json: bool = False) -> None:
    """Which input changed since the last artifact, packages old → new."""
    from pipelines.cli.image import why_image
    from pipelines.cli.image_output import show_why

    show_why(why_image(name), as_json=json)


@command(APPLY | JSON)
def image_prune(c: Context, apply: bool = False, json: bool = False) -> None:
    """Remove expired and superseded releases that nothing uses, with all that is attached to them."""
    from pipelines.cli.image import PRUNE_COLUMNS, prune_images
    from pipelines.cli.image_output import show

    show(prune_images(apply=apply), PRUNE_COLUMNS, as_json=json)


@command(APPLY | JSON)
def image_reap(c: Context, apply: bool = False, json: bool = False) -> None:
    """Find at AWS what killed runs left and no line of the ledger owns; remove what is due."""
    from pipelines.cli.image_output import show
    from pipelines.cli.reap import REAP_COLUMNS, reap_images

    show(reap_images(apply=apply), REAP_COLUMNS, as_json=json)


@command(NAME | JSON, "name")
def image_lock(c: Context, name: str, json: bool = False) -> None:
    """Move the pinned digests of upstream bases to what their tags name now, in images.lock.toml."""
    from pipelines.cli.image import LOCK_COLUMNS, lock_upstreams
    from pipelines.cli.image_output import show

    show(lock_upstreams(name), LOCK_COLUMNS, as_json=json)


@command(JSON)
def image_rebuild(c: Context, json: bool = False) -> int:
    """Fill the ledger again from the registry, which is the truth about what was published."""
    from pipelines.cli.image import RELEASE_COLUMNS, rebuild_ledger
    from pipelines.cli.image_output import show_outcomes

    return show_outcomes(rebuild_ledger(), RELEASE_COLUMNS, as_json=json)


# --- controls and policies ------------------------------------------------------------------------------------------


@command(JSON)
def control_list(c: Context, json: bool = False) -> None:
    """Every control, and the profiles it stands in."""
    from pipelines.cli.controls import CONTROL_COLUMNS, control_rows
    from pipelines.cli.image_output import show

    show(control_rows(), CONTROL_COLUMNS, as_json=json)


@command({"name": "a control's id"} | JSON, "name")
def control_show(c: Context, name: str, json: bool = False) -> None:
    """One control: its reason, its cost, its parameters, its check."""
    from pipelines.cli.controls import show_control_of

    show_control_of(name, as_json=json)


@command(
    {
        "control": "only this control",
        "profile": "for a directory: the profile to check by",
        "name": "image or directory",
    }
    | JSON,
    "name",
)
def control_check(c: Context, name: str, control: str = "", profile: str = "", json: bool = False) -> int:
    """Check an image's newest artifact, or with --profile the filesystem in a directory, against its controls."""
    from pipelines.cli.controls import check_directory
    from pipelines.cli.image import verify_images
    from pipelines.cli.image_output import show_checks

    lines = check_directory(name, profile, control) if profile else verify_images(name, control=control)
    return show_checks(lines, as_json=json)


@command({"name": "a control's id, a glob, or `all`"} | JSON, "name")
def control_test(c: Context, name: str, json: bool = False) -> int:
    """Prove a control by its cases.toml: its check fails where it is broken, and holds where it was applied."""
    from pipelines.cli.controls import prove_controls, show_proofs

    return show_proofs(prove_controls(name), as_json=json)


@command(NAME | JSON, "name")
def policy_show(c: Context, name: str, json: bool = False) -> None:
    """What a policy asks of images and instances, and when it must be reviewed."""
    from pipelines.cli.controls import show_policies

    show_policies(name, as_json=json)


@command(
    {
        "file": "a changed policy, or a new one",
        "instead-of": "the policy whose place it would take; by default the one of the file's name",
    }
    | JSON,
    "file",
)
def policy_preview(c: Context, file: str, instead_of: str = "", json: bool = False) -> int:
    """Whom a changed policy would newly refuse or free: images by their last scan, and members of every fleet."""
    from pipelines.cli.preview import preview_policy, show_preview

    return show_preview(preview_policy(file, instead_of), as_json=json)


@command(JSON)
def policy_waivers(c: Context, json: bool = False) -> None:
    """Every waiver, whom it covers and when it ends."""
    from pipelines.cli.controls import WAIVER_COLUMNS, waiver_lines
    from pipelines.cli.image_output import show

    empty = "no waiver is written; hardening/waivers/README.md shows how to"
    show(waiver_lines(), WAIVER_COLUMNS, as_json=json, empty=empty)


@command({"image": "a definition's name", "form": "openvex or trivyignore"}, "image")
def policy_export(c: Context, image: str, form: str = "openvex") -> None:
    """The waivers in force for an image in a form that other scanners read."""
    from hardening.foundation.console import out
    from pipelines.cli.controls import export_waivers

    out().out(export_waivers(form, image), highlight=False, end="")


# --- fleets ---------------------------------------------------------------------------------------------------------


@command(JSON)
def fleet_list(c: Context, json: bool = False) -> None:
    """Every fleet."""
    from pipelines.cli.controls import FLEET_COLUMNS, fleet_lines
    from pipelines.cli.image_output import show

    empty = "no fleet is defined; CONTRIBUTING.md shows how to add one"
    show(fleet_lines(), FLEET_COLUMNS, as_json=json, empty=empty)


@command(NAME | JSON, "name")
def fleet_scan(c: Context, name: str, json: bool = False) -> int:
    """Find what the fleets run, over hosts and regions, and write it into the ledger; exit code 4: not all was read."""
    from pipelines.cli.image_output import show
    from pipelines.cli.rollout import SEEN_COLUMNS, scan_exit_code, scan_fleets

    lines = scan_fleets(name)
    show(lines, SEEN_COLUMNS, as_json=json)
    return scan_exit_code(lines)


@command(
    {"fleet": "a fleet's name, a glob, or `all`", "policy": "judge by this policy instead of the fleets' own"} | JSON,
    "fleet",
)
def fleet_check(c: Context, fleet: str, policy: str = "", json: bool = False) -> int:
    """Find the members whose image is expired, unknown, superseded, revoked or refused by the policy."""
    from pipelines.cli.rollout import check_fleets, show_fleets

    return show_fleets(check_fleets(fleet, policy), as_json=json)


@command(
    {
        "fleet": "a fleet's name",
        "output": "write the plan to this file, for `roll.start --plan`",
        "markdown": "print it as whoever approves it reads it",
    }
    | ADOPT
    | JSON,
    "fleet",
    iterable=["adopt"],
)
def roll_plan(
    c: Context, fleet: str, adopt: list[str], output: str = "", markdown: bool = False, json: bool = False
) -> None:
    """What a rollout of the fleet would do: waves, steps, time, calls; or why it is refused."""
    from pipelines.cli.rollout import plan_roll, show_plan

    show_plan(plan_roll(fleet, adopt, output), as_json=json, as_markdown=markdown, file=output)


@command(
    {
        "fleet": "a fleet's name",
        "plan": "carry out exactly the plan in this file, or refuse where the world has moved",
        "approve-as-owner": "do without a second person's approval, which the audit shows",
    }
    | ADOPT
    | APPLY
    | JSON,
    "fleet",
    iterable=["adopt"],
)
def roll_start(
    c: Context, fleet: str, adopt: list[str], plan: str = "", approve_as_owner: bool = False,
    apply: bool = False, json: bool = False,
) -> int:  # fmt: skip
    """Replace the violating members wave by wave, healthy before the old one goes, or roll back."""
    from pipelines.cli.rollout import roll_fleet, show_roll

    return show_roll(
        roll_fleet(fleet, apply=apply, adopt=adopt, file=plan, as_owner=approve_as_owner),
        as_json=json,
        file=plan,
        as_owner=approve_as_owner,
    )


@command(FLEET | {"watch": "until it is over, live in a terminal"} | JSON, "fleet")
def roll_status(c: Context, fleet: str, watch: bool = False, json: bool = False) -> int:
    """How the fleet's rollout stands: wave, members, what it waits for, who carries it."""
    from pipelines.cli.rollout_watch import show_status

    return show_status(fleet, watch=watch, as_json=json)


@command(FLEET | {"rollout": "what was done in this one, step by step"} | JSON, "fleet")
def roll_history(c: Context, fleet: str, rollout: str = "", json: bool = False) -> None:
    """The fleet's rollouts, the newest first."""
    from pipelines.cli.rollout_watch import show_history

    show_history(fleet, rollout, as_json=json)


def _tell(fleet: str, what: str, reason: str) -> None:
    """Tell the fleet's rollout that is under way to pause, resume, approve or abort."""
    from pipelines.cli.rollout_watch import command
    from pipelines.rollout.state import Command

    command(fleet, Command(what), reason)


@command(FLEET | REASON, "fleet")
def roll_pause(c: Context, fleet: str, reason: str = "") -> None:
    """Let the rollout begin nothing more until it is resumed; in-progress replacements reach a safe point."""
    _tell(fleet, "pause", reason)


@command(FLEET | REASON, "fleet")
def roll_resume(c: Context, fleet: str, reason: str = "") -> None:
    """Let a paused rollout go on."""
    _tell(fleet, "resume", reason)


@command(FLEET | {"plan": "approve the plan in this file, which somebody else made"} | REASON, "fleet")
def roll_approve(c: Context, fleet: str, plan: str = "", reason: str = "") -> None:
    """End the bake now, and promote its wave; with --plan, approve a plan that is not begun yet."""
    if not plan:
        _tell(fleet, "approve", reason)
        return
    from pipelines.cli.rollout import approve

    approve(fleet, plan, reason)


@command(FLEET | REASON, "fleet")
def roll_abort(c: Context, fleet: str, reason: str = "") -> None:
    """End the rollout: the wave under way is put back, what was promoted stays."""
    _tell(fleet, "abort", reason)


@command(FLEET | REASON | APPLY, "fleet")
def roll_rollback(c: Context, fleet: str, reason: str = "", apply: bool = False) -> int:
    """Roll every member that the rollout has replaced back to the version it ran before."""
    from pipelines.cli.rollout import roll_back

    return roll_back(fleet, reason, apply=apply)


@command({"name": "a fleet's name, a glob, or `all`"} | APPLY | JSON, "name")
def roll_auto(c: Context, name: str, apply: bool = False, json: bool = False) -> int:
    """Bring fleets back into policy as their files allow, or ask for the approval that they require."""
    from pipelines.cli.rollout import auto_roll, show_auto

    return show_auto(auto_roll(name, apply=apply), as_json=json)


@command({"seeds": "how many rollouts", "seed": "the first seed; each stands for one rollout"} | JSON)
def roll_simulate(c: Context, seeds: int = 1000, seed: int = 0, json: bool = False) -> int:
    """Roll a fleet that does not exist, under faults drawn from seeds; exit code 1 where a promise is broken."""
    from pipelines.cli.simulate import show_simulation, simulate_rollouts

    return show_simulation(simulate_rollouts(seeds, seed), as_json=json)


@command(APPLY | JSON)
def roll_reap(c: Context, apply: bool = False, json: bool = False) -> None:
    """Find what rollouts launched and nothing owns any more, on Docker and EC2; remove what is due."""
    from pipelines.cli.image_output import show
    from pipelines.cli.reap import REAP_COLUMNS, reap_rollouts

    show(reap_rollouts(apply=apply), REAP_COLUMNS, as_json=json)


# --- every night ----------------------------------------------------------------------------------------------------


@command({"only": "only these images (a glob) and what they stand on; fleets are checked always"} | POLICY | JSON)
def nightly(c: Context, policy: str = "", only: str = "all", json: bool = False) -> int:
    """Refresh, rebuild, judge, publish, check the fleets, roll what may be rolled, report. Exit code: who must act."""
    from pipelines.nightly import run_nightly, show_nightly

    return show_nightly(run_nightly(policy, only), as_json=json)


@command(JSON)
def report(c: Context, json: bool = False) -> None:
    """Write the HTML report on images, dates, findings, fleets and rollouts."""
    from pipelines.cli.report import make_report

    make_report(as_json=json)


@command({"keep": "leave what it made running, to look at"} | JSON)
def demo(c: Context, keep: bool = False, json: bool = False) -> int:
    """The whole loop on this machine: build, publish, run, find out of policy, replace without a lost request."""
    from pipelines.demo.flow import demo

    return demo(keep=keep, as_json=json)


# --- this machine ---------------------------------------------------------------------------------------------------


@command({"machines": "also what machine images need: QEMU, firmware, disk tools"})
def setup(c: Context, machines: bool = False) -> None:
    """Install what this machine lacks, each package named before, and see that a Docker Engine runs."""
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import setup
    from pipelines.wiring import keep_private

    settings = load_settings()
    keep_private(settings.state_dir)
    setup(settings, for_machines=machines)


@command(JSON)
def doctor(c: Context, json: bool = False) -> int:
    """What this machine has, what it lacks, and what each lack costs. Changes nothing."""
    from hardening.foundation.settings import load_settings
    from pipelines.host import doctor

    lines = doctor.examine(load_settings())
    doctor.show(lines, as_json=json)
    return doctor.exit_code(lines)


@command({})
def schema(c: Context) -> None:
    """Write docs/schemas anew: what `--json` prints, and what editors complete in content files."""
    from hardening.foundation.console import say
    from pipelines.cli.schemas import write_schemas

    for path in write_schemas():
        say(f"written: {path}")


@command({})
def lint(c: Context) -> int:
    """All content cross-checked; linter, formatter and type checker over the whole checkout."""
    from pipelines.lint import LINT, lint_content, run_checks

    return max(lint_content(), run_checks(LINT))


@command(
    {
        "path": "a test file or folder: only its tests, at once, without lint and setup",
        "only": "only tests whose names match, as pytest's -k",
        "fast": "only tests that need no Docker, QEMU, network or build",
    }
)
def test(c: Context, path: str = "", only: str = "", fast: bool = False) -> int:  # noqa: PT028 - a task, not a test
    """All that `lint` does, and every test. The linters run beside `setup`, which mostly waits, or beside the tests."""
    from concurrent.futures import ThreadPoolExecutor

    from pipelines.lint import LINT, lint_content, pytest_command, run_checks

    tests = pytest_command(path, only, fast=fast)
    if path:
        return run_checks([tests])
    with ThreadPoolExecutor(max_workers=1) as pool:
        linted = pool.submit(run_checks, LINT)
        if not fast:
            from hardening.foundation.settings import load_settings
            from pipelines.host.provision import setup
            from pipelines.wiring import keep_private

            settings = load_settings()
            keep_private(settings.state_dir)
            setup(settings, for_tests=True)
        return max(lint_content(), run_checks([tests]), linted.result())


# --- namespaces -----------------------------------------------------------------------------------------------------


def _room(name: str, *tasks: Any) -> Collection:
    """A namespace of tasks: the function `image_build` becomes `image.build`."""
    room = Collection(name)
    for found in tasks:
        room.add_task(found, name=found.name.removeprefix(f"{name}_"))
    return room


namespace = Collection(
    _room(
        "image", image_list, image_plan, image_build, image_verify, image_boot, image_export, image_scan, image_publish,
        image_promote, image_rollback, image_revoke, image_show, image_why, image_prune, image_reap, image_lock,
        image_rebuild,
    ),
    _room("control", control_list, control_show, control_check, control_test),
    _room("policy", policy_show, policy_preview, policy_waivers, policy_export),
    _room("fleet", fleet_list, fleet_scan, fleet_check),
    _room(
        "roll", roll_plan, roll_start, roll_status, roll_history, roll_pause, roll_resume, roll_approve, roll_abort,
        roll_rollback, roll_auto, roll_simulate, roll_reap,
    ),
    nightly, report, demo, setup, doctor, schema, lint, test,
)  # fmt: skip


class _Program(Program):
    """Invoke's own program, which also says what a mistyped task or flag may have meant. Exit code 1."""

    def parse_tasks(self) -> None:
        from hardening.foundation.errors import closest, nearest

        try:
            super().parse_tasks()
        except ParseError as error:
            typed = str(error).partition("'")[2].partition("'")[0]
            within = None if str(error).startswith("No idea") and not typed.startswith("-") else error.context
            known = within.flags if within else self.collection.task_names
            hint = f"./goldsmith {f'{within.name} --help' if within else '--list'} shows what there is"
            if closest(typed, known):  # all names would be more than a reader wants
                hint = nearest(typed, known)
            said = re.sub(r"^Flag <Argument: ([\w-]+).*> needed value and .*", r"--\1 needs a value", str(error))
            raise ParseError(f"{said}\n  hint: {hint}", error.context) from None
        except ValueError as error:  # what Invoke makes a number of
            raise ParseError(f"no whole number: {str(error).rpartition(': ')[2]}", None) from None

    def print_version(self) -> None:
        import tomllib

        self.version = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]["version"]
        super().print_version()


def main(*arguments: str) -> None:
    """Run the command line `arguments`; ends with SystemExit, unless the exit code is 0."""
    if arguments[:1] == ("test",) and arguments[1:] and not arguments[1].startswith("-"):
        arguments = ("test", "--path", *arguments[1:])  # Invoke has no argument that may be left out and needs no flag
    _Program(namespace=namespace, name="Goldsmith", binary="./goldsmith").run(["./goldsmith", *arguments])


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].endswith(".list"):
        gc.disable()  # a tenth of a listing's time, for the little that it leaves behind
    main(*sys.argv[1:])
