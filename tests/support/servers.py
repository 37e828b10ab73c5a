"""Machine images for tests: debian-server, built once through the command line, and builds without a boot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from hardening.foundation.settings import ROOT, Judging, Settings
from images.build import BuildJob, Built, build
from images.build.flow import job_for
from images.build.workspace import workspace
from images.context import Context
from images.machine.trees import private_mounts
from images.plan.planner import Planner
from images.store.oci import Store
from tests.support.loop import DONE, Answer, Goldsmith
from tests.support.scanning import NO_FEEDS
from tests.support.trees import NO_ENGINE, Layers

READY = "GOLDSMITH_TEST_SERVER"
"""Names a state directory in which debian-server is built already, for quick trials; tests fork it by hard links, so
PYTEST_DEBUG_TEMPROOT must be on its file system."""
OLD = "of somebody else"
SAMPLE = "accept_sample = true\n"


def build_server(state: Path, layers: Layers) -> Goldsmith:
    """debian-server, built by `./goldsmith image.build` into `state`, unless it is there: booted, scanned and judged.

    The policy is that of machines, but for the sample of advisories, which counts: tests have no feed.
    """
    if ready := os.environ.get(READY):
        return Goldsmith(Path(ready), NO_ENGINE)
    built = Goldsmith(state, NO_ENGINE)
    if (state / DONE).exists():
        return built
    layers.link_to(state, layers.machine)
    policies = state / "content/hardening/policies"
    policies.mkdir(parents=True, exist_ok=True)
    text = (ROOT / "hardening/policies/machine.toml").read_text()
    (policies / "machine-sample.toml").write_text(text.replace("[image.judges]\n", f"[image.judges]\n{SAMPLE}", 1))
    judging = built.with_(state / "content")
    answer = judging("image.build", "debian-server", "--policy", "machine-sample", "--json")
    assert answer.code == 0, answer.err
    assert [line["action"] for line in answer.json] == ["built"]
    (state / DONE).write_text(json.dumps(built.leftovers()))
    return built


def left_by_build(server: Goldsmith) -> list[str]:
    """What the build of debian-server left; asked right after it, for tests that boot the disk come next."""
    left: list[str] = json.loads((server.state / DONE).read_text())
    return left


@dataclass(frozen=True)
class Exported:
    """A disk that `image.export` has written, and all that was said: refused first, since a file was there, which was
    `untouched` then; and told to take its place.
    """

    file: Path
    untouched: bool
    refused: Answer
    forced: Answer


def export_qcow2(server: Goldsmith, folder: Path) -> Exported:
    """debian-server's disk as qcow2, compressed once for all that look at it."""
    file, said = folder / "disk/server.qcow2", folder / "said.json"
    if not said.exists():
        file.parent.mkdir(parents=True)
        file.write_text(OLD)
        words = ("image.export", "debian-server", "--form", "qcow2", "--output", str(file), "--json")
        refused = server(*words)
        untouched = file.read_bytes() == OLD.encode()
        said.write_text(json.dumps([untouched, asdict(refused), asdict(server(*words, "--force"))]))
    untouched, *answers = json.loads(said.read_text())
    return Exported(file, untouched, *(Answer(**answer) for answer in answers))


@dataclass(frozen=True)
class Workshop:
    """Builds machines into a state as the flow does, but boots nothing."""

    house: Goldsmith
    content: tuple[Path, ...] = ()
    feeds: Mapping[str, str] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        """The context of these builds; it knows no engine and no registry."""
        settings = Settings(
            state=self.house.state, content=self.content, judging=Judging(roots=self.content),
            feeds={**NO_FEEDS, **self.feeds},
        )  # fmt: skip
        return Context(settings, datetime.now(UTC), lambda: NO_ENGINE, lambda: "")

    @contextmanager
    def job(self, name: str) -> Iterator[BuildJob]:
        """The job that builds `name`, its parents being built, in a workspace and mounts of its own."""
        context = self.context
        planner = Planner(context)
        plan = planner.plan_all([name])[-1]
        with workspace(context.settings) as work, private_mounts():
            yield job_for(context, planner, plan, work=work, store=Store(work / "store", below=context.store))

    def build(self, name: str) -> Built:
        """Build `name` and keep it; its tree is gone when this returns."""
        with self.job(name) as job:
            built = build(job)
            self.context.store.adopt(job.store, built.digest)
        return built


def fingerprint(folder: Path) -> str:
    """A digest over all names, owners, modes, times and contents in a tree: the same only where nothing changed."""
    seen = sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        line = (path.relative_to(folder), status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
        seen.update(repr(line).encode("utf-8", "surrogateescape"))
        if path.is_symlink():
            seen.update(os.fsencode(path.readlink()))
        elif path.is_file():
            seen.update(path.read_bytes())
    return seen.hexdigest()
