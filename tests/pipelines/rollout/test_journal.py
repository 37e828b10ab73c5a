"""What a rollout writes down is what people and other processes read, on both databases, also over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from images.documents import from_json
from images.ledger import CommandRow as Given
from images.ledger import Holder, Ledger
from pipelines.durable.port import FencedError
from pipelines.fleet.members import ReplacementImage
from pipelines.rollout.lease import LedgerJournal, Tenure
from pipelines.rollout.notify import Message
from pipelines.rollout.state import (
    DesiredState,
    Event,
    MemberState,
    OperatorCommands,
    Phase,
    RolloutStage,
    RolloutState,
)
from tests.conftest import POSTGRES
from tests.support.fleets import release
from tests.support.postgres import Server

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ENDED = timedelta(seconds=-1)
STATE = RolloutState("r1", "shop", "web@sha256:new", NOW, waves=2)
MEMBERS = (MemberState("docker/a", "a"), MemberState("docker/b", "b"))


def journal_on(ledger: Ledger, said: list[Message]) -> LedgerJournal:
    """The journal of a process that holds the fleet, with a rollout begun."""
    lease = ledger.acquire_lease(Holder("shop", "host-a:1", "r1"), timedelta(days=1))
    ledger.begin_rollout("r1", "shop", lease.owner, {}, NOW)
    return LedgerJournal(ledger, lease, "ann", lambda: NOW, said.append)


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    """A new ledger, on SQLite and on PostgreSQL."""
    ledger = Ledger.open(database)
    yield ledger
    ledger.close()


@pytest.fixture
def said() -> list[Message]:
    """What people were told."""
    return []


@pytest.fixture
def journal(ledger: Ledger, said: list[Message]) -> LedgerJournal:
    """The journal of one process."""
    return journal_on(ledger, said)


def written(ledger: Ledger) -> tuple[RolloutState, tuple[MemberState, ...]]:
    """The rollout as it was last written down, and its members."""
    row = ledger.rollout("r1")
    assert row
    members = ledger.rollout_members("r1").values()
    return from_json(RolloutState, row.state), tuple(from_json(MemberState, member) for member in members)


def test_a_rollout_is_read_as_it_was_written(journal: LedgerJournal, ledger: Ledger) -> None:
    """The rollout and each member, the last word of each."""
    journal.begin(STATE, MEMBERS)
    assert written(ledger) == (STATE, MEMBERS)
    serving = replace(MEMBERS[1], phase=Phase.SERVING, old="b-old", note="differs")
    baking = replace(STATE, stage=RolloutStage.BAKING, wave=1)
    journal.mark("r1", serving)
    journal.save(baking)
    assert written(ledger) == (baking, (MEMBERS[0], serving))


def test_a_rollout_is_open_until_it_has_ended(journal: LedgerJournal, ledger: Ledger) -> None:
    """Who looks for work that is left finds it; ended it is history, and a line of the audit."""
    journal.begin(STATE, MEMBERS)
    assert [(found.id, found.owner) for found in ledger.open_rollouts("shop")] == [("r1", "host-a:1")]
    journal.save(replace(STATE, stage=RolloutStage.ENDED, ended_at=NOW, note="2 new"))
    assert ledger.open_rollouts("shop") == ()
    assert [(line.action, line.subject, line.detail) for line in ledger.audit_lines()] == [
        ("roll", "shop", "r1: 2 new")
    ]


def test_whoever_waits_sees_each_stage(journal: LedgerJournal, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with what it waits for; the begin and the end are for the caller to say."""
    journal.begin(STATE, MEMBERS)
    for stage, note in (
        (RolloutStage.BAKING, "baking for 5m"),
        (RolloutStage.PAUSED, ""),
        (RolloutStage.ENDED, "2 new"),
    ):
        journal.save(replace(STATE, stage=stage, note=note, wave=1))
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()) == (
        "",
        [
            "shop: wave 1 of 2: baking: the new are watched, the old kept (baking for 5m)",
            "shop: wave 1 of 2: paused",
        ],
    )


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("", OperatorCommands()),
        ("pause", OperatorCommands(DesiredState.PAUSE)),
        ("pause resume", OperatorCommands()),
        ("pause resume pause", OperatorCommands(DesiredState.PAUSE)),
        ("approve approve", OperatorCommands(canary_approvals=2)),
        ("pause abort resume rollback approve", OperatorCommands(DesiredState.ABORT, canary_approvals=1)),
        ("rollback pause abort", OperatorCommands(DesiredState.ROLLBACK)),
    ],
)
def test_commands_come_to_one_stance(told: str, wanted: OperatorCommands) -> None:
    """Pause and resume take turns; the first of abort and rollback is final; approvals are counted."""
    assert OperatorCommands.given(told.split()) == wanted


def test_what_another_process_commands_is_seen_at_once(journal: LedgerJournal, ledger: Ledger) -> None:
    """The ledger is asked each time."""
    assert journal.orders("r1") == OperatorCommands()
    ledger.give_command(Given("r1", "pause", "ann", NOW))
    assert journal.orders("r1") == OperatorCommands(DesiredState.PAUSE)


def test_who_lost_the_fleet_is_fenced(journal: LedgerJournal, ledger: Ledger) -> None:
    """Before an effect, not after it; a lease that ended while nobody took it is renewed."""
    journal.fence("r1")
    assert ledger.renew_lease(journal.lease, ENDED)
    journal.fence("r1")
    assert ledger.lease_lasts(journal.lease) is True
    assert ledger.renew_lease(journal.lease, ENDED)
    ledger.acquire_lease(replace(journal.lease, owner="host-b:2"), timedelta(days=1))
    with pytest.raises(FencedError):
        journal.fence("r1")


def test_a_lease_that_cannot_be_given_back_costs_nobody_the_outcome(
    journal: LedgerJournal, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database that restarts just as a rollout has ended: the lease ends by itself."""

    def away(_held: Holder) -> None:
        raise OutsideError("the server is starting up")

    monkeypatch.setattr(ledger, "release_lease", away)
    claim: Any = None
    with Tenure(ledger, claim, journal.lease).renewed():
        ended = "what came of it"
    assert ended
    assert "could not be given back, and ends by itself: the server is starting up" in capsys.readouterr().err


def test_a_lease_for_one_rollout_lets_nothing_of_another_be_done(journal: LedgerJournal) -> None:
    """What a process takes over from a dead one waits until its own rollout is carried."""
    with pytest.raises(FencedError):
        journal.fence("r2")


def test_effects_are_audited_and_people_are_told(journal: LedgerJournal, ledger: Ledger, said: list[Message]) -> None:
    """Who did it, in which rollout, and what it was about."""
    journal.audit("r1", "swap a", "a-old")
    (line,) = ledger.audit_lines(subject="r1")
    assert (line.actor, line.action, line.detail) == ("ann", "step: swap a", "a-old")
    for event in Event:
        journal.notify("r1", event, "text")
    assert [(message.event, message.fleet, message.rollout) for message in said] == [(e, "shop", "r1") for e in Event]


@pytest.mark.needs(POSTGRES)
def test_a_database_that_restarts_is_waited_for(running_postgres: Server) -> None:
    """What is written, asked or fenced meanwhile is late, and no failure of the rollout."""
    ledger = Ledger.open(running_postgres.new_database())
    journal = journal_on(ledger, [])
    calls = (lambda: journal.begin(STATE, MEMBERS), lambda: journal.orders("r1"), lambda: journal.fence("r1"))
    running_postgres.stop()
    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(call) for call in calls]
        running_postgres.start()
        for call in waiting:
            call.result(timeout=600)
    assert written(ledger) == (STATE, MEMBERS)
    ledger.close()


def test_what_a_member_runs_is_told_when_it_changes(ledger: Ledger, journal: LedgerJournal) -> None:
    """Where the new one serves, and where it goes back: put back at once, or by the way back, whose new instance is the
    old version. Of what never ran the new one, and of a group, nothing is told; a repeated mark adds nothing.
    """
    golden = release(9)
    journal = replace(journal, target=ReplacementImage(f"web@{golden.digest}", golden.digest, golden))
    ledger.record_whole_fleet("shop", {"a": "sha256:before", "b": "sha256:before"}, NOW - timedelta(days=1), "check")
    a, b = (replace(one, pinned="web@sha256:before") for one in MEMBERS)
    back = replace(a, pinned=f"web@{golden.digest}")
    group = MemberState("ec2/group", "group", Phase.NEW, pinned='{"version": 3}')
    marks = [
        replace(a, phase=Phase.REPLACING), *[replace(a, phase=Phase.SERVING)] * 2, replace(a, phase=Phase.NEW),
        replace(b, phase=Phase.OLD), group, replace(back, phase=Phase.SERVING), replace(a, phase=Phase.OLD),
    ]  # fmt: skip
    for mark in marks:
        journal.mark("r1", mark)
    told = [(one.member, one.content, one.told_by) for one in ledger.member_runs("shop")]
    assert told[2:] == [("a", golden.content, "r1"), ("a", "sha256:before", "r1")]
    journal.mark("r2", replace(b, phase=Phase.SERVING))
    journal.mark("r2", replace(b, phase=Phase.OLD))
    assert [one.content for one in ledger.member_runs("shop", "b")] == [
        "sha256:before",
        golden.content,
        "sha256:before",
    ]


def test_a_member_that_is_replaced_by_the_same_image_runs_what_it_ran(ledger: Ledger, journal: LedgerJournal) -> None:
    """It drifted. Whether the new one serves or was put back, no older image is told of it."""
    golden = release(9)
    journal = replace(journal, target=ReplacementImage(f"web@{golden.digest}", golden.digest, golden))
    ledger.record_whole_fleet("shop", {"a": "sha256:before"}, NOW - timedelta(days=2), "check")
    ledger.record_whole_fleet("shop", {"a": golden.content}, NOW - timedelta(days=1), "check")
    for pinned in (f"web@{golden.digest}", "web@sha256:dated-otherwise"):
        for phase in (Phase.SERVING, Phase.NEW, Phase.OLD):
            journal.mark("r1", replace(MEMBERS[0], pinned=pinned, phase=phase))
    assert [one.content for one in ledger.member_runs("shop", "a")] == ["sha256:before", golden.content]
