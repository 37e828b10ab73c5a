"""The shape of the house: which room may know which, what may touch the world, and what needs no Python."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

ROOMS = ("hardening", "images", "pipelines", "tasks")
FOUNDATION = "hardening.foundation"

# Modules that decide. They take values and return values: no I/O, no clock, no environment.
PURE = {
    "hardening.disagreement",
    "hardening.evaluation",
    "hardening.findings",
    "hardening.foundation.addresses",
    "hardening.foundation.durations",
    "hardening.foundation.engine_address",
    "hardening.foundation.errors",
    "hardening.foundation.grouping",
    "hardening.foundation.hashing",
    "hardening.foundation.limits",
    "hardening.foundation.ranges",
    "hardening.foundation.templating",
    "hardening.foundation.text",
    "hardening.foundation.wording",
    "hardening.gate",
    "hardening.model",
    "hardening.policy",
    "hardening.render",
    "hardening.running",
    "hardening.runtime",
    "hardening.waivers",
    "images.advisories",
    "images.artifact",
    "images.aws.call_arguments",
    "images.aws.model",
    "images.aws.permissions",
    "images.aws.reaping",
    "images.aws.signed_statement",
    "images.aws.tags",
    "images.boot.guest",
    "images.boot.observations",
    "images.boot.qemu",
    "images.build.config",
    "images.documents",
    "images.feeds.facts",
    "images.machine.blocks",
    "images.machine.initrd",
    "images.machine.layout",
    "images.model",
    "images.packages.debian",
    "images.plan.build_plan",
    "images.plan.cooldown",
    "images.plan.freshness",
    "images.registry.answers",
    "images.release.lifecycle",
    "images.release.retention",
    "images.scan.debsecan",
    "images.scan.detect_secrets",
    "images.scan.formats",
    "images.scan.grype",
    "images.scan.hadolint",
    "images.scan.lynis",
    "images.scan.matcher",
    "images.scan.openscap",
    "images.scan.osv_scanner",
    "images.scan.syft",
    "images.scan.systemd_analyze",
    "images.scan.trivy",
    "images.store.merge",
    "images.trust.changes",
    "images.trust.evidence",
    "images.trust.results",
    "images.trust.slsa",
    "images.trust.statement",
    "images.trust.vex",
    "pipelines.blast_radius.account",
    "pipelines.blast_radius.escalation",
    "pipelines.blast_radius.graph",
    "pipelines.blast_radius.member_steps",
    "pipelines.blast_radius.iam_policy",
    "pipelines.blast_radius.radius",
    "pipelines.blast_radius.descriptions",
    "pipelines.cli.blast_radius_output",
    "pipelines.cli.charts",
    "pipelines.cli.deadlines_output",
    "pipelines.cli.digest_points",
    "pipelines.cli.digest_text",
    "pipelines.cli.member_rows",
    "pipelines.cli.open_points",
    "pipelines.cli.preview_output",
    "pipelines.cli.report_actions",
    "pipelines.cli.report_exports",
    "pipelines.cli.report_history",
    "pipelines.cli.report_output",
    "pipelines.cli.rollout_output",
    "pipelines.contract",
    "pipelines.durable.port",
    "pipelines.fleet.applications",
    "pipelines.fleet.calendar",
    "pipelines.fleet.delegated",
    "pipelines.fleet.delegated_drafts",
    "pipelines.fleet.docker.container_facts",
    "pipelines.fleet.docker.container_spec",
    "pipelines.fleet.docker.drafts",
    "pipelines.fleet.docker.written",
    "pipelines.fleet.drafting",
    "pipelines.fleet.ec2.drafts",
    "pipelines.fleet.ec2.instance_facts",
    "pipelines.fleet.ec2.instance_spec",
    "pipelines.fleet.ec2.pacing",
    "pipelines.fleet.ecs.services",
    "pipelines.fleet.ecs.task_facts",
    "pipelines.fleet.eks.node_groups",
    "pipelines.fleet.kubernetes.gitops",
    "pipelines.fleet.kubernetes.pod_facts",
    "pipelines.fleet.kubernetes.workloads",
    "pipelines.fleet.members",
    "pipelines.fleet.model",
    "pipelines.fleet.orphans",
    "pipelines.fleet.port",
    "pipelines.fleet.rollout_targets",
    "pipelines.fleet.runtime_snapshots",
    "pipelines.fleet.violations",
    "pipelines.network.comparing",
    "pipelines.network.definitions",
    "pipelines.network.docker_networks",
    "pipelines.network.kubernetes",
    "pipelines.network.model",
    "pipelines.network.nftables",
    "pipelines.network.openings",
    "pipelines.network.renaming",
    "pipelines.network.security_groups",
    "pipelines.nightly.duties",
    "pipelines.nightly.flow",
    "pipelines.nightly.model",
    "pipelines.nightly.port",
    "pipelines.nightly.summary",
    "pipelines.patch_times",
    "pipelines.role_policies",
    "pipelines.rollout.admission",
    "pipelines.rollout.approved_plan",
    "pipelines.rollout.baking",
    "pipelines.rollout.cost",
    "pipelines.rollout.flow",
    "pipelines.rollout.group",
    "pipelines.rollout.member",
    "pipelines.rollout.plan",
    "pipelines.rollout.plan_model",
    "pipelines.rollout.schedule",
    "pipelines.rollout.state",
    "pipelines.rollout.steps",
    "pipelines.rollout.waves",
}
WORLD = {
    *("os", "subprocess", "socket", "shutil", "tempfile", "time", "urllib", "http", "random", "secrets", "threading"),
    *("requests", "docker", "boto3", "botocore", "sqlalchemy", "invoke", "filelock", "tenacity", "dbos", "psycopg"),
    *("hardening.foundation.process", "hardening.foundation.console", "hardening.foundation.settings"),
    *("hardening.foundation.locks", "hardening.foundation.retrying"),
}
HARMLESS = {"urllib.parse", "http.HTTPStatus"}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
FILE_CALLS = {"read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink", "iterdir", "glob", "stat"}
HEAVY = {"boto3", "dbos", "docker", "psycopg", "sqlalchemy", "jinja2", "requests", "pydantic", "moto"}
FLEET = """
title = "Of a test"
owner = "tests"
kind = "docker"
selector = { goldsmith-test = "absent" }
replacement = { tag = "registry.invalid/none:1" }
"""
AWS = {"boto3", "botocore", "images.aws", "pipelines.fleet.ec2", "pipelines.fleet.kubernetes"}
OF_ROLLOUTS = {"dbos", "docker", "requests"}
TELLS = """
import json, sys, tasks
for arguments in json.loads(sys.argv[1]):
    try:
        tasks.main(*arguments)
    except SystemExit as end:
        assert end.code in range(5)
    print("loaded", *sys.modules, file=sys.stderr)
"""
WITHOUT: tuple[dict[str, set[str]], ...] = (
    {
        "control.list": {"images", "sqlalchemy", "jinja2", *OF_ROLLOUTS, *AWS},
        "fleet.list": {"sqlalchemy", "jinja2", *OF_ROLLOUTS, *AWS},
        "latency": {*AWS, "docker", "dbos", "jinja2", "prometheus_client", "images.scan", "images.build"},
        "roll.status shop": {*AWS, "docker", "dbos"},
        "network.render docker": {*AWS, *OF_ROLLOUTS, "jinja2", "yaml"},
        "image.plan debian-base": {"dbos", "docker", *AWS},
        "fleet.blast-radius": {*OF_ROLLOUTS, *AWS} - {"images.aws"},  # what it would ask for is declared
        "roll.reap": AWS - {"images.aws"},  # whose tags are read on containers too
        "iam.policy roller": {"boto3", "dbos", "cloudsplaining", "policy_sentry"},
        "nightly --dry-run": {"dbos"},
    },
    {
        "image.list --json": {"rich", "jinja2", "images.scan", "images.build", *OF_ROLLOUTS, *AWS},
        "digest --dry-run": {*AWS, "docker", "dbos", "jinja2", "prometheus_client", "images.scan", "images.build"},
        "adopt web-1": {"yaml", "dbos", *AWS},
        "fleet.check shop": AWS,
        "roll.plan shop": AWS,
        "roll.start shop": AWS,
    },
)
"""What no command may load, by the process that runs them one after the other: what the first has loaded counts for the
next one too, so those that may load more come later. Each in a process of its own would load the same ten times.
"""


def sources(*rooms: str) -> Iterator[tuple[str, Path]]:
    """The file of every module of the rooms, by dotted name."""
    for room in rooms:
        files = [ROOT / f"{room}.py"] if room == "tasks" else sorted((ROOT / room).rglob("*.py"))
        yield from ((dotted(file), file) for file in files)


def modules(*rooms: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What every module of the rooms imports, by dotted name."""
    return ((name, imported_by(file)) for name, file in sources(*rooms))


@cache
def imported_by(file: Path) -> tuple[str, ...]:
    """What a file imports. Read once for all tests: to parse each module for each of them takes a second a time."""
    return tuple(imports(parsed(file)))


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), filename=str(file))


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports, late imports included; `from a import b` gives `a.b`, which may be a module or a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_imports_run_one_way() -> None:
    """tasks → pipelines → images → hardening, and never back."""
    for name, imported in modules(*ROOMS):
        above = set(ROOMS[ROOMS.index(name.partition(".")[0]) + 1 :])
        wrong = [one for one in imported if within(one, above)]
        assert not wrong, f"{name} imports {wrong}, which stands above it"


def test_rollouts_run_one_way() -> None:
    """Within pipelines: cli → rollout → network → fleet; and durable stands on nothing of ours."""
    floors = [f"pipelines.{room}" for room in ("fleet", "network", "rollout", "cli")]
    for floor in floors:
        assert any(within(name, {floor}) for name, _ in modules("pipelines")), f"{floor} is not there"
    for name, imported in modules("pipelines"):
        for number, floor in enumerate(floors):
            if within(name, {floor}):
                wrong = [one for one in imported if within(one, set(floors[number + 1 :]))]
                assert not wrong, f"{name} imports {wrong}, which stands above it"
        if within(name, {"pipelines.durable"}):
            wrong = [i for i in imported if within(i, {"pipelines"}) and not within(i, {"pipelines.durable"})]
            assert not wrong, f"{name} imports {wrong}: flows are its guests"


def test_the_foundation_stands_on_nothing_of_ours() -> None:
    """What all rooms stand on imports no room."""
    for name, imported in modules("hardening"):
        if within(name, {FOUNDATION}):
            wrong = [i for i in imported if within(i, {"hardening"}) and not within(i, {FOUNDATION})]
            assert not wrong, f"{name} imports {wrong}"


def test_no_modules_import_each_other() -> None:
    """Not even for types alone, however long the way round: what two of them share stands in a third."""
    known = dict(modules(*ROOMS))
    owners = {name: {owner(one, known) for one in imported} - {"", name} for name, imported in known.items()}
    TopologicalSorter(owners).prepare()  # a CycleError shows the circle


def owner(imported: str, known: Collection[str]) -> str:
    """The module of ours that an imported name stands in; empty where it is none of ours."""
    while imported and imported not in known:
        imported = imported.rpartition(".")[0]
    return imported


def test_every_pure_module_exists() -> None:
    """The list of pure modules names modules that are there."""
    known = {name for name, _ in sources(*ROOMS)}
    assert known >= PURE, f"not there: {sorted(PURE - known)}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_touches_no_world(module: str) -> None:
    """A module that decides imports no I/O, opens no file and reads no clock."""
    tree = parsed(ROOT / f"{module.replace('.', '/')}.py")
    wrong = [name for name in imports(tree) if within(name, WORLD) and not within(name, HARMLESS)]
    assert not wrong, f"{module} imports {wrong}"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in {"open", "print"}]
    methods = [call.func for call in calls if isinstance(call.func, ast.Attribute)]
    clocks = [ast.unparse(method) for method in methods if tuple(ast.unparse(method).split(".")[-2:]) in CLOCKS]
    assert not clocks, f"{module} reads the clock: {clocks}; take the time as an argument"
    touched = [ast.unparse(method) for method in methods if method.attr in FILE_CALLS]
    assert not touched, f"{module} touches files: {touched}"


def test_one_module_starts_processes() -> None:
    """Subprocesses start in hardening/foundation/process.py and nowhere else."""
    starters = {name for name, imported in modules(*ROOMS) if any(within(i, {"subprocess"}) for i in imported)}
    assert starters == {"hardening.foundation.process"}


def test_one_module_knows_the_library_behind_durable_flows() -> None:
    """dbos is imported in pipelines/durable/dbos and nowhere else: flows see the port."""
    knowing = {name for name, imported in modules(*ROOMS) if any(within(i, {"dbos"}) for i in imported)}
    assert all(within(name, {"pipelines.durable.dbos"}) for name in knowing)


def test_one_module_makes_clients_of_aws() -> None:
    """boto3 and botocore are imported in images/aws/client.py and nowhere else."""
    makers = {name for name, imported in modules(*ROOMS) if any(within(i, {"boto3", "botocore"}) for i in imported)}
    assert makers == {"images.aws.client"}


def test_only_the_console_prints() -> None:
    """What people see is written in one module, through its careful consoles, whose switches stay as they are."""
    for name, file in sources(*ROOMS):
        calls = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.Call)]
        printed = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not printed, f"{name} prints"
        assert "Console" not in {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls}, name
        switched = [ast.unparse(k.value) for call in calls for k in call.keywords if k.arg in {"markup", "emoji"}]
        assert set(switched) <= {"False"}, name


def test_content_needs_no_python() -> None:
    """Controls, definitions and fleets are TOML, templates and shell."""
    for folder in (
        "hardening/controls",
        "hardening/profiles",
        "hardening/policies",
        "images/definitions",
        "pipelines/fleets",
    ):
        assert not list((ROOT / folder).rglob("*.py")), folder


def test_no_mirror_is_named() -> None:
    """No package mirror's host stands in what we ship: it comes from the host's apt or the settings."""
    mirror = re.compile(
        r"(deb|security|ftp\.\w+)\.debian" + r"\.org|archive\.ubuntu" + r"\.com|pypi\.python" + r"\.org"
    )
    for file in run(["git", "ls-files"], cwd=ROOT).stdout.splitlines():
        text = (ROOT / file).read_text(errors="replace") if (ROOT / file).is_file() else ""
        assert not mirror.search(text), f"{file} names {mirror.search(text)}"


def test_listing_the_tasks_is_light() -> None:
    """`inv --list` imports none of the big libraries: it must answer in half a second."""
    argv = [sys.executable, "-X", "importtime", "-m", "invoke", "--list"]
    done = run(argv, cwd=ROOT)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "invoke" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("without", WITHOUT, ids=lambda commands: next(iter(commands)))
def test_a_command_loads_what_it_needs(without: dict[str, set[str]], tmp_path: Path) -> None:
    """In a new process: what was imported when it ended, or went as far as it can without mirror and engine."""
    fleets = tmp_path / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    (fleets / "shop.toml").write_text(FLEET)
    content = f'["{tmp_path / "content"}"]'
    env = {
        "GOLDSMITH_STATE": str(tmp_path / "state"), "GOLDSMITH_CONTENT": content, "GOLDSMITH_JUDGING__ROOTS": content,
        "GOLDSMITH_DOCKER__HOST": "unix:///nowhere", "GOLDSMITH_RETRY_FOR": "1s",
        "GOLDSMITH_PACKAGES__MIRROR": "http://127.0.0.1:9", "GOLDSMITH_PACKAGES__SECURITY_MIRROR": "http://127.0.0.1:9",
        "GOLDSMITH_REGISTRY__ADDRESS": "127.0.0.1:9/golden",
    }  # fmt: skip
    done = run([sys.executable, "-c", TELLS, json.dumps([*map(str.split, without)])], cwd=ROOT, env=env)
    told = [set(line.split()) for line in done.stderr.splitlines() if line.startswith("loaded ")]
    for (command, needless), imported in zip(without.items(), told, strict=True):
        assert "pipelines.cli" in imported, done.stderr
        found = sorted(name for name in imported if within(name, needless))
        assert not found, f"{command}, or one before it in its process, loads {found}"


def test_modules_stay_small() -> None:
    """A module has one subject; five hundred lines are enough for it."""
    for room in ROOMS[:-1]:
        for file in (ROOT / room).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 500, file
