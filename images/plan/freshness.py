"""What is newer outside than an image, how urgent that is, and in which order it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from images.artifact import Package, Release
from images.plan.build_plan import Action, BuildPlan
from images.release.lifecycle import Status, status


class Urgency(StrEnum):
    """How urgent something newer is, the most urgent first. WAITS: it is still in its cooldown."""

    EXPLOITED = "exploited"
    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    WAITS = "waits"


URGENCIES = tuple(Urgency)


class NewerKind(StrEnum):
    """The kind of thing that is newer, or that ends."""

    PACKAGE = "package"
    VULNERABILITY = "vulnerability"
    UPSTREAM = "upstream"
    PARENT = "parent"
    CONTROL = "control"
    CONTENT = "content"
    POLICY = "policy"
    EXPIRY = "expiry"
    END_OF_LIFE = "end-of-life"
    ARTIFACT = "artifact"


@dataclass(frozen=True)
class Newer:
    """One thing that an image lacks, or that ends for it. `comes_from` is the image that brings it in, if not itself.

    `fixes`: the vulnerabilities that the newer version closes; `until`: how long it waits out its cooldown.
    """

    image: str
    kind: NewerKind
    what: str
    urgency: Urgency
    reason: str
    todo: str
    old: str = ""
    new: str = ""
    fixes: tuple[str, ...] = ()
    comes_from: str = ""
    until: datetime | None = None


def ordered(found: Iterable[Newer]) -> tuple[Newer, ...]:
    """The most urgent first; among equals an image's own before what it inherits."""
    return tuple(
        sorted(
            found, key=lambda one: (URGENCIES.index(one.urgency), one.image, bool(one.comes_from), one.kind, one.what)
        )
    )


def worst(urgencies: Iterable[Urgency]) -> Urgency:
    """The most urgent of them; NORMAL without any."""
    return min(urgencies, key=URGENCIES.index, default=Urgency.NORMAL)


OF_CONTROLS = {"control", "check", "hardening file"}


def of_plan(plan: BuildPlan, parent: str = "") -> tuple[Newer, ...]:
    """What of a plan is newer than the last artifact, but for packages. `parent`: the image that it stands on."""
    if plan.action is not Action.BUILD:
        return ()
    publish = f"./goldsmith image.publish {plan.name}"
    found = [
        Newer(
            plan.name, NewerKind.CONTROL if change.kind in OF_CONTROLS else NewerKind.CONTENT, change.name,
            Urgency.NORMAL, str(change), publish,
        )
        for change in plan.changes
        if change.kind not in {"package", "parent"}
    ]  # fmt: skip
    rebuilt = [why for why in plan.why if "its parent" in why]
    found += [Newer(plan.name, NewerKind.PARENT, parent or "upstream", Urgency.NORMAL, why, publish) for why in rebuilt]
    if not plan.changes and not rebuilt:
        found += [Newer(plan.name, NewerKind.ARTIFACT, plan.name, Urgency.NORMAL, why, publish) for why in plan.why]
    return tuple(found)


def of_release(release: Release, channel: str, now: datetime) -> Newer | None:
    """What ends of a release that a channel points to, if it does so soon or has done so."""
    standing = status(release, now)
    if standing is Status.CURRENT:
        return None
    told = {
        Status.REVOKED: f"{channel} was revoked: {release.revoked_reason}",
        Status.EXPIRED: f"{channel} expired on {release.expires_at:%Y-%m-%d}",
        Status.WARN: f"{channel} expires on {release.expires_at:%Y-%m-%d}",
    }
    urgency = Urgency.HIGH if standing is Status.WARN else Urgency.CRITICAL
    more = "" if channel == "candidate" else f", then ./goldsmith image.promote {release.name}"
    todo = f"./goldsmith image.publish {release.name}{more}"
    return Newer(release.name, NewerKind.EXPIRY, channel, urgency, told[standing], todo, old=release.digest)


SOON = timedelta(days=90)
"""How long before its end a distribution is told to end: moving to the next one takes a quarter."""


@dataclass(frozen=True)
class Support:
    """Until which days a distribution is supported: in full, and by its long-term team for some architectures."""

    regular: date
    long_term: date


# https://wiki.debian.org/DebianReleases and https://wiki.debian.org/LTS
SUPPORT = {
    "buster": Support(date(2022, 9, 10), date(2024, 6, 30)),
    "bullseye": Support(date(2024, 8, 14), date(2026, 8, 31)),
    "bookworm": Support(date(2026, 6, 10), date(2028, 6, 30)),
    "trixie": Support(date(2028, 8, 9), date(2030, 6, 30)),
}
NO_END = {"forky", "duke", "testing", "sid", "unstable"}
"""Suites whose end nobody has set yet."""


def of_distribution(image: str, suite: str, now: datetime) -> Newer | None:
    """What is to be said of the end of an image's distribution. Raises KeyError for a suite that is not known."""
    if suite in NO_END:
        return None
    support = SUPPORT[suite]
    if now >= _after(support.long_term):
        urgency, told = Urgency.CRITICAL, f"{suite} had its last security updates on {support.long_term}"
    elif now >= _after(support.regular):
        urgency, told = Urgency.HIGH, f"{suite} has been left to its long-term team since {support.regular}"
    elif now >= _after(support.regular) - SOON:
        urgency, told = Urgency.NORMAL, f"{suite} is supported in full until {support.regular} only"
    else:
        return None
    return Newer(image, NewerKind.END_OF_LIFE, suite, urgency, told, "stand it on the next release")


def of_support(image: str, support_until: date | None, now: datetime) -> Newer | None:
    """What is to be said of the end that a definition itself sets."""
    if support_until is None or now < _after(support_until) - SOON:
        return None
    over = now >= _after(support_until)
    told = f"its definition {'was' if over else 'is'} supported until {support_until} (lifecycle.support_until)"
    urgency = Urgency.CRITICAL if over else Urgency.NORMAL
    return Newer(image, NewerKind.END_OF_LIFE, image, urgency, told, "move what uses it to another image")


def _after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def brought_by(name: str, image: str, added: Mapping[str, Iterable[Package]], parents: Mapping[str, str | None]) -> str:
    """Which image below `image` adds the package of that name; empty where `image` does itself, or none of ours does.

    `added`: by image, the packages that it adds to what it stands on.
    """
    current: str | None = image
    while current is not None:
        if any(one.name == name for one in added.get(current, ())):
            return "" if current == image else current
        current = parents.get(current)
    return ""
