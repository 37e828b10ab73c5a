"""What settings and fleets say of an account: the facts that our roles' policies are rendered with."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from hardening.foundation.asking import portions
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings
from images.aws.permissions import AUDITOR, HOME, PermissionCondition
from pipelines.fleet.members import OWN_LABELS
from pipelines.fleet.model import Fleet, FleetKind, ReplacementStrategy
from pipelines.network.model import RoleGroup
from pipelines.role_policies import Fact, Installation

KEY = re.compile(r"arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
TOGETHER = 15
"""Values of one condition: of the longest tags, of 256 characters, they leave a third of a policy to all else."""
THERE = (Fact(),)
OURS: PermissionCondition = ("StringEquals", "aws:ResourceOrgID", "${aws:PrincipalOrgID}")


def installation(
    settings: Settings, fleets: Iterable[Fleet], account: str = "", groups: Iterable[RoleGroup] = (),
    regions: Iterable[str] = (),
) -> Installation:  # fmt: skip
    """What settings, fleets and the network's groups say of an account, by default of the one that owns the images.

    `regions` are further ones. An auditor also reads what no fleet names yet, for `adopt`.

    Raises ContentError where no AWS is set, or a fleet's selector is by tags that rollouts set themselves.
    """
    aws = settings.aws
    if not aws.account or not aws.region:
        hint = "docs/aws.md shows the [aws] table of goldsmith.toml"
        raise ContentError("no account and region of AWS are set", key="aws.account", hint=hint)
    account, partition = account or aws.account, _partition(settings)
    found = [one for one in fleets if _is_in(one, account, settings)]
    owned = [(one.account or aws.account, one) for one in groups]
    values: dict[str, str | tuple[str, ...]] = {
        "prefix": settings.annotation_prefix, "name_prefix": aws.name_prefix, "owner": aws.account,
        "partition": partition, "account": account,
        "partners": aws.share_accounts or (aws.account,),
    }  # fmt: skip
    every_cluster = (Fact({"cluster": "*", "region": "*"}),)
    adopting = {(AUDITOR, "machines"): THERE, (AUDITOR, "ecs"): every_cluster, (AUDITOR, "eks"): every_cluster}
    named = (region for one in found for region in one.named_regions)
    places = {*aws.all_regions, *named, *regions, *(one.region for owner, one in owned if owner == account)}
    facts = _facts(settings, found, owned, account, partition)
    return Installation(values, facts, tuple(sorted(places)), adopting)


def _facts(
    settings: Settings, found: Sequence[Fleet], owned: Sequence[tuple[str, RoleGroup]], account: str, partition: str
) -> dict[str, tuple[Fact, ...]]:
    """The facts of an account by what patterns are `each` of: `found` are its fleets, `owned` all groups by owner."""
    aws, home = settings.aws, account == settings.aws.account
    machines = [one for one in found if one.kind is FleetKind.EC2]
    by_kind = {kind: [one for one in found if one.kind is kind] for kind in (FleetKind.ECS, FleetKind.EKS)}
    roots = [one for one in machines if one.ec2.way is ReplacementStrategy.ROOT_VOLUME]
    organization = any(one.ec2.accounts == "organization" for one in machines)
    mine = [one for owner, one in owned if owner == account]
    signing = {settings.signing.key.removeprefix("awskms:"): "signing.key", aws.signing_key: "aws.signing_key"}
    image_keys = tuple(_key(arn, "aws.kms_keys") for arn in aws.kms_keys.values() if aws.encrypted)
    return {
        "": THERE,
        HOME: THERE if home else (),
        "image_keys": image_keys if home else (),
        "shared_keys": image_keys if machines and not home else (),
        "signing_keys": tuple(_key(arn, setting) for arn, setting in signing.items() if home and arn),
        "roles": _roles(settings, partition, organization=organization) if home else (),
        "network_roles": _roles_into({owner for owner, _ in owned}, settings, partition) if home else (),
        "network_groups": tuple(Fact({"region": one.region, "group": one.id}) for one in mine),
        "organization": THERE if home and organization else (),
        "members": _selectors(machines),
        "machines": THERE if machines or by_kind[FleetKind.EKS] else (),
        "launching": THERE if len(roots) < len(machines) else (),
        "launching_members": _selectors(one for one in machines if one not in roots),
        "root_volumes": THERE if roots else (),
        "root_members": _selectors(roots),
        "ecs": tuple(_cluster(one.ecs.cluster, one.ecs.region, aws.region) for one in by_kind[FleetKind.ECS]),
        "eks": tuple(_cluster(one.eks.cluster, one.eks.region, aws.region) for one in by_kind[FleetKind.EKS]),
        "clouds": THERE if found else (),
        "passed_roles": tuple(Fact({"role": role}) for role in aws.passed_roles if role.split(":")[4] == account),
    }


def _partition(settings: Settings) -> str:
    """The partition of AWS that the home region is in."""
    begins = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for begin, name in begins.items() if settings.aws.region.startswith(begin)), "aws")


def _is_in(fleet: Fleet, account: str, settings: Settings) -> bool:
    """Whether a fleet is in an account; one over an organisation may be in any."""
    own = settings.aws.account
    match fleet.kind:
        case FleetKind.EC2:
            return fleet.ec2.accounts == "organization" or account in (fleet.ec2.named_accounts or (own,))
        case FleetKind.ECS:
            return account == (fleet.ecs.account or own)
        case FleetKind.EKS:
            return account == (fleet.eks.account or own)
    return False


def _key(arn: str, setting: str) -> Fact:
    """A key. Raises ContentError for an alias or an id, which policies cannot name."""
    if not KEY.fullmatch(arn):
        raise ContentError(f"{arn} is not the ARN of a key", key=setting, hint="arn:aws:kms:REGION:ACCOUNT:key/…")
    return Fact({"key": arn})


def _selectors(fleets: Iterable[Fleet]) -> tuple[Fact, ...]:
    """The tags of fleets' members; fleets that are told apart by the value of one tag together, `TOGETHER` at a time.

    Raises ContentError for tags that a rollout sets itself, and so could widen.
    """
    by_tag, found = defaultdict[str, set[str]](set), list[Fact]()
    for fleet in fleets:
        if own := [key for key in fleet.selector if key.startswith(OWN_LABELS)]:
            hint = "select by a tag of your own: rollouts may set theirs on any member"
            raise ContentError(f"the fleet {fleet.name} selects by {own[0]}", key="selector", hint=hint)
        tags = [(f"aws:ResourceTag/{key}", _literal(value)) for key, value in sorted(fleet.selector.items())]
        if len(tags) == 1:
            by_tag[tags[0][0]].add(tags[0][1])
        else:
            found.append(Fact(conditions=tuple(("StringEquals", *tag) for tag in tags)))
    for key, values in sorted(by_tag.items()):
        found += [Fact(conditions=(("StringEquals", key, tuple(some)),)) for some in portions(values, TOGETHER)]
    return tuple(found)


def _literal(value: str) -> str:
    """A value of a condition that is no policy variable, whatever somebody wrote into it."""
    return value.replace("${", "${$}{")


def _cluster(name: str | None, region: str | None, home: str) -> Fact:
    return Fact({"cluster": name or "", "region": region or home})


def _roles(settings: Settings, partition: str, *, organization: bool) -> tuple[Fact, ...]:
    """The roles that may be assumed, each by its ExternalId; those of one name in our own organisation alone."""
    accounts = [*settings.aws.roles, *(["*"] if organization else [])]
    return _roles_into(accounts, settings, partition)


def _roles_into(accounts: Iterable[str], settings: Settings, partition: str) -> tuple[Fact, ...]:
    """The roles that lead into accounts, as the settings name them; of one name only in our own organisation."""
    aws, found = settings.aws, list[Fact]()
    for account in sorted({*accounts}):
        if account in aws.roles:
            found.append(Fact({"role": aws.roles[account]}, _external_id(aws.external_ids.get(account, ""))))
        elif aws.organization_role and account != aws.account:
            found.append(Fact({"role": f"arn:{partition}:iam::{account}:role/{aws.organization_role}"}, (OURS,)))
    return tuple(found)


def _external_id(said: str) -> tuple[PermissionCondition, ...]:
    return (("StringEquals", "sts:ExternalId", said),) if said else ()
