"""Each rollout leaves one deployment at GitHub, with what became of it; a record that fails stops no rollout."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from hardening.foundation.settings import Settings
from images.context import Context
from images.documents import to_json
from images.ledger import Ledger
from pipelines.rollout import deployments
from pipelines.rollout.deployments import record, recording
from pipelines.rollout.notify import Message
from pipelines.rollout.plan import plan
from pipelines.rollout.service import execute
from pipelines.rollout.state import Event, MemberState, Order, Phase, RolloutStage, RolloutState
from tests.support.fleets import NOW, fleet, judged, target
from tests.support.forge import TOKEN, Forge, forge, problem
from tests.support.forked import call_forked
from tests.support.hostile import Asked, Reply, redirect, slowly
from tests.support.sleeping import NAMES, FileFleet, desk_on

QUICK = {"bake_time": "0s", "min_healthy_time": "1s", "settle": "0s", "drain": "0s"}
ORDER = Order(
    "r1", plan(fleet(**QUICK), [judged(name, "expired") for name in NAMES], target(29), NOW), fleet(**QUICK).limits
)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture
def github(certificates: Path) -> Iterator[Forge]:
    """The repository."""
    with forge(certificates) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, github: Forge) -> Settings:
    """With a token, and little patience."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return Settings(state=tmp_path, github={**github.settings, "token_file": tmp_path / "token"})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is not asked again, unless the test asks for it."""
    monkeypatch.setattr(deployments, "WITHIN", timedelta())


def begun(ledger: Ledger, rollout: str = "r1", minute: int = 0) -> None:
    at = NOW + minute * MINUTE
    ledger.begin_rollout(rollout, "web", "here:1", to_json(replace(ORDER, rollout=rollout)), at)
    ledger.save_rollout(rollout, to_json(RolloutState(rollout, "web", "r.example/nginx@sha256:1", at, 2)), at)


def ended(ledger: Ledger, rollout: str = "r1", phase: Phase = Phase.NEW, failure: str = "") -> None:
    state = RolloutState(rollout, "web", "t", NOW, 2, RolloutStage.ENDED, note=f"2 {phase}", failure=failure)
    ledger.save_member(rollout, "a", to_json(MemberState("a", "a", phase)))
    ledger.save_rollout(rollout, to_json(state), NOW, is_open=False)


def test_a_rollout_is_one_deployment_of_its_fleet(settings: Settings, ledger: Ledger, github: Forge) -> None:
    """In progress, then a success; asked for again, nothing more is said."""
    begun(ledger)
    for _ in range(2):
        record(settings, ledger, "web", "r1", NOW)
    ended(ledger)
    for _ in range(2):
        record(settings, ledger, "web", "r1", NOW)
    (made,) = github.deployments
    assert {name: made[name] for name in ("ref", "task", "environment", "auto_merge", "required_contexts")} == {
        "ref": "main", "task": "goldsmith", "environment": "web", "auto_merge": False, "required_contexts": [],
    }  # fmt: skip
    assert made["payload"] == {"rollout": "r1", "target": ORDER.plan.target.reference, "members": 2}
    assert github.states("r1") == ["in_progress", "success"]
    assert [one.method for one in github.server.asked] == ["GET", "POST", "POST", "POST"]


@pytest.mark.parametrize(
    ("phase", "failure", "state"),
    [(Phase.OLD, "it is not healthy\nat all " + "x" * 500, "failure"), (Phase.SKIPPED, "", "inactive")],
)
def test_what_failed_is_a_failure_and_what_changed_nothing_is_inactive(
    settings: Settings, ledger: Ledger, github: Forge, phase: Phase, failure: str, state: str
) -> None:
    """With the reason, as much of it as GitHub takes, on one line."""
    begun(ledger)
    ended(ledger, phase=phase, failure=failure)
    record(settings, ledger, "web", "r1", NOW)
    assert github.states("r1") == [state]
    (status,) = github.statuses[github.deployments[0]["id"]]
    assert "\n" not in status["description"]


def test_a_later_success_takes_the_place_of_the_one_before(settings: Settings, ledger: Ledger, github: Forge) -> None:
    """Also where its environment is one of production, whose records GitHub leaves active."""
    for minute, name in enumerate(("r1", "r2")):
        begun(ledger, name, minute)
        record(settings, ledger, "web", name, NOW)
        ended(ledger, name)
        record(settings, ledger, "web", name, NOW)
    assert (github.states("r1"), github.states("r2")) == (
        ["in_progress", "success", "inactive"],
        ["in_progress", "success"],
    )


def test_what_was_taken_back_is_inactive(settings: Settings, ledger: Ledger, github: Forge) -> None:
    """And the way back is a success of its own."""
    begun(ledger)
    ended(ledger)
    record(settings, ledger, "web", "r1", NOW)
    begun(ledger, "r1-back", 1)
    ended(ledger, "r1-back", Phase.OLD)
    record(settings, ledger, "web", "r1-back", NOW)
    assert (github.states("r1"), github.states("r1-back")) == (["success", "inactive"], ["success"])


def test_what_was_missed_is_made_up_for(
    settings: Settings, ledger: Ledger, github: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the fleet's next event."""
    begun(ledger)
    record(settings, ledger, "web", "r1", NOW)
    github.before = lambda _: problem(502, "Server Error")
    ended(ledger)
    record(settings, ledger, "web", "r1", NOW)
    assert "no deployment record of r1 in shop/web: POST" in " ".join(capsys.readouterr().err.split())
    github.before = lambda _: None
    begun(ledger, "r2", 1)
    record(settings, ledger, "web", "r2", NOW)
    assert (github.states("r1"), github.states("r2")) == (["in_progress", "success"], ["in_progress"])


def test_an_answer_that_was_lost_makes_no_second_deployment(
    settings: Settings, ledger: Ledger, github: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again at once, and finds the first by the rollout's name in its payload."""
    monkeypatch.setattr(deployments, "WITHIN", timedelta(seconds=20))
    lost: list[Asked] = []

    def lose(asked: Asked) -> Reply | None:
        if asked.method == "POST" and not lost:
            lost.append(asked)
            return problem(502, "Server Error")
        return None

    github.after = lose
    begun(ledger)
    record(settings, ledger, "web", "r1", NOW)
    assert len(github.deployments) == 1
    assert github.states("r1") == ["in_progress"]


def recorded_and_killed(settings: Settings, url: str, pid: Path) -> None:
    """In a process of its own: tells who it is, and records a rollout until the repository kills it."""
    pid.write_text(str(os.getpid()))
    with patch.object(deployments, "WITHIN", timedelta()):
        record(settings, Ledger.open(url), "web", "r1", datetime.now(UTC))


@pytest.mark.parametrize("moment", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_at_any_request_leaves_one_deployment(
    tmp_path: Path, settings: Settings, ledger: Ledger, github: Forge, moment: int, when: str
) -> None:
    """kill -9 as the request arrives, or once it was done and before its answer; then another process goes on."""
    begun(ledger)
    pids, seen = tmp_path / "pid", list[Asked]()

    def kill(asked: Asked) -> Reply | None:
        seen.append(asked)
        if len(seen) == moment:
            os.kill(int(pids.read_text()), signal.SIGKILL)
        return None

    setattr(github, when, kill)
    assert call_forked(recorded_and_killed, settings, f"sqlite:///{tmp_path}/ledger.sqlite", pids) == -signal.SIGKILL
    setattr(github, when, lambda _: None)
    record(settings, ledger, "web", "r1", NOW)
    assert len(github.deployments) == 1
    assert set(github.states("r1")) == {"in_progress"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (redirect("https://localhost:1/elsewhere", 307), "GitHub answers 307"),
        (Reply(b"[" * 100_000), "exceeds the limit"),
        (Reply(b"x" * 5_000_000), "exceeds the limit forge.bytes"),
        (Reply(b'{"id": 1}'), "is not a list of deployments"),
        (Reply(b'[{"id": -1, "payload": "{\\"rollout\\": \\"r1\\"}"}]'), "does not give the id of a deployment"),
        (problem(401, "Bad\x1b[2J credentials"), "Bad\\x1b[2J credentials; the token"),
        (problem(404, "Not Found"), "is github.repository right"),
    ],
)
def test_whatever_github_answers_no_rollout_is_stopped_and_no_token_shown(
    settings: Settings, ledger: Ledger, github: Forge, capsys: pytest.CaptureFixture[str], answer: Reply, said: str
) -> None:
    """It is said; and nothing is asked of another host."""
    begun(ledger)
    github.before = lambda _: answer
    record(settings, ledger, "web", "r1", NOW)
    told = " ".join(capsys.readouterr().err.split())
    assert "no deployment record of r1 in shop/web" in told
    assert said in told
    assert TOKEN not in told
    assert len(github.server.asked) == 1


def test_an_answer_that_comes_letter_by_letter_is_given_up(
    settings: Settings,
    ledger: Ledger,
    github: Forge,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No single read of it is late, and the rollout waits for this."""
    monkeypatch.setattr(deployments, "FORGE_SECONDS", SimpleNamespace(most=0.2))
    begun(ledger)
    github.before = lambda _: Reply(slowly([b"["] * 2_000), claim=2_000)
    record(settings, ledger, "web", "r1", NOW)
    assert "no answer within" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("held", ["", "two words", "ümlaut", "line\nbreak"])
def test_a_file_that_holds_no_token_is_said_and_nothing_is_asked(
    tmp_path: Path, settings: Settings, ledger: Ledger, github: Forge, capsys: pytest.CaptureFixture[str], held: str
) -> None:
    """No header is written by what stands in it."""
    (tmp_path / "token").write_text(held)
    begun(ledger)
    record(settings, ledger, "web", "r1", NOW)
    assert "github.token_file does not hold a token" in " ".join(capsys.readouterr().err.split())
    assert not github.server.asked


def test_a_server_whose_certificate_nobody_trusts_gets_no_token(
    settings: Settings, ledger: Ledger, github: Forge, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a netrc of this machine asked for one."""
    begun(ledger)
    untrusting = settings.model_copy(update={"github": settings.github.model_copy(update={"ca_file": None})})
    record(untrusting, ledger, "web", "r1", NOW)
    assert "does not answer: SSLError" in " ".join(capsys.readouterr().err.split())
    assert not github.server.asked


def test_the_token_of_the_settings_is_sent_and_no_other(
    tmp_path: Path, settings: Settings, ledger: Ledger, github: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A netrc would else take its place."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    begun(ledger)
    record(settings, ledger, "web", "r1", NOW)
    assert {one.headers["Authorization"] for one in github.server.asked} == {f"Bearer {TOKEN}"}


def test_without_a_repository_nothing_is_asked(ledger: Ledger, github: Forge) -> None:
    """It is somebody's choice; what concerns no rollout leaves no record."""
    said: list[Message] = []

    def tell(message: Message) -> bool:
        said.append(message)
        return True

    assert recording(Settings(), ledger, tell)(Message(Event.STARTED, "web", "r1", "it begins", NOW))
    assert recording(Settings(), ledger, tell)(Message(Event.NIGHT, "", "", "it ended", NOW))
    assert (len(said), github.server.asked) == (2, [])


@pytest.mark.slow
@pytest.mark.parametrize("down", [False, True])
def test_a_rollout_on_the_real_engine_leaves_its_record(
    tmp_path: Path, settings: Settings, github: Forge, down: bool
) -> None:
    """And rolls all the same where GitHub is down."""
    if down:
        github.before = lambda _: problem(503, "Unavailable")
    members = FileFleet(tmp_path)
    members.lay_out()
    (tmp_path / "well").touch()
    known = settings.model_copy(update={"database": f"sqlite:///{tmp_path}/ledger.sqlite"})
    context: Any = Context(known, NOW, str, str)
    outcome = execute(desk_on(context, tmp_path), ORDER)
    assert [one.phase for one in outcome.members] == ["new", "new"]
    assert github.states("r1") == ([] if down else ["in_progress", "success"])
