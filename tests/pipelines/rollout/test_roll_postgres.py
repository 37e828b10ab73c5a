"""A real rollout on a real PostgreSQL: the server restarts, the owner dies, another process carries it to its end."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess

import pytest
from sqlalchemy import NullPool, create_engine, update

from hardening.foundation.errors import RefusedError
from hardening.foundation.settings import Settings
from images.context import Context
from images.ledger.tables import leases
from pipelines.rollout import lease
from pipelines.rollout.rollout_store import newest, tell
from pipelines.rollout.service import start
from pipelines.rollout.state import Command
from tests.conftest import POSTGRES
from tests.pipelines.rollout.test_roll_flow import FLEET, Place, place, rolls, stage, write_fleet
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.postgres import Server

__all__ = ["place"]

pytestmark = [pytest.mark.needs("docker", "busybox", "docker-registry", "skopeo", POSTGRES), pytest.mark.slow]


def test_a_rollout_outlives_its_database_and_its_owner(place: Place, running_postgres: Server) -> None:
    """During a bake the server is restarted, and the rollout goes on; its owner dies, and while the lease lasts another
    process is refused by name; then that one carries the rollout to its end.
    """
    settings = place.settings.model_copy(update={"database": running_postgres.new_database()})
    place = replace(place, settings=settings)
    write_fleet(settings, FLEET.replace('bake_time = "0s"', 'bake_time = "1h"'))
    context = place.context()
    with closing(context.ledger):
        old = place.publish(context, "one", days=40, ends=-1)
        place.run(f"{old.repository}@{old.digest}")
        place.publish(context, "two", days=1)
        owner = process(place)
        until(lambda: stage(context) == "baking", "the bake")
        running_postgres.stop()
        running_postgres.start()
        for said, becomes in ((Command.PAUSE, "paused"), (Command.RESUME, "baking")):
            tell(context, "fleet-test", said)
            until(lambda becomes=becomes: stage(context) == becomes, f"{becomes} after the restart")
        assert owner.is_alive()
        os.kill(owner.pid or 0, signal.SIGKILL)
        owner.join()
        with place.session(context) as at, pytest.raises(RefusedError, match=f"is being rolled by {context.actor}:"):
            start(at, apply=True, as_owner=True)
        end_lease(context)
        until(lambda: not newest(context, "fleet-test").carried, "the lease's end")
        heir = process(place)
        until(lambda: newest(context, "fleet-test").carried, "the heir")
        tell(context, "fleet-test", Command.APPROVE)
        assert ended(heir) == 0
        seen = newest(context, "fleet-test")
        assert [member.phase for member in seen.members] == ["new"], seen
        assert not seen.row.open
    assert place.answers() == ["two"]


def process(place: Place) -> BaseProcess:
    """A process that rolls, on long leases."""
    return start_forked(rolls_on_long_leases, place.settings, place.address, place.host)


def rolls_on_long_leases(settings: Settings, address: str, host: str) -> None:
    """As `rolls`, with leases that do not end while a busy machine gives their owner no time."""
    lease.LEASE = timedelta(hours=1)
    rolls(settings, address, host)


def end_lease(context: Context) -> None:
    """Let an hour pass for the lease alone."""
    with create_engine(context.settings.database_url, poolclass=NullPool).begin() as connection:
        connection.execute(update(leases).values(until=datetime(2020, 1, 1, tzinfo=UTC)))
