"""Retirement: every image of ours in every region, the action that is due, and on request the action itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.settings import Aws
from images.aws import tags
from images.aws.amis import SOON, deprecate, image, orphans, ours_in, put_tags, remove_image, remove_snapshot
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.uses import Uses, unseen, uses_in
from images.ledger.releases import GONE, STANDING
from images.release import lifecycle
from images.release.retention import (
    DEPRECATE,
    DISABLE,
    DONE,
    KEEP,
    REMOVE,
    NextAction,
    RetirementAction,
    RetirementDecision,
    decide,
)
from images.release.revocations import said_by_ledger
from images.release.store import PREVIOUS

Decision = RetirementDecision[Ami]
UNREAD = "unread"
SHOWN = 3
ON_ITS_WAY = timedelta(minutes=5)  # deprecation is asked for a little ahead, since the past is refused


def retire_images(cloud: Cloud, *, apply: bool) -> tuple[Decision, ...]:
    """Decide over every image of ours, and with `apply` take the actions that are due.

    Who names the images of a region is read again right before any of them is touched.
    """
    regions = {region: _in_region(cloud, region) for region in _regions(cloud)}
    if not apply:
        return tuple(decision for decisions in regions.values() for decision in decisions)
    done = [decision for region, decisions in regions.items() for decision in _take_all(cloud, region, decisions)]
    blind = {decision.subject.region for decision in done if decision.subject.state == UNREAD}
    for region in regions.keys() - blind:
        _forget_missing(cloud, region)
    for region, snapshot, _ in orphans(cloud):
        if region not in blind:
            remove_snapshot(cloud, region, snapshot)
    _end_releases(cloud)
    return tuple(done)


def _regions(cloud: Cloud) -> tuple[str, ...]:
    """Where there may be images of ours: by the settings, and by the ledger, whose settings may have been others."""
    known = sorted({line.region for line in cloud.made(kind="image")})
    return tuple(dict.fromkeys((cloud.home, *cloud.aws.all_regions, *known)))


def _in_region(cloud: Cloud, region: str) -> list[Decision]:
    """The decisions of a region's images; where it cannot be read, all that the ledger knows there is held back."""
    try:
        amis = ours_in(cloud, region)
        uses = uses_in(cloud, region) if amis else {}
    except GoldsmithError as error:
        say(f"{region} cannot be read, so nothing in it is touched: {error.message}")
        return [
            RetirementDecision(ami, KEEP, f"held back: {region} cannot be read: {error.message}", held=True)
            for ami in _known(cloud, region)
        ]
    return [_decision(cloud, ami, uses) for ami in amis]


def _decision(cloud: Cloud, ami: Ami, uses: Uses) -> Decision:
    disabled_at = tags.moment_in(ami.tags, f"{cloud.prefix}{tags.DISABLED_AT}")
    told = replace(ami, release=said_by_ledger(cloud.ledger, ami.release)) if ami.release else ami
    users = _holding(told, uses.get(ami.id, ()))
    return decide_over(told, users, cloud.aws, cloud.now, disabled_at=disabled_at, unseen=unseen(cloud))


def decide_over(
    ami: Ami, users: Sequence[str], aws: Aws, now: datetime, *, disabled_at: datetime | None, unseen: Sequence[str]
) -> Decision:
    """The action that is due for an image of ours: it is deprecated, then disabled, then removed, each after its grace.

    `users` is what names it; `disabled_at` when we disabled it; `unseen` whom it is shared with and where nobody could
    look: a launch there within the grace holds it back too.
    """
    if ami.state == "disabled" and disabled_at:
        following = NextAction(REMOVE, aws.deregister_after, disabled_at)
    elif ami.state != "disabled" and (ami.deprecated_at is None or ami.deprecated_at > now + ON_ITS_WAY):
        following = NextAction(DEPRECATE, anyway=True)
    else:
        following = NextAction(DISABLE, aws.disable_after)
    launched = ""
    if unseen and ami.launched_at and ami.launched_at + following.grace > now:
        launched = f"launched on {ami.launched_at:%Y-%m-%d}, perhaps by {unseen[0]}, where nobody could look"
    return decide(ami, ami.release, following, _named(users), now, launched=launched)


def _named(users: Sequence[str]) -> str:
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    return f"{', '.join(users[:SHOWN])}{more} still name{'' if users[1:] else 's'} it" if users else ""


def _holding(ami: Ami, users: Iterable[str]) -> tuple[str, ...]:
    """What holds an image. A revoked one is nothing to go back to, so `-previous` does not hold it."""
    revoked = ami.release is not None and ami.release.revoked_at
    return tuple(user for user in users if not (revoked and user.endswith(PREVIOUS)))


def _known(cloud: Cloud, region: str) -> list[Ami]:
    """The images that the ledger knows in a region."""
    lines = cloud.made(region=region, kind="image")
    return [
        Ami(line.account, region, line.resource, line.token, UNREAD, (), release=cloud.ledger.release(line.release))
        for line in lines
    ]


def _take_all(cloud: Cloud, region: str, decisions: Iterable[Decision]) -> list[Decision]:
    """Take the actions that are due in a region, as far as they still are once its users are read again."""
    decisions = list(decisions)
    if not any(decision.action in DONE for decision in decisions):
        return decisions
    uses = uses_in(cloud, region)
    return [_taken(cloud, decision, uses) if decision.action in DONE else decision for decision in decisions]


def _taken(cloud: Cloud, decision: Decision, uses: Uses) -> Decision:
    """Take one action; a failure is told and stops no other."""
    now = _decision(cloud, decision.subject, uses)
    try:
        if now.action is decision.action:
            _take(cloud, decision)
            cloud.note("prune", decision.subject.where, f"{decision.action}: {decision.why}")
    except GoldsmithError as error:
        return replace(decision, action=KEEP, why=f"{decision.why}; not done: {error.message}", held=True)
    return now


def _take(cloud: Cloud, decision: Decision) -> None:
    ami, ec2 = decision.subject, cloud.client("ec2", decision.subject.region)
    match decision.action:
        case RetirementAction.DEPRECATE:
            deprecate(cloud, ami, cloud.now + SOON)
        case RetirementAction.DISABLE:  # the day first: an image that is disabled without one would wait forever
            put_tags(
                cloud, ami.region, (ami.id,), {f"{cloud.prefix}{tags.DISABLED_AT}": lifecycle.timestamp(cloud.now)}
            )
            ec2.call("DisableImage", ImageId=ami.id)
        case RetirementAction.REMOVE:
            remove_image(cloud, ami)


def _forget_missing(cloud: Cloud, region: str) -> None:
    """Write down which images are gone: somebody removed them, or a run that was killed right after it had."""
    for line in cloud.made(region=region, kind="image", state=STANDING):
        if image(cloud, region, line.resource) is None:
            cloud.mark(line, state=GONE)


def _end_releases(cloud: Cloud) -> None:
    """Releases whose last image has gone: their statement goes too, and the ledger is told."""
    for release in cloud.ledger.releases():
        lines = cloud.ledger.made(cloud.aws.account, kind="image", release=release.digest)
        if release.pruned_at or not lines or any(line.state != GONE for line in lines):
            continue
        for line in cloud.made(kind="statement", release=release.digest):
            cloud.client("ssm", line.region).call("DeleteParameters", Names=[line.resource])
            cloud.mark(line, state=GONE)
        cloud.ledger.mark_pruned(release.digest, cloud.now)
        cloud.note("prune", f"{release.repository}@{release.digest}", "its last image is gone")
