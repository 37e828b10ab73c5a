"""A night that two workers share, over a real PostgreSQL: one is killed in a build, and all is published once.

Real builds, scans and a real registry; what kills workers elsewhere is in test_night_workers_killed.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

import pytest

from images import scan
from images.ledger import Ledger
from pipelines.durable.dbos import Worker, engine_url
from pipelines.durable.dbos.shared_status import shared_status
from pipelines.host.capabilities import offer
from pipelines.nightly.night_run import KIND
from pipelines.shared_work import shared_flows
from tests.conftest import POSTGRES
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.postgres import Server
from tests.support.publishing import running_registry, stored
from tests.support.towns import MATCHER, NEEDS, Town, told

pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS, POSTGRES)]

IMAGES = ("with-egg", "with-ham")


def shared_by(town: Town) -> str:
    """Where the engine keeps what this town's processes share."""
    return engine_url(town.catalog.settings.database_url, KIND)


def work(town: Town, parallel: int) -> None:
    """What `./goldsmith worker` does, until it is killed or told to stop."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours = offer(town.catalog.settings, ("docker", "arch:amd64", f"host:{platform.node()}"), parallel)
    flows = shared_flows(lambda: town.context)
    with patch.dict(scan.SCANNERS, MATCHER, clear=True), Worker.launched(shared_by(town), flows, kind=KIND, offer=ours):
        threading.Event().wait()


def one_night(town: Town) -> None:
    """A night of a machine without an engine, which leaves all images to workers; what it said is written down."""
    night, failures = town.night()
    (town.folder / "night.json").write_text(json.dumps([night.exit_code, night.published, told(failures)]))


def builds(url: str, worker: BaseProcess) -> Callable[[], bool]:
    """Whether a worker is in the build of an image."""

    def asked() -> bool:
        seen = shared_status(url)
        return any(
            one.step.startswith("build ")
            for row in seen.workers if row.pid == worker.pid
            for one in seen.taken[row.name]
        )  # fmt: skip

    return asked


def test_a_worker_that_is_killed_in_a_build_leaves_it_to_the_others(running_postgres: Server, tmp_path: Path) -> None:
    """The night ends well, each image is published once, and the log of the moved build names both workers."""
    database = running_postgres.new_database()
    with running_registry(tmp_path / "registry") as address:
        nowhere = {"host": "unix:///nowhere.sock"}
        town = Town.founded(tmp_path, address, "egg", "ham", database=database, docker=nowhere)
        url = shared_by(town)
        night = start_forked(one_night, town, stderr=tmp_path / "said")
        first = start_forked(work, town, 2, stderr=tmp_path / "said")
        until(builds(url, first), "the worker in a build")
        first.kill()
        second = start_forked(work, town, 1, stderr=tmp_path / "said")
        assert ended(night) == 0, (tmp_path / "said").read_text()
        os.kill(second.pid or 0, signal.SIGINT)
        ended(second)
        assert json.loads((tmp_path / "night.json").read_text()) == [0, list(IMAGES), ""]
        assert {name: stored(tmp_path / "registry", name)["tags"] for name in IMAGES}
    with closing(Ledger.open(database)) as ledger:
        assert [len(ledger.releases(name)) for name in IMAGES] == [1, 1]
        assert [len(ledger.artifacts(name)) for name in IMAGES] == [1, 1]
    seen = shared_status(url)
    assert (seen.workers, seen.waiting, seen.quarantined) == ((), {}, ())
    logs = [file.read_text() for file in (town.catalog.settings.state_dir / "logs").glob("*image_with-*.log")]
    taken = [text.count("taken by") for text in logs]
    assert len(taken) == len(IMAGES)
    assert set(taken) <= {1, 2}, "the worker may have had both"
    assert 2 in taken
