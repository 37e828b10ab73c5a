"""Decisions of a rollout at their edges, each of which a small slip in the code would turn."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.process import Completed
from images.documents import from_json, to_json
from pipelines.cli.check_output import member_lines
from pipelines.cli.rollout import show_members
from pipelines.fleet.members import Read
from pipelines.fleet.model import Method
from pipelines.fleet.port import InProgressError
from pipelines.nightly import fleet_stage
from pipelines.nightly.model import Failure
from pipelines.rollout import member
from pipelines.rollout.admission import admit
from pipelines.rollout.approved_plan import Present, compare, opened, seal, written
from pipelines.rollout.plan import plan, why_not
from pipelines.rollout.schedule import may_act
from pipelines.rollout.service import AutoLine
from pipelines.rollout.state import MemberOrder, Phase
from pipelines.rollout.waves import Room, Step, waves
from pipelines.wiring import clock
from tests.pipelines.rollout.test_rollout_run import Run, phases
from tests.support.fleets import NOW, fleet, judged, target
from tests.support.fleets import member as a_member

DAY = timedelta(days=1)
NOON = NOW  # a Sunday
SHUT = [{"days": ["mon"], "start": "09:00", "end": "10:00"}]


def order(*, back: bool = False, method: Method = Method.SURGE, floor: int = 0, **limits: Any) -> MemberOrder:
    return MemberOrder(
        "r1", "r1", "id", "web-1", target(), method, floor, fleet(**limits).limits, rule="expired", back=back
    )


# -- plan, waves, leave -----------------------------------------------------------------------------------------------


def test_a_plan_counts_the_budgets_of_the_moment_at_which_it_may_begin() -> None:
    """At noon nothing binds; in the window, which opens at ten, nobody who is expired may be replaced."""
    night = [{"start": "22:00", "end": "23:00"}]
    of = fleet(windows=night, budgets=[{"nodes": "100%"}, {"nodes": 0, "reasons": ["expired"], "windows": night}])
    made = plan(of, [judged("web-1", "expired")], target(), NOW)
    assert made.steps == ()
    assert [skip.why for skip in made.skipped] == ["limits.budgets[1] allows no member that is expired"]


def test_canaries_of_several_zones_run_as_wide_as_every_zone_allows() -> None:
    """Two in one zone, one in each of two others: side by side would mix zones."""
    steps = [Step(a_member(f"web-{n}", zone=zone), ("expired",), "expired") for n, zone in enumerate("aabc")]
    limits = fleet(zones="one_by_one", canary=4, max_parallel=4, max_surge=4).limits
    assert waves(steps, Room(limits, 4, 4))[0].parallel == 1


@pytest.mark.parametrize(("back", "room"), [(False, 0), (True, 2)])
def test_what_goes_back_waits_for_no_window_and_no_budget(back: bool, room: int) -> None:
    """It went wrong: the sooner it is as it was, the better."""
    shut = [order(back=back, windows=SHUT)] * 2
    spent = [order(back=back, budgets=[{"nodes": "100%"}, {"nodes": 0, "reasons": ["expired"]}])] * 2
    assert [admit(orders, 10, (), NOON).room for orders in (shut, spent)] == [room, room]


DEAD = "it has exited; start it, or remove it"


def test_a_dead_member_counts_for_the_floor_and_is_told_of() -> None:
    """It is a member that serves nobody: taking another one away would leave one of three."""
    known = [judged("web-1", "expired"), judged("web-2"), judged("web-3", "expired", healthy=False, cannot_roll=DEAD)]
    in_place = fleet(method="in_place", max_unavailable=1)
    with pytest.raises(RefusedError, match="leaves 1 of 3 members serving"):
        plan(in_place, known, target(), NOW)
    made = plan(fleet(), known, target(), NOW)
    assert (made.desired, made.floor) == (3, 3)
    assert [(skip.member, skip.why) for skip in made.skipped] == [(known[2].member.id, DEAD)]


def test_a_member_that_is_not_healthy_is_shown_so(capsys: pytest.CaptureFixture[str]) -> None:
    """Within policy is not all that a person wants to know."""
    lines = member_lines([judged("web-1"), judged("web-2", healthy=False)])
    assert show_members(lines) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^web-2 +not healthy ", shown, re.MULTILINE)
    assert "web-1" not in shown
    assert "1 member(s) within policy; --all lists them" in shown


# -- schedule ---------------------------------------------------------------------------------------------------------


def test_a_window_that_has_just_closed_opens_a_week_later() -> None:
    """On the same day of the week, not never."""
    monday = datetime(2026, 3, 2, 12, tzinfo=UTC)
    held = may_act(fleet(windows=SHUT).limits, monday)
    assert held
    assert held.until == datetime(2026, 3, 9, 9, tzinfo=UTC)


def test_each_freeze_counts_not_only_the_first() -> None:
    """The second one of the file is on."""
    days = [("2026-01-01", "2026-01-02"), ("2026-03-01", "2026-03-01")]
    freezes = [{"first_day": first, "last_day": last, "reason": "holidays"} for first, last in days]
    held = may_act(fleet(freezes=freezes).limits, NOON)
    assert held
    assert held.until == datetime(2026, 3, 2, tzinfo=UTC)


def test_an_end_that_is_further_away_than_a_year_is_no_end_in_sight() -> None:
    """A rollout that would wait so long is refused."""
    held = may_act(fleet(freezes=[{"first_day": "2026-01-01", "last_day": "2028-01-01", "reason": "x"}]).limits, NOON)
    assert held
    assert held.until is None


# -- refusals, sealed -------------------------------------------------------------------------------------------------


def test_a_protected_member_without_a_deadline_is_never_overdue() -> None:
    """No deadline is not one that has passed."""
    one = judged("web-1", "superseded", protected_until=NOW + DAY)
    never = replace(one, reasons=tuple(replace(reason, deadline=None) for reason in one.reasons))
    assert never.deadline is None
    assert "asks not to be disrupted" in why_not(fleet(), never, target(), NOW, ())
    assert why_not(fleet(), one, target(), NOW, ()) == "", "a day after its deadline, an hour of grace is over"


def test_a_replacement_under_the_same_name_with_another_content_has_moved() -> None:
    """The digest says what it is, whatever the reference."""
    known = [judged("web-1", "expired")]
    world = Present(fleet(), [one.member for one in known], target(), NOW)
    made = seal(plan(fleet(), known, target(), NOW), world, "ana")
    assert compare(made, world) == ()
    other = replace(world, target=replace(target(), digest="sha256:" + "f" * 64))
    assert len(compare(made, other)) == 1


def test_a_plan_whose_digest_is_broken_at_its_end_is_broken() -> None:
    """All of the digest counts."""
    known = [judged("web-1", "expired")]
    world = Present(fleet(), [one.member for one in known], target(), NOW)
    body = json.loads(written(seal(plan(fleet(), known, target(), NOW), world, "ana")))
    body["digest"] = body["digest"][:-1] + ("0" if body["digest"][-1] != "0" else "1")
    with pytest.raises(RefusedError, match="digest"):
        opened(json.dumps(body), "plan.json")


# -- a member's step --------------------------------------------------------------------------------------------------


def refuses(_target: Any) -> None:
    raise RefusedError("the replacement is revoked")


@pytest.mark.parametrize("back", [False, True])
def test_the_replacement_is_judged_again_right_before_a_member_is_touched(back: bool) -> None:
    """Not on the way back: that leads away from it."""
    ours = a_member(exact="r/nginx@sha256:old")
    judge = SimpleNamespace(left_alone=lambda *_: "", refuse=refuses)
    wanted = replace(order(back=back), replaces=ours.digests[0])
    world = SimpleNamespace(fleet=SimpleNamespace(find=lambda _id: ours), judge=judge)
    work: Any = SimpleNamespace(order=wanted, world=world)
    if back:
        assert member._judge(work) == member._Judgement(old=ours.handle, exact=ours.exact)
        return
    with pytest.raises(RefusedError, match="revoked"):
        member._judge(work)


class Place:
    """A fleet in place of which two others serve; the new one of ours is as it is told to be."""

    def __init__(self, *reads: bool, others: int = 1) -> None:
        self.reads = list(reads)
        self.others = [a_member(f"other-{number}") for number in range(others)]
        self.revived = 0

    def read(self, _key: Any) -> Read:
        return Read(self.reads.pop(0), "seen")

    def describe(self) -> list[Any]:
        return self.others

    def revive(self, _key: Any) -> None:
        self.revived += 1


@pytest.mark.parametrize(
    ("method", "others", "ill", "good", "revived"),
    [
        (Method.IN_PLACE, 2, False, True, 1),
        (Method.IN_PLACE, 1, False, True, 0),
        (Method.IN_PLACE, 1, False, False, 0),
        (Method.IN_PLACE, 1, True, True, 0),
        (Method.IN_PLACE, 1, True, False, 1),
        (Method.SURGE, 1, False, True, 1),
    ],
)
def test_in_place_the_old_one_comes_back_only_where_that_costs_nobody_anything(
    method: Method, others: int, ill: bool, good: bool, revived: int
) -> None:
    """Enough others serve, or the new one is ill for certain and at this moment; then the others count it as away."""
    place = Place(good, others=others)
    world = SimpleNamespace(fleet=place, retiring=set(), exclusive=nullcontext())
    work: Any = SimpleNamespace(order=order(method=method, floor=2), fleet=place, key=None, world=world)
    member._revive_safely(work, ill)
    assert place.revived == revived
    assert world.retiring == ({"id"} if revived and method is Method.IN_PLACE else set())


@pytest.mark.parametrize(
    ("method", "others", "good", "begun", "stopped"),
    [
        (Method.IN_PLACE, 2, True, False, True),
        (Method.IN_PLACE, 1, True, False, False),
        (Method.IN_PLACE, 1, True, True, True),
        (Method.SURGE, 0, True, False, True),
        (Method.SURGE, 9, False, False, False),
    ],
)
def test_the_old_one_stops_only_where_that_is_safe_at_that_moment(
    method: Method, others: int, good: bool, begun: bool, stopped: bool
) -> None:
    """In place enough others must serve, beside it the new one; what has begun to stop is brought to its end. In place
    the same step starts the new one: a process that is told to end does that between two steps.
    """
    acts = list[str]()
    place = SimpleNamespace(
        describe=lambda: [ours, *(a_member(f"other-{number}") for number in range(others))],
        read=lambda _key: Read(good, "seen"), retire=lambda _key, _drain: acts.append("retire"),
        start=lambda _key: acts.append("start"),
    )  # fmt: skip
    wanted = order(method=method, floor=2)
    ours = replace(a_member("web-1"), id=wanted.member)
    world = SimpleNamespace(fleet=place, exclusive=nullcontext(), retiring=set())
    work: Any = SimpleNamespace(order=wanted, fleet=place, key=None, world=world, wait=lambda _: None, started=False)
    held = member._retire_safely(work, timedelta(), begun)
    assert acts == (["retire", "start"] if method is Method.IN_PLACE else ["retire"]) * stopped
    assert (held is None) == stopped


@pytest.mark.parametrize(("failure", "starts"), [(None, 1), (OutsideError("busy"), 2), (InProgressError("it"), 2)])
def test_what_the_step_that_stopped_the_old_one_could_not_start_the_next_one_starts(
    failure: OutsideError | None, starts: int
) -> None:
    """The member is away: a failure there must not put the next try under a pause. What was started is not again."""
    failures, started = iter([failure]), list[None]()

    def start(_key: Any) -> None:
        started.append(None)
        if wrong := next(failures, None):
            raise wrong

    place = SimpleNamespace(retire=lambda _key, _drain: None, start=start)
    wanted, world = order(method=Method.IN_PLACE), SimpleNamespace(retiring=set())
    work: Any = SimpleNamespace(order=wanted, fleet=place, key=None, world=world, wait=lambda _: None, started=False)
    assert member._retire_safely(work, timedelta(), True) is None
    member._start(work)
    assert len(started) == starts


def test_only_bad_reads_in_a_row_prove_that_the_new_one_is_ill() -> None:
    """A good one in between lets the row start over."""
    place = Place(False, False, True, False, False, False, False)

    async def act(_name: str, effect: Callable[[], Any], _tries: int = 0) -> Any:
        return effect()

    async def wait(_span: timedelta) -> bool:
        return False

    runner = SimpleNamespace(engine=SimpleNamespace(wait=wait))
    wanted = order(method=Method.IN_PLACE, floor=2)
    world = SimpleNamespace(fleet=place, retiring=set(), exclusive=nullcontext())
    work: Any = SimpleNamespace(order=wanted, fleet=place, key=None, act=act, runner=runner, world=world)
    assert asyncio.run(member._revived(work)) == ""
    assert (place.revived, place.reads) == (1, [])


def test_a_canary_that_waits_for_its_approval_is_not_late_when_one_read_is_bad() -> None:
    """The time in which nothing but a person was waited for counts for nothing."""
    run = Run({"auto_promote": False, "bake_time": "10s", "min_healthy_time": "10s", "healthy_deadline": "1m"})
    run.memory.at(350, lambda: run.estate.bad_reads.add(run.estate.looks + 1))
    outcome = run.play()
    assert (phases(outcome), outcome.state.failure) == ([Phase.NEW] * 3, "")


# -- the night --------------------------------------------------------------------------------------------------------


def test_the_night_rolls_what_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """It acts, and does not only plan."""
    asked: list[bool] = []
    moments: list[datetime] = []

    @contextmanager
    def no_session(_name: str, context: Any) -> Iterator[str]:
        moments.append(context.now)
        yield "session"

    def automated(_at: str, *, apply: bool, begins: bool, tells: bool, until: datetime) -> AutoLine:
        assert begins
        assert until == NOW + DAY, "of the night, and not of each fleet"
        assert tells is not apply, "who only looks has to tell owners of newer bases all the same"
        asked.append(apply)
        return AutoLine(fleet="web", outcome="waits", detail="")

    more: list[str] = []

    def rolled(argv: Sequence[str], *, cwd: Path) -> Completed:
        assert argv[3:] == ["web", (NOW + DAY).isoformat(), "strict", *more], "by the night's policy and its own clock"
        line = AutoLine(fleet="web", outcome="rolled", detail="")
        return Completed((), 0, json.dumps({"line": line.model_dump()}), "")

    monkeypatch.setattr(fleet_stage, "fleet_session", no_session)
    monkeypatch.setattr(fleet_stage, "automated", automated)
    monkeypatch.setattr(fleet_stage, "run_ours", rolled)
    left: list[str] = []
    ledger = SimpleNamespace(open_rollouts=lambda _: left)
    moved = lambda now: SimpleNamespace(now=now)  # noqa: E731
    context: Any = SimpleNamespace(now=NOW, ledger=ledger, policy="strict", moved=moved)
    begun = clock()
    assert fleet_stage.bring_into_policy(context, "web").outcome == "waits"
    assert asked == [False, True], "an approval is asked for here"
    assert all(begun <= one <= clock() for one in moments), "windows of the night's own moment may be over by now"
    left.append("a rollout whose process died")
    assert fleet_stage.bring_into_policy(context, "web").outcome == "rolled"
    more.append(fleet_stage.FINISH)
    assert fleet_stage.bring_into_policy(context, "web", begins=False).outcome == "rolled"
    failure = Failure.of(RefusedError("too many are ill", evidence="403"))
    monkeypatch.setattr(
        fleet_stage, "run_ours", lambda *_, **__: Completed((), 0, json.dumps({"failure": to_json(failure)}), "")
    )
    with pytest.raises(RefusedError, match="too many are ill") as error:
        fleet_stage.bring_into_policy(context, "web")
    assert error.value.evidence == "403"
    monkeypatch.setattr(fleet_stage, "run_ours", lambda *_, **__: Completed((), -9, "", ""))
    with pytest.raises(OutsideError, match="ended with status -9"):
        fleet_stage.bring_into_policy(context, "web")


def test_the_process_that_rolls_a_fleet_says_also_what_nobody_foresaw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever started it makes a line of it."""

    def mistaken(*_: object) -> NoReturn:
        raise KeyError("image")

    monkeypatch.setattr(fleet_stage, "fleet_session", mistaken)
    fleet_stage.main("web", (NOW + DAY).isoformat())
    error = from_json(Failure, json.loads(capsys.readouterr().out)["failure"]).error
    assert (error.exit_code, error.message) == (1, "fleet web failed because of a bug in Goldsmith: KeyError: 'image'")
    assert "mistaken" in error.evidence
