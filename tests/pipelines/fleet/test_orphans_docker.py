"""What a killed rollout left on a real Docker Engine is found and removed after its lease."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from images.ledger import Ledger
from pipelines.cli.reap import reap
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.orphans import DockerOrphanSource
from pipelines.fleet.members import ROLLOUT, Key, ReplacementImage
from pipelines.fleet.model import Method
from tests.support.engines import busybox_image, engine
from tests.support.fleets import fleet as fleet_with
from tests.support.fleets import release

pytestmark = [pytest.mark.needs("docker", "busybox"), pytest.mark.slow]

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)


def test_a_container_that_goes_while_all_are_listed_is_none_of_them(own_engine: str) -> None:
    """Other containers of the engine come and go at any moment."""
    with engine(own_engine) as api:
        busybox_image(api, "leavings-test:one", "one")
        labels = {"goldsmith-test": "1", ROLLOUT: "left-1"}
        made = api.create_container("leavings-test:one", name="left-x.left-1", labels=labels)
        source = DockerOrphanSource(own_engine)
        listed = [*source.api.containers(all=True), {"Id": "f" * 64}]
        source.api.containers = lambda **_words: listed
        assert made["Id"] in {one.id for one in source.orphans()}


def test_a_container_that_a_killed_rollout_made_goes_after_its_lease(own_engine: str, tmp_path: Path) -> None:
    """The member stays, before and after it was replaced; the old one that is kept is shown and stays."""
    with engine(own_engine) as api:
        image = busybox_image(api, "leavings-test:one", "one")
        labels = {"goldsmith-test": "1", "app": "leavings-test"}
        made = api.create_container("leavings-test:one", name="left-web", labels=labels)
        api.start(made["Id"])
        of = fleet_with().model_copy(update={"selector": {"app": "leavings-test"}})
        ledger, source = Ledger.open(f"sqlite:///{tmp_path}/ledger"), DockerOrphanSource(own_engine)

        ledger.begin_rollout("left-1", of.name, "ann", {}, NOW)
        ledger.save_rollout("left-1", {}, NOW, is_open=False)

        def reaped(after: timedelta) -> list[tuple[str, bool]]:
            done = reap([source], ledger, NOW + after, "ann", apply=True)
            return [(one.orphan.name, one.remove) for one in done if one.orphan.name.startswith("left-")]

        with DockerFleet(of, own_engine) as members:
            (member,) = members.describe()
            key = Key("left-1", member.id, member.name, member.handle, Method.SURGE)
            target = ReplacementImage(
                "leavings-test:one", image, release(9, published_at=NOW, expires_at=NOW + 9 * HOUR)
            )
            members.create(key, target, NOW + HOUR)
            assert (reaped(HOUR / 2), reaped(2 * HOUR)) == ([(key.new_name, False)], [(key.new_name, True)])
            assert reaped(2 * HOUR) == []
            members.create(key, target, NOW + HOUR)
            members.start(key)
            members.retire(key, timedelta())
            members.swap(key)
            assert reaped(9 * HOUR) == [(key.old_name, False)]
            assert [one.handle != key.old for one in members.describe()] == [True]
            copy = {**labels, "dev.goldsmith.kept": "left-8"}
            api.create_container("leavings-test:one", name="left-db.old.left-8", labels=copy)
            assert reaped(9 * HOUR) == [("left-db.old.left-8", False), (key.old_name, False)]
        ledger.close()
