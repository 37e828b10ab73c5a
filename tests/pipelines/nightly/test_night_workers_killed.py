"""Workers that die at every stage of a night they share, over a real PostgreSQL that restarts meanwhile.

Each death is a kill -9 of a process of its own; two workers live at any time, and one that died is replaced.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from images.documents import from_json, to_json
from pipelines.durable import workers
from pipelines.durable.dbos import Worker, engine_url, sharing
from pipelines.durable.dbos.shared_status import shared_status
from pipelines.durable.port import Flow
from pipelines.durable.roster import Roster
from pipelines.nightly.flow import flows
from pipelines.nightly.model import FLEET, IMAGE, NIGHT, OF_THE_NIGHT, ImageJob, NightOrder, NightRecord
from tests.conftest import POSTGRES
from tests.pipelines.nightly.test_night_flow import whole_night
from tests.support.durable import World, offered
from tests.support.forked import ended, start_forked
from tests.support.loop import until
from tests.support.night_world import NightWorld
from tests.support.postgres import Server

ORDER = NightOrder("night-1", datetime(2026, 11, 27, 2, tzinfo=UTC))
STAGES = ("build", "judge", "publish", "promote")
BEGUN = ("base", "web", "app", "lonely")
RECORDED = ("web", "app", "lonely", "base")
DEATHS = (
    "claimed lonely", "claimed tools",
    *(f"{stage} {image} before" for stage, image in zip(STAGES, BEGUN, strict=True)),
    *(f"{stage} {image} inside" for stage, image in zip(STAGES, RECORDED, strict=True)),
    "over app", "fleet tools inside", "fleet webs before", "over webs", "build tool before", "build tool before again",
)  # fmt: skip
"""Once a flow is claimed; before a step acts; between its effect and its record; after its last step; and a build that
kills each worker that takes it.
"""
POISON = ("build tool before", "build tool before again")
RESTARTED_AFTER = 5  # deaths; the last of these finds the database away, and so may not be one of two that must count
LOOK_SECONDS = 0.1  # a second in earnest, which only makes this longer


class MortalWorld(World):
    """Two processes may die of it at once, each of another death: it is whose that removes its file."""

    def _die(self, where: str) -> None:
        for death in (where, f"{where} again"):
            with suppress(FileNotFoundError):
                (self.folder / "deaths" / death).unlink()
                os.kill(os.getpid(), signal.SIGKILL)

    def die(self, where: str) -> None:
        """Die here, where that is a death to come."""
        self._die(where)


@dataclass
class SharedWorld(NightWorld):
    """The world of nights as files, of which workers do all that concerns one image or fleet."""

    folder: Path = Path()

    def _act(self, key: str) -> None:
        MortalWorld(self.folder).act(key)

    def _tree(self, order: NightOrder, name: str, below: object) -> ImageJob:
        return replace(super()._tree(order, name, below), needs=("docker",))

    def fleet_needs(self, order: NightOrder, name: str) -> tuple[str, ...]:
        """As its images."""
        return ("docker",)


def own_night(url: str, folder: str) -> None:
    """Carry the night, and nothing that workers can do."""
    workers.LOOK_SECONDS = LOOK_SECONDS
    known = flows(SharedWorld(folder=Path(folder)))
    with Worker.launched(url, known, only_asked=OF_THE_NIGHT) as worker:
        answer = worker.execute(NIGHT, ORDER.id, to_json(ORDER))
    Path(folder, "night.json").write_text(json.dumps(answer))


def work(url: str, folder: str) -> None:
    """Execute what a night shares, one flow at a time, and die as is written in `folder`."""
    workers.LOOK_SECONDS = LOOK_SECONDS
    place, world = Path(folder), MortalWorld(Path(folder))
    claim, is_over = Roster.claim, sharing.Sharing.is_over

    def claimed(roster: Roster, row: Any) -> bool:
        done = claim(roster, row)
        if done:
            world.die(f"claimed {row.flow.rpartition('/')[2]}")
        return done

    def over(share: sharing.Sharing, flow: str) -> None:
        world.die(f"over {flow.rpartition('/')[2]}")
        is_over(share, flow)

    Roster.claim, sharing.Sharing.is_over = claimed, over  # type: ignore[method-assign]
    every = flows(SharedWorld(folder=place))
    shared: Mapping[str, Flow] = {IMAGE: every[IMAGE], FLEET: every[FLEET]}
    with Worker.launched(url, shared, offer=offered(place, "docker", parallel=1)):
        (place / f"up-{os.getpid()}").touch()
        threading.Event().wait()


def up(worker: BaseProcess, folder: Path) -> bool:
    """Whether a worker does not need the database any more in order to start; one that is dead does not."""
    return not worker.is_alive() or (folder / f"up-{worker.pid}").exists()


def poisons(folder: Path) -> int:
    """How many deaths the poisonous build has left."""
    return sum((folder / "deaths" / one).exists() for one in POISON)


@pytest.mark.slow
@pytest.mark.needs(POSTGRES)
def test_kill_9_of_workers_at_every_stage_ends_as_an_undisturbed_night(
    running_postgres: Server, tmp_path: Path
) -> None:
    """What a dead worker had moves to another one: nothing is built, published, promoted or rolled twice, and a step
    begins again only where its worker died in it. The build that killed two workers is quarantined, as the night tells.
    """
    url, folder = engine_url(running_postgres.new_database()), tmp_path / "world"
    world = MortalWorld(folder)
    (folder / "deaths").mkdir()
    for death in DEATHS:
        (folder / "deaths" / death).touch()
    owner = start_forked(own_night, url, str(folder), stderr=tmp_path / "night")
    living = [start_forked(work, url, str(folder), stderr=tmp_path / "workers") for _ in range(2)]
    codes, restarted = list[int](), False
    while True:
        until(lambda: not (owner.is_alive() and all(one.is_alive() for one in living)), "a death, or the night's end")
        if not owner.is_alive():
            break
        for dead in [one for one in living if not one.is_alive()]:
            codes.append(ended(dead))
            if not restarted and len(codes) >= RESTARTED_AFTER and poisons(folder) != 1:
                restarted = True
                until(lambda: all(up(one, folder) for one in living), "the start of whoever lives")
                running_postgres.stop()
                running_postgres.start()
            living[living.index(dead)] = start_forked(work, url, str(folder), stderr=tmp_path / "workers")
    assert ended(owner) == 0, (tmp_path / "night").read_text()
    for one in living:
        one.kill()
        ended(one)

    assert restarted
    assert codes == [-signal.SIGKILL] * len(DEATHS)
    assert list((folder / "deaths").iterdir()) == []
    undisturbed = NightWorld()
    record = whole_night(undisturbed)
    found = from_json(NightRecord, json.loads((folder / "night.json").read_text()))
    (poison,) = [image for image in found.images if image.name == "tool"]
    assert poison.reasons, poison
    assert poison.reasons[0].startswith("night-1/image/tool is quarantined: 2 workers died in its step build tool;")
    assert (poison.action, found.exit_code, record.exit_code) == ("failed", 4, 3)
    assert without_poison(found) == without_poison(record)
    done = [act for act in undisturbed.done if not act.endswith(" tool")]
    assert Counter(world.lines("effects")) == Counter(done)
    twice = [death.removesuffix(" inside") for death in DEATHS if death.endswith("inside")]
    assert Counter(world.lines("begun")) == Counter([*done, *twice])
    seen = shared_status(url)
    assert [(one.flow, one.step) for one in seen.quarantined] == [("night-1/image/tool", "build tool")]
    assert dict(seen.waiting) == {}


def without_poison(record: NightRecord) -> NightRecord:
    """The record but for that image, and the moment of its end."""
    return replace(record, images=tuple(one for one in record.images if one.name != "tool"), ended_at=ORDER.started_at)
