"""What is newer, how urgent it is, and in which order it is told: decided without any world."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.artifact import Package, Release
from images.model import Bootstrap
from images.plan.freshness import (
    Newer,
    NewerKind,
    Urgency,
    brought_by,
    of_distribution,
    of_plan,
    of_release,
    of_support,
    ordered,
    worst,
)
from images.plan.holes import KnownHoles, unfit
from images.scan.base import Feed
from tests.images.plan.test_plan import inputs, plan
from tests.support.publishing import NOW

DAY = timedelta(days=1)
RELEASE = Release(
    "web", "r/web", "sha256:r", "sha256:c", "sha256:i", "p", "default", NOW, NOW + 20 * DAY, NOW + 30 * DAY
)
ONE = Newer("web", NewerKind.PACKAGE, "openssl", Urgency.NORMAL, "openssl 1 → 2", "publish")


@given(st.lists(st.tuples(st.sampled_from(Urgency), st.sampled_from("abc"), st.sampled_from(NewerKind))))
def test_a_fixed_exploited_hole_outranks_everything(given_ones: list[tuple[Urgency, str, NewerKind]]) -> None:
    """Whatever else there is, and of whatever image."""
    found = ordered(replace(ONE, urgency=how, image=image, kind=kind) for how, image, kind in given_ones)
    assert [one.urgency for one in found] == [how for how in Urgency for one in given_ones if one[0] is how]
    assert len(found) == len(given_ones)


def test_an_end_is_told_before_it_comes_and_after() -> None:
    """Of a release, a definition and a distribution; what is not known of the last is an error."""
    assert of_release(RELEASE, "stable", NOW) is None
    assert of_release(RELEASE, "stable", NOW + 20 * DAY).urgency is Urgency.HIGH  # type: ignore[union-attr]
    over = of_release(RELEASE, "stable", NOW + 30 * DAY)
    assert over is not None
    assert (over.urgency, over.reason) == (Urgency.CRITICAL, "stable expired on 2026-12-25")
    revoked = of_release(replace(RELEASE, revoked_at=NOW, revoked_reason="poisoned"), "candidate", NOW)
    assert revoked is not None
    assert (revoked.urgency, revoked.reason) == (Urgency.CRITICAL, "candidate was revoked: poisoned")
    assert of_support("web", None, NOW) is of_support("web", date(2027, 12, 31), NOW) is None
    assert of_support("web", date(2027, 1, 31), NOW).urgency is Urgency.NORMAL  # type: ignore[union-attr]
    assert of_support("web", date(2026, 11, 24), NOW).urgency is Urgency.CRITICAL  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("suite", "urgency"),
    [("trixie", None), ("sid", None), ("bookworm", Urgency.HIGH), ("bullseye", Urgency.CRITICAL)],
)
def test_a_distribution_ends(suite: str, urgency: Urgency | None) -> None:
    """Full support first, then that of the long-term team."""
    found = of_distribution("web", suite, NOW)
    assert (found and found.urgency) == urgency


def test_a_distribution_that_nobody_knows_is_no_good_news() -> None:
    """It is said that its end is not known."""
    with pytest.raises(KeyError):
        of_distribution("web", "warty", NOW)


def test_a_plan_says_what_is_newer_but_for_packages() -> None:
    """Controls and content by what changed; a parent; and what was never built."""
    found = of_plan(plan(inputs(files={"Dockerfile.j2": "f2"})))
    assert [(one.kind, one.reason) for one in found] == [(NewerKind.CONTENT, "file Dockerfile.j2 changed")]
    (parent,) = of_plan(plan(inputs(parent="sha256:p")), "debian-base")
    assert (parent.kind, parent.what) == (NewerKind.PARENT, "debian-base")
    (never,) = of_plan(plan(inputs(), last=None))
    assert (never.kind, never.reason) == (NewerKind.ARTIFACT, "it has never been built here")


def test_what_an_image_inherits_is_told_of_whom() -> None:
    """The nearest image that adds it."""
    package = Package("openssl", "1", "amd64", "aa")
    parents = {"base": None, "middle": "base", "app": "middle"}
    assert brought_by("openssl", "app", {"base": [package]}, parents) == "base"
    assert brought_by("openssl", "base", {"base": [package]}, parents) == ""
    assert brought_by("zlib", "app", {"base": [package]}, parents) == ""


def test_the_worst_of_nothing_is_nothing_special() -> None:
    """A parent whose packages are as they were."""
    assert worst([]) is Urgency.NORMAL
    assert worst([Urgency.WAITS, Urgency.HIGH, Urgency.CRITICAL]) is Urgency.CRITICAL


class OneHole(KnownHoles):
    """All packages of version 1 have the hole."""

    def open_in(self, suite: str, package: Package) -> tuple[Any, ...]:
        """The hole."""
        return (SimpleNamespace(id="CVE-1", fixed="2"),) if package.version == "1" else ()


def holes(*, exploited: bool = False, critical: bool = False, archive: tuple[str, ...] = ()) -> OneHole:
    """What is known of it; the packages that the distribution's archive has."""
    context: Any = SimpleNamespace(index=SimpleNamespace(in_archive=lambda _, names: {*names} & {*archive}))
    made = OneHole(context)
    ids = frozenset({"CVE-1"})
    made.__dict__.update(exploited=ids if exploited else frozenset(), critical=ids if critical else frozenset())
    return made


def test_what_is_exploited_or_was_called_critical_does_not_wait() -> None:
    """Either is enough, and nothing else is."""
    assert holes().grave(["CVE-1", "CVE-2"]) == ()
    for known in ({"exploited": True}, {"critical": True}, {"exploited": True, "critical": True}):
        assert holes(**known).grave(["CVE-2", "CVE-1"]) == ("CVE-1",)


def test_only_the_same_package_from_outside_closes_a_hole_at_once() -> None:
    """Not one of that name from another source package, nor one that the distribution's own archive has."""
    debian = Bootstrap(family="debian", suite="trixie")
    old, new = (Package("agent", version, "amd64", "sha256:x", "agent-source") for version in "12")
    assert holes(exploited=True).grave_closed_by_offer(debian, old, new) == ("CVE-1",)
    assert holes().grave_closed_by_offer(debian, old, new) == ()
    assert holes(exploited=True).grave_closed_by_offer(debian, old, old) == ()
    assert holes(exploited=True).grave_closed_by_offer(debian, old, replace(new, source="other")) == ()
    assert holes(exploited=True, archive=("agent",)).grave_closed_by_offer(debian, old, new) == ()


@pytest.mark.parametrize(
    ("age", "said"), [(-2, "dated 2026-11-27, in the future"), (-1, ""), (7, ""), (8, "it is 8 days old; the policy")]
)
def test_data_is_fit_as_long_as_the_gate_would_judge_by_it(age: int, said: str) -> None:
    """What is dated to a day to come would be fresh for ever."""
    why = unfit(Feed(Path(), NOW - age * DAY, "a feed"), 7 * DAY, NOW)
    assert said in why
    assert bool(why) == bool(said)
