"""Pruning takes what is over and nothing that something still stands on; what it takes is gone whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hardening.foundation.durations import duration
from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Retention, Settings
from images.artifact import Release
from images.catalog import ANY, KeepRule
from images.context import Context
from images.registry.client import RegistryClient
from images.release.channels import revoke
from images.release.lifecycle import Status, status
from images.release.publish import release
from images.release.retention import (
    DISABLE,
    KEEP,
    REMOVE,
    WARN,
    NextAction,
    RetirementDecision,
    decide,
    plan,
)
from images.release.stores import stores
from tests.support.loop import HEAD, NONE_BECAUSE
from tests.support.loop import definition as written_definition
from tests.support.publishing import DAY, NOW, Begin, SharedRegistry, at, built, definition, judged, published, stored

needs_registry = pytest.mark.needs("docker-registry", "skopeo")


def made(name: str, day: int, lasts: int = 30, **more: object) -> Release:
    """A release of `name` on a day, valid for as many days; its digest is `name` and the day."""
    start = NOW + day * DAY
    plain = Release(
        name=name,
        repository=f"r/{name}",
        digest=f"{name}{day}",
        content=f"{name}{day}-content",
        input_digest="",
        profile="p",
        policy="p",
        published_at=start,
        warn_at=start + max(0, lasts - 7) * DAY,
        expires_at=start + lasts * DAY,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def decided(
    releases: list[Release], day: int, running: object = (), channels: object = ()
) -> dict[str, tuple[bool, str]]:
    """digest → (goes, why)."""
    decisions = plan(releases, dict(running), dict(channels), NOW + day * DAY)  # type: ignore[call-overload]
    return {decision.subject.digest: (decision.action is REMOVE, decision.why) for decision in decisions}


def test_expired_revoked_and_superseded_releases_go() -> None:
    """Each with its reason; the newest one that stands is kept."""
    releases = [made("web", 0), made("web", 20), made("web", 25, revoked_at=NOW, revoked_reason="bad"), made("db", 0)]
    assert decided(releases, 31) == {
        "web0": (True, "expired on 2026-12-25"),
        "web20": (False, "expires on 2027-01-14"),
        "web25": (True, "revoked on 2026-11-25: bad"),
        "db0": (True, "expired on 2026-12-25"),
    }
    assert decided(releases, 21)["web0"] == (True, "superseded by web20")


def test_a_revoked_or_expired_successor_supersedes_nothing() -> None:
    """What stands is not taken away in favour of what must not run."""
    releases = [made("web", 0), made("web", 1, revoked_at=NOW, revoked_reason="bad")]
    assert decided(releases, 2)["web0"] == (False, "expires on 2026-12-25")


def test_what_stands_is_not_taken_by_successors_that_stood_for_less_long() -> None:
    """Two newer ones of seven days come and go: the first stands alone again."""
    releases = [made("web", 0, 60), made("web", 9, 7), made("web", 11, 7)]
    assert decided(releases, 12)["web0"] == (True, "superseded by web9")
    assert decided(releases, 19)["web0"] == (False, "expires on 2027-01-24")


def test_a_releases_days_are_exact_to_the_moment() -> None:
    """On the warning's moment it warns, on its end it is over, at the end of its grace the action is due."""
    web, grace = made("web", 0), NextAction(DISABLE, 14 * DAY)

    def at_days(days: float) -> RetirementDecision[str]:
        return decide("x", web, grace, "", NOW + days * DAY)

    assert at_days(22.99) == RetirementDecision("x", KEEP, "expires on 2026-12-25")
    assert at_days(23) == RetirementDecision("x", WARN, "expires on 2026-12-25")
    for days in (30, 43.99):
        assert at_days(days) == RetirementDecision("x", KEEP, "expired on 2026-12-25; to be disabled from 2027-01-08")
    assert at_days(44) == RetirementDecision("x", DISABLE, "expired on 2026-12-25")


def test_who_needs_a_release_is_told_with_every_decision() -> None:
    """It holds back what would take something away, and nothing else."""
    web, needed = made("web", 0), "shop/a runs it"
    grace = NextAction(DISABLE, 14 * DAY)
    assert decide("x", web, grace, needed, NOW).why == "expires on 2026-12-25; shop/a runs it"
    waits = decide("x", web, grace, needed, NOW + 31 * DAY)
    assert waits.why == "expired on 2026-12-25; to be disabled from 2027-01-08; shop/a runs it"
    held = decide("x", web, grace, needed, NOW + 50 * DAY, held="perhaps b")
    assert held == RetirementDecision("x", KEEP, "expired on 2026-12-25; not disabled: shop/a runs it", held=True)
    anyway = decide("x", web, NextAction(DISABLE, anyway=True), needed, NOW + 50 * DAY)
    assert anyway == RetirementDecision("x", DISABLE, "expired on 2026-12-25; shop/a runs it")


def test_a_release_that_ends_at_this_moment_is_expired_and_not_superseded() -> None:
    """And digests are told by their heads, twelve characters of a real one."""
    digest = "sha256:0123456789abcdef"
    releases = [made("web", 0), made("web", 20, digest=digest)]
    assert decided(releases, 30)["web0"] == (True, "expired on 2026-12-25")
    assert decided(releases, 29)["web0"] == (True, "superseded by sha256:0123456789ab")


def test_the_first_child_by_name_and_digest_is_told_of_a_base_that_it_holds() -> None:
    """Whatever order the releases come in."""
    digest = "sha256:0123456789abcdef"
    base = made("base", 0)
    children = [made(name, 60, digest=name if name != "api" else digest, base_digest=base.digest) for name in "zb"]
    first = made("api", 60, digest=digest, base_digest=base.content)
    for order in ([base, *children, first], [first, *reversed(children), base]):
        why = "expired on 2026-12-25; not removed: api sha256:0123456789ab is built on it"
        assert decided(order, 61)["base0"] == (False, why)


def test_one_channel_points_and_two_point() -> None:
    """As a person would say it; nothing points to what is not named."""
    releases = [made("web", 0), made("db", 0), made("api", 0)]
    found = decided(releases, 31, channels={"web0": ("stable",), "db0": ("stable", "edge")})
    assert found["web0"] == (False, "expired on 2026-12-25; not removed: stable points to it")
    assert found["db0"] == (False, "expired on 2026-12-25; not removed: edge and stable point to it")
    assert found["api0"] == (True, "expired on 2026-12-25")


def test_what_runs_or_is_pointed_to_stays_whatever_its_dates() -> None:
    """By the digest of the release or of its content."""
    releases = [made("web", 0), made("web", 1), made("web", 2)]
    running = {"web0": ("shop/a", "shop/b"), "web1-content": ("bank/c",)}
    assert decided(releases, 90, running, {"web2": ("stable", "candidate")}) == {
        "web0": (False, "expired on 2026-12-25; not removed: shop/a runs it and 1 more"),
        "web1": (False, "expired on 2026-12-26; not removed: bank/c runs it"),
        "web2": (False, "expired on 2026-12-27; not removed: candidate and stable point to it"),
    }


def test_what_a_kept_child_is_built_on_stays_and_so_does_its_own_base() -> None:
    """A chain is held by its last link; a child that goes holds nothing."""
    base, middle, leaf = (
        made("base", 0),
        made("mid", 0, base_digest="base0-content"),
        made("leaf", 0, base_digest="mid0-content"),
    )
    held = decided([base, middle, leaf], 90, channels={"leaf0": ("stable",)})
    assert [held[digest][0] for digest in ("base0", "mid0", "leaf0")] == [False] * 3
    assert held["base0"][1] == "expired on 2026-12-25; not removed: mid mid0 is built on it"
    assert all(goes for goes, _ in decided([base, middle, leaf], 90).values())


names = some.sampled_from(["a", "b", "c"])
some_releases = some.lists(
    some.builds(
        made,
        names,
        some.integers(0, 60),
        some.sampled_from([1, 7, 30, 60]),
        base_digest=some.sampled_from(["", "a1-content", "b2-content", "a3-content"]),
        revoked_at=some.none() | some.just(NOW),
    ),
    unique_by=lambda r: r.digest,
    max_size=12,
)


@given(some_releases, some.sets(some.integers(0, 11)), some.sets(some.integers(0, 11)), some.integers(0, 100))
def test_nothing_that_stands_on_something_ever_goes(
    releases: list[Release], run: set[int], tagged: set[int], day: int
) -> None:
    """For any releases: never a running, a tagged or a needed one, nor the newest that stands; always a reason."""
    digests = [release.digest for release in releases]
    running = {digests[i]: ("f/m",) for i in run if i < len(digests)}
    channels = {digests[i]: ("stable",) for i in tagged if i < len(digests)}
    now = NOW + day * DAY
    decisions = plan(releases, running, channels, now)
    removed = [decision.subject for decision in decisions if decision.action is REMOVE]
    kept = [decision.subject for decision in decisions if decision.action is not REMOVE]
    assert [decision.subject for decision in decisions] == releases
    assert all(decision.why for decision in decisions)
    assert not {r.digest for r in removed} & (running.keys() | channels.keys())
    assert not {r.content for r in removed} & {r.base_digest for r in kept if r.base_digest}
    standing = [r for r in releases if status(r, now) in {Status.CURRENT, Status.WARN}]
    for name in {r.name for r in standing}:
        newest = max((r for r in standing if r.name == name), key=lambda r: r.published_at)
        assert newest in kept


def test_the_last_images_are_kept_though_they_are_over_and_each_for_a_while() -> None:
    """Different images count, each by its newest release; what is revoked counts and stays for neither."""
    releases = [
        made("web", 0, content="a"),
        made("web", 10, content="b"),
        made("web", 20, content="b"),
        made("web", 30, content="c", revoked_at=NOW + 31 * DAY, revoked_reason="bad"),
        made("web", 40, content="d"),
    ]
    found = plan(releases, {}, {}, NOW + 80 * DAY, {"web": KeepRule(last=2)})
    assert [(d.action, d.why) for d in found] == [
        (REMOVE, "expired on 2026-12-25"),
        (REMOVE, "expired on 2027-01-04"),
        (KEEP, "expired on 2027-01-14; not removed: the last 2 are kept"),
        (REMOVE, "revoked on 2026-12-26: bad"),
        (KEEP, "expired on 2027-02-03; not removed: the last 2 are kept"),
    ]
    assert found[2].held
    only = plan(releases, {}, {}, NOW + 80 * DAY, {"web": KeepRule(last=1), "db": KeepRule(last=5)})
    assert [d.why for d in only if d.action is KEEP] == ["expired on 2027-02-03; not removed: the last one is kept"]


def test_how_long_a_release_stays_does_not_begin_anew_with_every_newer_one() -> None:
    """It is over from the first that took its place, though it expires later."""
    rules, first = {"web": KeepRule(for_=40 * DAY)}, made("web", 0)
    releases = [made("web", day) for day in (25, 20, 10)]
    for day in (11, 21, 26, 31, 49.9):
        there = [r for r in releases if r.published_at <= NOW + day * DAY]
        (decision,) = (d for d in plan([*there, first], {}, {}, NOW + day * DAY, rules) if d.subject == first)
        assert (decision.action, "to be removed from 2027-01-14" in decision.why) == (KEEP, True), day
    (decision,) = (d for d in plan([*releases, first], {}, {}, NOW + 50 * DAY, rules) if d.subject == first)
    assert decision.action is REMOVE


class Oracle:
    """What the rules say, said again: what is kept for itself, and then all that stands below it."""

    def __init__(self, releases: list[Release], used: set[str], now: object, rules: dict[str, KeepRule]) -> None:
        self.releases, self.used, self.now, self.rules = releases, used, now, rules

    def over_for(self, one: Release) -> timedelta:
        """How long it has been over; negative where it is not."""
        moments = [one.expires_at]
        if one.revoked_at:
            moments = [one.revoked_at]
        else:
            for other in self.releases:
                counts = self.now >= one.expires_at or self.now < other.expires_at
                if other.name == one.name and other.published_at > one.published_at and not other.revoked_at and counts:
                    moments.append(other.published_at)
        return max(self.now - moment for moment in moments)

    def among_the_last(self, one: Release) -> bool:
        """Whether fewer different images than the rule keeps are newer, and none of its own content is."""
        if one.revoked_at:
            return False
        newer = [r for r in self.releases if r.name == one.name and not r.revoked_at and self.later(r, one)]
        return one.content not in {r.content for r in newer} and len({r.content for r in newer}) < self.rule(one).last

    @staticmethod
    def later(one: Release, other: Release) -> bool:
        if one.published_at == other.published_at:
            return one.digest > other.digest
        return one.published_at > other.published_at

    def rule(self, one: Release) -> KeepRule:
        return self.rules.get(one.name, KeepRule())

    def for_itself(self, one: Release) -> bool:
        over = self.over_for(one)
        waits = timedelta(0) if one.revoked_at else self.rule(one).for_
        return over < timedelta(0) or over < waits or one.digest in self.used or self.among_the_last(one)

    def kept(self) -> set[str]:
        kept, pending = set[str](), [one for one in self.releases if self.for_itself(one)]
        while pending:
            one = pending.pop()
            if one.digest in kept:
                continue
            kept.add(one.digest)
            pending += [base for base in self.releases if one.base_digest in (base.content, base.digest)]
        return kept


rules_of = some.dictionaries(
    names, some.builds(KeepRule, some.integers(0, 3), some.integers(0, 40).map(lambda days: days * DAY))
)
shared_contents = some.lists(
    some.builds(
        made,
        names,
        some.integers(0, 60),
        some.sampled_from([1, 7, 30, 60]),
        content=some.sampled_from(["one", "two", "three", "four"]),
        base_digest=some.sampled_from(["", "one", "two", "a7", "b9"]),
        revoked_at=some.none() | some.integers(0, 60).map(lambda day: NOW + day * DAY),
    ),
    unique_by=lambda r: r.digest,
    max_size=12,
)


@given(shared_contents | some_releases, some.sets(some.integers(0, 11)), some.integers(0, 130), rules_of)
def test_prune_keeps_exactly_what_the_rules_say(
    releases: list[Release], run: set[int], day: int, rules: dict[str, KeepRule]
) -> None:
    """Whoever uses what, whenever it is asked: no release more, none less, in whatever order they come."""
    used = {releases[i].digest for i in run if i < len(releases)}
    decisions = plan(releases, dict.fromkeys(used, ("f/m",)), {}, NOW + day * DAY, rules)
    kept = {decision.subject.digest for decision in decisions if decision.action is not REMOVE}
    assert kept == Oracle(releases, used, NOW + day * DAY, rules).kept()
    again = plan(releases[::-1], dict.fromkeys(used, ("f/m",)), {}, NOW + day * DAY, rules)
    assert {decision.subject.digest for decision in again if decision.action is not REMOVE} == kept


@given(shared_contents, some.integers(0, 130), rules_of)
def test_to_keep_more_removes_nothing_more(releases: list[Release], day: int, rules: dict[str, KeepRule]) -> None:
    """Beside no rule at all, rules only add to what is kept."""

    def removed(by: dict[str, KeepRule]) -> set[str]:
        return {d.subject.digest for d in plan(releases, {}, {}, NOW + day * DAY, by) if d.action is REMOVE}

    assert removed(rules) <= removed({})


TWO, THREE = (("one", 0), ("two", 1)), (("one", 0), ("two", 1), ("three", 2))


@needs_registry
def test_a_pruned_release_is_gone_whole_and_its_content_only_when_nobody_needs_it(
    shared_registry: SharedRegistry, begin: Begin
) -> None:
    """Planned first, nothing gone; applied, documents, lists, tags and indexes are gone; the shared content is not."""
    to, (first,) = begin(published, ("one", 0))
    again = published(to, "one", 1, redate=True)
    other = published(to, "two", 2)
    third = published(to, "three", 3)
    before = stored(shared_registry.folder)
    later = at(to, NOW + 3 * DAY)
    to.ledger.seen_fleet("shop", {"a": again.digest}, NOW)
    planned = later.prune(apply=False)
    assert {d.subject.digest for d in planned if d.action is REMOVE} == {first.digest}
    assert stored(shared_registry.folder) == before
    assert later.prune(apply=True) == planned
    left = before["manifests"] - 12  # index, its 10 documents, their list
    assert stored(shared_registry.folder)["manifests"] == left
    to.ledger.seen_fleet("shop", {}, NOW)
    assert [d.subject.digest for d in later.prune(apply=True) if d.action is REMOVE] == [again.digest]
    tags = to.registry.tags(other.repository)
    assert not [tag for tag in tags if again.digest[7:] in tag or again.content[7:] in tag]
    assert to.registry.find(f"{again.repository}@{again.content}") is None
    assert [r.pruned_at is not None for r in to.ledger.releases("web")] == [False, False, True, True]
    assert not [d for d in later.prune(apply=True) if d.action is REMOVE]
    assert to.registry.find(f"{third.repository}:candidate-previous").digest == other.digest  # type: ignore[union-attr]


@needs_registry
def test_29_days_on_a_release_is_dated_anew_and_the_first_stays_as_long_as_the_rule_says(
    shared_registry: SharedRegistry, begin: Begin
) -> None:
    """Then it goes with all its documents, and the content, which the new releases are over, stays."""
    to, (first,) = begin(published, ("one", 0))
    artifact, rules = built(to.store, text="one"), {"web": KeepRule(for_=30 * DAY)}
    for day in (29, 58):  # after which `candidate-previous` does not name the first any more
        later = replace(at(to, NOW + day * DAY), rules=rules)
        again = release(later, artifact, definition(), judged(later.now))
        assert (again.action, again.release.content) == ("re-dated", first.content)
    full = stored(shared_registry.folder)["manifests"]
    for day, goes in ((58.9, False), (59, True)):
        decisions = replace(later, now=NOW + day * DAY).prune(apply=True)
        assert {d.subject.digest for d in decisions if d.action is REMOVE} == ({first.digest} if goes else set()), day
    assert stored(shared_registry.folder)["manifests"] == full - 12  # index, its 10 documents, their list
    assert to.registry.find(f"{first.repository}@{first.content}")


def test_a_definition_says_better_than_the_settings_what_is_kept_of_it(tmp_path: Path) -> None:
    """Each of the two by itself; what says nothing is kept as the settings say. What soaks is kept for that long, or a
    night could never move `stable` to what another one superseded.
    """
    own = HEAD + NONE_BECAUSE + '[base]\ngolden = "debian-base"\n[lifecycle]\n'
    texts = {"r-last": "keep_last = 5\n", "r-for": 'keep_for = "90d"\n', "r-none": "keep_last = 0\n"}
    for name, text in {**texts, "r-soaks": 'soak = "9d"\n'}.items():
        written_definition(tmp_path, name, own + text)
    written_definition(tmp_path, "r-manual", 'promote = "manual"\n' + own + 'soak = "9d"\n')
    settings = Settings(
        state=tmp_path / "state", content=(tmp_path,), retention=Retention(keep_last=2, keep_for=duration("7d"))
    )
    context = Context(settings, NOW, lambda: "", lambda: "127.0.0.1:9/golden")
    rules = next(iter(stores(context))).rules  # type: ignore[attr-defined]
    assert {name: rules[name] for name in ("debian-base", "r-last", "r-for", "r-none", "r-soaks", "r-manual", ANY)} == {
        "debian-base": KeepRule(2, 7 * DAY),
        "r-last": KeepRule(5, 7 * DAY),
        "r-for": KeepRule(2, 90 * DAY),
        "r-none": KeepRule(0, 7 * DAY),
        "r-soaks": KeepRule(2, 9 * DAY),
        "r-manual": KeepRule(2, 7 * DAY),
        ANY: KeepRule(2, 7 * DAY),
    }


@needs_registry
def test_a_child_of_another_definition_holds_its_base(begin: Begin) -> None:
    """Also when only the base's name was given."""
    to, (base, *_) = begin(published, *THREE)
    child = definition("app", base={"golden": "web"})
    release(to, built(to.store, "app", "app", parent=base.content), child, judged())
    (decision,) = (d for d in at(to, NOW + 3 * DAY).prune(apply=True) if d.subject == base)
    assert (decision.action is REMOVE, "not removed: app" in decision.why) == (False, True)


@needs_registry
def test_a_revoked_release_is_pruned_though_it_is_the_one_to_go_back_to(begin: Begin) -> None:
    """`candidate-previous` holds nothing that no rollback would take."""
    to, (one, _) = begin(published, *TWO)
    revoke(to, f"{one.repository}@{one.digest}", "bad")
    assert [d.subject.digest for d in to.prune(apply=True) if d.action is REMOVE] == [one.digest]


@needs_registry
@pytest.mark.slow
@pytest.mark.parametrize("failing", [1, 8])
def test_a_removal_that_fails_in_the_middle_is_finished_by_the_next(
    shared_registry: SharedRegistry, begin: Begin, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Whichever deletion fails, the release is still found, and then nothing of it is left."""
    to, _ = begin(published, *THREE)
    real, calls = RegistryClient.delete, [0]

    def delete(self: RegistryClient, repository: str, digest: str) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OutsideError("the line was cut")
        real(self, repository, digest)

    monkeypatch.setattr(RegistryClient, "delete", delete)
    later = at(to, NOW + 2 * DAY)
    with pytest.raises(OutsideError, match="cut"):
        later.prune(apply=True)
    assert len([d for d in later.prune(apply=True) if d.action is REMOVE]) == 1
    assert stored(shared_registry.folder) == {"manifests": 27, "tags": 7}
