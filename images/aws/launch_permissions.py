"""Who may launch our images and copy their snapshots: the accounts that the settings name, only while they do.

The ledger's line of an image or a snapshot keeps whom we let in; it is written before the service is asked. Only that
is taken away again: whom somebody else let in stays, and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, RefusedError
from images.aws import call_arguments, permissions
from images.aws.amis import NO_SUCH_IMAGE
from images.aws.client import Client
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.permissions import PUBLISHER, permit
from images.aws.snapshots import NO_SUCH
from images.ledger import Made

PERMISSIONS = (
    permit("ec2:DescribeImageAttribute", PUBLISHER, on=permissions.IMAGE),
    permit("ec2:DescribeSnapshotAttribute", PUBLISHER, on=permissions.SNAPSHOT),
    permit("ec2:ModifyImageAttribute", PUBLISHER, on=permissions.OWN_IMAGE),
    permit("ec2:ModifySnapshotAttribute", PUBLISHER, on=permissions.SHARED_SNAPSHOT),
)

GRANTED = "granted"
"""Where a line of the ledger keeps whom we let in."""
PUBLIC = {"Group": "all"}
Entries = Sequence[dict[str, str]]
"""Accounts, organisations or their units, as AWS's permissions name them."""


@dataclass(frozen=True)
class _Kind:
    """What AWS calls the permissions of images, or of snapshots."""

    noun: str
    attribute: str
    change: Callable[[str, str, Entries], dict[str, Any]]
    gone: frozenset[str]

    def present(self, ec2: Client, resource: str) -> list[dict[str, str]]:
        """Who has the permission now."""
        asked = {f"{self.noun}Id": resource, "Attribute": self.attribute}
        answer = ec2.call(f"Describe{self.noun}Attribute", **asked)
        return list(answer.get(f"{self.attribute[0].upper()}{self.attribute[1:]}s", ()))

    def modify(self, ec2: Client, resource: str, change: str, to: Entries) -> bool:
        """Add or remove permissions; whether the resource is there still."""
        asked = self.change(resource, change, to)
        return ec2.call_unless(f"Modify{self.noun}Attribute", self.gone, **asked) is not None


KINDS = {
    "image": _Kind("Image", "launchPermission", call_arguments.change_image, frozenset(NO_SUCH_IMAGE)),
    "snapshot": _Kind("Snapshot", "createVolumePermission", call_arguments.change_snapshot, frozenset(NO_SUCH)),
}


def share(cloud: Cloud, ami: Ami) -> None:
    """Let the settings' accounts and organisations launch an image, and its accounts copy the snapshots.

    Raises RefusedError where the image or a snapshot is open to the public, OutsideError where one has gone.
    """
    ec2, wanted = cloud.client("ec2", ami.region), _wanted(cloud)
    named = [("image", ami.id), *(("snapshot", snapshot) for snapshot in ami.snapshots)]
    present = {name: KINDS[kind].present(ec2, name) for kind, name in named}
    if public := [name for name, to in present.items() if PUBLIC in to]:
        hint = "take the permission of the group `all` away; Block Public Access keeps it from coming back"
        raise RefusedError(f"{' and '.join(public)} in {ami.region} is public; images of ours never are", hint=hint)
    for kind, name in named:
        lines = cloud.made(region=ami.region, kind=kind, resource=name)
        granted = [one for line in lines for one in line.details.get(GRANTED, ())]
        if missing := [one for one in wanted[kind] if one not in present[name]]:
            for line in lines:  # before the service is asked: a run that is killed in between has granted it
                _keep(cloud, line, [*line.details.get(GRANTED, ()), *missing])
            if not KINDS[kind].modify(ec2, name, "Add", missing):
                hint = "it was removed or disabled meanwhile: publish again"
                raise OutsideError(f"{ami.region}/{name} cannot be shared any more", hint=hint)
        if strangers := [one for one in present[name] if one not in (*wanted[kind], *granted)]:
            say(
                f"{ami.region}/{name} is shared with {_named(strangers)}, whom neither settings nor ledger name: "
                "remove it by hand if it is no longer needed; docs/aws.md"
            )


def is_shared(cloud: Cloud, ami: Ami) -> bool:
    """Whether those of the settings may launch an image, and not everybody."""
    present = KINDS["image"].present(cloud.client("ec2", ami.region), ami.id)
    return PUBLIC not in present and all(one in present for one in _wanted(cloud)["image"])


def overdue(cloud: Cloud) -> list[tuple[Made, Entries]]:
    """What of ours we opened to whom the settings no longer name, and to whom; by the ledger alone."""
    wanted = _wanted(cloud)
    lines = [line for line in cloud.made() if line.kind in KINDS]
    found = [(line, [one for one in line.details.get(GRANTED, ()) if one not in wanted[line.kind]]) for line in lines]
    return [(line, gone) for line, gone in found if gone]


def told(found: Iterable[tuple[Made, Entries]]) -> str:
    """What is overdue, in words; empty where nothing is."""
    if not (lines := list(found)):
        return ""
    who = _named(one for _, gone in lines for one in gone)
    return f"{len(lines)} image(s) and snapshot(s) are still shared with {who}, whom the settings no longer name"


def withdraw(cloud: Cloud) -> None:
    """Take away what is overdue, and write that down. A failure is told and stops nothing: the next run tries again."""
    for line, gone in overdue(cloud):
        what = f"{line.region}/{line.resource}"
        try:
            KINDS[line.kind].modify(cloud.client("ec2", line.region), line.resource, "Remove", gone)
        except GoldsmithError as error:
            say(f"{what} stays shared with {_named(gone)} until the next publication: {error}")
            continue
        cloud.note("unshare", what, f"{line.name}: {_named(gone)}")
        _keep(cloud, line, [one for one in line.details[GRANTED] if one not in gone])
        say(f"{what} of {line.name} is no longer shared with {_named(gone)}")


def _wanted(cloud: Cloud) -> dict[str, Entries]:
    aws = cloud.aws
    accounts = call_arguments.shared_with(aws.share_accounts)
    return {"image": call_arguments.shared_with(aws.share_accounts, aws.share_organizations), "snapshot": accounts}


def _keep(cloud: Cloud, line: Made, granted: Entries) -> None:
    kept = [one for at, one in enumerate(granted) if one not in granted[:at]]
    cloud.mark(line, details={**line.details, GRANTED: kept})


def _named(entries: Iterable[dict[str, str]]) -> str:
    return ", ".join(dict.fromkeys(value for one in entries for value in one.values()))
