"""Nights in processes of their own, on a real engine in SQLite: kill -9 at a few stages, too late, another version."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select, update

from hardening.foundation import process
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.settings import MOVED, ROOT, Settings
from images.context import Context
from images.documents import to_json
from images.ledger import Holder, Night, tables
from pipelines import wiring
from pipelines.durable.dbos import VERSION, engine_url
from pipelines.durable.dbos.system_database import client_of, locks
from pipelines.nightly import command, fleet_stage, night_run
from pipelines.nightly import stages as night_stages
from pipelines.nightly.model import NIGHT_LOCK, ImageAnswer, ImageJob, NightOrder, NightPart, NightPlan
from pipelines.nightly.stages import WorldStages, here
from pipelines.rollout.service import AutoLine
from tests.support.durable import World
from tests.support.forked import call_forked, ended, one_after_the_other, start_forked
from tests.support.loop import processes, until
from tests.support.night_world import NightWorld

NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)
DEATHS = (
    "feeds changes inside", "plan before", "build base inside", "publish base inside", "promote web before",
    "judge app inside", "fleet tools inside", "fleet webs before", "report inside",
)  # fmt: skip


@dataclass
class FileWorld(NightWorld):
    """The world of nights as files, so that it outlives who acts on it. What is promoted has no work any more."""

    folder: Path = Path()
    _building: list[str] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def _act(self, key: str) -> None:
        World(self.folder).act("report" if key.startswith("report") else key)

    def plan(self, order: NightOrder, urgent: tuple[str, ...]) -> NightPlan:
        """All have work, until it is done."""
        plan = super().plan(order, urgent)
        return NightPlan(plan.settled, () if (self.folder / "promote app").exists() else plan.trees)

    def build(self, job: ImageJob) -> ImageAnswer:
        """So many at once as were seen together."""
        with self._lock:
            self._building.append(job.name)
            many = len(self._building)
        time.sleep(0.1)
        with (self.folder / "together").open("a") as file:
            file.write(f"{many}\n")
        answer = super().build(job)
        with self._lock:
            self._building.remove(job.name)
        return answer


def context_in(folder: Path, now: datetime) -> Context:
    """The shipped catalog, over a state of its own."""
    return Context(Settings(state=folder / "state"), now, lambda: "", lambda: "", actor="ann")


def one_night(folder: str, now: str) -> None:
    """A night in this process, on the world in `folder`; what it says is written there."""
    world = FileWorld(folder=Path(folder, "world"))
    night_run.WorldStages = lambda _: world  # type: ignore[assignment,misc]
    night, _ = night_run.nightly(context_in(Path(folder), datetime.fromisoformat(now)), "debian-base")
    Path(folder, "night.json").write_text(json.dumps(to_json(night)))


def world_of(folder: Path, *deaths: str) -> World:
    """A world in which who acts dies at these moments, one after the other."""
    world = World(folder / "world")
    (world.folder / "deaths").write_text("".join(f"{death}\n" for death in deaths))
    return world


def said(folder: Path) -> dict[str, Any]:
    """What the last night to end said."""
    found: dict[str, Any] = json.loads((folder / "night.json").read_text())
    return found


def test_kill_9_at_any_stage_leaves_a_night_that_the_next_one_ends(tmp_path: Path) -> None:
    """Nothing is built, published, promoted or rolled twice; the next night says which one it finished."""
    world = world_of(tmp_path, *DEATHS)
    assert one_after_the_other(one_night, str(tmp_path), NOW.isoformat()) == [-9] * len(DEATHS) + [0]
    effects = Counter(world.lines("effects"))
    assert set(effects.values()) == {1}
    assert {"build lonely", "promote app", "fleet webs", "report"} <= effects.keys()
    assert max(map(int, world.lines("together"))) <= 2, "as many builds side by side as the settings say"
    night = said(tmp_path)
    (resumed,) = night["resumed"]
    assert night["id"] != resumed
    assert night["summary"].startswith("nothing built, nothing published, 1 unchanged")
    context = context_in(tmp_path, NOW)
    ledger = context.ledger
    ended = {line.subject: line.detail for line in ledger.audit_lines() if line.action == "nightly"}
    assert not any(detail.startswith("abandoned") for detail in ended.values())
    assert ledger.open_nights(here(context)) == ()


ROLLS = """
from pathlib import Path
from tests.support.loop import until
folder = Path({0!r})
try:
    (folder / "rolling").touch()
    until((folder / "never").exists, "its end")
except KeyboardInterrupt:
    (folder / "asked").touch()
    until((folder / "go").exists, "the test to let it go on")
    (folder / "rolled").touch()
"""


@dataclass
class RollingWorld(FileWorld):
    """One fleet is rolled by a process of its own while a command runs for the other."""

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """As the real stage does it: whoever stops us records nothing."""

        def roll() -> tuple[str, str]:
            if name == "tools":
                process.run_ours([sys.executable, "-c", ROLLS.format(str(self.folder))], cwd=ROOT)
            else:
                process.run(["sh", "-c", f"touch {self.folder}/looking; sleep 600"])
            return "rolled", ""

        return night_stages.part_of("fleet", name, roll)


def night_until_stopped(folder: str) -> None:
    """What `./goldsmith nightly` does in a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["GOLDSMITH_STATE"] = f"{folder}/state"
    night_run.WorldStages = lambda _: RollingWorld(folder=Path(folder, "world"))  # type: ignore[assignment,misc]
    command.run_nightly(only="debian-base")


@pytest.mark.parametrize("again", [False, True])
def test_ctrl_c_in_a_night_lets_what_rolls_end_its_step(tmp_path: Path, again: bool) -> None:
    """One line at once and status 130; all other commands end, and the second Ctrl-C waits for nothing."""
    world, printed = world_of(tmp_path), tmp_path / "printed"
    night = start_forked(night_until_stopped, str(tmp_path), stderr=printed)
    for begun in ("rolling", "looking"):
        until((world.folder / begun).exists, begun)
    os.kill(night.pid or 0, signal.SIGINT)
    until(lambda: "interrupted: what rolls ends its step" in printed.read_text(), "the line")
    until((world.folder / "asked").exists, "the end of the step")
    if again:
        os.kill(night.pid or 0, signal.SIGINT)
    else:
        (world.folder / "go").touch()
    assert ended(night) == 130, printed.read_text()
    assert (world.folder / "rolled").exists() is not again
    assert "Traceback" not in printed.read_text()
    assert processes(f"touch {world.folder}/looking") == []


@pytest.mark.parametrize("why", ["a new night knows more", "another version of Goldsmith began it"])
def test_a_night_that_comes_too_late_is_abandoned_and_a_new_one_does_the_rest(tmp_path: Path, why: str) -> None:
    """With a line in the audit; what was done stays done."""
    world = world_of(tmp_path, "publish base inside")
    assert call_forked(one_night, str(tmp_path), NOW.isoformat()) == -9
    context, later = context_in(tmp_path, NOW), NOW + timedelta(hours=13)
    if "version" in why:
        context.ledger._change(update(tables.nights).values(version="0"))
        later = NOW + timedelta(hours=1)
    (left,) = context.ledger.open_nights(here(context))
    for hours in (14, 1):
        begun = later - timedelta(hours=hours)
        context.ledger.begin_night(Night(f"night-{hours}", "elsewhere:/state", "0", {}, open=True, begun_at=begun))
    assert call_forked(one_night, str(tmp_path), later.isoformat()) == 0
    (line,) = [line for line in context.ledger.audit_lines() if line.subject == left.id]
    assert line.detail.startswith("abandoned: ")
    assert line.detail.endswith(why)
    assert said(tmp_path)["resumed"] == []
    assert [one.id for one in context.ledger.open_nights()] == ["night-1"], "that machine goes on with it"
    assert "app" in said(tmp_path)["published"]
    assert set(Counter(world.lines("effects")).values()) == {1}


def test_a_night_begins_nothing_while_another_runs_on_this_machine(tmp_path: Path) -> None:
    """It says what runs, and writes nothing down."""
    context = context_in(tmp_path, NOW)
    with only_one(context.settings.state_dir / NIGHT_LOCK, "nightly"):
        with pytest.raises(RefusedError, match="nightly is already running on this machine"):
            night_run.nightly(context, "debian-base")
        assert context.ledger.open_nights() == ()
    context.ledger.close()


def test_a_night_without_readable_rules_begins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiver or policy that is left out would judge otherwise."""
    broken = tmp_path / "content/hardening/waivers/broken.toml"
    broken.parent.mkdir(parents=True)
    broken.write_text("no toml [")
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))

    def begun(*_: object) -> None:
        raise AssertionError("it begins")

    monkeypatch.setattr(night_run, "claimed", begun)
    with pytest.raises(ContentError, match=r"broken\.toml"):
        night_run.nightly(Context(settings, NOW, str, str), "debian-base")


def test_a_night_that_goes_on_keeps_its_moment_and_its_policy(tmp_path: Path) -> None:
    """Beside the one that takes it over: releases are dated by the day on which it began."""
    stages = WorldStages(context_in(tmp_path, NOW))
    left = NightOrder("night-1", NOW - timedelta(hours=11), policy="demo")
    for order in (left, NightOrder("night-2", NOW), left):
        at = stages.at(order)
        assert (at.now, at.policy, at.lenient) == (order.started_at, order.policy, True)


def test_the_audit_of_a_night_carries_the_time_and_the_worker_of_the_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever writes the line; what is judged, and when releases expire, keeps the moment of the night."""
    monkeypatch.setattr(wiring, "actor", lambda: "ann@worker-1")
    stages = WorldStages(wiring.image_context(Settings(state=tmp_path / "state")))
    context = stages.at(NightOrder("night-1", NOW - timedelta(hours=11)))
    acts = [NOW + timedelta(hours=hours) for hours in (1, 2)]
    monkeypatch.setenv(MOVED, acts[0].isoformat())
    context.cloud.note("reap", "i-1")
    monkeypatch.setenv(MOVED, acts[1].isoformat())
    context.ledger.audit(context.now, context.actor, "refuse", "web")
    lines = context.ledger.audit_lines()
    assert [(line.action, line.actor) for line in lines] == [("reap", "ann@worker-1"), ("refuse", "ann@worker-1")]
    assert [line.at for line in lines] == acts
    assert context.now == context.cloud.now == NOW - timedelta(hours=11)


def test_a_night_that_was_only_written_down_goes_on_as_it_was(tmp_path: Path) -> None:
    """Killed before its flow began: with its own moment and policy, not those of who finds it."""
    context = context_in(tmp_path, NOW)
    order = NightOrder("night-1", NOW - timedelta(hours=11), policy="demo")
    written = Night(order.id, here(context), VERSION, to_json(order), open=True, begun_at=order.started_at)
    context.ledger.begin_night(written)
    claim: Any = None
    assert night_run._left(context, claim) == [order]
    context.ledger.close()


@pytest.mark.parametrize("carried", [True, False])
def test_an_old_night_of_another_machine_is_abandoned_only_where_nobody_carries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried: bool
) -> None:
    """Who carries it may only be slow."""
    context, claim, abandoned = context_in(tmp_path, NOW), SimpleNamespace(url=""), list[str]()
    old = Night("night-1", "elsewhere:/state", VERSION, {}, open=True, begun_at=NOW - timedelta(hours=14))
    context.ledger.begin_night(old)
    monkeypatch.setattr(night_run, "is_carried", lambda *_: carried)
    monkeypatch.setattr(night_run, "abandon", lambda _, night: abandoned.append(night))
    assert night_run._left(context, claim) == []  # type: ignore[arg-type]
    assert abandoned == ([] if carried else ["night-1"])
    assert [one.id for one in context.ledger.open_nights()] == (["night-1"] if carried else [])
    context.ledger.close()


def test_a_night_of_a_day_to_come_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was wrong began it: what it publishes would be good for years."""
    context, claim = context_in(tmp_path, NOW), SimpleNamespace(url="")
    begun = NOW + timedelta(days=400)
    context.ledger.begin_night(Night("night-1", here(context), VERSION, {}, open=True, begun_at=begun))
    monkeypatch.setattr(night_run, "abandon", lambda *_: None)
    assert night_run._left(context, claim) == []  # type: ignore[arg-type]
    assert context.ledger.open_nights() == ()
    assert "the clock was wrong" in context.ledger.audit_lines()[0].detail
    context.ledger.close()


def test_no_fleet_waits_for_the_window_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is revoked, and may be rolled at once, would wait for up to a day behind one that may not."""
    (tmp_path / "pipelines/fleets").mkdir(parents=True)
    for name, start in (("a-late", "08:00"), ("b-soon", "04:00"), ("c-now", "01:00")):
        text = (
            f'title = "t"\nowner = "o"\nkind = "docker"\nselector = {{ app = "{name}" }}\n'
            f'replacement = {{ definition = "nginx" }}\n[[limits.windows]]\nstart = "{start}"\nend = "09:00"\n'
        )
        (tmp_path / f"pipelines/fleets/{name}.toml").write_text(text)
    monkeypatch.setattr(night_stages, "clock", lambda: NOW)
    stages = WorldStages(Context(Settings(state=tmp_path, content=(tmp_path,)), NOW - timedelta(hours=9), str, str))
    assert stages.fleets(NightOrder("night-1", NOW), ()) == ("c-now", "b-soon", "a-late")


def test_a_fleet_whose_file_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list of fleets and its turn; with workers, its file says what it needs."""
    monkeypatch.setattr(night_stages, "shares", lambda _: True)
    stages = WorldStages(context_in(tmp_path, NOW))
    with pytest.raises(ContentError, match="unknown fleet: gone"):
        stages.fleet_needs(NightOrder("night-1", NOW), "gone")


def test_a_night_says_who_puts_back_the_file_of_a_fleet_with_an_open_rollout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file lists it any more, and what it keeps waits. An urgent night and a live process need no line."""
    context, night = context_in(tmp_path, NOW), NightOrder("night-1", NOW)
    stages = WorldStages(context)
    context.ledger.begin_rollout("r1", "kiosk", "ann", {}, NOW)
    assert stages.fleets(night, ("web",)) == ()
    assert stages.fleets(night, ()) == ("kiosk",)
    for part in (stages.fleet(night, "kiosk"), *command._fleets(context, night, set())):
        [line] = part.lines
        assert (line.name, line.status, line.exit_code) == ("kiosk", "failed", 2)
        assert line.detail == "the file of kiosk is gone, and its rollout r1 is open"
        assert part.failure
        assert "put pipelines/fleets/kiosk.toml back" in part.failure.error.hint
    monkeypatch.setattr(night_stages, "shares", lambda _: True)
    with pytest.raises(ContentError, match="the file of kiosk is gone"):
        stages.fleet_needs(night, "kiosk")
    context.ledger.acquire_lease(Holder("kiosk", "ann:1", "r1"), timedelta(minutes=1))
    with locks(engine_url(context.settings.database_url, "kiosk"), "worker"):
        assert stages.fleets(night, ()) == ()
    context.ledger.close()


def test_a_mistake_of_ours_in_a_fleet_is_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words about a fleet, with the exit code of a mistake."""

    def mistaken(*_: Any) -> Any:
        raise KeyError("image")

    monkeypatch.setattr(night_stages, "fleet_of", mistaken)
    (line,) = WorldStages(context_in(tmp_path, NOW)).fleet(NightOrder("night-1", NOW), "web").lines
    assert (line.kind, line.name, line.status, line.exit_code) == ("fleet", "web", "failed", 1)
    assert line.detail == "fleet web failed because of a bug in Goldsmith: KeyError: 'image'"


def test_a_fleet_lives_by_the_clock_however_old_the_night_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows and freezes say nothing of the noon at which a night goes on."""
    seen, noon = list[datetime](), NOW + timedelta(hours=10)

    def opened(_name: str, context: Context) -> Any:
        seen.append(context.now)
        return nullcontext()

    monkeypatch.setattr(fleet_stage, "clock", lambda: noon)
    monkeypatch.setattr(fleet_stage, "fleet_session", opened)
    monkeypatch.setattr(
        fleet_stage, "automated", lambda *_, **__: AutoLine(fleet="shop", outcome="compliant", detail="")
    )
    assert fleet_stage.look_at(context_in(tmp_path, NOW), "shop") == ("compliant", "", None)
    assert seen == [noon]


def test_nights_of_long_ago_are_forgotten_with_their_flows(tmp_path: Path) -> None:
    """A month later; the one of yesterday is still there."""
    world_of(tmp_path)
    days = (NOW, NOW + timedelta(days=30), NOW + timedelta(days=31))
    for day in days:
        assert call_forked(one_night, str(tmp_path), day.isoformat()) == 0
    ledger = context_in(tmp_path, NOW).ledger
    kept = {row.id for row in ledger._rows(select(tables.nights.c.id))}
    assert {one[6:14] for one in kept} == {f"{day:%Y%m%d}" for day in days[1:]}
    with client_of(engine_url(ledger._engine.url.render_as_string(), night_run.KIND)) as client:
        assert {one.workflow_id.partition("/")[0] for one in client.list_workflows()} == kept
    ledger.close()
