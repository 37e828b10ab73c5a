"""How an edge declares its AWS calls: the actions, the roles that need them, and the resources. Pure.

Each module that calls AWS has `PERMISSIONS`. `pipelines/role_policies.py` renders them for one role.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

ROLES = ("builder", "publisher", "scanner", "roller", "reaper", "auditor", "network")
BUILDER, PUBLISHER, SCANNER, ROLLER, REAPER, AUDITOR, NETWORK = ROLES
LOOKING = (SCANNER, ROLLER, AUDITOR)
"""The roles that read what fleets run."""

PermissionCondition: TypeAlias = tuple[str, str, str | tuple[str, ...]]
"""An operator, a condition key and its values, as IAM's JSON has them; with `{name}` for a fact of the installation."""


@dataclass(frozen=True)
class ResourcePattern:
    """Resources, by a pattern of their ARN, and conditions on them or on the request. Both may contain `{name}`.

    `each` names facts of which there may be several or none: one for each of them, as accounts' roles are.
    """

    pattern: str = "*"
    conditions: tuple[PermissionCondition, ...] = ()
    each: str = ""

    def where(self, *conditions: PermissionCondition, each: str = "") -> ResourcePattern:
        """The same under further conditions."""
        return ResourcePattern(self.pattern, (*self.conditions, *conditions), each or self.each)


EVERYTHING = ResourcePattern()


@dataclass(frozen=True)
class Permission:
    """Actions on resources in some roles. `by`: the edge's calls for which AWS asks for them; else each is one."""

    actions: tuple[str, ...]
    roles: tuple[str, ...]
    resources: tuple[ResourcePattern, ...]
    by: tuple[str, ...] = ()


def permit(
    actions: str, *roles: str, on: ResourcePattern | tuple[ResourcePattern, ...] = EVERYTHING, by: str = ""
) -> Permission:
    """A permission for `actions`, separated by blanks; by default on everything, for reads that AWS cannot narrow."""
    resources = on if isinstance(on, tuple) else (on,)
    return Permission(tuple(actions.split()), roles, resources, tuple(by.split()))


def present(key: str) -> PermissionCondition:
    """Let a key be there, whatever it says."""
    return ("StringLike", key, "*")


def absent(key: str) -> PermissionCondition:
    """Let a key not be there."""
    return ("Null", key, "true")


def only_tags(*keys: str) -> PermissionCondition:
    """Let all keys of tags in a request be among these."""
    return ("ForAllValues:StringLike", "aws:TagKeys", keys)


HOME = "home"
"""For `each`: in the account that owns the images only."""
ANY = ResourcePattern(each=HOME)
IMAGE, SNAPSHOT = (ResourcePattern(f"arn:{{partition}}:ec2:*::{kind}/*", each=HOME) for kind in ("image", "snapshot"))
OWN_IMAGE, OWN_SNAPSHOT = (one.where(present("aws:ResourceTag/{prefix}name")) for one in (IMAGE, SNAPSHOT))
"""What a publication made: all of it has this tag from the first moment."""
NEW_IMAGE, NEW_SNAPSHOT = (one.where(present("aws:RequestTag/{prefix}name")) for one in (IMAGE, SNAPSHOT))
_MADE: PermissionCondition = ("StringEquals", "ec2:CreateAction", ("CopyImage", "RegisterImage", "StartSnapshot"))
MADE = (IMAGE.where(_MADE), SNAPSHOT.where(_MADE))
NOTHING = "0" * 17
"""The id of no resource: a rehearsal asks for the permission alone."""
REHEARSED_IMAGE, REHEARSED_SNAPSHOT = (
    ResourcePattern(f"arn:{{partition}}:ec2:*::{kind}-{NOTHING}", each=HOME) for kind in ("image/ami", "snapshot/snap")
)
_PARTNERS = (("ForAllValues:StringEquals", "ec2:Add/userId", "{partners}"), absent("ec2:Add/group"))
SHARED_SNAPSHOT = OWN_SNAPSHOT.where(*_PARTNERS)
"""Sharing with the accounts of the settings alone, never with the public; and taking that away, which opens nothing."""
PARAMETERS = ResourcePattern("arn:{partition}:ssm:*:{account}:parameter/*")
OWN_PARAMETERS = ResourcePattern("arn:{partition}:ssm:*:{account}:parameter/{name_prefix}/*", each=HOME)
PUBLIC_PARAMETERS = ResourcePattern("arn:{partition}:ssm:*::parameter/aws/service/*")
KEYS = (ResourcePattern("{key}", each="image_keys"),)
KEY_USES = "kms:Decrypt kms:DescribeKey kms:GenerateDataKeyWithoutPlaintext kms:ReEncryptFrom kms:ReEncryptTo"
"""What EC2 and EBS do with the key of a volume or snapshot in the name of who asks them, beside making a grant.

Source: the EBS user guide, "Requirements for Amazon EBS encryption".
"""


def use_keys(role: str, on: tuple[ResourcePattern, ...], by: str) -> tuple[Permission, Permission]:
    """Let a service use the keys `on` in the name of a role, in the edge's calls `by`."""
    grants = tuple(one.where(("Bool", "kms:GrantIsForAWSResource", "true")) for one in on)
    return permit(KEY_USES, role, on=on, by=by), permit("kms:CreateGrant", role, on=grants, by=by)
