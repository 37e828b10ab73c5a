"""The command line as people and programs use it: `./goldsmith …` as a process, on a state directory of the tests' own.

One state is built once a session; a test that changes anything works on a fork of it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hardening.catalog import load_policy
from hardening.foundation import console
from hardening.foundation.process import HEARS
from hardening.foundation.settings import ROOT, Settings
from images.build.workspace import WORK_LABEL
from images.context import Context
from images.ledger import Ledger
from images.scan.judge import scan_again
from images.store.oci import DISKS, TREES, Store
from pipelines.wiring import REHEARSAL
from tests.support.forked import run_forked
from tests.support.scanning import NO_FEEDS

HEAD = 'title = "Of a test"\nowner = "tests"\nkind = "container"\nprofile = "container-base"\n'
# For every program that is started, the clock is a day on; the times of files are what they are.
TOMORROW = ("env", "NO_FAKE_STAT=1", "FAKE_UTIME=0", "faketime", "-f", "+1d")
DONE = "built"  # stands in a state that a fixture has built whole
_SILENT = HEAD + 'user = "65532:65532"\nsmoke = ["true"]\n[base]\ngolden = "debian-base"\n'
NONE_BECAUSE = 'healthcheck = { none_because = "a test runs nothing by itself" }\n'
CHILD = _SILENT.replace("[base]", f"{NONE_BECAUSE}[base]")


@dataclass(frozen=True)
class Answer:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON value; anything else on it is a failure."""
        return json.loads(self.out)

    def by_name(self) -> dict[str, Any]:
        """The lines of the answer by the name in them."""
        return {line["name"]: line for line in self.json}


@dataclass(frozen=True)
class Goldsmith:
    """Goldsmith on the state directory `state`, with content roots and settings of a test."""

    state: Path
    docker_host: str
    content: tuple[Path, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command: nothing of the caller's own settings."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GOLDSMITH_", "DOCKER_"))}
        return {
            **kept,
            "GOLDSMITH_STATE": str(self.state),
            "GOLDSMITH_DOCKER__HOST": self.docker_host,
            "GOLDSMITH_CONTENT": json.dumps([str(root) for root in self.content]),
            "GOLDSMITH_JUDGING__ROOTS": json.dumps([str(root) for root in self.content]),
            # what a test's own registry may hold
            "GOLDSMITH_JUDGING__POLICIES": '["default", "machine", "demo"]',
            "GOLDSMITH_JUDGING__FLOOR": "",
            "GOLDSMITH_RETRY_FOR": "1s",
            "GOLDSMITH_FEEDS": json.dumps(NO_FEEDS),  # the default ones are public addresses
            "GOLDSMITH_KINDS": '["container"]',  # machines are built once, for the tests that ask for one
            **self.settings,
        }

    def __call__(self, *arguments: str, prefix: tuple[str, ...] = (), mounts: str = "", then: str = "") -> Answer:
        """Run `./goldsmith` with `arguments` to its end, without its `setup`; after `prefix`, which starts a Python.

        `mounts` is a script that mounts what is there for this command alone, `then` one that runs there after it.
        """
        if not prefix:
            return Answer(*run_forked(arguments, ROOT, self.environment, mounts, then))
        done = subprocess.run(
            [*prefix, *inv(), *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def here(self, *arguments: str) -> Answer:
        """As a call, but within this process: for what ends before any engine or child is begun."""
        import tasks

        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment, clear=True), patch.object(sys, "dont_write_bytecode", True),
            redirect_stdout(stdout), redirect_stderr(stderr), chdir(ROOT), _fresh_consoles(), _own_umask(),
        ):  # fmt: skip
            try:
                tasks.main(*arguments)
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
        return Answer(code, stdout.getvalue(), stderr.getvalue())

    def start(
        self, *arguments: str, output: int = subprocess.DEVNULL, checkout: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `./goldsmith` with `arguments`, and do not wait; `output` may be a pipe. Of another checkout, its
        launcher is started.
        """
        program = [str(checkout / "goldsmith")] if checkout else inv()
        return subprocess.Popen(
            [*HEARS, *program, *arguments], cwd=checkout or ROOT, env=self.environment, stdout=output, stderr=output
        )

    def with_(self, *content: Path, **settings: str) -> Goldsmith:
        """The same state, seen with more content roots and settings (`GOLDSMITH_` is put before their names)."""
        more = {f"GOLDSMITH_{key.upper()}": value for key, value in settings.items()}
        if "now" in settings:  # what acts under a moved clock asks for a state directory that is made for rehearsing
            self.state.mkdir(parents=True, exist_ok=True)
            (self.state / REHEARSAL).touch()
        return replace(self, content=(*self.content, *content), settings={**self.settings, **more})

    def fork(self, folder: Path) -> Goldsmith:
        """A state that begins as this one and goes its own way; packages and their index are shared."""
        folder.mkdir(parents=True)
        (folder / "apt").symlink_to(self.state / "apt")
        shutil.copytree(self.state / "store", folder / "store", copy_function=os.link)
        for sort in (DISKS, TREES):
            if (self.state / sort).is_dir():
                hard_linked(self.state / sort, folder / sort)
        if (self.state / "keys").is_dir():
            shutil.copytree(self.state / "keys", folder / "keys")
        shutil.copy(self.state / "ledger.sqlite", folder)
        return replace(self, state=folder)

    @property
    def ledger(self) -> Ledger:
        """The ledger, to look into."""
        return Ledger.open(f"sqlite:///{self.state / 'ledger.sqlite'}")

    @property
    def store(self) -> Store:
        """The store, to look into."""
        return Store(self.state / "store")

    def blobs(self) -> set[str]:
        """What the store holds."""
        return {path.name for path in (self.state / "store/blobs/sha256").glob("*")}

    def leftovers(self) -> list[str]:
        """What no build may leave: temporary trees, mounts, half blobs, processes."""
        places = [*(self.state / "work").glob("*"), *(self.state / "store/partial").glob("*")]
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.state) in line]
        return [*map(str, places), *mounts, *processes(str(self.state))]


def hard_linked(tree: Path, to: Path) -> None:
    """Copy a tree by links; it may hold devices and owners, which only cp keeps."""
    subprocess.run(["cp", "-al", str(tree), str(to)], check=True)


@contextmanager
def _fresh_consoles() -> Iterator[None]:
    """Consoles that look at where they print now, and none of them for whoever prints next."""
    for made in (console.out, console.err):
        made.cache_clear()
    try:
        yield
    finally:
        for made in (console.out, console.err):
            made.cache_clear()


@contextmanager
def _own_umask() -> Iterator[None]:
    """A command makes what it writes private; this process goes on with what it had."""
    before = os.umask(0o022)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


def inv() -> list[str]:
    """The command line of this very Python."""
    return [sys.executable, str(ROOT / "tasks.py")]


def definition(root: Path, name: str, text: str = CHILD, steps: str = "", **files: str) -> Path:
    """Write a definition into the content root `root`: its text, the steps of its Dockerfile, more files."""
    folder = root / "images/definitions" / name
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(text)
    if steps:
        template = '{% extends "Dockerfile.j2" %}\n{% block steps %}\n' + steps + "\n{% endblock %}\n"
        (folder / "Dockerfile.j2").write_text(template)
    for file, content in files.items():
        (folder / file).write_text(content)
    return root


def processes(*words: str) -> list[str]:
    """The command lines of living processes that hold all of `words`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it ended in this moment
            continue
        if all(word in line for word in words):
            found.append(line)
    return found


def until(condition: Callable[[], object], what: str, seconds: float = 600) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.02)


def kill_when(
    running: subprocess.Popen[bytes], condition: Callable[[], object], what: str, seconds: float = 600
) -> None:
    """kill -9 as soon as `condition` holds; what was running by then must not have ended by itself."""
    try:
        until(lambda: condition() or running.poll() is not None, what, seconds)
        assert running.poll() is None, f"it ended before: {what}"
    finally:
        running.send_signal(signal.SIGKILL)  # where it has ended already this does nothing
        running.wait()


def on_engine(docker_host: str, names: Iterable[str]) -> list[str]:
    """What the workspaces `names` have on the engine: trial containers and images."""
    from images.engine import engine, images_named

    api = engine(docker_host).api
    wanted = set(names)
    containers = api.containers(all=True, filters={"label": WORK_LABEL})
    mine = [c["Id"] for c in containers if c["Labels"][WORK_LABEL] in wanted]
    images = images_named(docker_host, "goldsmith.invalid/trial/*")
    tags = [tag for image in images for tag in image["RepoTags"] or []]
    return [*mine, *(tag for tag in tags if tag.split("/")[2].partition(":")[0] in wanted)]


def _scan(built: Goldsmith, *names: str) -> None:
    """Scan images that tests publish, as none was judged yet: what stands of a scan, no fork makes again."""
    context = Context(Settings(state=built.state, feeds=NO_FEEDS), datetime.now(UTC), lambda: built.docker_host, str)
    for name in names:
        artifact = built.ledger.latest_artifact(name, "linux/amd64")
        assert artifact
        scan_again(context, artifact, load_policy((ROOT,), "demo"))


def build_all(state: Path, docker_host: str) -> Goldsmith:
    """The shipped catalog, built by `./goldsmith image.build all` into `state`, unless it is there."""
    built = Goldsmith(state, docker_host)
    if (state / DONE).exists():
        return built
    answer = built("image.build", "all", "--json")
    assert answer.code == 0, answer.err
    assert {line["action"] for line in answer.json} == {"built"}
    _scan(built, "debian-base", "nginx-unprivileged")
    (state / DONE).touch()
    return built
