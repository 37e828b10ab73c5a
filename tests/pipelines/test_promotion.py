"""What a night moves `stable` to: what was `candidate` for a day, or closes a grave hole, and runs well if it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import Finding, FindingKind, Verdict
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.model import Severity
from hardening.policy import Policy
from images.artifact import Artifact, Release
from images.context import Context
from images.documents import to_json
from images.ledger import FleetCheck, Ledger, Move
from images.ledger.artifacts import ScanRecord
from images.registry.release_store import RegistryStore
from images.release import soak
from images.release.channels import promote, revoke, rollback
from images.release.publish import release
from images.release.soak import candidate_since, fixed, ripe, ripe_earlier, soaked
from pipelines import promotion
from pipelines.fleet.members import Provenance, ReplacementImage
from pipelines.nightly import command, image_stages
from pipelines.nightly.model import ImageAnswer, ImageJob, NightOrder, NightPart
from pipelines.promotion import PromotionDecision
from pipelines.rollout.plan import plan
from pipelines.rollout.state import MemberState, Order, Phase, RolloutState
from tests.support.fleets import fleet
from tests.support.fleets import judged as member
from tests.support.fleets import release as numbered
from tests.support.publishing import (
    DAY,
    FINDING,
    NOW,
    REPORT,
    Begin,
    at,
    built,
    definition,
    gate,
    judged,
)

NAME = "python-runtime"
HOUR = timedelta(hours=1)
CRITICAL = replace(FINDING, id="CVE-9", severity=Severity.CRITICAL, fixed="3.6")
EXPLOITED = replace(FINDING, id="CVE-7", exploited=True)

Open = Callable[..., "Shop"]

needs_registry = pytest.mark.needs("docker-registry", "skopeo")


# What has soaked


@given(st.integers(0, 200), st.integers(0, 10_000))
def test_a_candidate_has_soaked_after_its_time_and_never_long_before(hours: int, minutes: int) -> None:
    """A night may begin a little earlier than the one before it: a day's soak is over after 23 hours."""
    soak, age = hours * HOUR, timedelta(minutes=minutes)
    if age >= soak:
        assert soaked(NOW - age, soak, NOW)
    if age < soak * 23 / 24:
        assert not soaked(NOW - age, soak, NOW)


@pytest.mark.parametrize(("age", "over"), [(timedelta(minutes=4), False), (22 * HOUR, False), (23 * HOUR, True)])
def test_by_default_the_soak_is_a_day(age: timedelta, over: bool) -> None:
    """Four minutes after its publication a release is nobody's `stable`."""
    assert soaked(NOW - age, definition().lifecycle.soak, NOW) is over


# What cannot wait


def test_only_a_closed_hole_that_is_exploited_or_critical_cannot_wait() -> None:
    """In the very package; one that is still there, or was never grave, is no reason."""
    both = (CRITICAL, EXPLOITED, FINDING)
    assert fixed(both, ()) == ("CVE-7", "CVE-9")
    assert fixed(both, (replace(CRITICAL, package="other"), EXPLOITED)) == ("CVE-9",)
    assert fixed((FINDING,), ()) == ()
    assert fixed((), both) == ()
    assert fixed((replace(CRITICAL, kind=FindingKind.SECRET),), ()) == ()


# What has soaked although a newer one is candidate


@given(st.lists(st.integers(0, 30), unique=True), st.integers(0, 5), st.none() | st.integers(0, 30))
def test_each_release_soaks_by_itself(ages: list[int], soak: int, stable: int | None) -> None:
    """All that has soaked and is newer than `stable`, the newest first."""
    ages.sort()
    made = {age: numbered(age, published_at=NOW - age * DAY, expires_at=NOW + DAY) for age in (*ages, stable or 0)}
    named = made[stable] if stable is not None and stable in made else None
    found = ripe([(made[age], NOW - age * DAY) for age in ages], named, (), soak * DAY, NOW)
    assert found == tuple(made[age] for age in ages if age >= soak and (named is None or age < (stable or 0)))


def test_what_ended_is_passed_over_and_what_stable_has_left_ends_the_search() -> None:
    """People may have moved it back from there."""
    two, three, four = (numbered(day, published_at=NOW - (9 - day) * DAY, expires_at=NOW + DAY) for day in (2, 3, 4))
    gone: dict[str, Any]
    for gone in ({"revoked_at": NOW}, {"pruned_at": NOW}, {"expires_at": NOW}):
        earlier = [(one, one.published_at) for one in (replace(four, **gone), three, two)]
        assert ripe(earlier, None, (), DAY, NOW) == (three, two)
    assert ripe([(one, NOW - DAY) for one in (four, three, two)], None, {three.content}, DAY, NOW) == (four,)


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[tuple[Any, Release, Release]]:
    """A store whose ledger knows two candidates of one repository, and the older one of another too; and these two."""
    dates = [{"published_at": NOW - age * DAY, "expires_at": NOW + DAY} for age in (3, 1)]
    ours, newer = (replace(numbered(age), repository="r.example/web", **told) for age, told in enumerate(dates))
    with closing(Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        for one in (ours, newer, replace(ours, repository="old.example/web", published_at=NOW - 9 * DAY)):
            ledger.record_release(one)
        for one in (ours, newer):
            ledger.record_move(Move(one.repository, "candidate", one.digest, one.published_at, "publish"))
        yield SimpleNamespace(ledger=ledger, now=NOW, find=lambda *_: None), ours, newer


def test_an_earlier_candidate_is_one_of_the_same_repository(moved: tuple[Any, Release, Release]) -> None:
    """The same release stood in another one before, as after a registry was moved."""
    to, ours, newer = moved
    assert ripe_earlier(to, newer, (), DAY) == (ours,)


@pytest.mark.parametrize(("age", "many"), [(2, 0), (4, 1)])
def test_stable_of_another_machine_is_not_gone_back_behind(
    moved: tuple[Any, Release, Release], age: int, many: int
) -> None:
    """This ledger has never heard of it: the registry tells its date."""
    to, ours, newer = moved
    elsewhere = replace(ours, digest="sha256:there", content="sha256:other", published_at=NOW - age * DAY)
    to.find = lambda _, digest: elsewhere if digest == elsewhere.digest else None
    assert ripe_earlier(to, newer, (elsewhere.digest,), DAY) == (ours,)[:many]


@pytest.mark.parametrize(("well", "many"), [((), 1), ((True, True), 1), ((True, False), 0), ((False, True), 0)])
def test_an_earlier_candidate_must_have_run_well_in_each_fleet(
    well: tuple[bool, ...], many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That runs candidates; where none does, age alone decides."""
    one, fleets = numbered(1), [SimpleNamespace(name=str(number)) for number in range(len(well))]
    monkeypatch.setattr(promotion, "ripe_earlier", lambda *_: (one,))
    monkeypatch.setattr(promotion, "_candidate_fleets", lambda *_: fleets)
    monkeypatch.setattr(promotion, "_ran_well", lambda _context, fleet, _release: well[int(fleet)])
    context: Any = SimpleNamespace(definitions={one.name: SimpleNamespace(definition=definition())})
    to: Any = None
    assert promotion.earlier_candidates(context, to, one, ()) == (one,)[:many]


def test_it_ran_well_under_whichever_dates_it_was_rolled(moved: tuple[Any, Release, Release]) -> None:
    """What ran is what is inside; a rollout to another content says nothing of it."""
    to, ours, newer = moved
    again = replace(ours, digest="sha256:again", published_at=NOW)
    to.ledger.record_release(again)
    state, members = SimpleNamespace(ended_at=NOW, failure=""), (SimpleNamespace(phase=Phase.NEW),)
    context: Any = SimpleNamespace(ledger=to.ledger)
    for rolled, well in ((ours, True), (again, True), (newer, False)):
        view = SimpleNamespace(replacement=f"r/web@{rolled.digest}", back=False, state=state, members=members)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(promotion, "history", lambda *_, view=view: (view,))
            assert promotion._ran_well(context, "canary", again) is well


class Rolled(SimpleNamespace):
    """The newest rollout of a fleet: to what, and why it failed."""

    def __init__(self, to: Release, failure: str = "") -> None:
        state = SimpleNamespace(ended_at=NOW, failure=failure)
        super().__init__(replacement=f"r/web@{to.digest}", back=False, state=state, members=())


def deciding(to: Any, candidate: Release, monkeypatch: pytest.MonkeyPatch, *rolled: Rolled) -> Any:
    """A context in which `candidate` is one, nothing is `stable`, and the fleet on `candidate` has no members."""
    to.meant, to.pointed = lambda _: candidate, lambda *_: ()
    to.ledger.record_check(FleetCheck("canary", NOW, []))
    fleet = SimpleNamespace(name="canary", replacement=SimpleNamespace(definition=candidate.name, channel="candidate"))
    monkeypatch.setattr(promotion, "store_of", lambda *_: to)
    monkeypatch.setattr(promotion, "load_fleets", lambda _: {"canary": fleet})
    monkeypatch.setattr(promotion, "fleet_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(promotion, "check", lambda _: ())
    monkeypatch.setattr(promotion, "history", lambda *_: rolled)
    definitions = {candidate.name: SimpleNamespace(definition=definition())}
    return SimpleNamespace(ledger=to.ledger, now=NOW, definitions=definitions, settings=SimpleNamespace(roots=()))


def test_where_the_fleet_on_candidate_is_empty_it_is_said_that_no_canary_ran(
    moved: tuple[Any, Release, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the candidate, and of an earlier one; and what could not be rolled there, so that nobody is left, stays."""
    to, ours, newer = moved
    context = deciding(to, newer, monkeypatch)
    said = "no canary ran, for no member of the fleet canary is there"
    assert promotion.promotion(context, newer.name) == PromotionDecision(waits=False, why=said)
    assert promotion.earlier_text(context, ours).endswith(f"; {said}")
    context = deciding(to, newer, monkeypatch, Rolled(ours, "it crashed"))
    assert not promotion.promotion(context, newer.name).waits
    assert not promotion._ran_well(context, "canary", ours)
    context = deciding(to, newer, monkeypatch, Rolled(newer, "it crashed"))
    assert promotion._ran_well(context, "canary", ours)
    with pytest.raises(RefusedError, match="the fleet canary could not be rolled to the candidate"):
        promotion.promotion(context, newer.name)


@pytest.mark.parametrize(("ahead", "refused"), [(0, False), (1, False), (2, True), (4000, True)])
def test_a_date_to_come_neither_soaks_nor_waits_in_silence(
    ahead: int, refused: bool, moved: tuple[Any, Release, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidate's, or that of `stable`, after which nothing earlier is newer. A night may go on hours later."""
    to, ours, _ = moved
    dated = {"published_at": NOW + ahead * DAY, "repository": ours.repository}
    to_come = replace(numbered(7), **dated)
    to.ledger.record_release(to_come)
    to.ledger.record_move(Move(to_come.repository, "candidate", to_come.digest, to_come.published_at, "publish"))
    young = replace(numbered(8), repository=ours.repository, published_at=NOW)
    context = deciding(to, to_come, monkeypatch)
    monkeypatch.setattr(promotion, "urgent_fixes", lambda *_: ())
    to.find = lambda *_: to_come
    for candidate, stable, channel in ((to_come, (), "candidate"), (young, (to_come.digest,), "stable")):
        if not refused:
            decided = promotion.soak(context, to, candidate.name, candidate, stable)
            assert isinstance(decided, PromotionDecision)
            assert decided.waits
            continue
        with pytest.raises(RefusedError, match=rf"{channel} is dated .* which is in the future") as error:
            promotion.soak(context, to, candidate.name, candidate, stable)
        assert f"image.promote {candidate.name}" in error.value.hint
    monkeypatch.setattr(promotion, "urgent_fixes", lambda *_: ("CVE-1",))
    assert promotion.soak(context, to, young.name, young, (to_come.digest,)) == ("CVE-1",)


def test_only_fleets_that_become_the_candidate_tell_how_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on stable waits for it."""
    becomes = {"canary": (NAME, "candidate"), "shop": (NAME, "stable"), "other": ("nginx", "candidate")}
    fleets = {
        name: SimpleNamespace(name=name, replacement=SimpleNamespace(definition=definition, channel=channel))
        for name, (definition, channel) in becomes.items()
    }
    monkeypatch.setattr(promotion, "load_fleets", lambda _roots: fleets)
    context: Any = SimpleNamespace(settings=SimpleNamespace(roots=()))
    assert [one.name for one in promotion._candidate_fleets(context, NAME)] == ["canary"]


# One image, at a real registry


def publish(
    to: RegistryStore, text: str, hours: int = 0, found: Sequence[Finding] = (), *, redate: bool = False
) -> Release:
    """Make a release the candidate; `found` is what its scan found."""
    now = NOW + hours * HOUR
    said = judged(now)
    said = replace(said, verdict=replace(said.verdict, subject=NAME))
    made = built(to.store, NAME, text)
    to.ledger.record_artifact(made)
    to.ledger.record_scan(made.digest, ScanRecord((REPORT,), tuple(found)), now)
    return release(at(to, now), made, definition(NAME), said, redate=redate).release


def put(to: RegistryStore, text: str, hours: int, found: Sequence[Finding], stable: bool) -> Release:
    """The same, and let `stable` point to it where asked."""
    made = publish(to, text, hours, found)
    if stable:
        promote(at(to, NOW + hours * HOUR), NAME, "default", gate())
    return made


GRAVE = ("one", 0, (CRITICAL, FINDING), True)
BETTER = ("two", 1, (FINDING,), False)
FIRST = ("one", 0, (), False)


class Shop:
    """One image, its releases in a registry, and what the night would do with them at a moment."""

    def __init__(self, to: RegistryStore, made: tuple[Release, ...]) -> None:
        self.to, self.made, self.parts = to, made, tuple[NightPart, ...]()
        self.context = Context(to.settings, NOW, lambda: "", lambda: to.registry.address)

    def publish(self, text: str, hours: int, *found: Finding, redate: bool = False) -> Release:
        return publish(self.to, text, hours, found, redate=redate)

    def promote(self, hours: int) -> None:
        promote(at(self.to, NOW + hours * HOUR), NAME, "default", gate())

    def decide(self, hours: float) -> PromotionDecision:
        return promotion.promotion(replace(self.context, now=NOW + hours * HOUR), NAME)

    def soaks(self, soak: timedelta) -> None:
        """Let the image soak for so long."""
        loaded = self.context.definitions[NAME]
        lifecycle = loaded.definition.lifecycle.model_copy(update={"soak": soak})
        changed = replace(loaded, definition=loaded.definition.model_copy(update={"lifecycle": lifecycle}))
        self.context.definitions[NAME] = changed

    def night(self, day: int, text: str = "") -> str:
        """A night: it publishes, and then promotes; the digest that `stable` names afterwards."""
        if text:
            self.publish(text, 24 * day)
        self.parts = image_stages._promotion(self.context.moved(NOW + day * DAY), ImageAnswer(NAME, "published"))
        assert not [part.failure for part in self.parts if part.failure]
        return next(iter(self.to.pointed(self.to.repository(NAME), "stable")), "")

    @property
    def lines(self) -> list[str]:
        """What the channel's lines of the last night say."""
        return [line.status for part in self.parts for line in part.lines]


@pytest.fixture
def open_shop(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Shop]]:
    """Opens a shop in which some releases were put."""

    def scan_again(context: Context, artifact: Artifact, _policy: Policy) -> ScanRecord:
        found = context.ledger.scan(artifact.digest)
        assert found
        return found

    def artifact_of(context: Context, wanted: Release) -> Artifact:
        return next(one for one in context.ledger.artifacts(wanted.name) if one.digest == wanted.content)

    monkeypatch.setattr(soak, "artifact_of", artifact_of)  # these images have nothing in them that a scanner reads
    monkeypatch.setattr(soak, "scan_again", scan_again)
    monkeypatch.setattr(image_stages, "gate", lambda *_: gate())
    with ExitStack() as opened:

        def shop(*steps: tuple[Any, ...]) -> Shop:
            made = Shop(*begin(put, *steps))
            opened.callback(made.context.ledger.close)
            return made

        yield shop


@needs_registry
def test_the_first_release_waits_as_every_other_and_says_until_when(open_shop: Open) -> None:
    """And what moves it now."""
    shop = open_shop(FIRST)
    wait = shop.decide(4 / 60)
    assert wait == PromotionDecision(
        waits=True,
        why="candidate since 2026-11-25 12:00 UTC; stable moves after 1d, on 2026-11-26 12:00 UTC, or now: "
        f"./goldsmith image.promote {NAME}",
    )
    assert shop.decide(24) == PromotionDecision(waits=False)


@needs_registry
def test_new_dates_are_no_new_content_and_restart_nothing(open_shop: Open) -> None:
    """What soaked is what is inside; what `stable` names already need not soak at all."""
    shop = open_shop(FIRST)
    again = shop.publish("one", 20, redate=True)
    assert candidate_since(shop.to, again) == NOW
    assert shop.decide(24) == PromotionDecision(waits=False)
    shop.promote(24)
    shop.publish("one", 48, redate=True)
    assert shop.decide(48) == PromotionDecision(waits=False)


@needs_registry
def test_a_content_that_comes_back_soaks_again(open_shop: Open) -> None:
    """Nobody knows whether it ever did: it may have been the candidate for a minute."""
    shop = open_shop(FIRST)
    shop.publish("two", 1)
    back = shop.publish("one", 48)
    assert candidate_since(shop.to, back) == NOW + 2 * DAY
    assert shop.decide(49).waits


@needs_registry
def test_what_closes_a_grave_hole_of_stable_is_promoted_at_once(open_shop: Open) -> None:
    """By what is known of both today; the night's line says which hole."""
    shop = open_shop(GRAVE, BETTER)
    assert shop.decide(1) == PromotionDecision(waits=False, why="at once, for it fixes CVE-9")
    shop.publish("three", 2, CRITICAL)
    assert shop.decide(2).waits, "the hole is still there"


@needs_registry
def test_a_candidate_that_cannot_be_scanned_today_closes_no_hole(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last scan misses what was found since, which would look as if it were closed."""

    def silent(*_: object) -> None:
        raise OutsideError("no scanner ran")

    shop = open_shop(GRAVE, BETTER)
    assert not shop.decide(1).waits
    monkeypatch.setattr(soak, "scan_again", silent)
    assert shop.decide(1).waits


@needs_registry
def test_a_candidate_that_a_fleet_could_not_be_rolled_to_stays_one(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where it closes a grave hole: no member runs it, since it crashed there. Another one's rollout says
    nothing of it.
    """
    shop = open_shop(GRAVE, BETTER)
    _, candidate = shop.made
    old = Provenance(release=replace(candidate, content="sha256:old"))
    monkeypatch.setattr(promotion, "_canaries", lambda *_: [("canary", (member("web-1", origin=old),))])
    views = [SimpleNamespace(state=SimpleNamespace(failure="it crashed"), replacement=f"r/web@{candidate.digest}")]
    monkeypatch.setattr(promotion, "history", lambda *_: tuple(views))
    with pytest.raises(RefusedError, match="the fleet canary could not be rolled to the candidate") as caught:
        shop.decide(1)
    assert caught.value.evidence == "it crashed"
    views[0].replacement = "r/web@sha256:other"
    assert not shop.decide(1).waits


def test_a_fleet_of_which_a_part_cannot_be_read_lets_nothing_be_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One healthy member says nothing of those that nobody saw."""
    fleet = SimpleNamespace(name="canary", replacement=SimpleNamespace(definition=NAME, channel="candidate"))
    monkeypatch.setattr(promotion, "load_fleets", lambda _roots: {"canary": fleet})
    monkeypatch.setattr(promotion, "fleet_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(promotion, "check", lambda _: (member("web-1"), member("eu-west-1/*", "unread")))
    context: Any = SimpleNamespace(settings=SimpleNamespace(roots=()))
    with pytest.raises(OutsideError, match=r"eu-west-1/\* of the fleet canary could not be read"):
        list(promotion._canaries(context, NAME))


@needs_registry
def test_where_a_fleet_runs_the_candidate_all_of_it_must_do_well(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that is ill is a refusal; a fleet that does not run it yet is waited for, but not with a grave hole."""
    shop = open_shop(FIRST)
    (candidate,) = shop.made
    runs, other = Provenance(release=candidate), Provenance(release=replace(candidate, content="sha256:other"))
    fleets = [("canary", (member("web-1", origin=runs), member("web-2", origin=other, healthy=False)))]
    monkeypatch.setattr(promotion, "_canaries", lambda *_: fleets)
    assert not shop.decide(24).waits
    fleets[:] = [("canary", (member("web-1", origin=runs), member("web-2", origin=runs, healthy=False)))]
    with pytest.raises(RefusedError, match=r"1 of 2 member\(s\) of the fleet canary .* unhealthy: web-2") as caught:
        shop.decide(24)
    assert "fleet.check canary" in caught.value.hint
    assert shop.decide(1).waits, "what has not soaked is not asked for"
    fleets[:] = [("canary", (member("web-1", origin=other),))]
    assert shop.decide(24).why == "it has soaked, but no member of the fleet canary runs it yet"
    shop.promote(24)
    shop.context.ledger.record_scan(candidate.content, ScanRecord((REPORT,), (CRITICAL,)), NOW)
    shop.publish("two", 24)
    assert shop.decide(24) == PromotionDecision(waits=False, why="at once, for it fixes CVE-9")


# A night that publishes before it promotes


@needs_registry
@pytest.mark.parametrize(("soak", "every"), [(1, 1), (3, 2)])
def test_content_that_changes_more_often_than_it_soaks_reaches_stable(soak: int, every: int, open_shop: Open) -> None:
    """Each release soaks from its own night on, whatever is published meanwhile. Done again, nothing changes."""
    shop, made = open_shop(), dict[int, str]()
    shop.soaks(soak * DAY)
    for night in range(soak + every + 1):
        changes = not night % every
        before = len(shop.to.ledger.moves(shop.to.repository(NAME), "stable"))
        stable = shop.night(night, f"content of {night}" if changes else "")
        if changes:
            made[night] = shop.to.pointed(shop.to.repository(NAME), "candidate")[0]
        ripe = [digest for day, digest in made.items() if day <= night - soak]
        assert stable == (ripe[-1] if ripe else "")
        moved = len(shop.to.ledger.moves(shop.to.repository(NAME), "stable")) > before
        told = shop.lines
        assert told == (["soaks", "promoted"] if moved else ["soaks"])
        assert [part.promoted for part in shop.parts if part.promoted] == [NAME] * moved
        assert (shop.night(night), shop.lines) == (stable, told)


@needs_registry
def test_new_dates_of_an_earlier_candidate_restart_nothing(open_shop: Open) -> None:
    """It has soaked since its first dates, and is promoted with its last ones."""
    shop = open_shop(FIRST)
    again = shop.publish("one", 20, redate=True)
    shop.publish("two", 22)
    assert promotion.earlier(shop.context.moved(NOW + 22 * HOUR), NAME) == ()
    assert [one.digest for one in promotion.earlier(shop.context.moved(NOW + DAY), NAME)] == [again.digest]


@needs_registry
def test_a_dry_run_tells_of_the_earlier_candidate(open_shop: Open) -> None:
    """Beside the newer one that soaks."""
    shop = open_shop(FIRST, ("two", 24, (), False))
    job, context = ImageJob(NightOrder("n", NOW), NAME, ("why",)), shop.context.moved(NOW + DAY)
    lines = command._of_tree(context, job, context.ledger.released())
    assert [line.status for line in lines] == ["planned", "soaks", "planned"]


@needs_registry
def test_what_is_revoked_or_refused_today_is_passed_over_for_the_next_older_one(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as that is newer than what `stable` names; and it is not lost, where the gate lets it through later."""
    shop = open_shop(("one", 0, (), True), ("two", 24, (), False), ("three", 48, (), False), ("four", 72, (), False))
    one, two, three, four = shop.made
    refused = {two.digest, three.digest}

    def judge(of: Release) -> Verdict:
        return gate(allowed=of.digest not in refused)(of)

    monkeypatch.setattr(image_stages, "gate", lambda *_: judge)
    assert (shop.night(3), shop.lines) == (one.digest, ["soaks"])
    refused.remove(two.digest)
    assert (shop.night(3), shop.lines) == (two.digest, ["soaks", "promoted"])
    shop.to.ledger.revoke(four.digest, "a hole", NOW)
    refused.clear()
    assert shop.night(4, "five") == three.digest


@needs_registry
def test_what_was_stable_until_it_was_revoked_does_not_end_the_search(open_shop: Open) -> None:
    """It went back without a person: what soaked before it is newer than what it went back to."""
    shop = open_shop(("one", 0, (), True), ("two", 24, (), False), ("three", 48, (), True), ("four", 72, (), False))
    one, two, three, _ = shop.made
    revoke(at(shop.to, NOW + 73 * HOUR), f"{three.repository}@{three.digest}", "a back door")
    assert shop.to.pointed(three.repository, "stable")[0] == one.digest
    assert [release.digest for release in promotion.earlier(shop.context.moved(NOW + 74 * HOUR), NAME)] == [two.digest]


@needs_registry
def test_stable_never_goes_back_to_an_earlier_candidate(open_shop: Open) -> None:
    """Neither to what is older than what a person moved it to, nor to what a person moved it back from."""
    shop = open_shop(FIRST, ("two", 24, (), True), ("three", 48, (), False))
    one, two, three = shop.made
    assert (shop.night(2), shop.lines) == (two.digest, ["soaks"])
    assert shop.night(3, "four") == three.digest
    rollback(at(shop.to, NOW + 3 * DAY + HOUR), NAME)
    assert (shop.night(3), shop.lines) == (two.digest, ["soaks"])
    back = shop.publish("one", 24 * 4 + 1)
    assert promotion.earlier(shop.context.moved(NOW + 9 * DAY), NAME) == ()
    assert back.content == one.content, "people took back what came after it"


@needs_registry
def test_an_earlier_candidate_that_is_gone_is_not_promoted(open_shop: Open) -> None:
    """Removed elsewhere, which this ledger does not know."""
    shop = open_shop(FIRST)
    gone = replace(shop.made[0], digest=f"sha256:{'0' * 64}")
    with pytest.raises(RefusedError, match="is gone; stable stays where it is"):
        promote(at(shop.to, NOW), NAME, "default", gate(), gone)


@needs_registry
def test_where_a_fleet_runs_the_candidate_an_earlier_one_must_have_run_well_there(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its newest rollout of that release: one that failed, replaced nobody or went back proves nothing."""
    shop = open_shop(FIRST, ("two", 24, (), False))
    one, two = shop.made
    canary = SimpleNamespace(name="canary", replacement=SimpleNamespace(definition=NAME, channel="candidate"))
    monkeypatch.setattr(promotion, "load_fleets", lambda _roots: {"canary": canary})
    ended = NOW + HOUR

    def rolled(number: int, to: Release, phase: Phase = Phase.NEW, *, back: bool = False, **more: Any) -> None:
        becomes = ReplacementImage(f"{to.repository}@{to.digest}", to.digest, to)
        runs = Provenance(release=replace(to, content="sha256:old", digest="sha256:older"))
        made = plan(fleet(), [member("web-1", "expired", origin=runs)], becomes, NOW + DAY)
        new = MemberState(made.steps[0].member.id, "web-1", phase)
        row, ledger = f"r{number}", shop.context.ledger
        ledger.begin_rollout(row, "canary", "ann", to_json(Order(row, made, fleet().limits, (), (new,) * back)), NOW)
        ledger.save_member(row, new.id, to_json(new))
        state = RolloutState(row, "canary", becomes.reference, NOW, 1, **{"ended_at": ended} | more)
        ledger.save_rollout(row, to_json(state), ended, is_open=False)

    assert shop.night(1) == ""
    rolled(1, two)
    assert shop.night(1) == "", "another one's rollout says nothing of it"
    rolled(2, one, Phase.SKIPPED)
    assert shop.night(1) == ""
    rolled(3, one, failure="it crashed")
    assert shop.night(1) == ""
    rolled(4, one, ended_at=None)
    assert shop.night(1) == ""
    rolled(5, one, back=True)
    assert shop.night(1) == ""
    rolled(6, one)
    rolled(7, two, failure="it crashed")
    assert (shop.night(1), shop.lines) == (one.digest, ["soaks", "promoted"])


@needs_registry
def test_a_fleet_in_which_the_last_check_found_nobody_holds_no_release_back(
    open_shop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was never checked does: nothing is known of it."""
    shop = open_shop(FIRST, ("two", 24, (), False))
    canary = SimpleNamespace(name="canary", replacement=SimpleNamespace(definition=NAME, channel="candidate"))
    monkeypatch.setattr(promotion, "load_fleets", lambda _roots: {"canary": canary})
    assert shop.night(1) == ""
    shop.context.ledger.record_check(FleetCheck("canary", NOW, [{"name": "web-1"}]))
    assert shop.night(1) == ""
    shop.context.ledger.record_check(FleetCheck("canary", NOW, []))
    assert shop.night(1) == shop.made[0].digest
