"""A ledger in which fleets have run for weeks: for tests and benchmarks of the pages that show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from hardening.findings import Actor, Reason, Remedy, Repair, Side, Verdict
from hardening.foundation.hashing import digest_of
from hardening.foundation.settings import Settings
from hardening.model import Enforcement
from hardening.runtime import ContainerFacts, Mount
from images.artifact import Package, Release
from images.context import Context
from images.documents import to_json
from images.ledger import ClosedFix, FleetCheck, FleetDay, Ledger, MemberRun, Move
from pipelines.fleet.members import Provenance
from pipelines.fleet.violations import Judged, checked
from pipelines.rollout.plan import plan
from pipelines.rollout.state import MemberState, Order, Phase, RolloutStage, RolloutState
from tests.support import fleets
from tests.support.publishing import PACKAGES, built

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WEEKS = 8
FILE = """title = "Of a test"
owner = "{owner}"
kind = "docker"
selector = {{ app = "{name}" }}
replacement = {{ definition = "debian-base" }}
"""
PLANTED = "<script>document.title='run'</script><img src=x onerror=document.title='run'>"
"""What a stranger wrote: in the owner of a fleet, in the audit, and in all texts of member 2 of each fleet."""
FLEETS = {"shop": "web team", "warehouse": f"logistics {PLANTED}"}


def watched(folder: Path, members: int = 40) -> Context:
    """A context at NOW: eight weekly releases of debian-base, two fleets with so many members together, of which one
    in ten is out of policy and others are vulnerable, not healthy or waived; checks of each day, and a rollout.
    """
    files = folder / "content/pipelines/fleets"
    files.mkdir(parents=True)
    for name, owner in FLEETS.items():
        (files / f"{name}.toml").write_text(FILE.format(name=name, owner=owner))
    settings = Settings(state=folder / "state", content=(folder / "content",))
    context = Context(settings, NOW, lambda: "", lambda: "")
    releases = list(_released(context))
    half = members // 2
    for fleet, count in (("shop", members - half), ("warehouse", half)):
        _watched_fleet(context.ledger, fleet, count, releases)
    _rolled(context.ledger)
    return context


def _released(context: Context) -> Iterator[Release]:
    """A release each week, each with a newer openssl that closes something."""
    artifact = replace(built(context.store, "debian-base"), packages=PACKAGES)
    for week in range(WEEKS):
        at = NOW - (WEEKS - week) * 7 * DAY
        content, digest = (digest_of([word, week]) for word in ("content", "release"))
        newer = (PACKAGES[1], Package("openssl", f"3.5.{week}", "amd64", "ab" * 32))
        context.ledger.record_artifact(
            replace(artifact, digest=content, input_digest=content, packages=newer, built_at=at)
        )
        release = Release(
            "debian-base", "r.example/debian-base", digest, content, content, "container-base",
            "default", at, at + 20 * DAY, at + 30 * DAY,
        )  # fmt: skip
        context.ledger.record_release(release)
        context.ledger.record_verdict(content, Verdict("debian-base", "default", at, True, ()))
        context.ledger.record_move(Move(release.repository, "stable", release.digest, at + DAY, "promoted"))
        fix = ClosedFix(
            vulnerability=f"CVE-2026-{week:04}", package="openssl", image="debian-base", content=content,
            fixed=f"3.5.{week}", severity="high", exploited=False, epss=None, policy="default",
            upstream_at=at - 2 * DAY, seen_at=at - DAY, built_at=at, published_at=at,
        )  # fmt: skip
        context.ledger.record_fixes([fix] if week else [])
        yield release


def _watched_fleet(ledger: Ledger, fleet: str, count: int, releases: list[Release]) -> None:
    found = [_judged(fleet, number, releases) for number in range(count)]
    for week, release in enumerate(releases):
        at = release.published_at + 3 * DAY
        runs = {one.member.name: release.content for one in found if one.origin.golden not in releases[:week]}
        for number, (name, content) in enumerate(islice(runs.items(), REMEMBERED)):
            ledger.record_run(MemberRun(fleet, name, content, gone=False, told_by="check", at=at + number * DAY / 100))
    ledger.record_whole_fleet(fleet, {one.member.name: _content(one) for one in found}, NOW - DAY, "check")
    good = sum(not one.standing for one in found)
    for back in range(40):
        at = NOW - back * DAY
        within = max(0, good - back * count // 80)
        ledger.record_fleet_day(FleetDay(fleet, f"{at:%Y-%m-%d}", at, count, within))
    facts = ContainerFacts(
        image="sha256:1", user="65532", memory_bytes=1 << 26, mounts=(Mount("volume", "data", "/data", writable=True),),
        networks=("web",), launched=NOW - 3 * DAY,
    )  # fmt: skip
    ledger.record_snapshots(fleet, {(one.member.name, one.member.handle): to_json(facts) for one in found}, NOW, {})
    ledger.record_check(FleetCheck(fleet, NOW - timedelta(hours=3), to_json(tuple(map(checked, found)))))


REMEMBERED = 10  # members of a fleet whose earlier runs are known too: to write them takes long


def _content(one: Judged) -> str:
    return one.origin.golden.content if one.origin.golden else ""


def _judged(fleet: str, number: int, releases: list[Release]) -> Judged:
    planted = PLANTED if number == 2 else ""
    name, since = f"web-{number:05}{planted}", NOW - (number % 40) * DAY
    subject, image = f"{fleet}/{name}", f"r.example/debian-base:stable{planted}"
    member = fleets.member(name, healthy=number % 17 != 3, since=since, image=image)
    if number % 25 == 4:
        alien = _reason("unknown", subject, "its image is none of ours", since, Actor.FLEET, Repair.ROLL)
        return Judged(member, Provenance(), (alien,))
    old = number % 10 == 0
    release = releases[0] if old else releases[-1 - number % 2]
    what = f"it runs as root{planted}"
    reasons = [_reason("root-user", subject, what, since, Actor.HOST, Repair.CONFIGURE, planted, audit=True)]
    if old:
        reasons.append(_reason("expired", subject, "its image has expired", since, Actor.FLEET, Repair.ROLL))
    if number % 15 == 1:
        what = f"privileged as {name}"
        reasons.append(_reason("privileged", subject, what, since, Actor.HOST, Repair.CONFIGURE, "docker run flags"))
    return Judged(member, Provenance(release=release, latest=releases[-1]), tuple(reasons))


def _reason(
    rule: str, subject: str, what: str, since: datetime, actor: Actor, repair: Repair, evidence: str = "",
    *, audit: bool = False,
) -> Reason:  # fmt: skip
    return Reason(
        rule, subject, Enforcement.AUDIT if audit else Enforcement.ENFORCE, what, "the policy requires it",
        f"./goldsmith roll.start {subject.partition('/')[0]}", since=since, deadline=since + 14 * DAY,
        remedy=Remedy((repair,), Side.YOURS, actor, (evidence,) if evidence else ()),
    )  # fmt: skip


def _rolled(ledger: Ledger) -> None:
    """A rollout of three waves that bakes its canary."""
    limits = fleets.fleet(canary=1, max_surge=2, max_parallel=2)
    late = [fleets.judged(f"web-{number:05}", "expired") for number in (0, 10, 20, 30)]
    planned = plan(limits, late, fleets.target(expires_at=NOW + 60 * DAY), NOW)
    order = Order("shop-1", planned, limits.limits)
    state = RolloutState(
        "shop-1", "shop", "r", NOW - timedelta(minutes=9), len(planned.waves), RolloutStage.BAKING, wave=1
    )
    ledger.begin_rollout("shop-1", "shop", "here:1", to_json(order), NOW - timedelta(minutes=10))
    first = planned.steps[0].member
    ledger.save_member("shop-1", first.id, to_json(MemberState(first.id, first.name, Phase.NEW)))
    ledger.save_rollout("shop-1", to_json(state), NOW, is_open=True)
    ledger.audit(NOW - DAY, f"ann {PLANTED}", "roll.start", "shop")
