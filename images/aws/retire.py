"""Retirement: which of our images at AWS are removed once their release has ended.

What still names an image holds it: instances, launch templates, Auto Scaling groups, launch configurations, parameters.
All of a region is read before anything is decided in it. What cannot be read is never taken for unused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hardening.foundation.asking import portions
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.settings import Aws
from images.artifact import Release
from images.aws import amis, tags
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.machine_evidence import remove_evidence
from images.aws.model import Ami
from images.aws.permissions import OWN_IMAGE, OWN_PARAMETERS, PARAMETERS, PUBLIC_PARAMETERS, REAPER, permit
from images.aws.usage import used_unseen
from images.catalog import KeepRule
from images.ledger import GONE, STANDING
from images.release import lifecycle, retention
from images.release.retention import DONE, KEEP, NextAction, RetirementDecision
from images.release.store import PREVIOUS

PERMISSIONS = (
    permit("ec2:DescribeInstances ec2:DescribeLaunchTemplates ec2:DescribeLaunchTemplateVersions", REAPER),
    permit("autoscaling:DescribeAutoScalingGroups autoscaling:DescribeLaunchConfigurations", REAPER),
    permit("ssm:DescribeParameters", REAPER),
    permit("ssm:GetParameters", REAPER, on=PARAMETERS),  # any may name an image
    permit("ssm:GetParameters", REAPER, on=PUBLIC_PARAMETERS, by="DescribeLaunchTemplateVersions"),
    permit("ec2:DisableImage", REAPER, on=OWN_IMAGE),
    permit("ssm:DeleteParameters", REAPER, on=OWN_PARAMETERS),
)

Decision = RetirementDecision[Ami]
Uses = dict[str, tuple[str, ...]]
Rules = Mapping[str, KeepRule]
NO_RULES: Rules = {}
IMAGE_ID = re.compile(r"ami-[0-9a-f]{8,17}")
NAMED_AT_ONCE = 10  # GetParameters' limit
UNREAD = "unread"
UNKNOWN = "no release of this ledger: if it is yours, ./goldsmith image.rebuild reads it in"
SHOWN = 3
ON_ITS_WAY = timedelta(minutes=5)  # deprecation is asked for a little ahead, since the past is refused


def retire_images(cloud: Cloud, *, apply: bool, rules: Rules = NO_RULES) -> tuple[Decision, ...]:
    """Decide over every image of ours, and with `apply` take the actions that are due. `rules`: what is kept, by name.

    Who names the images of a region is read again right before any of them is touched.
    """
    regions = {region: _decided_in(cloud, region, rules, ask=apply) for region in cloud.regions(kind="image")}
    if not apply:
        return tuple(decision for decisions in regions.values() for decision in decisions)
    done = [
        decision for region, decisions in regions.items() for decision in _take_all(cloud, region, decisions, rules)
    ]
    blind = {decision.subject.region for decision in done if decision.subject.state == UNREAD}
    for region in regions.keys() - blind:
        _forget_missing(cloud, region)
    for region, snapshot, _ in amis.orphans(cloud):
        if region not in blind:
            amis.remove_snapshot(cloud, region, snapshot)
    _end_releases(cloud)
    return tuple(done)


def _decided_in(cloud: Cloud, region: str, rules: Rules, *, ask: bool) -> list[Decision]:
    """The decisions of a region's images; where it cannot be read, all that the ledger knows there is held back."""
    try:
        found = amis.ours_in(cloud, region)
        uses = uses_in(cloud, region) if found else {}
    except GoldsmithError as error:
        say(f"{region} cannot be read, so nothing in it is touched: {error.message}")
        why = f"held back: {region} cannot be read: {error.message}"
        known = [
            Ami(region, line.resource, line.token, UNREAD, (), release=cloud.ledger.release(line.release))
            for line in cloud.made(region=region, kind="image")
        ]
        return [RetirementDecision(ami, KEEP, why, held=True) for ami in known]
    return _decisions(cloud, found, uses, rules, ask=ask)


def _decisions(cloud: Cloud, found: Iterable[Ami], uses: Uses, rules: Rules, *, ask: bool) -> list[Decision]:
    """The decisions over all images of ours in a region: the last ones can be told only among all.

    One that would be disabled, and that others may use where no role leads, is held back until EC2 says that none
    does; with `ask` EC2 is asked for that.
    """
    told = [_known(cloud, ami) for ami in found]
    kept = retention.kept_by_rule((ami.release for ami in told if ami.release), rules)
    where = unseen(cloud)

    def decided(ami: Ami, used: str = "") -> Decision:
        last = kept.get(ami.release, "") if ami.release else ""
        return decide_over(
            ami, _holding(ami, uses.get(ami.id, ())), cloud.aws, cloud.now, unseen=where,
            disabled_at=tags.moment_in(ami.tags, f"{cloud.prefix}{tags.DISABLED_AT}"), rules=rules, kept=last or used,
        )  # fmt: skip

    decisions = [decided(ami) for ami in told]
    return [
        decided(one.subject, used_unseen(cloud, one.subject.region, one.subject.id, where, ask=ask))
        if where and one.action is retention.DISABLE else one
        for one in decisions
    ]  # fmt: skip


def _known(cloud: Cloud, ami: Ami) -> Ami:
    """An image with the release that the ledger knows it by, and none where it does not: whoever may tag can write any
    day onto an image of ours, and tags like ours onto any other.
    """
    lines = cloud.made(region=ami.region, kind="image", resource=ami.id)
    return replace(ami, release=next(filter(None, (cloud.ledger.release(line.release) for line in lines)), None))


def decide_over(
    ami: Ami, users: Sequence[str], aws: Aws, now: datetime, *, disabled_at: datetime | None, unseen: Sequence[str],
    rules: Rules = NO_RULES, kept: str = "",
) -> Decision:  # fmt: skip
    """The action that is due for an image of ours: it is deprecated, then disabled, then removed, each after its grace.

    `users` is what names it; `disabled_at` when we disabled it; `unseen` whom it is shared with and where nobody could
    look: a launch there within the grace holds it back too. `rules` say how long it stays once it is over, `kept`
    that it is one of the last.
    """
    if ami.release is None:
        return RetirementDecision(ami, KEEP, UNKNOWN, held=True)
    if ami.state == "disabled" and disabled_at:
        following = NextAction(retention.REMOVE, aws.deregister_after, disabled_at)
    elif ami.state != "disabled" and (ami.deprecated_at is None or ami.deprecated_at > now + ON_ITS_WAY):
        following = NextAction(retention.DEPRECATE, anyway=True)
    else:
        stays = retention.grace_of(ami.release, retention.rule_of(ami.release, rules))
        following = NextAction(retention.DISABLE, max(aws.disable_after, stays))
    launched = ""
    if unseen and ami.launched_at and ami.launched_at + following.grace > now:
        launched = f"launched on {ami.launched_at:%Y-%m-%d}, perhaps by {unseen[0]}, where nobody could look"
    return retention.decide(ami, ami.release, following, _named(users), now, held=kept or launched)


def _named(users: Sequence[str]) -> str:
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    return f"{', '.join(users[:SHOWN])}{more} still name{'' if users[1:] else 's'} it" if users else ""


def _holding(ami: Ami, users: Iterable[str]) -> tuple[str, ...]:
    """What holds an image. A revoked one is nothing to go back to, so `-previous` does not hold it."""
    revoked = ami.release is not None and ami.release.revoked_at
    return tuple(user for user in users if not (revoked and user.endswith(PREVIOUS)))


def _take_all(cloud: Cloud, region: str, decisions: Sequence[Decision], rules: Rules) -> list[Decision]:
    """Take the actions that are due in a region, as far as they still are once its users are read again."""
    if not any(decision.action in DONE for decision in decisions):
        return list(decisions)
    again = _decisions(cloud, (decision.subject for decision in decisions), uses_in(cloud, region), rules, ask=True)
    return [
        _taken(cloud, before, now) if before.action in DONE else before
        for before, now in zip(decisions, again, strict=True)
    ]


def _taken(cloud: Cloud, decision: Decision, now: Decision) -> Decision:
    """Take one action that is due by now too; a failure is told and stops no other."""
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
        case retention.DEPRECATE:
            amis.deprecate(cloud, ami, cloud.now + amis.SOON)
        case retention.DISABLE:  # the day first: an image that is disabled without one would wait forever
            today = {f"{cloud.prefix}{tags.DISABLED_AT}": lifecycle.timestamp(cloud.now)}
            amis.put_tags(cloud, ami.region, (ami.id,), today)
            ec2.call("DisableImage", ImageId=ami.id)
        case retention.REMOVE:
            amis.remove_image(cloud, ami)


def _forget_missing(cloud: Cloud, region: str) -> None:
    """Write down which images are gone: somebody removed them, or a run that was killed right after it had."""
    for line in cloud.made(region=region, kind="image", state=STANDING):
        if amis.image(cloud, region, line.resource) is None:
            cloud.mark(line, state=GONE)


def _end_releases(cloud: Cloud) -> None:
    """Releases whose last image has gone: their statement and evidence go too, and the ledger is told."""
    for release in cloud.ledger.releases():
        lines = cloud.ledger.made(cloud.aws.account, kind="image", release=release.digest)
        if release.pruned_at or not lines or any(line.state != GONE for line in lines):
            continue
        if not _without_evidence(cloud, release):
            continue
        for line in cloud.made(kind="statement", release=release.digest):
            cloud.client("ssm", line.region).call("DeleteParameters", Names=[line.resource])
            cloud.mark(line, state=GONE)
        cloud.ledger.mark_pruned(release.digest, cloud.now)
        cloud.note("prune", f"{release.repository}@{release.digest}", "its last image is gone")


def _without_evidence(cloud: Cloud, release: Release) -> bool:
    """Remove a release's evidence; False, which is said, where the registry fails: the next run tries again."""
    if cloud.registry:
        try:
            remove_evidence(cloud.registry, release)
        except OutsideError as error:
            say(f"the evidence of {release.name} {release.digest[:19]} stays until the next run: {error.message}")
            return False
    return True


def uses_in(cloud: Cloud, region: str) -> Uses:
    """Image id → what names it in a region, in the owner's account and in every other that a role leads to."""
    accounts = [cloud.aws.account, *(one for one in sorted(cloud.aws.roles) if one != cloud.aws.account)]
    found: dict[str, list[str]] = {}
    for account in accounts:
        where = "" if account == cloud.aws.account else f" in account {account}"
        for image_id, what in _uses(cloud, region, account):
            found.setdefault(image_id, []).append(f"{what}{where}")
    return {image_id: tuple(dict.fromkeys(users)) for image_id, users in found.items()}


def unseen(cloud: Cloud) -> tuple[str, ...]:
    """Whom images are shared with, and no role lets us look: accounts and organisations."""
    accounts = [account for account in cloud.aws.share_accounts if account not in cloud.aws.roles]
    return (*accounts, *cloud.aws.share_organizations)


def _uses(cloud: Cloud, region: str, account: str) -> Iterator[tuple[str, str]]:
    ec2, scaling = cloud.client("ec2", region, account), cloud.client("autoscaling", region, account)
    yield from _instances(ec2)
    groups = list(scaling.pages("DescribeAutoScalingGroups", "AutoScalingGroups"))
    yield from _templates(ec2, groups)
    yield from _configurations(scaling, groups)
    yield from _parameters(cloud.client("ssm", region, account))


def _instances(ec2: Client) -> Iterator[tuple[str, str]]:
    for instance in ec2.instances():
        if instance["State"]["Name"] != "terminated":
            yield instance["ImageId"], f"the instance {instance['InstanceId']}"


def _templates(ec2: Client, groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Every template's default and newest version, and each version that a group starts instances from.

    A parameter in the place of an image is resolved by the service.
    """
    for template in ec2.pages("DescribeLaunchTemplates", "LaunchTemplates"):
        for number, image_id in _versions(ec2, template["LaunchTemplateId"], "$Default", "$Latest"):
            yield image_id, f"the launch template {template['LaunchTemplateName']} version {number}"
    for group in groups:
        shown = f"the Auto Scaling group {group['AutoScalingGroupName']}"
        policy = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
        overrides = policy.get("Overrides", ())
        given = [group.get("LaunchTemplate"), policy.get("LaunchTemplateSpecification")]
        given += [override.get("LaunchTemplateSpecification") for override in overrides]
        yield from ((override["ImageId"], shown) for override in overrides if override.get("ImageId"))
        for one in (found for found in given if found):
            for number, image_id in _versions(ec2, one["LaunchTemplateId"], str(one.get("Version", "$Default"))):
                yield image_id, f"{shown}, by its launch template's version {number}"


def _versions(ec2: Client, template_id: str, *wanted: str) -> Iterator[tuple[int, str]]:
    """The number and the image of these versions of a template, where they name one."""
    asked = {"LaunchTemplateId": template_id, "Versions": list(wanted), "ResolveAlias": True}
    for version in ec2.pages("DescribeLaunchTemplateVersions", "LaunchTemplateVersions", **asked):
        if image_id := version["LaunchTemplateData"].get("ImageId"):
            yield version["VersionNumber"], image_id


def _configurations(scaling: Client, groups: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    users = {group.get("LaunchConfigurationName"): group["AutoScalingGroupName"] for group in groups}
    for found in scaling.pages("DescribeLaunchConfigurations", "LaunchConfigurations"):
        name = found["LaunchConfigurationName"]
        by = f" of the Auto Scaling group {users[name]}" if name in users else ""
        yield found["ImageId"], f"the launch configuration {name}{by}"


def _parameters(ssm: Client) -> Iterator[tuple[str, str]]:
    """Every parameter that names an image, channels of ours and anybody's.

    Those of type aws:ec2:image do by their type; others may hold an image's id as text.
    """
    named = [found["Name"] for found in ssm.pages("DescribeParameters", "Parameters") if found["Type"] == "String"]
    for some in portions(named, NAMED_AT_ONCE):
        for found in ssm.call("GetParameters", Names=some)["Parameters"]:
            if IMAGE_ID.fullmatch(found["Value"].strip()):
                yield found["Value"].strip(), f"the parameter {found['Name']}"
