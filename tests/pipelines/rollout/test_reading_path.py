"""What a newcomer reads to understand `roll.start` on a Docker fleet: few files on the stack, few modules behind them.

The stack is taken where the new container would be created, from one command over the real task, ledger and workflow
engine; only the Docker Engine and the registry are stand-ins. The rollout runs in flows of the workflow engine, so the
stack has three parts, one after the other: that of the thread that runs the command and waits for the rollout, the
traceback of the rollout's flow, and the traceback of the member's flow that it awaits. A file counts once.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import Any

import pytest
from invoke import Context
from invoke.exceptions import Exit

import tasks
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from images.artifact import Release
from pipelines.durable.port import Flow, Json, WorkflowEngine
from pipelines.fleet.docker import members, provenance
from pipelines.fleet.members import Member, Provenance, ReplacementImage
from pipelines.rollout import flow, service, session
from pipelines.rollout.flow import MEMBER, ROLLOUT

PAGE = (ROOT / "docs/architecture.md").read_text()
MOST_FILES, MOST_MODULES = 8, 25
NOW = datetime.now(UTC)
DIGEST, OLD = f"sha256:{'2' * 64}", f"sha256:{'1' * 64}"
FLEET = """
title = "The web servers"
owner = "platform team"
kind = "docker"
selector = { app = "web" }
replacement = { definition = "nginx" }
approval = "none"
limits = { budgets = [], min_remaining = "1s" }
"""


class ReachedError(Exception):
    """The container would be created here."""


class Engine:
    """A Docker Engine with one container, that creates none."""

    def __init__(self, **_: Any) -> None:
        self.hooks = dict[str, list[Any]](response=[])
        self.command: list[FrameType] = []
        self.container = {
            "Id": "id-web-1", "Name": "/web-1", "Image": OLD, "Created": "2026-03-01T12:00:00Z",
            "Config": {"Image": "r.example/nginx:1", "Labels": {"app": "web"}},
            "State": {"Status": "running", "Health": {"Status": "healthy"}},
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "always"}, "AutoRemove": False},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.0.0.1"}}}, "Mounts": [],
        }  # fmt: skip

    def info(self) -> dict[str, str]:
        return {"Name": "host"}

    def containers(self, filters: Mapping[str, Any] | None = None, **_: Any) -> list[dict[str, Any]]:
        one = self.container
        listed = {"Id": one["Id"], "Names": [one["Name"]], "Labels": {"app": "web"}, "State": "running"}
        listed |= {"Status": "Up 3 minutes (healthy)", "NetworkSettings": one["NetworkSettings"]}
        return [] if filters else [listed]

    def inspect_container(self, container: str) -> dict[str, Any]:
        return self.container

    def inspect_image(self, reference: str) -> dict[str, Any]:
        return {"Id": OLD if reference == OLD else DIGEST, "RepoDigests": [], "Config": {}}

    def create_container_from_config(self, *_: Any) -> None:
        main = sys._current_frames()[threading.main_thread().ident or 0]
        self.command.extend(frame for frame, _ in walk_stack(main))
        raise ReachedError

    def close(self) -> None:
        return None


class Registry:
    """Where images come from: all members run an expired release, and there is a newer one."""

    def __init__(self, *_: Any) -> None:
        return None

    def of(self, member: Member) -> Provenance:
        old = NOW - timedelta(days=90)
        return Provenance(Release("nginx", "r.example/nginx", OLD, "sha256:o", "", "p", "default", old, old, old))

    def target(self) -> ReplacementImage:
        ends = NOW + timedelta(days=60)
        golden = Release("nginx", "r.example/nginx", DIGEST, "sha256:c", "", "p", "default", NOW, ends, ends)
        return ReplacementImage(f"r.example/nginx@{DIGEST}", DIGEST, golden)

    def again(self, target: ReplacementImage) -> ReplacementImage:
        return target


def ours(frames: Iterable[FrameType]) -> Iterator[str]:
    """The files of the product that the frames are in, in order."""
    for frame in frames:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(ROOT):
            name = str(file.relative_to(ROOT))
            if name.startswith(("tasks.py", "pipelines/", "images/", "hardening/")):
                yield name


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files on the stack between the task and the creation of a container."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return list(dict.fromkeys(ours(frames_of_a_start(tmp_path_factory.mktemp("start"), monkeypatch))))


def frames_of_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[FrameType]:
    """The frames of `roll.start` where it creates a container, outermost first."""
    (tmp_path / "content/pipelines/fleets").mkdir(parents=True)
    (tmp_path / "content/pipelines/fleets/web.toml").write_text(FLEET)
    content = f'["{tmp_path}/content"]'
    given = {"CONTENT": content, "JUDGING__ROOTS": content, "STATE": f"{tmp_path}/state"}
    for key, value in {**given, "REGISTRY__ADDRESS": "r.example"}.items():
        monkeypatch.setenv(f"GOLDSMITH_{key}", value)
    engine, raised = Engine(), dict[str, TracebackType]()
    monkeypatch.setattr(members.docker, "APIClient", lambda **_: engine)
    monkeypatch.setattr(provenance, "ProvenanceReader", Registry)
    monkeypatch.setattr(session, "fleet_host", lambda _context: "http://nowhere")
    monkeypatch.setattr(flow, "BugError", GoldsmithError)  # else the rollout's flow takes it for the member's failure

    def kept(name: str, of: Flow) -> Flow:
        async def watched(engine: WorkflowEngine, argument: Json) -> Json:
            try:
                return await of(engine, argument)
            except Exception as error:
                if error.__traceback__:
                    raised.setdefault(name, error.__traceback__)
                raise

        return watched

    def watched_flows(world: Any) -> dict[str, Flow]:
        return {name: kept(name, of) for name, of in flow.flows(world).items()}

    monkeypatch.setattr(service, "flows", watched_flows)
    with pytest.raises(Exit, match="broke off: ReachedError"):
        tasks.roll_start(Context(), "web", [], apply=True)
    frames = [*reversed(engine.command)]
    for name in (ROLLOUT, MEMBER):
        frames += [frame for frame, _ in walk_tb(raised[name])]
    return frames


def listed(heading: str) -> list[str]:
    """The files that the page lists below a heading."""
    section = PAGE.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    items = re.findall(r"^(?:- |\d\. |  ).+", section, re.MULTILINE)
    return [file for item in items for file in re.findall(r"`([\w/]+\.py)`", item)]


def test_the_stack_is_short_and_stands_in_the_page(stack: list[str]) -> None:
    """From the task to the request that creates the container."""
    assert (stack[0], stack[-1]) == ("tasks.py", "pipelines/fleet/docker/members.py")
    assert len(stack) <= MOST_FILES
    assert listed("The stack of `roll.start`") == stack


def test_few_modules_are_to_be_read(stack: list[str]) -> None:
    """The stack, and all of pipelines/ that the rollout's flow and the Docker fleet import, directly or not."""
    script = (
        "import sys, pipelines.rollout.flow, pipelines.fleet.docker.members\n"
        "found = [one for name, one in sys.modules.items() if name.startswith('pipelines.')]\n"
        "print(*(one.__file__ for one in found if not hasattr(one, '__path__')))"
    )
    imported = run([sys.executable, "-c", script], cwd=ROOT).stdout.split()
    modules = {*stack, *(str(Path(file).relative_to(ROOT)) for file in imported)}
    assert len(modules) <= MOST_MODULES
    assert sorted(listed("The modules behind it")) == sorted(modules - {*stack})
