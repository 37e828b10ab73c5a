"""A fleet from its file to its replacement, over a real registry, ledger and Docker Engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from hardening.foundation.errors import OutsideError, RefusedError, UsageError
from hardening.foundation.process import run as command_of
from hardening.foundation.settings import Docker, Settings
from images.artifact import Release
from images.context import Context
from images.ledger import Ledger
from images.registry.channel_documents import ChannelDocuments
from images.registry.login import auth_config
from images.release.channels import point
from images.release.store import CHANNELS
from images.release.stores import store_of
from pipelines.cli.check_output import member_lines
from pipelines.cli.image import prune_images
from pipelines.cli.rollout_output import roll_output
from pipelines.cli.rollout_watch import _history
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.members import Key, ReplacementImage
from pipelines.host import embedded_registry
from pipelines.rollout.approval import approve_plan, file_plan, read_plan
from pipelines.rollout.approved_plan import digest
from pipelines.rollout.rollout_store import history, newest, tell, view
from pipelines.rollout.service import automated, back, execute, start
from pipelines.rollout.session import FleetSession, check, fleet_session
from pipelines.rollout.state import Command, Order
from tests.support.engines import busybox_image, engine
from tests.support.forked import call_forked, ended, start_forked
from tests.support.loop import until
from tests.support.signing import sign_release

pytestmark = [pytest.mark.needs("docker", "busybox", "docker-registry", "skopeo"), pytest.mark.slow]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
FLEET = """
title = "Tests"
owner = "tests"
kind = "docker"
selector = { app = "fleet-test" }
replacement = { definition = "fleet-test" }
approval = "required"
health = { kind = "http", port = 8080 }
[limits]
min_healthy_time = "1s"
healthy_deadline = "10s"
bake_time = "0s"
settle = "0s"
drain = "2s"
"""


@dataclass
class Place:
    """A state directory with a fleet's file, a registry, and an engine."""

    settings: Settings
    address: str
    host: str
    api: Any

    def context(self) -> Context:
        return Context(self.settings, NOW, lambda: self.host, lambda: self.address)

    def login(self) -> dict[str, str] | None:
        return auth_config(self.settings, self.address)

    def session(self, context: Context) -> Any:
        return fleet_session("fleet-test", context, now=lambda: NOW)

    def publish(
        self, context: Context, answer: str, *, days: int, ends: int = 30, channel: str = "stable",
        files: dict[str, str] | None = None,
    ) -> Release:  # fmt: skip
        """A release whose image answers `answer`, published `days` ago, in the channel now. `files` are more."""
        repository = f"{self.address}/fleet-test"
        busybox_image(self.api, f"fleet-test:{answer}", answer, files=files)
        tag = answer if channel in CHANNELS else channel
        self.api.tag(f"fleet-test:{answer}", repository, tag)
        lines = list(self.api.push(repository, tag, stream=True, decode=True, auth_config=self.login()))
        assert not [line for line in lines if "error" in line], lines
        pushed = context.registry.get(f"{repository}:{tag}").digest
        at = NOW - timedelta(days=days)
        made = Release("fleet-test", repository, pushed, pushed, "", "p", "default", at, at, NOW + timedelta(days=ends))
        context.ledger.record_release(made)
        sign_release(context.registry, repository, pushed)
        if channel in CHANNELS:
            point(store_of(context, "fleet-test"), made, channel, "publish")
        return made

    def answers(self) -> list[str]:
        """What the containers of the fleet answer, by name."""
        found = self.api.containers(all=True, filters={"label": "app=fleet-test"})
        argv = ["docker", "-H", self.host, "exec"]
        names = sorted(one["Names"][0].lstrip("/") for one in found)
        return [command_of([*argv, name, "wget", "-qO-", "http://127.0.0.1:8080/"]).stdout.strip() for name in names]

    def run(self, image: str, name: str = "web-1") -> None:
        labels = {"goldsmith-test": "1", "app": "fleet-test"}
        self.api.start(self.api.create_container(image, name=name, labels=labels)["Id"])


def write_fleet(settings: Settings, text: str) -> None:
    """The file of the fleet."""
    fleets = settings.content[0] / "pipelines/fleets"
    fleets.mkdir(parents=True, exist_ok=True)
    (fleets / "fleet-test.toml").write_text(text)


@pytest.fixture
def place(tmp_path: Path, own_engine: str) -> Iterator[Place]:
    docker = Docker(host=own_engine)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",), docker=docker)
    settings.state_dir.mkdir()
    write_fleet(settings, FLEET)
    with engine(own_engine) as api:
        yield Place(settings, embedded_registry.registry_address(settings), own_engine, api)
    embedded_registry.stop(settings)


@pytest.fixture
def context(place: Place) -> Iterator[Context]:
    made = place.context()
    with closing(made.ledger):
        yield made


def test_an_expired_member_is_found_planned_and_replaced_only_with_apply(
    place: Place, context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop of a fleet, and after it there is nothing to do."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    new = place.publish(context, "two", days=1)
    with place.session(context) as at:
        line = member_lines(check(at))[0]
        assert set(line.violations) == {"expired", "superseded"}
        planned, state = start(at, apply=False)
        assert (state, len(planned.steps)) == (None, 1)
        assert start(at, apply=True, automated=True)[1] is None, "the fleet's approval is required"
        assert "--watch" not in capsys.readouterr().err
        done = roll_output(*start(at, apply=True, as_owner=True))
        assert "./goldsmith roll.status fleet-test --watch shows it" in capsys.readouterr().err
        assert [step.outcome for step in done.steps] == ["new"]
        assert done.replacement == f"{new.repository}@{new.digest}"
        line = member_lines(check(at))[0]
        assert line.violations == ()
        assert line.image == done.replacement
        assert start(at, apply=True, as_owner=True)[0].steps == ()
    assert context.ledger.running_digests() == {new.digest: ("fleet-test/web-1",)}
    assert context.ledger.open_rollouts() == ()


def test_a_member_that_has_died_is_missed_by_the_check(place: Place, context: Context) -> None:
    """The ledger knows that it was a member; no restart policy brings it back."""
    old = place.publish(context, "one", days=40, ends=-1)
    for name in ("web-1", "web-2"):
        place.run(f"{old.repository}@{old.digest}", name)
    with place.session(context) as at:
        assert [line.healthy for line in member_lines(check(at))] == [True, True]
        place.api.kill("web-2")
        for _ in range(2):
            seen = [(line.name, line.healthy) for line in member_lines(check(at))]
            assert seen == [("web-1", True), ("web-2", False)]
        place.publish(context, "two", days=1)
        planned, _ = start(at, apply=False)
        assert (planned.desired, planned.floor, [step.member.name for step in planned.steps]) == (2, 2, [])
        assert [skip.why for skip in planned.skipped] == [
            "it is the last that serves of 2 members: start or remove web-2 first",
            "it does not run (exited): start it, or remove it",
        ]


def test_an_approved_plan_is_carried_out_exactly_or_refused_where_the_world_has_moved(
    place: Place, context: Context, tmp_path: Path
) -> None:
    """First another member appears; without it the plan rolls once a second person has approved it, and only once."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        with pytest.raises(RefusedError, match="the fleet fleet-test requires an approval"):
            start(at, apply=True)
        file_plan(context, at.plan(()), tmp_path / "plan.json")
        approved = read_plan(tmp_path / "plan.json")
        with pytest.raises(RefusedError, match="no second person has approved this plan"):
            start(at, apply=True, approved=approved)
        approve_plan(replace(context, actor="bob@host"), "fleet-test", tmp_path / "plan.json")
        forged = replace(approved, plan=replace(approved.plan, floor=0))
        with pytest.raises(RefusedError) as refused:
            start(at, apply=True, approved=forged)
        assert "floor is 0 in the plan, and 1 by the fleet's file" in refused.value.evidence
        place.run("fleet-test:one", "web-2")
        with pytest.raises(RefusedError, match="web-2 is new"):
            start(at, apply=True, approved=approved)
        place.api.remove_container("web-2", force=True)
        planned, state = start(at, apply=True, approved=approved)
        assert planned == approved.plan
        assert state is not None
        (line,) = [_history(one) for one in history(context, "fleet-test")]
        assert (line.rollout, line.approved_by, line.plan) == (state.state.id, "bob@host", digest(approved))
        assert [member.phase for member in state.members] == ["new"]


def test_two_rollouts_of_the_same_moment_do_not_meet(place: Place, context: Context) -> None:
    """The clock may stand still: the second rollout replaces what the first made, and finds it."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=2)
    with place.session(context) as at:
        assert [step.outcome for step in roll_output(*start(at, apply=True, as_owner=True)).steps] == ["new"]
        new = place.publish(context, "three", days=1)
        context.ledger.record_release(replace(context.ledger.releases("fleet-test")[1], expires_at=NOW - DAY))
        assert [step.outcome for step in roll_output(*start(at, apply=True, as_owner=True)).steps] == ["new"]
        assert member_lines(check(at))[0].image == f"{new.repository}@{new.digest}"
    assert len({row.id for row in context.ledger.rollouts("fleet-test")}) == 2


@pytest.mark.parametrize("known_to", ["ledger", "registry"])
def test_a_target_that_is_revoked_during_a_rollout_reaches_no_other_member(
    place: Place, context: Context, known_to: str
) -> None:
    """Whoever revokes it, here or on another machine: the rollout is refused before the next step."""
    old = place.publish(context, "one", days=40, ends=-1)
    for name in ("web-1", "web-2"):
        place.run(f"{old.repository}@{old.digest}", name)
    new = place.publish(context, "two", days=1)
    with place.session(context) as at:
        remove = at.members.remove_old

        def then_revoke(key: Key) -> None:
            remove(key)
            revoke(context, new, known_to)

        at.members.remove_old = then_revoke
        _, outcome = start(at, apply=True, as_owner=True)
        assert outcome
        assert "is revoked: a hole" in outcome.state.failure
        images = [line.image.partition("@")[2] for line in member_lines(check(at))]
    assert images == [new.digest, old.digest]


def test_pruning_looks_at_every_fleet_first(place: Place, context: Context) -> None:
    """What runs since the last look is known, also to a plan."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    context.ledger.seen_fleet("fleet-test", {"web-1": "sha256:older"}, NOW - DAY)
    prune_images(apply=False, context=context)
    assert context.ledger.running_digests() == {old.digest: ("fleet-test/web-1",)}


@pytest.mark.parametrize("apply", [False, True])
def test_nothing_is_pruned_while_a_fleet_cannot_be_read(place: Place, context: Context, apply: bool) -> None:
    """Unread is not unused."""
    place.publish(context, "one", days=40, ends=-1)
    docker = place.settings.docker.model_copy(update={"host": "tcp://127.0.0.1:1"})
    blind = replace(context, settings=place.settings.model_copy(update={"docker": docker}))
    with closing(blind.ledger), pytest.raises(OutsideError, match="fleet-test cannot be read, so nothing is pruned"):
        prune_images(apply=apply, context=blind)


def revoke(context: Context, release: Release, known_to: str) -> None:
    """Revoke a release, as only the ledger of this machine or only the registry knows it."""
    if known_to == "ledger":
        context.ledger.revoke(release.digest, "a hole", NOW)
        return
    documents = ChannelDocuments(context.registry, context.ledger, context.now)
    with documents.moving(release.repository):
        documents.write(release.repository, lambda one: one.revoking([release.digest], NOW, "a hole"), pytest.fail)


def test_an_unknown_member_is_taken_over_only_by_name(place: Place, context: Context) -> None:
    """A first fleet is all unknown: that is refused until it is meant."""
    busybox_image(place.api, "fleet-test:stranger", "stranger")
    place.run("fleet-test:stranger")
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        assert set(member_lines(check(at))[0].violations) == {"unknown", "approved_source"}
        with pytest.raises(RefusedError, match="1 of 1 member is unknown"):
            start(at, apply=True, as_owner=True)
        assert [step.outcome for step in roll_output(*start(at, apply=True, as_owner=True, adopt=["web-1"])).steps] == [
            "new"
        ]


def test_an_application_on_a_superseded_base_is_reported_with_its_base(place: Place, context: Context) -> None:
    """Known by the layers that it begins with, and left to its owner."""
    base = place.publish(context, "one", days=40)
    context.registry.pull(f"{base.repository}@{base.digest}", context.store.path, "base")
    changed = place.api.create_container(
        "fleet-test:one", ["sh", "-c", "echo more > /tmp/more"], labels={"goldsmith-test": "1"}
    )
    place.api.start(changed["Id"])
    place.api.wait(changed["Id"])
    place.api.commit(changed["Id"], repository="fleet-test", tag="shop", changes=['CMD ["/web"]'])
    place.run("fleet-test:shop")
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        line = member_lines(check(at))[0]
        planned = start(at, apply=False)[0]
    assert (line.release, line.base[:10]) == ("", "fleet-test")
    assert "superseded" in line.violations
    assert "its base fleet-test of" in next(reason.what for reason in line.reasons if reason.rule == "superseded")
    assert (planned.steps, "application image" in planned.skipped[0].why) == ((), True)


def test_an_application_that_names_a_base_and_holds_none_of_it_is_unknown(place: Place, context: Context) -> None:
    """The annotation base.digest, in an image that shares no layer with that base: anybody can write that."""
    base = place.publish(context, "one", days=40)
    other = place.publish(context, "two", days=1, channel="other", files={"own": "another layer"})
    manifest = context.registry.get(f"{other.repository}@{other.digest}").data
    named = {**manifest, "annotations": {"org.opencontainers.image.base.digest": base.digest}}
    url = f"http://{place.address.replace('/', '/v2/', 1)}/fleet-test/manifests/app"
    login = place.login() or {}
    kind, auth = {"Content-Type": str(manifest["mediaType"])}, (login["username"], login["password"])
    with requests.put(url, json=named, headers=kind, auth=auth, timeout=600) as answer:
        assert answer.status_code == 201, answer.text
    app = f"{other.repository}:app"
    place.api.pull(app, auth_config=place.login())
    place.run(app)
    with place.session(context) as at:
        line = member_lines(check(at))[0]
    assert (line.release, line.base) == ("", "")
    assert "unknown" in line.violations


def test_nothing_that_matches_is_said(place: Place, context: Context) -> None:
    """An empty fleet is no compliant one."""
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        assert check(at) == ()
        with pytest.raises(RefusedError, match="app=fleet-test"):
            start(at, apply=False)


def test_a_registry_that_cannot_be_reached_is_no_unknown_image(place: Place, context: Context) -> None:
    """Unread is not unknown; and nothing is rolled by it."""
    old = place.publish(context, "one", days=1)
    place.run(f"{old.repository}@{old.digest}")
    embedded_registry.stop(place.settings)
    quick = replace(context, settings=place.settings.model_copy(update={"retry_for": timedelta(seconds=1)}))
    with closing(quick.ledger), place.session(quick) as at:
        (line,) = member_lines(check(at))
        with pytest.raises(OutsideError):
            check(at, strict=True)
    assert "unread" in line.violations
    assert "unknown" not in line.violations


ENDS = {
    Command.ABORT: ("one", "old", "stopped by abort"),
    Command.APPROVE: ("two", "new", ""),
    Command.ROLLBACK: ("one", "old", "stopped by rollback"),
}


@pytest.mark.parametrize("command", list(ENDS))
def test_what_a_person_says_holds_during_a_bake_and_nobody_else_rolls_meanwhile(
    place: Place, context: Context, command: Command
) -> None:
    """A bake of an hour in another process: a second start is refused with the owner's name; a pause, its end, and an
    order come through at once.
    """
    answer, phase, failure = ENDS[command]
    write_fleet(place.settings, FLEET.replace('bake_time = "0s"', 'bake_time = "1h"'))
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)
    child = start_forked(rolls, place.settings, place.address, place.host)
    until(lambda: stage(context) == "baking", "the bake")
    with place.session(context) as at, pytest.raises(RefusedError, match=f"is being rolled by {context.actor}:"):
        start(at, apply=True, as_owner=True)
    with place.session(context) as at:
        assert automated(at, apply=True).outcome == "compliant", "the night leaves it to the process that runs it"
    for said, becomes in ((Command.PAUSE, "paused"), (Command.RESUME, "baking")):
        assert tell(context, "fleet-test", said, "to see").carried
        until(lambda becomes=becomes: stage(context) == becomes, becomes)
    tell(context, "fleet-test", command)
    assert ended(child) == 0
    seen = newest(context, "fleet-test")
    assert [member.phase for member in seen.members] == [phase]
    assert seen.state
    assert (failure in seen.state.failure) if failure else (seen.state.failure == "")
    assert [given.command for given in seen.commands] == ["pause", "resume", command]
    assert place.answers() == [answer]
    assert context.ledger.lease("fleet-test") is None
    with pytest.raises(RefusedError, match="no rollout of fleet-test is under way"):
        tell(context, "fleet-test", Command.PAUSE)


def test_a_rollout_that_is_over_goes_back_to_exactly_what_ran_before(place: Place, context: Context) -> None:
    """By digest, though the channel has long moved; asked for once more, nothing is left that could go back."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        start(at, apply=True, as_owner=True)
        place.publish(context, "three", days=0)
        outcome = back(at, newest(context, "fleet-test"))
        assert [member.phase for member in outcome.members] == ["old"]
        assert member_lines(check(at))[0].image.endswith(old.digest), "its tag has moved on; Docker knows it by digest"
        with pytest.raises(RefusedError, match="nothing to roll back"):
            back(at, newest(context, "fleet-test"))
    assert place.answers() == ["one"]


def test_a_member_that_could_not_go_back_goes_back_when_it_is_asked_for_again(
    place: Place, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it ran could not be fetched for a while: the member is a person's, and that person has the same command."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)

    def refuses(_fleet: DockerFleet, target: ReplacementImage, _member: str) -> None:
        raise RefusedError(f"{target.reference} is away")

    with place.session(context) as at:
        start(at, apply=True, as_owner=True)
        with monkeypatch.context() as patched:
            patched.setattr(DockerFleet, "prepare", refuses)
            first = back(at, newest(context, "fleet-test"))
        assert [member.phase for member in first.members] == ["failed"]
        assert place.answers() == ["two"]
        again = back(at, newest(context, "fleet-test"))
    assert [member.phase for member in again.members] == ["old"], again
    assert place.answers() == ["one"]


def test_a_rollout_that_can_never_end_does_not_keep_the_fleet_for_ever(place: Place, context: Context) -> None:
    """What broke off is told as over, once, and then the fleet is rolled as if it had not been."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)
    with place.session(context) as at:
        made = at.plan(()).plan
        broken = replace(made, waves=tuple(replace(wave, parallel=0) for wave in made.waves))
        with pytest.raises(UsageError, match="broke off: IndexError"):
            execute(at, Order("fleet-test-0", broken, at.fleet.limits))
        seen = newest(context, "fleet-test")
        assert (seen.row.open, seen.state and seen.state.stage) == (False, "ended")
        outcome = start(at, apply=True, as_owner=True)[1]
    assert outcome
    assert [member.phase for member in outcome.members] == ["new"]
    assert context.ledger.lease("fleet-test") is None


def stage(context: Context) -> str:
    """What the fleet's rollout does; empty before there is one."""
    rows = context.ledger.open_rollouts("fleet-test")
    state = view(context, rows[0]).state if rows else None
    return state.stage if state else ""


def rolls(settings: Settings, address: str, host: str) -> None:
    """A process that rolls."""
    context = Context(settings, NOW, lambda: host, lambda: address)
    with fleet_session("fleet-test", context, now=lambda: NOW) as at:
        start(at, apply=True, as_owner=True)


@pytest.mark.parametrize("by_night", [False, True])
def test_the_next_start_mends_what_a_killed_one_left(place: Place, context: Context, by_night: bool) -> None:
    """kill -9 right after the old one was stopped; then the same command again, or the next night, finishes it."""
    old = place.publish(context, "one", days=40, ends=-1)
    place.run(f"{old.repository}@{old.digest}")
    place.publish(context, "two", days=1)
    assert call_forked(killed_at_stop, place.settings, place.address, place.host) == -signal.SIGKILL
    assert len(context.ledger.open_rollouts("fleet-test")) == 1
    with place.session(context) as at:
        if by_night:
            assert automated(at, apply=True).outcome == "compliant"
        else:
            planned, outcome = start(at, apply=True, as_owner=True)
            assert (planned.steps, outcome) == ((), None), "what was left is finished, and nothing else violates"
        assert member_lines(check(at))[0].violations == ()
    found = place.api.containers(all=True, filters={"label": "app=fleet-test"})
    assert [one["Names"] for one in found] == [["/web-1"]]
    assert context.ledger.open_rollouts("fleet-test") == ()
    assert [member.phase for member in newest(context, "fleet-test").members] == ["new"]


def killed_at_stop(settings: Settings, address: str, host: str) -> None:
    """A process that rolls, and dies right after it has stopped the old container."""
    context = Context(settings, NOW, lambda: host, lambda: address)
    with fleet_session("fleet-test", context, now=lambda: NOW) as at:
        fatal(at)
        start(at, apply=True, as_owner=True)


def fatal(at: FleetSession) -> None:
    """Let the next stop be the last thing that this process does."""
    stop = at.members.api.stop

    def last(*words: Any, **more: Any) -> None:
        stop(*words, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    at.members.api.stop = last


def test_the_ledger_is_needed_for_nothing_that_the_registry_tells(place: Place, context: Context) -> None:
    """A release that only the registry knows is known by its annotations; this one has none, and is unknown."""
    old = place.publish(context, "one", days=1)
    place.run(f"{old.repository}@{old.digest}")
    empty = Ledger.open(f"sqlite:///{place.settings.state_dir / 'empty.sqlite'}")
    with closing(empty):
        bare = replace(context)
        bare.__dict__["ledger"] = empty
        with place.session(bare) as at:
            assert member_lines(check(at))[0].violations == ("unknown",)
