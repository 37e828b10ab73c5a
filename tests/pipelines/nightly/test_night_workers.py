"""A night that workers share, over a real PostgreSQL: one is killed in a build, and all is published once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from hardening.foundation.settings import Settings
from images.ledger import Ledger
from pipelines.durable.dbos import engine_url
from pipelines.durable.dbos.shared_status import shared_status
from pipelines.host import embedded_registry
from tests.conftest import POSTGRES
from tests.support.loop import CHILD, Goldsmith, definition, until
from tests.support.postgres import Server

pytestmark = [pytest.mark.slow, pytest.mark.needs("root", "docker", "mirror", "docker-registry", POSTGRES)]


def builds(url: str, pid: int) -> Callable[[], bool]:
    """Whether a worker's process is in the build of a child."""

    def asked() -> bool:
        seen = shared_status(url)
        return any(
            work.step.startswith("build w-") for row in seen.workers if row.pid == pid for work in seen.taken[row.name]
        )

    return asked


def test_a_worker_that_is_killed_in_a_build_leaves_it_to_the_others(
    house: Goldsmith, running_postgres: Server, tmp_path: Path
) -> None:
    """The night ends well, each image is published once, and the log of the moved build names both workers."""
    database = running_postgres.new_database()
    for name in ("w-a", "w-b"):
        definition(tmp_path / "content", name, CHILD)
    inv = house.fork(tmp_path / "state").with_(tmp_path / "content", database=database)
    url = engine_url(database)
    try:
        with (tmp_path / "worker").open("wb") as said, (tmp_path / "night").open("wb") as told:
            worker = inv.with_(parallel="2").start("worker", output=said.fileno())
            until(lambda: worker.poll() is not None or b"at a time" in (tmp_path / "worker").read_bytes(), "the worker")
            command = ("nightly", "--policy", "demo", "--only", "w-*", "--json")
            night = inv.with_(parallel="1").start(*command, output=told.fileno())
            try:
                until(builds(url, worker.pid), "the worker in a build")
            finally:
                worker.kill()
            assert night.wait(900) == 0, (tmp_path / "night").read_text()
        with closing(Ledger.open(database)) as ledger:
            for name in ("debian-base", "w-a", "w-b"):
                assert len(ledger.releases(name)) == 1
        answer = inv("worker.status", "--json")
        assert (answer.json["workers"], answer.json["queues"], answer.json["quarantined"]) == ([], [], [])
        logs = [file.read_text() for file in (tmp_path / "state/logs").glob("*image_w-*.log")]
        taken = {text.count("taken by") for text in logs}
        assert taken <= {1, 2}, "the worker may have had both"
        assert 2 in taken
    finally:
        with suppress(ProcessLookupError):
            worker.kill()
        embedded_registry.stop(Settings(state=inv.state))
