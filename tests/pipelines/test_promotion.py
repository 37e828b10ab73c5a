"""What a night moves `stable` to: what was `candidate` for a day, or closes a grave hole, and runs well if it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import Finding, FindingKind
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.model import Severity
from hardening.policy import Policy
from images.artifact import Artifact, Release
from images.context import Context
from images.ledger.artifacts import ScanRecord
from images.release import soak
from images.release.channels import promote
from images.release.publish import release
from images.release.soak import candidate_since, fixed, soaked
from images.release.stores import store_of
from pipelines import promotion
from pipelines.fleet.members import Provenance
from pipelines.promotion import PromotionDecision
from tests.support.fleets import judged as member
from tests.support.publishing import (
    DAY,
    FINDING,
    NOW,
    REPORT,
    built,
    definition,
    gate,
    judged,
    running_registry,
    settings_in,
)

NAME = "python-runtime"
HOUR = timedelta(hours=1)
CRITICAL = replace(FINDING, id="CVE-9", severity=Severity.CRITICAL, fixed="3.6")
EXPLOITED = replace(FINDING, id="CVE-7", exploited=True)

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


# One image, at a real registry


class Shop:
    """One image, its releases in a registry, and what the night would do with them at a moment."""

    def __init__(self, folder: Path, address: str) -> None:
        self.context = Context(settings_in(folder), NOW, lambda: "", lambda: address)

    def at(self, now: datetime) -> Context:
        """The same shop later."""
        return replace(self.context, now=now)

    def publish(self, text: str, now: datetime, *findings: Finding, redate: bool = False) -> Release:
        """Make a release the candidate; `findings` are what its scan found."""
        context = self.at(now)
        said = judged(now)
        said = replace(said, verdict=replace(said.verdict, subject=NAME))
        made = built(context.store, NAME, text)
        self.context.ledger.record_artifact(made)
        self.context.ledger.record_scan(made.digest, ScanRecord((REPORT,), findings), now)
        return release(store_of(context, NAME), made, definition(NAME), said, redate=redate).release

    def promote(self, now: datetime) -> None:
        promote(store_of(self.at(now), NAME), NAME, "default", gate())

    def decide(self, now: datetime) -> PromotionDecision:
        return promotion.promotion(self.at(now), NAME)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    def scan_again(context: Context, artifact: Artifact, _policy: Policy) -> ScanRecord:
        found = context.ledger.scan(artifact.digest)
        assert found
        return found

    def artifact_of(context: Context, wanted: Release) -> Artifact:
        return next(one for one in context.ledger.artifacts(wanted.name) if one.digest == wanted.content)

    monkeypatch.setattr(soak, "artifact_of", artifact_of)  # these images have nothing in them that a scanner reads
    monkeypatch.setattr(soak, "scan_again", scan_again)
    with running_registry(tmp_path / "registry") as address:
        made = Shop(tmp_path / "state", address)
        with closing(made.context.ledger):
            yield made


@needs_registry
def test_the_first_release_waits_as_every_other_and_says_until_when(shop: Shop) -> None:
    """And what moves it now."""
    shop.publish("one", NOW)
    wait = shop.decide(NOW + 4 * timedelta(minutes=1))
    assert wait == PromotionDecision(
        waits=True,
        why="candidate since 2026-11-25 12:00 UTC; stable moves after 1d, on 2026-11-26 12:00 UTC, or now: "
        f"./goldsmith image.promote {NAME}",
    )
    assert shop.decide(NOW + DAY) == PromotionDecision(waits=False)


@needs_registry
def test_new_dates_are_no_new_content_and_restart_nothing(shop: Shop) -> None:
    """What soaked is what is inside; what `stable` names already need not soak at all."""
    shop.publish("one", NOW)
    again = shop.publish("one", NOW + 20 * HOUR, redate=True)
    to = store_of(shop.at(NOW + DAY), NAME)
    assert candidate_since(to, again) == NOW
    assert shop.decide(NOW + DAY) == PromotionDecision(waits=False)
    shop.promote(NOW + DAY)
    shop.publish("one", NOW + 2 * DAY, redate=True)
    assert shop.decide(NOW + 2 * DAY) == PromotionDecision(waits=False)


@needs_registry
def test_a_content_that_comes_back_soaks_again(shop: Shop) -> None:
    """Nobody knows whether it ever did: it may have been the candidate for a minute."""
    shop.publish("one", NOW)
    shop.publish("two", NOW + HOUR)
    back = shop.publish("one", NOW + 2 * DAY)
    assert candidate_since(store_of(shop.at(NOW + 2 * DAY), NAME), back) == NOW + 2 * DAY
    assert shop.decide(NOW + 2 * DAY + HOUR).waits


@needs_registry
def test_what_closes_a_grave_hole_of_stable_is_promoted_at_once(shop: Shop) -> None:
    """By what is known of both today; the night's line says which hole."""
    shop.publish("one", NOW, CRITICAL, FINDING)
    shop.promote(NOW)
    shop.publish("two", NOW + HOUR, FINDING)
    assert shop.decide(NOW + HOUR) == PromotionDecision(waits=False, why="at once, for it fixes CVE-9")
    shop.publish("three", NOW + 2 * HOUR, CRITICAL)
    assert shop.decide(NOW + 2 * HOUR).waits, "the hole is still there"


@needs_registry
def test_a_candidate_that_cannot_be_scanned_today_closes_no_hole(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last scan misses what was found since, which would look as if it were closed."""

    def silent(*_: object) -> None:
        raise OutsideError("no scanner ran")

    shop.publish("one", NOW, CRITICAL)
    shop.promote(NOW)
    shop.publish("two", NOW + HOUR)
    assert not shop.decide(NOW + HOUR).waits
    monkeypatch.setattr(soak, "scan_again", silent)
    assert shop.decide(NOW + HOUR).waits


@needs_registry
def test_a_candidate_that_a_fleet_could_not_be_rolled_to_stays_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where it closes a grave hole: no member runs it, since it crashed there. Another one's rollout says
    nothing of it.
    """
    shop.publish("one", NOW, CRITICAL)
    shop.promote(NOW)
    candidate = shop.publish("two", NOW + HOUR)
    old = Provenance(release=replace(candidate, content="sha256:old"))
    monkeypatch.setattr(promotion, "_canaries", lambda *_: [("canary", (member("web-1", origin=old),))])
    views = [SimpleNamespace(state=SimpleNamespace(failure="it crashed"), replacement=f"r/web@{candidate.digest}")]
    monkeypatch.setattr(promotion, "history", lambda *_: tuple(views))
    with pytest.raises(RefusedError, match="the fleet canary could not be rolled to the candidate") as caught:
        shop.decide(NOW + HOUR)
    assert caught.value.evidence == "it crashed"
    views[0].replacement = "r/web@sha256:other"
    assert not shop.decide(NOW + HOUR).waits


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
def test_where_a_fleet_runs_the_candidate_all_of_it_must_do_well(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is ill is a refusal; a fleet that does not run it yet is waited for, but not with a grave hole."""
    candidate = shop.publish("one", NOW)
    runs, other = Provenance(release=candidate), Provenance(release=replace(candidate, content="sha256:other"))
    fleets = [("canary", (member("web-1", origin=runs), member("web-2", origin=other, healthy=False)))]
    monkeypatch.setattr(promotion, "_canaries", lambda *_: fleets)
    assert not shop.decide(NOW + DAY).waits
    fleets[:] = [("canary", (member("web-1", origin=runs), member("web-2", origin=runs, healthy=False)))]
    with pytest.raises(RefusedError, match=r"1 of 2 member\(s\) of the fleet canary .* unhealthy: web-2") as caught:
        shop.decide(NOW + DAY)
    assert "fleet.check canary" in caught.value.hint
    assert shop.decide(NOW + HOUR).waits, "what has not soaked is not asked for"
    fleets[:] = [("canary", (member("web-1", origin=other),))]
    assert shop.decide(NOW + DAY).why == "it has soaked, but no member of the fleet canary runs it yet"
    shop.promote(NOW + DAY)
    shop.context.ledger.record_scan(candidate.content, ScanRecord((REPORT,), (CRITICAL,)), NOW)
    shop.publish("two", NOW + DAY)
    assert shop.decide(NOW + DAY) == PromotionDecision(waits=False, why="at once, for it fixes CVE-9")
