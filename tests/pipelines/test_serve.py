"""`serve`: what starts work, that it is done once whatever is killed, and what strangers can ask of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse

from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError
from hardening.foundation.limits import (
    SERVE_CALLS,
    SERVE_HEAD_SECONDS,
    SERVE_STREAM_SECONDS,
    SERVE_STREAMS,
    WEBHOOK_BYTES,
    WEBHOOK_ID,
    WEBHOOK_SECONDS,
)
from hardening.foundation.locks import is_held, only_one
from hardening.foundation.settings import Judging, Nightly, Notify, Serve, Settings
from hardening.foundation.telling import Github
from images.context import Context
from images.ledger import Ledger, Trigger
from pipelines.cli import serve as serving
from pipelines.cli.serve import _config, _webhook
from pipelines.serve import app as serving_app
from pipelines.serve import deadlines, leading
from pipelines.serve import live as serving_live
from pipelines.serve.app import HEADERS, Answers, OwnHosts
from pipelines.serve.deadlines import TimedProtocol
from pipelines.serve.leading import Leadership
from pipelines.serve.live import KeptAnswer, LivePage
from pipelines.serve.metrics import metrics
from pipelines.serve.moments import Schedule, TriggerKind, command
from pipelines.serve.runner import LOOK_SECONDS, Runner
from tests.support.forked import ended, start_forked

NOW = datetime(2026, 11, 25, 12, 7, tzinfo=UTC)
SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
HOSTS = ("GoldSmith.example.com",)
NEVER = Schedule.of(Serve(nightly="", urgent=""))
SOON = 600  # seconds, for what must come: no test's result depends on how busy the machine is


def came(what: str, true: object) -> None:
    """Wait until `true()`."""
    until = time.monotonic() + SOON
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.02)


# When work starts


def test_the_last_moment_of_each_kind_is_due() -> None:
    """The night of two o'clock local time, and the last quarter of an hour, each under an id that stays."""
    schedule = Schedule.of(Serve(zone="Europe/Berlin"))
    night, urgent = schedule.due(NOW)
    assert night == Trigger("night 2026-11-25T01:00:00+00:00", "night", datetime(2026, 11, 25, 1, tzinfo=UTC))
    assert urgent.at == NOW - timedelta(minutes=7)
    assert list(schedule.due(NOW + timedelta(minutes=7))) == [night, urgent]


def test_a_stop_of_days_is_made_up_for_by_one_night() -> None:
    """Yesterday's night would only do what today's does again."""
    schedule = Schedule.of(Serve(urgent=""))
    assert [one.at.day for one in schedule.due(NOW)] == [25]
    assert [one.at.day for one in schedule.due(NOW + timedelta(days=3))] == [28]


@pytest.mark.parametrize(
    ("key", "value"), [("nightly", "0 2 * *"), ("urgent", "*/x * * * *"), ("zone", "Mars/Olympus")]
)
def test_what_is_no_schedule_is_named_by_its_key(key: str, value: str) -> None:
    """Before anything is served."""
    with pytest.raises(ContentError, match=rf"serve\.{key}"):
        Schedule.of(Serve(**{key: value}))


@pytest.mark.parametrize(
    ("kinds", "task"),
    [
        ((), []),
        ((TriggerKind.URGENT,), ["nightly", "--only-urgent"]),
        ((TriggerKind.WEBHOOK, TriggerKind.URGENT), ["nightly"]),
        ((TriggerKind.URGENT, TriggerKind.NIGHT), ["nightly"]),
    ],
)
def test_one_run_serves_all_that_waits(kinds: tuple[TriggerKind, ...], task: list[str]) -> None:
    """A whole night does what is urgent too."""
    assert command([Trigger(f"{kind} 1", kind, NOW) for kind in kinds]) == task


def test_a_trial_is_served_by_its_policy(site: Site) -> None:
    """Else its nights judge by the policies of the definitions, which may not publish there."""
    waiting = [Trigger("urgent 1", TriggerKind.URGENT, NOW)]
    assert command(waiting, "demo") == ["nightly", "--only-urgent", "--policy", "demo"]
    assert command([], "demo") == []
    site.ledger.add_trigger("night 1", "night", NOW)
    with Runner(site.ledger, NEVER, lambda: NOW, site.program, policy="demo").at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly --policy demo"]


@pytest.mark.parametrize(
    ("settings", "policy", "says"),
    [
        ({"serve": Serve(nightly="0 0 30 2 *")}, "", r"serve\.nightly: no day is ever like"),
        (
            {"judging": Judging(policies=("default", "machin"))},
            "",
            r"judging\.policies\[1\]: unknown policy: machin",
        ),
        ({"judging": Judging(floor="defalt")}, "", r"judging\.floor: unknown policy: defalt"),
        ({}, "demo", "the policy demo may not publish"),
        ({"nightly": Nightly(policy="demo")}, "", "the policy demo may not publish"),
        ({"notify": Notify(command=("/no/program",))}, "", r"notify\.command: no program is called /no/program"),
        ({"notify": Notify(webhook_file=Path("/no/file"))}, "", r"notify\.webhook_file cannot be read"),
        (
            {"github": Github(repository="example/fleets", token_file=Path("/no/file"))},
            "",
            r"github\.token_file cannot be read",
        ),
    ],
)
def test_what_cannot_work_is_said_at_the_start(
    settings: dict[str, Any], policy: str, says: str, tmp_path: Path
) -> None:
    """Not by the first night, hours later."""
    context = Context(Settings(state=tmp_path, **settings), NOW, lambda: "", lambda: "", policy)
    with pytest.raises(GoldsmithError, match=says):
        serving.serve(context=context)


def test_a_trial_that_is_served_without_its_policy_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No definition that ships names the policy that may publish there."""
    trial = Settings(state=tmp_path, judging=Judging(policies=("demo",), floor=""))
    by_settings = trial.model_copy(update={"nightly": Nightly(policy="demo")})
    usual = Settings(state=tmp_path)
    for settings, policy, note in (
        (trial, "", True),
        (trial, "demo", False),
        (by_settings, "", False),
        (usual, "", False),
    ):
        serving._require_settings(Context(settings, NOW, lambda: "", lambda: "", policy))
        assert ("note: no image can be published" in capsys.readouterr().err) == note


def test_what_anybody_may_ask_is_kept_for_a_while() -> None:
    """However many ask at once; a failure is not kept."""
    answers, at = iter(("one", "two")), [0.0]
    told = KeptAnswer(lambda: next(answers), 60, lambda: at[0])
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: told(), range(32))) == {"one"}
    at[0] = 61.0
    assert told() == "two"
    at[0] = 122.0
    with pytest.raises(StopIteration):
        told()
    with pytest.raises(StopIteration):
        told()


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("listen", "127.0.0.1:65535", False), ("listen", "127.0.0.1:0", False), ("listen", "[::1]:8470", False),
        ("listen", "127.0.0.1:65536", True), ("listen", "127.0.0.1:99999", True), ("listen", "127.0.0.1:", True),
        ("hosts", ["goldsmith.example.com", "gold-1"], False), ("hosts", ["a..b"], True), ("hosts", ["-a"], True),
        ("hosts", ["a."], True), ("hosts", ["a:80"], True), ("hosts", ["http://a"], True),
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_are_refused_as_the_settings_are_read(key: str, value: object, wrong: bool) -> None:
    """By whatever command is typed first."""
    with pytest.raises(ValidationError) if wrong else nullcontext():
        Serve.model_validate({key: value})


# That it is done, once


@dataclass
class Site:
    """A ledger, and a program in the place of the command line, which writes down what it was asked for."""

    folder: Path

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return Ledger.open(f"sqlite:///{self.folder / 'ledger.sqlite'}")

    @property
    def program(self) -> tuple[str, str, str]:
        """Writes its arguments; while `hold` is there it goes on, and it ends as `code` says."""
        text = (
            "import sys, time, pathlib; at = pathlib.Path(sys.argv[1]); "
            "open(at / 'asked', 'a').write(' '.join(sys.argv[2:]) + '\\n')\n"
            "while (at / 'hold').exists(): time.sleep(0.02)\n"
            "(at / 'dies').exists() and __import__('os').kill(__import__('os').getpid(), 9)\n"
            "sys.exit(int((at / 'code').read_text()) if (at / 'code').exists() else 0)"
        )
        (self.folder / "program.py").write_text(text)
        return (sys.executable, str(self.folder / "program.py"), str(self.folder))

    @property
    def asked(self) -> list[str]:
        """What the program was asked for."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.exists() else []

    def running(self) -> bool:
        """Whether the program runs."""
        program = str(self.folder / "program.py")
        return any(program in _text(one) for one in Path("/proc").glob("[0-9]*/cmdline"))

    def runner(self, schedule: Schedule = NEVER, looks: float = LOOK_SECONDS) -> Runner:
        """What has the work done."""
        return Runner(self.ledger, schedule, lambda: NOW, self.program, looks)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """An empty one."""
    return Site(tmp_path)


def test_a_moment_is_served_once_also_after_a_restart(site: Site) -> None:
    """Its id stands in the ledger."""
    for _ in range(2):
        with site.runner(Schedule.of(Serve(urgent=""))).at_work():
            came("the night", lambda: "night" in site.ledger.last_triggers())
    assert site.asked == ["nightly"]
    assert site.ledger.last_triggers()["night"].outcome == "exit code 0"


def test_a_run_of_a_day_to_come_is_forgotten(site: Site) -> None:
    """A clock was ahead once: that run is not the last one until then, and its moment is served when it comes."""
    for name, done in (("ahead", NOW + timedelta(days=3)), ("before", NOW - timedelta(hours=2))):
        site.ledger.add_trigger(f"urgent {name}", "urgent", done)
        site.ledger.finish_triggers([f"urgent {name}"], done, "exit code 0")
    schedule = Schedule.of(Serve(urgent=""))
    (night,) = schedule.due(NOW)
    site.ledger.add_trigger(night.id, night.kind, night.at)
    site.ledger.finish_triggers([night.id], NOW + timedelta(days=3), "exit code 0")
    with site.runner(schedule).at_work():
        came("the night", lambda: site.asked == ["nightly"])
        came("its end", lambda: not site.ledger.waiting_triggers())
    done_at = {kind: one.done_at for kind, one in site.ledger.last_triggers().items()}
    assert done_at == {"urgent": NOW - timedelta(hours=2), "night": NOW}


AT_THREE = Schedule.of(Serve(nightly="0 3 * * *", urgent="", zone="UTC"))


def served_yesterday(ledger: Ledger, today: datetime) -> datetime:
    """When the night before was done, as the ledger has it after this."""
    at = today - timedelta(days=1)
    for trigger in AT_THREE.due(at):
        ledger.add_trigger(trigger.id, trigger.kind, trigger.at)
        ledger.finish_triggers([trigger.id], at, "exit code 0")
    return at


def test_a_standby_with_a_slow_clock_repeats_no_night(site: Site) -> None:
    """Each looks by its own clock: what the leader did is no run of a day to come, which is forgotten. The standby
    shows it once its own clock comes there.
    """
    now = datetime(2026, 9, 2, 3, 10, tzinfo=UTC)
    before = served_yesterday(site.ledger, now)
    leader = Runner(site.ledger, AT_THREE, lambda: now, site.program)
    standby = Runner(site.ledger, AT_THREE, lambda: now - timedelta(hours=2), site.program, busy=lambda: True)
    for _ in range(4):
        leader._serve()
        standby._serve()
    assert site.asked == ["nightly"]
    assert leader.last_runs()["night"].done_at == now
    assert standby.last_runs()["night"].done_at == before
    told = {family.name: family.samples for family in text_string_to_metric_families(metrics(site.ledger, standby))}
    assert [one.value for one in told["goldsmith_last_run_timestamp_seconds"]] == [before.timestamp()]


def test_a_clock_that_goes_back_while_it_serves_loses_no_night(site: Site) -> None:
    """What was done by the clock that was ahead is forgotten at the next look, not at the next start."""
    ahead = datetime(2026, 9, 2, 3, 10, tzinfo=UTC)
    served_yesterday(site.ledger, ahead)
    shown = [ahead]
    runner = Runner(site.ledger, AT_THREE, lambda: shown[0], site.program)
    for hours in (0, 0, 2, 0):
        shown[0] = ahead - timedelta(hours=hours)
        runner._serve()
    assert site.asked == ["nightly", "nightly"]


def test_a_night_that_failed_is_told_and_not_begun_again(site: Site) -> None:
    """The next moment is soon enough; what it must continue, it continues then."""
    (site.folder / "code").write_text("4")
    runner = site.runner(Schedule.of(Serve(urgent="")))
    with runner.at_work():
        came("the night", lambda: "night" in site.ledger.last_triggers())
    assert site.asked == ["nightly"]
    told = {family.name: family.samples for family in text_string_to_metric_families(metrics(site.ledger, runner))}
    [sample] = told["goldsmith_last_run_exit_code"]
    assert (sample.labels, sample.value) == ({"kind": "night"}, 4.0)


def test_a_night_that_is_killed_again_and_again_is_left_to_the_next_moment(site: Site) -> None:
    """Such as by too little memory: it is tried three times, not for ever; the alert on exit codes above 0 sees it."""
    site.ledger.add_trigger("night 1", "night", NOW)
    (site.folder / "dies").touch()
    with site.runner(looks=0.01).at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly"] * 3
    assert site.ledger.last_triggers()["night"].outcome == "exit code 137"


def test_what_another_night_kept_out_waits_for_its_end(site: Site) -> None:
    """It began after we had looked: it refuses ours, which is not done."""
    busy = iter([False, False, True, True, False])  # the first is asked before old runs are forgotten
    (site.folder / "code").write_text("3")
    site.ledger.add_trigger("night 1", "night", NOW)
    runner = Runner(site.ledger, NEVER, lambda: NOW, site.program, look_seconds=0.01, busy=lambda: next(busy, False))
    with runner.at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly"] * 2
    assert site.ledger.last_triggers()["night"].outcome == "exit code 3"


def test_what_is_stopped_waits_for_the_next_start(site: Site) -> None:
    """The night is asked to end, and is not taken for done."""
    (site.folder / "hold").touch()
    site.ledger.add_trigger("night 1", "night", NOW)
    with site.runner().at_work():
        came("the night", lambda: site.asked)
    assert [one.id for one in site.ledger.waiting_triggers()] == ["night 1"]
    (site.folder / "hold").unlink()
    with site.runner().at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly", "nightly"]


def _serve_killed(folder: Path) -> None:
    with Site(folder).runner().at_work():
        threading.Event().wait()


def test_what_is_killed_leaves_no_night_behind_and_its_work_to_the_next(site: Site) -> None:
    """By kill -9, in the middle of a night."""
    (site.folder / "hold").touch()
    site.ledger.add_trigger("night 1", "night", NOW)
    process = start_forked(_serve_killed, site.folder)
    came("the night", lambda: site.asked)
    assert process.pid
    assert site.running()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    came("the end of the night", lambda: not site.running())
    (site.folder / "hold").unlink()
    with site.runner().at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly", "nightly"]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _serves(folder: Path, state: Path) -> None:
    """`serve` as it is, but for the program that it starts."""
    os.environ["GOLDSMITH_SERVE__LISTEN"] = "127.0.0.1:0"
    os.environ["GOLDSMITH_SERVE__NIGHTLY"] = os.environ["GOLDSMITH_SERVE__URGENT"] = ""
    os.environ["GOLDSMITH_STATE"] = str(state)
    serving.Runner = partial(Runner, program=Site(folder).program)  # type: ignore[misc, assignment]
    sys.exit(serving.serve())


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_serve_that_is_asked_to_end_ends_the_night_that_runs(sign: int, site: Site) -> None:
    """With exit code 0; what the night was to serve waits for the next start."""
    state = site.folder / "state"
    state.mkdir(mode=0o700)
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}")
    ledger.add_trigger("night 1", "night", NOW)
    (site.folder / "hold").touch()
    process = start_forked(_serves, site.folder, state)
    came("the night", lambda: site.asked)
    assert process.pid
    assert site.running()
    os.kill(process.pid, sign)
    assert ended(process) == 0
    assert [one.id for one in ledger.waiting_triggers()] == ["night 1"]
    assert not site.running()


def test_what_is_due_while_a_person_runs_a_night_waits_for_its_end(site: Site) -> None:
    """Two at once are refused, and a moment that is taken for done would be lost."""
    lock = site.folder / "nightly.lock"
    site.ledger.add_trigger("night 1", "night", NOW)
    looks = list[bool]()

    def busy() -> bool:
        looks.append(is_held(lock))
        return looks[-1]

    with only_one(lock, "nightly"), Runner(site.ledger, NEVER, lambda: NOW, site.program, 0.01, busy).at_work():
        came("some looks", lambda: len(looks) > 2)
    assert all(looks)
    assert (site.asked, len(site.ledger.waiting_triggers())) == ([], 1)
    with site.runner().at_work():
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly"]


def test_of_two_on_one_database_one_runs_the_nights(database: str, tmp_path: Path) -> None:
    """The other one stands by, and takes over when the first has ended; both on machines of their own."""
    sites = [Site(tmp_path / name) for name in ("one", "two")]
    ledger = Ledger.open(database)
    with closing(ledger), ExitStack() as stack:
        parts = [Leadership(ledger, name) for name in ("ann@one", "ann@two")]
        hold = [stack.enter_context(ExitStack()) for _ in parts]

        for site, part, held in zip(sites, parts, hold, strict=True):
            site.folder.mkdir()
            held.enter_context(part.held())
            runner = Runner(
                ledger, Schedule.of(Serve(urgent="")), lambda: NOW, site.program, 0.01, lambda part=part: not part.leads
            )
            held.enter_context(runner.at_work())
        came("the night", lambda: "night" in ledger.last_triggers())
        assert [site.asked for site in sites] == [["nightly"], []]
        ledger.add_trigger("webhook 1", "webhook", NOW)
        came("its end", lambda: not ledger.waiting_triggers())
        assert [len(site.asked) for site in sites] == [2, 0]
        hold[0].close()
        ledger.add_trigger("webhook 2", "webhook", NOW)
        parts[1].look()
        came("its end", lambda: not ledger.waiting_triggers())
        assert [len(site.asked) for site in sites] == [2, 1]


def test_a_lease_that_ended_in_a_sleep_is_not_trusted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may run the nights by then; while the ledger is away, ours lasts no longer than its time."""
    part, passed = Leadership(site.ledger, "ann@one"), [0.0]
    monkeypatch.setattr(leading.time, "clock_gettime", lambda _clock: passed[0])
    part.look()
    assert part.leads
    (site.folder / "ledger.sqlite").rename(site.folder / "away")
    (site.folder / "ledger.sqlite").mkdir()
    passed[0] += leading.RENEW_SECONDS
    part.look()
    assert part.leads
    passed[0] += leading.LEASE.total_seconds()
    assert not part.leads


def test_what_the_machine_lacks_for_a_moment_ends_no_looking(site: Site) -> None:
    """Such as memory for a child: health says it until it is over."""
    site.ledger.add_trigger("night 1", "night", NOW)
    program = site.program
    runner = Runner(site.ledger, NEVER, lambda: NOW, ("\0",), 0.01)
    with runner.at_work():
        came("the failure", lambda: runner.failure)
        assert runner.lives
        runner._program = program
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert runner.failure == ""


def test_what_came_while_another_ran_is_served_after_it(site: Site) -> None:
    """The one that ran may have looked before."""
    (site.folder / "hold").touch()
    site.ledger.add_trigger("webhook 1", "webhook", NOW)
    runner = site.runner()
    with runner.at_work():
        came("the first", lambda: site.asked)
        site.ledger.add_trigger("webhook 2", "webhook", NOW)
        (site.folder / "hold").unlink()
        came("the second", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly"] * 2


# What can be asked of it


@contextmanager
def answering(site: Site, webhook: Webhook | None) -> Iterator[str]:
    """Its address, while it serves."""
    runner = site.runner()
    live = LivePage(site.ledger.state_stamp, lambda stamp: f"<p>{stamp}</p>", "default-src 'none'")
    leaving = threading.Event()
    answers = Answers(site.ledger, runner, webhook, lambda: metrics(site.ledger, runner), lambda: NOW, live, leaving)
    server = uvicorn.Server(_config(answers, HOSTS))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([bound],))
    with runner.at_work():
        thread.start()
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            leaving.set()
            server.should_exit = True
            thread.join()


def signed(body: str, name: str = "msg_1", *, at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers of a call."""
    at = at or datetime.now(UTC)
    signature = Webhook(secret).sign(name, at, body)
    stamp = str(int(at.timestamp()))
    return {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": signature}


def test_a_signed_call_is_served_once_however_often_it_is_sent(site: Site) -> None:
    """Who gets no answer sends again; so does who has recorded it."""
    with answering(site, Webhook(SECRET)) as address:
        headers = signed('{"pushed": "debian"}')
        codes = [
            requests.post(f"{address}/hooks", '{"pushed": "debian"}', headers=headers, timeout=SOON) for _ in "123"
        ]
        assert [one.status_code for one in codes] == [202, 200, 200]
        came("its end", lambda: not site.ledger.waiting_triggers())
    assert site.asked == ["nightly"]


def _old(body: str) -> dict[str, str]:
    return signed(body, at=datetime.now(UTC) - timedelta(minutes=6))


def _ahead(body: str) -> dict[str, str]:
    return signed(body, at=datetime.now(UTC) + timedelta(minutes=6))


def _renewed(body: str) -> dict[str, str]:
    return _old(body) | {"webhook-timestamp": signed(body)["webhook-timestamp"]}


REFUSED = {
    "unsigned": (lambda _: {}, 401),
    "another body": (lambda _: signed("{}"), 401),
    "another secret": (lambda body: signed(body, secret="whsec_" + b64encode(b"z" * 32).decode()), 401),
    "recorded": (_old, 401),
    "recorded, with the time of now": (_renewed, 401),
    "ahead": (_ahead, 401),
    "no time": (lambda body: signed(body) | {"webhook-timestamp": "soon"}, 401),
    "another id": (lambda body: signed(body) | {"webhook-id": "msg_2"}, 401),
    "no signature": (lambda body: signed(body) | {"webhook-signature": "v1"}, 401),
    "a long id": (lambda body: signed(body, "m" * (WEBHOOK_ID.most + 1)), 401),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_signed_for_this_moment_starts_nothing(why: str, site: Site) -> None:
    """Nothing of it is kept either."""
    headers, status = REFUSED[why]
    with answering(site, Webhook(SECRET)) as address:
        answer = requests.post(f"{address}/hooks", '{"a": 1}', headers=headers('{"a": 1}'), timeout=SOON)
    assert answer.status_code == status, answer.text
    assert not site.ledger.waiting_triggers()
    assert not site.asked


def test_a_call_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    """By its signature nobody could know yet who sends it."""
    body = "x" * (WEBHOOK_BYTES.most + 1)
    with answering(site, Webhook(SECRET)) as address:
        assert requests.post(f"{address}/hooks", body, headers=signed(body), timeout=SOON).status_code == 413


def test_a_call_that_does_not_come_to_its_end_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends no more would else hold one of the places for ever."""
    monkeypatch.setattr(serving_app, "WEBHOOK_SECONDS", replace(WEBHOOK_SECONDS, most=0))
    with answering(site, Webhook(SECRET)) as address:
        place = address.rpartition("/")[2].partition(":")
        with socket.create_connection((place[0], int(place[2])), timeout=60) as line:
            line.sendall(b"POST /hooks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            assert line.recv(99).startswith(b"HTTP/1.1 408 ")
    assert not site.ledger.waiting_triggers()


PARTS = {
    "nothing": b"",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "half of a second head": b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    "a body that nobody asked for": b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
}


@pytest.mark.parametrize("part", PARTS)
def test_silent_connections_give_their_places_back(part: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are places: each is ended, and whoever calls then is answered."""
    with answering(site, None) as address:
        monkeypatch.setattr(deadlines, "SERVE_HEAD_SECONDS", replace(SERVE_HEAD_SECONDS, most=0.05))
        host, port = address.rpartition("/")[2].split(":")
        lines = [socket.create_connection((host, int(port)), timeout=SOON) for _ in range(SERVE_CALLS.most + 6)]
        for line in lines:
            with suppress(ConnectionError):
                line.sendall(PARTS[part])
                while line.recv(4096):
                    pass
            line.close()
        monkeypatch.undo()
        came("an answer", lambda: requests.get(f"{address}/healthz", timeout=SOON).status_code == 200)


LARGE = 64 << 20


@contextmanager
def large_answer(keep_alive: int = 5) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    """A server whose answer fits into no buffer, and the address that it listens at."""
    answer = Response(b"x" * LARGE)
    server = uvicorn.Server(
        uvicorn.Config(answer, http=TimedProtocol, lifespan="off", log_level="critical", timeout_keep_alive=keep_alive)
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as bound:
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            yield server, bound
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(("keep_alive", "head"), [(5, ""), (0, ""), (5, "Connection: close\r\n")])
def test_an_answer_that_is_not_taken_ends(keep_alive: int, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for the page and does not read it holds its place no longer than a stream may last, also once uvicorn
    closes the connection.
    """
    monkeypatch.setattr(deadlines, "SERVE_HEAD_SECONDS", replace(SERVE_HEAD_SECONDS, most=0.05))
    monkeypatch.setattr(deadlines, "SERVE_STREAM_SECONDS", replace(SERVE_STREAM_SECONDS, most=0.05))
    with large_answer(keep_alive) as (server, bound), socket.create_connection(bound.getsockname()) as line:
        line.sendall(f"GET / HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())
        came(
            "the end of the connection",
            lambda: server.server_state.total_requests and not server.server_state.connections,
        )


def test_an_answer_that_is_taken_late_comes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow line has as long as a stream, not only until the next call is due."""
    monkeypatch.setattr(deadlines, "SERVE_HEAD_SECONDS", replace(SERVE_HEAD_SECONDS, most=0.05))
    with large_answer() as (_, bound), socket.create_connection(bound.getsockname(), timeout=SOON) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(0.5)
        assert sum(map(len, iter(lambda: line.recv(1 << 20), b""))) > LARGE


def test_without_a_secret_no_call_is_taken(site: Site) -> None:
    """Also not one that is signed by an empty one."""
    with answering(site, None) as address:
        assert requests.post(f"{address}/hooks", "{}", headers=signed("{}"), timeout=SOON).status_code == 404
        assert requests.get(f"{address}/hooks", timeout=SOON).status_code == 405


def test_health_tells_what_runs_and_what_was_done_last(site: Site) -> None:
    """And 503 where the ledger does not answer."""
    site.ledger.add_trigger("webhook 1", "webhook", NOW)
    with answering(site, None) as address:
        came("its end", lambda: not site.ledger.waiting_triggers())
        health = requests.get(f"{address}/healthz", timeout=SOON)
        assert health.status_code == 200
        assert health.json() == {
            "status": "ok", "running": None, "waiting": 0,
            "last": {"webhook": {"at": NOW.isoformat(), "done_at": NOW.isoformat(), "outcome": "exit code 0"}},
        }  # fmt: skip
        assert "goldsmith_waiting 0.0" in requests.get(f"{address}/metrics", timeout=SOON).text
        (site.folder / "ledger.sqlite").rename(site.folder / "away")
        (site.folder / "ledger.sqlite").mkdir()
        assert requests.get(f"{address}/healthz", timeout=SOON).status_code == 503
        assert requests.get(f"{address}/metrics", timeout=SOON).status_code == 503


@pytest.mark.parametrize("text", [None, "", "whsec_c2hvcnQ=", "whsec_!" * 8 + "x"])
def test_a_secret_that_protects_nothing_is_refused(text: str | None, tmp_path: Path) -> None:
    """One that is missing, empty, short or no base64, with how to make one."""
    file = tmp_path / "secret"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ContentError, match="openssl rand"):
        _webhook(Serve(webhook_secret_file=file))


# The page


def test_the_page_is_made_once_for_each_state() -> None:
    """However many look; the ledger is asked every two seconds at most, and ages move on their own."""
    stamp, at, made = ["a"], [0.0], list[str]()

    def make(stamp: str) -> str:
        made.append(stamp)
        return f"page {len(made)}"

    live = LivePage(lambda: stamp[0], make, "", lambda: at[0])
    with ThreadPoolExecutor(8) as pool:
        assert {shown.html for shown in pool.map(lambda _: live.page(), range(32))} == {"page 1"}
    stamp[0] = "b"
    assert live.page().html == "page 1"
    at[0] += serving_live.LOOK_SECONDS
    assert live.page().html == "page 2"
    at[0] += serving_live.AGES_SECONDS
    assert live.page().html == "page 3"
    assert len(set(made)) == 3


def test_the_page_is_shown_to_who_asks_and_runs_nothing_of_others(site: Site) -> None:
    """Its policy goes with it; nothing keeps it, no other page frames it; only reading is answered."""
    with answering(site, None) as address:
        page = requests.get(address, timeout=SOON)
        assert page.status_code == 200
        assert page.text.startswith("<p>")
        assert page.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert {name: page.headers[name] for name in HEADERS} == HEADERS
        assert requests.post(address, timeout=SOON).status_code == 405
        assert requests.get(f"{address}/favicon.ico", timeout=SOON).status_code == 204
        (site.folder / "ledger.sqlite").rename(site.folder / "away")
        (site.folder / "ledger.sqlite").mkdir()
        came("the failure", lambda: requests.get(address, timeout=SOON).status_code == 503)


def test_a_page_whose_name_leads_here_reads_nothing(site: Site) -> None:
    """A browser that a stranger's name led to us (DNS rebinding) says that name. Signed calls come by any."""
    ours = ("127.0.0.1", "[::1]:8470", "LOCALHOST:8470", "Goldsmith.example.com")
    strangers = (
        "evil.example", "127.0.0.1.evil.example:8470", "localhost.evil.example", "127.0.0.1@evil.example", "[::1", "",
        "my-localhost", "evil.goldsmith.example.com",
    )  # fmt: skip
    with answering(site, None) as address:
        for path in ("/", "/events", "/healthz", "/metrics", "/favicon.ico", "/nothing"):
            for host in (*ours, *strangers):
                with requests.get(f"{address}{path}", headers={"Host": host}, timeout=SOON, stream=True) as answer:
                    assert (answer.status_code == 421) is (host in strangers), (path, host)
        assert requests.post(f"{address}/hooks", headers={"Host": strangers[0]}, timeout=SOON).status_code == 404


def test_a_call_of_two_names_or_of_none_is_nobodys() -> None:
    """Who is in between may read another one than we do."""
    guard = OwnHosts(Response(), HOSTS)
    for names, ours in ((["localhost"], True), ([], False), (["localhost", "evil.example"], False)):
        assert guard._is_ours(Headers(raw=[(b"host", name.encode()) for name in names])) is ours


@pytest.mark.parametrize("login", ["ann:planted@127.0.0.1:1/x", "127.0.0.1:1/x?user=ann&password=planted"])
def test_what_a_failing_ledger_says_holds_no_password(login: str) -> None:
    """Whoever reaches us reads it, as the reason why there is no page, or no health."""
    with pytest.raises(OutsideError, match="the ledger at postgresql") as caught:
        Ledger.open(f"postgresql+psycopg://{login}")
    assert "planted" not in str([caught.value.message, caught.value.hint, caught.value.evidence])


def test_looking_changes_nothing(site: Site) -> None:
    """Neither the ledger nor what is beside it, whatever is asked, and by whatever method."""
    with answering(site, None) as address:
        requests.get(address, timeout=SOON)
        before = site.ledger.state_stamp()
        for path in ("/", "/events", "/healthz", "/metrics"):
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
                assert requests.request(method, f"{address}{path}", timeout=SOON).status_code == 405
            with requests.get(f"{address}{path}", stream=True, timeout=SOON) as answer:
                assert "access-control-allow-origin" not in answer.headers
        assert site.ledger.state_stamp() == before
        assert not site.ledger.audit_lines()
        assert not site.asked


def test_who_looks_is_told_when_the_state_is_another(site: Site) -> None:
    """By server-sent events, which end when the process does."""
    with answering(site, None) as address, requests.get(f"{address}/events", stream=True, timeout=SOON) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert {name: stream.headers[name] for name in HEADERS} == HEADERS
        lines = stream.iter_lines(decode_unicode=True)
        first = [next(lines), next(lines)]
        site.ledger.audit(NOW, "ann", "look", "shop")
        next(lines)
        second = [next(lines), next(lines)]
    assert first[0] == second[0] == "event: state"
    assert first[1].startswith("data: ")
    assert first[1] != second[1]


def test_too_many_streams_leave_room_for_all_else(site: Site) -> None:
    """Who opens them all keeps nobody from health and hooks; one that ends makes room."""
    with answering(site, None) as address:
        open_ = [requests.get(f"{address}/events", stream=True, timeout=SOON) for _ in range(SERVE_STREAMS.most)]
        lines = [one.iter_lines() for one in open_]  # kept: a stream whose lines nobody keeps is closed
        assert {next(one) for one in lines} == {b"event: state"}
        with requests.get(f"{address}/events", stream=True, timeout=SOON) as refused:
            assert refused.status_code == 503
        assert requests.get(f"{address}/healthz", timeout=SOON).status_code == 200
        open_.pop().close()

        def is_let_in() -> bool:
            with requests.get(f"{address}/events", stream=True, timeout=SOON) as answer:
                return answer.status_code == 200

        came("room", is_let_in)
        for one in open_:
            one.close()


@pytest.fixture
def answers(site: Site) -> Answers:
    """What answers, without a server."""
    live = LivePage(lambda: "one", str, "", lambda: 0.0)
    return Answers(site.ledger, site.runner(), None, str, lambda: NOW, live, threading.Event())


async def _first_of(*streams: Response) -> list[str | None]:
    """What each stream says first, all of them open; None where it ends."""
    assert all(isinstance(one, StreamingResponse) for one in streams)
    said = [await anext(one.body_iterator, None) for one in streams]  # type: ignore[attr-defined]
    for one in streams:
        await one.body_iterator.aclose()  # type: ignore[attr-defined]
    return said


def test_of_streams_that_come_at_once_no_more_are_open_than_may_be(answers: Answers) -> None:
    """Each of them was let in before the other began."""

    async def told() -> list[str | None]:
        answers._streams = SERVE_STREAMS.most - 1
        return await _first_of(*[await answers.events(None) for _ in "12"])  # type: ignore[arg-type]

    assert asyncio.run(told()) == ["event: state\ndata: one@0\n\n", None]
    assert answers._streams == SERVE_STREAMS.most - 1


def test_a_stream_has_an_end(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks for longer asks again; who is gone without a word holds no place for ever."""
    monkeypatch.setattr(serving_app, "SERVE_STREAM_SECONDS", replace(SERVE_STREAM_SECONDS, most=0))

    async def told() -> list[str | None]:
        return await _first_of(await answers.events(None))  # type: ignore[arg-type]

    assert asyncio.run(told()) == [None]
