"""Values for tests of fleets: members, releases, judged members; and what every fleet must keep its word about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hardening.findings import Reason
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from hardening.running import MemberJudge, RunningFacts
from hardening.runtime import Observed
from images.artifact import Release
from pipelines.fleet.members import Key, Member, Provenance, ReplacementImage
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import GoneError, MemberFleet
from pipelines.fleet.violations import FleetJudge, Judged

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fleet(**limits: Any) -> Fleet:
    """A fleet whose rollouts have these limits."""
    return Fleet.model_validate(
        {
            "name": "web",
            "title": "The web servers",
            "owner": "platform team",
            "kind": "docker",
            "selector": {"app": "web"},
            "replacement": limits.pop("replacement", {"definition": "nginx"}),
            "limits": limits,
        }
    )


def release(number: int = 1, *, name: str = "nginx", content: str = "", **more: Any) -> Release:
    """Release `number` of a definition, published that many days after NOW's day before last month."""
    published = NOW - timedelta(days=30) + timedelta(days=number)
    return replace(
        Release(
            name=name,
            repository=f"r.example/{name}",
            digest=f"sha256:{number:064x}",
            content=content or f"sha256:c{number:063x}",
            input_digest="",
            profile="p",
            policy="default",
            published_at=published,
            warn_at=published + timedelta(days=50),
            expires_at=published + timedelta(days=60),
        ),
        **more,
    )


def target(number: int = 9, **more: Any) -> ReplacementImage:
    """A replacement: release `number`."""
    golden = release(number, **more)
    return ReplacementImage(f"{golden.repository}@{golden.digest}", golden.digest, golden)


def member(name: str = "web-1", **more: Any) -> Member:
    """A member that runs release 1."""
    ours = Member(f"host/local/docker/{name}", name, f"id-{name}", "r.example/nginx:stable", (release().digest,))
    return replace(ours, **more)


def judge(
    fleet: str, policy: Policy, member: Member, origin: Provenance, waivers: Sequence[Waiver], now: datetime,
    own_registry: str = "",
) -> Judged:  # fmt: skip
    """A member judged by itself, as FleetJudge judges many."""
    return FleetJudge(fleet, policy, waivers, now, own_registry).judge(member, origin)


def judge_member(
    policy: Policy, subject: str, member: RunningFacts, waivers: Sequence[Waiver], now: datetime,
    observed: Observed | None = None,
) -> tuple[Reason, ...]:  # fmt: skip
    """The reasons why `subject` (fleet/member) is out of policy at `now`, by a judge of its own."""
    return MemberJudge(policy, waivers, now).reasons(subject, member, observed, member.seen_since)


def judged(name: str = "web-1", *rules: str, origin: Provenance | None = None, **more: Any) -> Judged:
    """A member that violates `rules`."""
    reasons = tuple(reason(rule, f"web/{name}") for rule in rules)
    return Judged(member(name, **more), origin or Provenance(release=release()), reasons)


def reason(rule: str, subject: str = "web/web-1", **more: Any) -> Reason:
    """An enforced reason that began yesterday."""
    since = NOW - timedelta(days=1)
    made = Reason(rule, subject, Enforcement.ENFORCE, f"it is {rule}", "because", "do", since=since, deadline=since)
    return replace(made, **more)


def keeps_its_word(port: MemberFleet, replacement: ReplacementImage) -> None:
    """The contract of every MemberFleet of one member: a repeated effect is one effect, and all goes back."""
    one = port.describe()[0]
    assert port.find(one.id) == one
    assert port.find(f"{one.id}-other") is None
    assert "sha256:" in one.exact, "what a rollback goes to is pinned by digest"
    key = Key("r1", one.id, one.name, one.handle, Method.SURGE)

    def new_is_member() -> bool:
        found = port.find(one.id)
        return found is not None and found.handle != one.handle

    for _ in range(2):
        port.create(key, replacement, NOW)
    for _ in range(2):
        port.start(key)
        port.expose(key)
    assert [found.handle for found in port.describe()] == [one.handle], "one that is being prepared is no member"
    assert new_is_member() is False
    for _ in range(2):
        port.retire(key, timedelta(seconds=1))
    for _ in range(2):
        port.swap(key)
    assert new_is_member() is True
    assert [found.id for found in port.describe()] == [one.id]
    assert not port.read_old(key).good
    for _ in range(2):
        port.revive(key)
    assert new_is_member() is False
    for _ in range(2):
        port.discard(key)
    assert [found.handle for found in port.describe()] == [one.handle]
    assert not port.read(key).good
    assert port.log(key) == ""
    gone = replace(key, old="0" * 64)
    port.retire(gone, timedelta(seconds=1))
    port.remove_old(gone)
    with pytest.raises(GoneError):
        port.create(gone, replacement, NOW)
    with pytest.raises(GoneError):
        port.revive(gone)
    assert [found.handle for found in port.describe()] == [one.handle]
