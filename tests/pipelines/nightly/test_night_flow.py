"""The flow of a night on the engine in memory: its order, its failures, and kill -9 before and after every step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import pytest

from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError
from hardening.gate import GateError
from images.documents import from_json, to_json
from pipelines.contract import NightlyDuty
from pipelines.durable.dbos import Worker, engine_url
from pipelines.nightly.flow import flows
from pipelines.nightly.model import NIGHT, DaysLeft, Failure, ImageAnswer, NightOrder, NightPart, NightRecord
from pipelines.nightly.summary import lines_of, output, refused_together
from tests.simulation.execution import CALM, Fate
from tests.simulation.memory import Memory
from tests.support.durable import offered
from tests.support.night_world import DOWN, HOLE, IMAGES, NightWorld, line
from tests.support.nights import YEAR, ended

ORDER = NightOrder("night-1", datetime(2026, 11, 27, 2, tzinfo=UTC))
STAGES = [
    *("index trixie", "feeds trixie", "feeds changes", "lock debian:13", "plan"),
    *(f"{verb} {name}" for name in IMAGES for verb in ("build", "judge", "publish", "promote")),
    *("prune releases", "fleet tools", "fleet webs", "report night-1"),
    "digest channels",
]


def whole_night(world: NightWorld, order: NightOrder = ORDER) -> NightRecord:
    """A night in one undisturbed process."""
    memory = Memory()
    memory.process("first", flows(world)).start(NIGHT, order.id, to_json(order))
    return from_json(NightRecord, ended(memory, order.id))


def statuses(record: NightRecord) -> dict[str, str]:
    """Image → what became of it."""
    return {image.name: image.action for image in record.images}


def test_parents_come_first_and_what_is_refused_stops_its_children_and_nothing_else() -> None:
    """Each image passes through its stages in order, and begins when what it stands on is promoted."""
    world = NightWorld()
    record = whole_night(world)
    assert statuses(record) == {
        "still": "unchanged", "base": "published", "web": "published", "app": "published", "tool": "published",
        "lonely": "published", "broken": "refused", "broken-child": "failed", "broken-grandchild": "failed",
    }  # fmt: skip
    at = world.done.index
    for name in ("base", "web", "app"):
        assert at(f"build {name}") < at(f"judge {name}") < at(f"publish {name}") < at(f"promote {name}")
    assert at("promote base") < at("build web")
    assert at("promote web") < at("build app")
    assert not [act for act in world.done if "broken" in act and act != "build broken"]
    assert record.exit_code == 3
    assert output(record).must_act == (NightlyDuty(exit_code=3, who="the owner", parts=("image broken",)),)
    assert world.messages == ["night-1"]


def test_who_must_act_is_told_by_exit_code_the_highest_first() -> None:
    """The exit code is one number, and others have to act too; of one sort, what others stand on comes first."""
    night = output(whole_night(NightWorld(down={"index trixie": DOWN, "build web": DOWN, "fleet webs": DOWN})))
    assert [(one.exit_code, one.parts) for one in night.must_act] == [
        (4, ("index trixie", "image web", "fleet webs")), (3, ("image broken",)),
    ]  # fmt: skip
    assert night.exit_code == night.must_act[0].exit_code
    said = "(exit code 4) on index trixie, image web, fleet webs; the owner (exit code 3) on image broken"
    assert night.summary.endswith(said)


def test_the_reasons_of_a_gate_survive_every_step() -> None:
    """They are told once, however many images stand on the refused one; days left stand beside."""
    record = whole_night(NightWorld())
    (error,) = record.errors
    assert isinstance(error, GateError)
    assert (error.reasons, error.hint) == ((HOLE,), "mend it")
    assert refused_together([error], {}) == [error]
    lines = {line.name: line for line in lines_of(record) if line.kind == "image"}
    assert lines["broken"].detail == "CVE-1 in zlib; WARNING: its stable release has 3 days left"
    assert lines["broken-child"].detail == ("its base broken was refused; WARNING: its stable release has 3 days left")
    assert lines["broken-grandchild"].detail.startswith("its base broken-child failed; ")
    assert (lines["broken"].days_left, lines["web"].days_left) == (3, None)
    said = output(record).summary
    assert "stable near its end: broken (3 d), broken-child (3 d), broken-grandchild (3 d)" in said


def test_a_stable_release_near_its_end_is_told_also_where_all_went_well() -> None:
    """Such as where a person has to promote, and nobody did: fleets follow that channel."""
    answers = (
        ImageAnswer("manual", "unchanged", left=DaysLeft(2, near=True)),
        ImageAnswer("over", "re-dated", left=DaysLeft(-1, near=True)),
        ImageAnswer("web", "unchanged", left=DaysLeft(20, near=False)),
    )
    night = output(NightRecord(ORDER, (), answers, (), ORDER.started_at))
    assert [one.detail for one in night.lines] == [
        "not built; WARNING: its stable release has 2 days left",
        "not built; WARNING: its stable release has expired",
        "not built",
    ]
    assert night.summary.endswith("stable near its end: manual (2 d), over (-1 d)")


def test_a_night_that_moves_stable_says_so() -> None:
    """Fleets follow that channel, so people must read which images moved."""
    moved = ImageAnswer("web", "unchanged", parts=(NightPart(promoted="web"),))
    night = output(NightRecord(ORDER, (), (moved, ImageAnswer("db", "unchanged")), (), ORDER.started_at))
    assert night.summary == "nothing built, nothing published, 2 unchanged; fleets: none; stable moved: web"


@pytest.mark.parametrize("error", [RefusedError("no", hint="why", evidence="told"), OutsideError("away")])
def test_a_failure_is_the_same_after_it_was_data(error: RefusedError | OutsideError) -> None:
    """Its class, its words and its exit code."""
    found = from_json(Failure, to_json(Failure.of(error))).error
    assert type(found) is type(error)
    assert str(found) == str(error)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if not stage.startswith("report")])
def test_a_stage_that_fails_stops_nothing_beside_it(stage: str) -> None:
    """Mirror, feeds, registry or an engine that is down: all that does not stand on it is done; the exit code is 4."""
    world = NightWorld(down={stage: DOWN}, refused=())
    record = whole_night(world)
    assert record.exit_code == 4
    image = stage.partition(" ")[2]
    below = {"base": {"base", "web", "app", "broken", "tool"}, "web": {"web", "app"}}.get(image, {image})
    left = set(STAGES) - set(world.done) - {stage}
    if stage == "plan":
        assert {act.partition(" ")[0] for act in left} == {"build", "judge", "publish", "promote"}
    else:
        assert {act.partition(" ")[2] for act in left} <= below
        if stage.startswith("promote"):
            assert not left, "stable waits for the next night"
    assert world.messages == ["night-1"]
    assert any("it does not answer" in line.detail for line in lines_of(record))


def test_fleets_that_cannot_be_read_any_more_end_no_night(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was broken while images were built: these are told, and whoever has to mend it."""
    world = NightWorld(refused=())

    def fleets(*_: object) -> tuple[str, ...]:
        raise ContentError("no toml", file="web.toml")

    monkeypatch.setattr(world, "fleets", fleets)
    night = output(whole_night(world))
    assert (night.exit_code, night.must_act[0].parts) == (2, ("fleet all",))
    assert "web" in night.published
    assert world.messages == ["night-1"]
    assert {"report night-1", "digest channels"} <= set(world.done)


@dataclass
class FaultyFleets(NightWorld):
    """Fleets that are rolled here or by any worker, of which one meets a bug of ours; each waits for the other."""

    needs: tuple[str, ...] = ()
    together: Barrier = field(default_factory=lambda: Barrier(2))

    def fleet_needs(self, order: NightOrder, name: str) -> tuple[str, ...]:
        """The same for both."""
        return self.needs

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """Fail as nobody foresaw, or be rolled."""
        self.together.wait(60)
        if name == "tools":
            raise KeyError("colour")
        return super().fleet(order, name)


@pytest.mark.parametrize("needs", [(), ("docker",)])
def test_fleets_are_rolled_side_by_side_and_a_bug_in_one_is_a_line_of_the_night(
    tmp_path: Path, needs: tuple[str, ...]
) -> None:
    """On the real engine: the other fleet is rolled, the report written, and people are told."""
    world, url = FaultyFleets(refused=(), needs=needs), engine_url(f"sqlite:///{tmp_path}/ledger.sqlite")
    with Worker.launched(url, flows(world), offer=offered(tmp_path, "docker")) as worker:
        record = from_json(NightRecord, worker.execute(NIGHT, ORDER.id, to_json(ORDER)))
    (tools,) = [line for line in lines_of(record) if (line.kind, line.name) == ("fleet", "tools")]
    assert "KeyError" in tools.detail
    assert {"fleet webs", "report night-1"} <= set(world.done)
    assert world.messages == ["night-1"]


def points() -> list[tuple[str, str]]:
    """Every step of the night, by flow and name."""
    found: list[tuple[str, str]] = []
    world = NightWorld()
    memory = Memory(lambda flow, name: (found.append((flow, name)), CALM)[1])
    memory.process("first", flows(world)).start(NIGHT, ORDER.id, to_json(ORDER))
    ended(memory, ORDER.id)
    return found


POINTS = points()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_kill_9_at_every_step_ends_as_an_undisturbed_night(moment: str) -> None:
    """Nothing is built, published, promoted, rolled or reported twice; a message may come again, but no other act."""
    undisturbed = whole_night(NightWorld())
    assert len(POINTS) > 30
    for flow, name in POINTS:
        world, killed = NightWorld(), list[str]()

        def fate(at: str, step: str, killed: list[str] = killed, wanted: tuple[str, str] = (flow, name)) -> Fate:
            if (at, step) == wanted and not killed:
                killed.append(step)
                return Fate(dies=moment)
            return CALM

        memory = Memory(fate)
        memory.process("first", flows(world)).start(NIGHT, ORDER.id, to_json(ORDER))
        memory.run(YEAR)
        assert killed == [name]
        assert not memory.rows[ORDER.id].ended
        memory.process("second", flows(world)).recover()
        record = from_json(NightRecord, ended(memory, ORDER.id))
        assert replace(record, ended_at=undisturbed.ended_at) == undisturbed, f"killed {moment} {name}"
        assert [act for act, times in Counter(world.done).items() if times > 1] == []
        assert len(world.messages) == (2 if (moment, name) == ("after", "notify ") else 1)


def test_an_urgent_night_without_anything_urgent_ends_at_once() -> None:
    """It asks the feeds, and neither the mirror nor anything else; nobody is told."""
    world = NightWorld()
    record = whole_night(world, replace(ORDER, urgent=True))
    assert world.done == ["feeds trixie", "feeds changes", "feeds urgent"]
    assert (record.nothing_urgent, record.exit_code, world.messages) == (True, 0, [])
    assert output(record).summary.startswith("nothing urgent")
    record = whole_night(NightWorld(down={"feeds urgent": DOWN}), replace(ORDER, urgent=True))
    assert output(record).summary.startswith("it is not known what is urgent; must act: the operator")


@pytest.mark.parametrize(
    ("down", "times", "messages"),
    [({}, 1, 0), ({"build tool": RefusedError("no")}, 1, 1), ({"build tool": DOWN}, 3, 1)],
)
def test_an_urgent_fix_that_cannot_be_had_is_tried_once(
    down: dict[str, GoldsmithError], times: int, messages: int
) -> None:
    """Until something is newer, but for what the world fails in: no report, and of a failure one message."""
    world = NightWorld(urgents=("tool",), down=down)
    world.fleet = lambda *_: NightPart((line("fleet", "tools", "compliant"),))  # type: ignore[method-assign]
    if not down:
        world.build = lambda job: ImageAnswer(job.name, "unchanged")  # type: ignore[method-assign]
        world.promote = lambda _, published: published  # type: ignore[method-assign]
    plans = 0
    for number in range(3):
        world.done.clear()
        record = whole_night(world, NightOrder(f"night-{number}", ORDER.started_at, urgent=True))
        plans += "plan" in world.done
        assert record.nothing_urgent is ("plan" not in world.done)
        assert not [act for act in world.done if act.startswith("report")] or number == 0
    assert (plans, len(world.messages)) == (times, messages)


def test_the_digests_come_last_and_only_with_the_whole_night() -> None:
    """They tell what is open after it; what fails there is a failure of the night, and its line."""
    world = NightWorld()
    record = whole_night(world)
    assert world.done[-1] == "digest channels"
    assert [(one.kind, one.status) for one in lines_of(record)][-1] == ("digest", "sent")
    urgent = NightWorld(urgents=("tool",))
    whole_night(urgent, replace(ORDER, urgent=True))
    assert "digest channels" not in urgent.done
    failed = whole_night(NightWorld(down={"digest channels": DOWN}, refused=()))
    assert ([(one.kind, one.status) for one in lines_of(failed)][-1], failed.exit_code) == (("digest", "failed"), 4)


def test_an_urgent_night_without_a_plan_rolls_no_fleet() -> None:
    """Nobody knows which of them it concerns."""
    world = NightWorld(urgents=("tool",), down={"plan": DOWN})
    record = whole_night(world, replace(ORDER, urgent=True))
    assert [act for act in world.done if act.startswith("fleet")] == []
    assert record.exit_code == 4


def test_an_urgent_night_is_about_the_images_that_a_fix_concerns_and_their_fleets() -> None:
    """The others wait for the night."""
    world = NightWorld(urgents=("tool",))
    record = whole_night(world, replace(ORDER, urgent=True))
    assert statuses(record) == {"still": "unchanged", "tool": "published"}
    assert [act for act in world.done if act.startswith("fleet")] == ["fleet tools"]
    assert world.messages == ["night-1"]
