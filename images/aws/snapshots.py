"""A content's snapshot at home: found, continued where a killed run left it, or made. Never two of the same.

The ledger is told before the service is; the service makes one snapshot for one token, however often it is asked.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from images.aws import call_arguments, tags
from images.aws.call_arguments import put_block
from images.aws.client import AwsError, Client
from images.aws.cloud import Cloud
from images.aws.model import MachineImage, Parent, best_parent, blocks_on, digests_at
from images.aws.permissions import ANY, KEYS, MADE, NEW_SNAPSHOT, OWN_SNAPSHOT, PUBLISHER, permit, use_keys
from images.ledger import BEGUN, GONE, STANDING, Made
from images.machine.blocks import BLOCK

PERMISSIONS = (
    permit("ec2:DescribeSnapshots", PUBLISHER, on=ANY),
    permit("ebs:StartSnapshot", PUBLISHER, on=NEW_SNAPSHOT),
    permit("ec2:CreateTags", PUBLISHER, on=MADE[1], by="StartSnapshot"),
    permit("ebs:PutSnapshotBlock ebs:CompleteSnapshot ec2:DeleteSnapshot", PUBLISHER, on=OWN_SNAPSHOT),
    *use_keys(PUBLISHER, KEYS, "StartSnapshot"),
)

NO_SUCH = {"InvalidSnapshot.NotFound", "ResourceNotFoundException"}
REAP_AFTER = timedelta(days=2)


def ensure_snapshot(cloud: Cloud, machine: MachineImage, release: str) -> str:
    """The id of a completed snapshot that holds the machine's disk, in the home region."""
    for line in _lines(cloud, cloud.home, machine.content):
        if found := _taken_up(cloud, machine, line):
            return found
        _give_up(cloud, line)
    require_disk(machine.disk)
    return _finish(cloud, machine, _start(cloud, machine, _begin(cloud, machine, release)))


def standing_snapshot(cloud: Cloud, region: str, content: str) -> str:
    """The id of the completed snapshot of a content that the ledger knows in a region; empty where there is none."""
    for line in _lines(cloud, region, content):
        if line.state == STANDING and _state(cloud, line) == "completed":
            return line.resource
    return ""


def record_snapshot(cloud: Cloud, region: str, machine: MachineImage, release: str, snapshot: str) -> None:
    """Write down a snapshot that the service itself made for us, such as a copied image's."""
    if not any(line.resource == snapshot for line in _lines(cloud, region, machine.content)):
        cloud.record(
            machine, release, region, "snapshot", snapshot, resource=snapshot, state=STANDING,
            details=_details(cloud, region, machine, None),
        )  # fmt: skip


def drop_pending(cloud: Cloud, content: str) -> None:
    """Cancel what was begun for a content and will not be taken up."""
    for line in _lines(cloud, cloud.home, content):
        if line.state == BEGUN:
            _give_up(cloud, line)


def _give_up(cloud: Cloud, line: Made) -> None:
    """Cancel what a line speaks of, or remove it where it failed."""
    if _state(cloud, line) in ("pending", "error"):
        cloud.client("ec2", line.region).call_unless("DeleteSnapshot", NO_SUCH, SnapshotId=line.resource)
    cloud.mark(line, state=GONE)


def _lines(cloud: Cloud, region: str, content: str) -> list[Made]:
    """The ledger's lines about a content's snapshots that are encrypted as the settings say today."""
    lines = cloud.made(region=region, kind="snapshot", content=content)
    return [line for line in lines if line.details.get("key") == cloud.key(region)]


def _state(cloud: Cloud, line: Made) -> str:
    """pending, completed or error, as the service says; missing where it knows none, or where we know no id."""
    found = _described(cloud, line.region, line.resource) if line.resource else None
    return str(found["State"]) if found else "missing"


def _described(cloud: Cloud, region: str, snapshot: str) -> dict[str, Any] | None:
    answer = cloud.client("ec2", region).call_unless("DescribeSnapshots", NO_SUCH, SnapshotIds=[snapshot])
    return next(iter(answer["Snapshots"]), None) if answer else None


def _taken_up(cloud: Cloud, machine: MachineImage, line: Made) -> str:
    """The snapshot of a line, brought to its end if it was only begun; empty where it is no good any more."""
    lost_parent = line.details["parent_linear"] and not cloud.store.has(line.details["parent_linear"])
    if not line.resource:
        line = _start(cloud, machine, line)
    state = _state(cloud, line)
    if state == "completed":
        cloud.mark(line, state=STANDING)
        return line.resource
    return _finish(cloud, machine, line) if state == "pending" and not lost_parent else ""


def _begin(cloud: Cloud, machine: MachineImage, release: str) -> Made:
    """The line of a snapshot that is about to be made, on the parent that saves most."""
    attempts = len(cloud.ledger.made(cloud.aws.account, region=cloud.home, kind="snapshot", content=machine.content))
    # The day is in it: a ledger that was lost must not ask by a token that the service knows with other words.
    seed = f"{cloud.home}/{machine.content}/{cloud.key(cloud.home)}/{cloud.now.isoformat()}/{attempts}"
    token = f"goldsmith-{hashlib.sha256(seed.encode()).hexdigest()[:40]}"
    details = _details(cloud, cloud.home, machine, _standing_parent(cloud, machine))
    return cloud.record(machine, release, cloud.home, "snapshot", token, details=details)


def _details(cloud: Cloud, region: str, machine: MachineImage, parent: Parent | None) -> dict[str, Any]:
    known = {"key": cloud.key(region), "linear": machine.linear, "gib": machine.volume_gib}
    return known | {"parent": parent.snapshot if parent else "", "parent_linear": parent.linear if parent else ""}


def _standing_parent(cloud: Cloud, machine: MachineImage) -> Parent | None:
    """The parent on which the upload writes least, if there is one that still stands."""
    parents = _parents(cloud)
    while parent := best_parent(machine, parents):
        found = _described(cloud, cloud.home, parent.snapshot)
        if found and found["State"] == "completed":
            break
        parents.remove(parent)
    return parent


def _parents(cloud: Cloud) -> list[Parent]:
    """Snapshots that a delta may stand on: of each definition the newest, under the same key, its digests at hand.

    Other definitions count too: a child's disk resembles its base's.
    """
    newest: dict[str, Parent] = {}
    for line in cloud.made(region=cloud.home, kind="snapshot", state=STANDING):
        linear = line.details["linear"]
        if line.details["key"] == cloud.key(cloud.home) and cloud.store.has(linear):
            digests = cloud.store.blob(linear).read_bytes()
            newest[line.name] = Parent(line.resource, linear, digests, line.details["gib"])
    return list(newest.values())


def _start(cloud: Cloud, machine: MachineImage, line: Made) -> Made:
    """Start the snapshot that a line speaks of; asked again, the service answers with the same one."""
    parent = _parent_of(cloud, line)
    said = tags.of_snapshot(machine.name, machine.content, machine.linear, cloud.prefix, line.at + REAP_AFTER)
    asked = call_arguments.start_snapshot(machine, line.token, said, parent=parent, key=cloud.key(line.region))
    answer = cloud.client("ebs", line.region).call("StartSnapshot", **asked)
    return cloud.mark(line, resource=str(answer["SnapshotId"]))


def _parent_of(cloud: Cloud, line: Made) -> Parent | None:
    """The parent that a line was begun on: the same as then, so that the same token means the same."""
    linear = line.details["parent_linear"]
    if not linear:
        return None
    digests = cloud.store.blob(linear).read_bytes() if cloud.store.has(linear) else b""
    return Parent(line.details["parent"], linear, digests, line.details["gib"])


def _finish(cloud: Cloud, machine: MachineImage, line: Made) -> str:
    """Bring a pending snapshot to its end: every block, the digest of all, and the service's own work. Its id."""
    parent = _parent_of(cloud, line)
    indexes = blocks_on(machine, parent)
    if not line.details.get("sealed"):
        on = f"a delta on {parent.snapshot}" if parent else "the first upload: every block"
        say(f"{machine.name}: {len(indexes)} of {machine.blocks} blocks to {line.region}, {on}")
        upload(
            cloud.client("ebs", line.region), line.resource, machine.disk, indexes, machine.digests,
            parallel=cloud.aws.parallel, progress=lambda done, of: say(f"{machine.name}: {done} of {of} blocks"),
        )  # fmt: skip
        line = cloud.mark(line, details={**line.details, "sealed": True})
    _seal(cloud, line, call_arguments.complete_snapshot(line.resource, indexes, machine.digests))
    cloud.clients.until(lambda: _completed(cloud, line), f"the snapshot {line.resource} in {line.region}")
    cloud.mark(line, state=STANDING)
    return line.resource


def _seal(cloud: Cloud, line: Made, request: dict[str, Any]) -> None:
    """Complete a snapshot. It may be complete already, by the very digest that we sent, its answer lost."""
    try:
        cloud.client("ebs", line.region).call("CompleteSnapshot", **request)
    except AwsError as error:
        try:
            within = timedelta(minutes=1)
            cloud.clients.until(lambda: _state(cloud, line) == "completed", line.resource, within=within)
        except OutsideError:
            cloud.mark(line, details={**line.details, "sealed": False})
            raise error from None


def _completed(cloud: Cloud, line: Made) -> bool:
    found = _described(cloud, line.region, line.resource)
    if found is None or found["State"] == "error":
        _give_up(cloud, line)
        why = f"the snapshot {line.resource} in {line.region} failed"
        evidence = (found or {}).get("StateMessage", "it is not there any more")
        raise OutsideError(why, evidence=evidence, hint="publish again: it is uploaded again")
    return bool(found["State"] == "completed")


TENTHS = 10
Progress = Callable[[int, int], None]


def upload(
    ebs: Client, snapshot: str, disk: Path, indexes: Sequence[int], digests: bytes, *, parallel: int, progress: Progress
) -> None:
    """Put the blocks `indexes` of `disk`, whose `digests` the service checks; `progress(done, of)` is told ten times.

    Raises OutsideError where the disk is not there, or no longer what its digests say.
    """
    require_disk(disk)
    total, file = len(indexes), os.open(disk, os.O_RDONLY)
    marks = {max(1, total * part // TENTHS) for part in range(1, TENTHS + 1)}

    def put(index: int) -> None:
        data = os.pread(file, BLOCK, index * BLOCK).ljust(BLOCK, b"\0")
        ebs.call("PutSnapshotBlock", **put_block(snapshot, index, data, digests_at(digests, (index,))))

    try:
        with ThreadPoolExecutor(parallel, thread_name_prefix="upload") as pool:
            try:
                for done, _ in enumerate(pool.map(put, indexes), 1):
                    if done in marks:
                        progress(done, total)
            except BaseException:  # Ctrl-C too: what is queued would be uploaded before the pool ends
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        os.close(file)


def require_disk(disk: Path) -> None:
    """Raises OutsideError where the disk is not there."""
    if not disk.exists():
        hint = "./goldsmith image.build NAME --no-cache makes it again"
        raise OutsideError(f"the disk {disk.name} is not on this machine any more", hint=hint)
