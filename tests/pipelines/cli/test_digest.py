"""Digests by a real mail server and a real webhook: each target hears of its own, once; none is lost by a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from hardening.foundation.errors import ContentError, OutsideError, UsageError
from hardening.foundation.process import run
from hardening.foundation.settings import REHEARSAL, ROOT, Settings, load_settings
from images.context import Context
from images.documents import from_json, to_json
from images.ledger import FleetCheck
from pipelines.cli import digest
from pipelines.cli.digest import run_digest, send_digests
from pipelines.cli.digest_text import MOST_LINES, TargetDigest
from pipelines.fleet.violations import CheckedMember, PolicyState
from pipelines.nightly import command, stages
from pipelines.nightly.model import NightOrder
from pipelines.nightly.stages import WorldStages
from pipelines.rollout import notify
from pipelines.rollout.mail import WITHIN
from pipelines.rollout.plan import plan
from pipelines.rollout.state import MemberState, Order
from tests.support.fleets import fleet, judged, target
from tests.support.hostile import Asked, Hostile, Reply, hostile, redirect
from tests.support.mail_server import MailServer, mail_server
from tests.support.watched import DAY, NOW, PLANTED, watched

SENDER = "goldsmith@example.com"
SECRET = "/hooks/s3cr3t"


@pytest.fixture
def mail() -> Iterator[MailServer]:
    """A mail server."""
    with mail_server() as server:
        yield server


@pytest.fixture
def hook() -> Iterator[Hostile]:
    """A chat's webhook."""
    with hostile() as server:
        server.fallback = Reply(b"ok")
        yield server


def told_to(context: Context, channels: dict[str, Any], mail: MailServer | None = None, **more: Any) -> Context:
    """The context with channels of its own."""
    smtp = {"smtp": {"server": mail.address, "sender": SENDER, "tls": "none"}} if mail else {}
    known = Settings(digest={"channels": channels, **smtp, **more}).digest
    return replace(context, settings=context.settings.model_copy(update={"digest": known}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fleets that have run for weeks, some of it out of policy."""
    folder = tmp_path_factory.mktemp("watched")
    watched(folder, 40).ledger.close()
    return folder


@pytest.fixture
def fleets(tmp_path: Path, made: Path) -> Iterator[Context]:
    """They, for this test alone."""
    for name in ("state", "content"):
        shutil.copytree(made / name, tmp_path / name)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    context = Context(settings, NOW, lambda: "", lambda: "", actor="ann@here")
    yield context
    context.ledger.close()


@pytest.fixture
def address(tmp_path: Path, hook: Hostile) -> Path:
    """The file with the webhook's address."""
    file = tmp_path / "webhook"
    file.write_text(f"{hook.address}{SECRET}\n")
    return file


def by_target(context: Context, **how: Any) -> dict[str, TargetDigest]:
    output, _ = send_digests(context, **how)
    return {one.target: one for one in output.targets}


def texts(hook: Hostile) -> list[str]:
    return [json.loads(one.body)["text"] for one in hook.asked]


def checked_anew(context: Context, fleet: str, **gone: bool) -> None:
    """The fleet was checked a day later: all is within policy."""
    known = context.ledger.fleet_checks()[fleet]
    members = from_json(tuple[CheckedMember, ...], known.members)
    well = [replace(one, reasons=(), verdict=replace(one.verdict, state=PolicyState.WITHIN)) for one in members]
    context.ledger.record_check(FleetCheck(fleet, NOW + DAY, to_json(tuple(well))))


def test_each_owner_hears_of_its_own_by_mail_and_a_channel_of_all(
    fleets: Context, mail: MailServer, hook: Hostile, address: Path
) -> None:
    """What is due, what Goldsmith does about it, and who has to act."""
    channels = {
        "web": {"owners": ["web team"], "mail": ["ann@example.com"]},
        "all": {"webhook_file": str(address)},
    }
    told = by_target(told_to(fleets, channels, mail))
    assert {name: one.outcome for name, one in told.items()} == {"ann@example.com": "sent", "webhook": "sent"}
    (message,) = mail.messages
    body = message.get_body(("plain",))
    assert body
    said = body.get_content()
    assert "shop-1 rolls it now: wave 1 of" in said
    assert "shop: web-00000: its image has expired" in said
    assert "it waits for an approval (web team: ./goldsmith roll.plan shop)" in said
    assert "warehouse" not in said
    assert message["Subject"] == told["ann@example.com"].subject
    assert "warehouse" in texts(hook)[0]


def test_a_second_digest_says_nothing_and_what_has_ended_once(fleets: Context, hook: Hostile, address: Path) -> None:
    """The ledger knows what was told to whom, and the audit that it was."""
    context = told_to(fleets, {"all": {"webhook_file": str(address)}})
    first = by_target(context)["webhook"]
    again = by_target(context)["webhook"]
    assert (again.outcome, again.lines, len(hook.asked)) == ("nothing", (), 1)
    checked_anew(context, "shop")
    checked_anew(context, "warehouse")
    later = context.moved(NOW + DAY)
    ended = by_target(later)["webhook"]
    assert {line.stage.value for line in ended.lines} == {"ended"}
    assert {name for line in ended.lines for name in line.names} >= {"web-00000", "web-00010", "web-00016"}
    assert by_target(later)["webhook"].outcome == "nothing"
    lines = context.ledger.audit_lines(subject="all webhook")
    assert [one.detail for one in lines] == [first.subject, ended.subject]


def test_a_reminder_comes_after_the_settings_days(fleets: Context, hook: Hostile, address: Path) -> None:
    """And says how long it is open."""
    context = told_to(fleets, {"all": {"webhook_file": str(address)}}, remind_after="1d", near="1h")
    by_target(context)
    for hours, stages_said in ((23, set()), (24, {"remind"}), (25, set())):
        told = by_target(context.moved(NOW + timedelta(hours=hours)))["webhook"]
        assert {line.stage.value for line in told.lines if line.rule != "unchecked"} == stages_said
    assert "open for 2d" in texts(hook)[1]


def test_a_dry_run_shows_it_and_neither_sends_nor_writes(fleets: Context, hook: Hostile, address: Path) -> None:
    """It says the same again, and then it is sent."""
    context = told_to(fleets, {"all": {"webhook_file": str(address)}})
    planned = by_target(context, dry=True)["webhook"]
    assert planned.outcome == "planned"
    assert (hook.asked, context.ledger.told_points("all webhook")) == ([], {})
    sent = by_target(context)["webhook"]
    assert sent == planned.model_copy(update={"outcome": "sent"})


def test_a_rehearsal_tells_nobody_and_goes_on_as_if_it_had(
    fleets: Context, hook: Hostile, mail: MailServer, address: Path
) -> None:
    """Its days pass as real ones would; the people behind the addresses have nothing to do with it."""
    (fleets.settings.state_dir / REHEARSAL).touch()
    context = told_to(fleets, {"all": {"webhook_file": str(address), "mail": ["ann@example.com"]}}, mail)
    assert {one.outcome for one in by_target(context).values()} == {"rehearsed"}
    assert {one.outcome for one in by_target(context).values()} == {"nothing"}
    assert (hook.asked, mail.messages) == ([], [])


def test_a_target_that_fails_is_told_all_of_it_by_the_next_digest_and_stops_no_other(
    fleets: Context, mail: MailServer, hook: Hostile, address: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Nothing is written down before it was taken, and no secret is said."""
    monkeypatch.setattr(notify, "retrying", asked_once)
    context = told_to(fleets, {"all": {"webhook_file": str(address), "mail": ["ann@example.com"]}}, mail)
    hook.fallback = Reply(b"s3cr3t", status=500)
    output, failures = send_digests(context)
    assert {one.target: one.outcome for one in output.targets} == {"ann@example.com": "sent", "webhook": "failed"}
    assert [str(one) for one in failures] == ["the webhook of digest.channels.all.webhook_file answers 500"]
    assert "s3cr3t" not in capsys.readouterr().err + output.model_dump_json()
    hook.fallback = Reply(b"ok")
    monkeypatch.undo()
    later = by_target(context)
    assert (later["webhook"].outcome, later["ann@example.com"].outcome) == ("sent", "nothing")
    assert later["webhook"].lines == output.targets[1].lines


def test_a_mail_server_that_is_down_is_waited_for_once_and_not_for_each_address(
    fleets: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else fifty addresses would keep a night for an hour. Once it takes a mail again, it is waited for again."""
    waits, down = list[timedelta](), [True, True, False, True]

    def send(_smtp: Any, mail: Any, within: timedelta) -> None:
        waits.append(within)
        if down[len(waits) - 1]:
            raise OutsideError(f"no way to {mail.to}")

    monkeypatch.setattr(digest, "send", send)
    smtp = {"server": "127.0.0.1:25", "sender": SENDER, "tls": "none"}
    _, failures = send_digests(told_to(fleets, {"all": {"mail": [f"{one}@example.com" for one in "abcd"]}}, smtp=smtp))
    assert (len(failures), waits) == (3, [WITHIN, timedelta(0), timedelta(0), WITHIN])


def asked_once(action: Callable[[], None], **_: object) -> None:
    """In the place of `retrying`: what fails is not tried again."""
    action()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("", "answers 307"),
        ("http://chat.example.com/x", "does not hold an https address"),
        ("https://ann:s3cr3t@chat.example.com/x", "does not hold an https address"),
    ],
)
def test_a_digest_goes_to_its_own_address_alone(
    fleets: Context, hook: Hostile, address: Path, monkeypatch: pytest.MonkeyPatch, held: str, said: str
) -> None:
    """A redirect is not followed, and nothing goes in the clear to another machine."""
    monkeypatch.setattr(notify, "retrying", asked_once)
    hook[SECRET] = redirect(f"{hook.elsewhere}/other", 307)
    if held:
        address.write_text(held)
    _, (failure,) = send_digests(told_to(fleets, {"all": {"webhook_file": str(address)}}))
    assert said in str(failure)
    assert "s3cr3t" not in str(failure)
    assert "/other" not in hook.paths


def test_strangers_text_mentions_nobody_in_a_chat_and_is_no_markup_in_a_mail(
    fleets: Context, mail: MailServer, hook: Hostile, address: Path
) -> None:
    """Owners, names and what was found are written by strangers."""
    name = "<!channel> @here [ok](https://evil.example)"
    known = fleets.ledger.fleet_checks()["shop"]
    members = from_json(tuple[CheckedMember, ...], known.members)
    fleets.ledger.record_check(
        FleetCheck(
            "shop", known.at, to_json((replace(members[0], name=f"{name}\r\nBcc: eve@example.com"), *members[1:]))
        )
    )
    send_digests(told_to(fleets, {"all": {"webhook_file": str(address), "mail": ["ann@example.com"]}}, mail))
    (chat,) = texts(hook)
    assert not [one for one in ("<", "@here", "](", "https://") if one in chat]
    (message,) = mail.messages
    html = message.get_body(("html",))
    assert html
    assert PLANTED not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()
    assert message["Bcc"] is None
    assert mail.got[0][0] == "ann@example.com"


def test_what_does_not_fit_comes_with_the_next_digest(fleets: Context, hook: Hostile, address: Path) -> None:
    """Nothing is lost: each point is told once, by one of them."""
    known = fleets.ledger.fleet_checks()["shop"]
    members = from_json(tuple[CheckedMember, ...], known.members)
    bad = next(one for one in members if one.reasons[1:])
    many = [
        replace(bad, name=f"m-{number}", id=f"m-{number}", reasons=(replace(bad.reasons[1], rule=f"rule-{number}"),))
        for number in range(3 * MOST_LINES)
    ]
    fleets.ledger.record_check(FleetCheck("shop", known.at, to_json(tuple(many))))
    context = told_to(fleets, {"all": {"owners": ["web team"], "webhook_file": str(address)}})
    told = list[str]()
    while (one := by_target(context)["webhook"]).outcome == "sent":
        assert len(one.lines) <= MOST_LINES
        assert (one.left_out > 0) == ("more with the next digest" in texts(hook)[-1])
        told += [line.rule for line in one.lines if line.rule.startswith("rule-")]
    assert sorted(told) == sorted(f"rule-{number}" for number in range(3 * MOST_LINES))


SENDS = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
import tasks
tasks.main("digest", "--json")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_as_it_sends_repeats_and_loses_nothing(
    tmp_path: Path, fleets: Context, hook: Hostile, address: Path
) -> None:
    """kill -9 once the message was taken and before that is written: it comes again, with the same key."""
    pid = tmp_path / "pid"

    def kill(_: Asked) -> Reply:
        os.kill(int(pid.read_text()), signal.SIGKILL)
        return Reply(b"ok")

    hook.fallback = kill
    content = json.dumps([str(tmp_path / "content")])
    env = {
        "GOLDSMITH_STATE": str(tmp_path / "state"), "GOLDSMITH_CONTENT": content, "GOLDSMITH_JUDGING__ROOTS": content,
        "GOLDSMITH_DIGEST__CHANNELS": json.dumps({"all": {"webhook_file": str(address)}}),
    }  # fmt: skip

    def sends(*ok: int) -> str:
        return run([sys.executable, "-c", SENDS, str(pid)], cwd=ROOT, env=env, ok=ok).stdout

    sends(-9)
    hook.fallback = Reply(b"ok")
    assert json.loads(sends(0))["targets"][0]["outcome"] == "busy", "the dead one's turn lasts for minutes"
    database = create_engine(f"sqlite:///{tmp_path}/state/ledger.sqlite", poolclass=NullPool)  # which leaves none open
    with database.begin() as connection:
        connection.execute(text("update leases set until = '2020-01-01 00:00:00.000000'"))
    assert json.loads(sends(0))["targets"][0]["outcome"] == "sent"
    first, second = (json.loads(one.body) for one in hook.asked)
    assert (first["key"], first["text"]) == (second["key"], second["text"])
    assert json.loads(sends(0))["targets"][0]["outcome"] == "nothing"
    assert len(hook.asked) == 2


def test_another_message_has_another_key(fleets: Context, hook: Hostile, address: Path) -> None:
    """Also where it says the same of the same points."""
    context = told_to(fleets, {"all": {"webhook_file": str(address)}}, remind_after="1h")
    said = [by_target(context.moved(NOW + hour * timedelta(hours=1)))["webhook"] for hour in range(3)]
    assert said[1].subject == said[2].subject
    keys = [json.loads(one.body)["key"] for one in hook.asked]
    assert len(keys) == len(set(keys)) == 3


def test_people_read_what_each_target_is_told(
    fleets: Context, address: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal, and of a night's dry run where to look."""
    context = told_to(fleets, {"all": {"owners": ["web team"], "webhook_file": str(address)}})
    assert run_digest(context, dry=True, as_json=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("all webhook: planned Goldsmith, all: 9 acted on or overdue, 3 new")
    assert "- shop: web-00000: its image has expired" in said
    planned = [(line.kind, line.status, line.detail) for part in command._told(context) for line in part.lines]
    assert planned[-1] == ("digest", "planned", "to all: ./goldsmith digest --dry-run shows what")


def test_a_way_back_rolls_those_alone_that_go_it(tmp_path: Path) -> None:
    """Whom the rollout before it has not replaced waits for nothing of it."""
    context = Context(Settings(state=tmp_path), NOW, lambda: "", lambda: "")
    found = [judged("web-1", "expired"), judged("web-2", "expired")]
    planned = plan(fleet(), found, target(expires_at=NOW + 60 * DAY), NOW)
    back = (MemberState(found[0].member.id, "web-1"),)
    order = Order("shop-1-back", planned, fleet().limits, back=back)
    context.ledger.begin_rollout("shop-1-back", "shop", "here:1", to_json(order), NOW)
    (row,) = context.ledger.open_rollouts()
    assert digest._rolling(context, row).members == {"web-1"}


def test_without_a_channel_there_is_nothing_to_do(fleets: Context) -> None:
    """It says what to set."""
    with pytest.raises(UsageError, match=r"\[digest\.channels\]"):
        send_digests(fleets)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[digest.channels.a]\nowners = ['*']", "give mail, webhook_file, or both"),
        ("[digest.channels.a]\nmail = ['a@example.com']", "channels.a.mail needs digest.smtp.server"),
        ("[digest.channels.a]\nmail = ['a@b\\nBcc: c@d']", "such as ann@example.com"),
        ("[digest.smtp]\nserver = 'mail.example.com:25'\nsender = 'a@b.c'\ntls = 'none'", "mail to this machine"),
        ("[digest.smtp]\nserver = 'mail.example.com:25'", "server needs a sender"),
        ("[digest]\nremind_after = '1m'", "at least 1h"),
        ("[github]\nrepository = 'a/b'", "repository and token_file must be given together"),
        ("[github]\napi = 'http://github.example.com/api/v3'", "must be an https address"),
    ],
)
def test_settings_that_cannot_work_are_refused_as_they_are_read(tmp_path: Path, written: str, said: str) -> None:
    """With the file and the key."""
    file = tmp_path / "goldsmith.toml"
    file.write_text(written)
    with pytest.raises(ContentError, match=said.replace("[", r"\[")) as caught:
        load_settings(file)
    assert str(file) in str(caught.value)


# -- the night's stage -------------------------------------------------------------------------------------------------

NIGHT = NightOrder("night-1", NOW)


def test_a_night_sends_the_digests_where_there_are_channels(fleets: Context, hook: Hostile, address: Path) -> None:
    """And has a line of it; done again after a crash, it says nothing twice."""
    assert WorldStages(fleets).digest(NIGHT).lines == ()
    acting = WorldStages(told_to(fleets, {"all": {"webhook_file": str(address)}}))
    lines = [acting.digest(NIGHT).lines for _ in range(2)]
    assert [(line.kind, line.status, line.detail) for (line,) in lines] == [
        ("digest", "sent", "1 sent"), ("digest", "nothing", "1 nothing")
    ]  # fmt: skip
    assert len(hook.asked) == 1


def test_a_digest_that_fails_is_a_failure_of_the_night(
    fleets: Context, hook: Hostile, address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the outside, so the operator of mail and chat acts."""
    monkeypatch.setattr(notify, "retrying", asked_once)
    hook.fallback = Reply(status=500)
    part = WorldStages(told_to(fleets, {"all": {"webhook_file": str(address)}})).digest(NIGHT)
    assert [line.status for line in part.lines] == ["failed"]
    assert part.failure
    assert isinstance(part.failure.error, OutsideError)


def test_a_night_waits_for_the_turn_of_a_process_that_may_be_dead(
    fleets: Context, hook: Hostile, address: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night that goes on after a kill sends what that left untold."""
    context = told_to(fleets, {"all": {"webhook_file": str(address)}})
    turns = []

    def retrying(action: Any, **_: Any) -> Any:
        with (
            digest.alone(context.ledger, "digest to all webhook", "dead", timedelta(minutes=5)),
            pytest.raises(OutsideError, match="another process sends digests"),
        ):
            turns.append(action())
        return action()

    monkeypatch.setattr(stages, "retrying", retrying)
    assert [line.status for line in WorldStages(context).digest(NIGHT).lines] == ["sent"]
    assert turns == []
