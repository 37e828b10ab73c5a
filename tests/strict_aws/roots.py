"""Root volumes are replaced in place: a task that takes its time, keeps the old volume or not, and can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.strict_aws import encryption, lifecycle, listing, snapshots, tags, types
from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.instances import launchable, once
from tests.strict_aws.listing import member
from tests.strict_aws.wire import Call
from tests.strict_aws.world import Image, Snapshot, World, new_id

# Source of the rules here: EC2 User Guide, "Replace the root volume for an Amazon EC2 instance without stopping it".
ENDED = {"succeeded", "failed", "failed-detached"}
FILTERS = {"instance-id": member("InstanceId"), "replace-root-volume-task-id": member("ReplaceRootVolumeTaskId")}
WIDTH = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Task:
    """One replacement, from a snapshot (of an image where one was asked for), or by a volume that is there."""

    id: str
    place: tuple[str, str]
    instance: Any
    source: Snapshot | None
    key: str | None
    image: Image | None
    volume: Any
    drop: bool
    shown: dict[str, Any] = field(default_factory=dict)

    def names(self) -> list[str]:
        """What may ail."""
        return [one.id for one in (self.instance, self.source, self.image, self.volume) if one is not None]

    @property
    def state(self) -> str:
        return str(self.shown["TaskState"])


@once
def create(world: World, call: Call) -> dict[str, Any]:
    """Of a running instance without another task in hand, from an image, a snapshot, or as it was launched."""
    params = call.params
    backend = tags.backend(call.account, call.region)
    (instance,) = lifecycle.found(backend, params["InstanceId"])
    given = tags.specified(call, "replace-root-volume-task").get("replace-root-volume-task", {})
    ready(world, instance)
    if len({"ImageId", "SnapshotId", "VolumeId"} & params.keys()) > 1:
        raise AwsError("InvalidParameterCombination", "Only one of ImageId, SnapshotId and VolumeId")
    volume = usable(backend, instance, params["VolumeId"]) if "VolumeId" in params else None
    image, source = (None, None) if volume else wanted(world, call, instance)
    fits(instance, image)
    key = key_of(world, call, instance, source) if source else None
    drop, place = bool(params.get("DeleteReplacedRootVolume")), (call.account, call.region)
    task = Task(new_id("replacevol"), place, instance, source, key, image, volume, drop)
    task.shown = described(world, task)
    world.roots[task.id] = task
    tags.put(call, task.id, given)
    world.after("root", partial(swap, world, backend, task))
    return {"ReplaceRootVolumeTask": shown(task)}


def ready(world: World, instance: Any) -> None:
    """Raise AwsError where the instance does not run or another task is in hand."""
    if instance.state != "running" or instance.root_device_name not in instance.block_device_mapping:
        raise AwsError("IncorrectInstanceState", f"The instance '{instance.id}' is not 'running' with a root volume.")
    if types.of(instance).get("BareMetal") and not instance.instance_type.startswith("mac"):
        raise AwsError("UnsupportedOperation", f"The root volume of {instance.instance_type} cannot be replaced")
    busy = [task.id for task in world.roots.values() if task.instance is instance and task.state not in ENDED]
    if busy:
        said = f"The instance '{instance.id}' has a root volume replacement in progress: {busy[0]}"
        raise AwsError("IncorrectInstanceState", said)


def usable(backend: Any, instance: Any, name: str) -> Any:
    """A volume that may become the root: free, in the same zone, encrypted where the present root is."""
    volume, root = backend.volumes.get(name), current(instance)
    if volume is None:
        raise AwsError("InvalidVolume.NotFound", f"The volume '{name}' does not exist.")
    if volume.status != "available":
        raise AwsError("IncorrectState", f"The volume '{name}' is not 'available'")
    if volume.zone.name != root.zone.name:
        raise AwsError("InvalidVolume.ZoneMismatch", f"The volume '{name}' is not in the zone of {instance.id}")
    if root.encrypted and not volume.encrypted:
        raise bad_value(f"The volume '{name}' is not encrypted, the root of {instance.id} is")
    return volume


def wanted(world: World, call: Call, instance: Any) -> tuple[Image | None, Snapshot]:
    """The image and the snapshot that the new root is made of. Raises AwsError where they cannot be had."""
    params = call.params
    if name := params.get("ImageId"):
        image = launchable(world, call, name)
        return image, world.snapshots[root_of(image)["SnapshotId"]]
    if name := params.get("SnapshotId"):
        return None, of_lineage(world, call, instance, name)
    return None, world.snapshots[launched(instance)]


def root_of(image: Image) -> dict[str, Any]:
    """The root's part of an image's block devices."""
    name = image.shown["RootDeviceName"]
    return dict(next(one["Ebs"] for one in image.shown["BlockDeviceMappings"] if one["DeviceName"] == name))


def launched(instance: Any) -> str:
    """The snapshot that the first root volume was made of."""
    return str(past(instance)[0].snapshot_id)


def past(instance: Any) -> list[Any]:
    """Every root volume that the instance had, in order, and the one it has."""
    return [*getattr(instance, "past_roots", []), current(instance)]


def current(instance: Any) -> Any:
    """The root volume."""
    held = instance.block_device_mapping[instance.root_device_name]
    return instance.ec2_backend.volumes[held.volume_id]


def of_lineage(world: World, call: Call, instance: Any, name: str) -> Snapshot:
    """A completed snapshot taken of a root volume that the instance has or had, no copy of one."""
    found = snapshots.found(world, call, name, own=False)
    if world.state_of(found) != "completed":
        raise AwsError("IncorrectState", f"The snapshot {name} is {world.state_of(found)}")
    if not any(found.volume == one.id or name == one.snapshot_id for one in past(instance)):
        raise bad_value(f"The snapshot {name} is not of the lineage of the root volume of {instance.id}")
    return found


def key_of(world: World, call: Call, instance: Any, source: Snapshot) -> str | None:
    """By the table "Encryption outcomes": an encrypted root keeps its key; a foreign snapshot's key does not follow."""
    old = current(instance)
    if old.encrypted:
        return str(old.kms_key_id)
    if source.key and source.owner == call.account:
        return source.key
    on = source.key or world.accounts[call.account, call.region].encrypt
    return encryption.default_key(world, call) if on else None


def fits(instance: Any, image: Image | None) -> None:
    """Raise AwsError for an image whose key features are not the instance's. Its size does not matter."""
    if image is None:
        return
    shown = image.shown
    for name, has in (("Architecture", instance.architecture), ("VirtualizationType", instance.virtualization_type)):
        if shown[name] != has:
            raise bad_value(f"{name} of {image.id} is {shown[name]}, that of {instance.id} {has}")
    if shown.get("ProductCodes", []) != instance.product_codes:
        raise bad_value(f"{image.id} and {instance.id} have not the same product codes")
    for name, has in (("EnaSupport", instance.ena_support), ("TpmSupport", instance.tpm_support)):
        if has and not shown.get(name):
            raise bad_value(f"{instance.id} has {name}, and {image.id} has not")
    types.check_mode(shown, types.of(instance))


def swap(world: World, backend: Any, task: Task) -> None:
    """The new volume is there; the old one is being detached now, and the instance reboots."""
    task.shown["TaskState"] = "in-progress"
    task.instance.checked = None
    world.after("root", partial(swapped, world, backend, task))


def swapped(world: World, backend: Any, task: Task) -> None:
    """The new volume is the root, or the old one still when something ails, or none at all."""
    instance, now = task.instance, world.now()
    lost = world.ailments.strike("root-detached", task.names(), now, now)
    if lost or instance.state != "running" or world.ailments.strike("root", task.names(), now, now):
        if lost:
            backend.detach_volume(current(instance).id, instance.id, instance.root_device_name)
        task.shown["TaskState"] = "failing-detached" if lost else "failing"
        world.after("root", partial(failed, world, task, "failed-detached" if lost else "failed"))
        return
    exchange(backend, task)
    if task.image is not None:
        changed(instance, task.image.shown)
        instance.image_id, task.image.launched = task.image.id, now
    instance.began = now
    lifecycle.check(world, instance)
    finish(world, task, "succeeded")


def failed(world: World, task: Task, state: str) -> None:
    """The instance has rebooted, with the root volume that it had or with none."""
    lifecycle.check(world, task.instance)
    finish(world, task, state)


def changed(instance: Any, image: dict[str, Any]) -> None:
    """An image's boot mode becomes the instance's, and ENA and NitroTPM are switched on; nothing is switched off."""
    instance.boot_mode = image.get("BootMode")
    instance.current_instance_boot_mode = types.boots(image, types.of(instance))
    instance.ena_support = instance.ena_support or bool(image.get("EnaSupport"))
    instance.tpm_support = instance.tpm_support or image.get("TpmSupport")
    root = current(instance)
    root.boots = instance.current_instance_boot_mode


def exchange(backend: Any, task: Task) -> None:
    """Put a new volume into the place of the old one, which stays detached unless it is to be dropped.

    Whether the root ends with the instance does not go over to a volume that was there before.
    """
    instance, device = task.instance, task.instance.root_device_name
    old, ends = current(instance), instance.block_device_mapping[device].delete_on_termination
    new = task.volume or restored(backend, task, old)
    backend.detach_volume(old.id, instance.id, device)
    backend.attach_volume(new.id, instance.id, device, ends and task.volume is None)
    instance.past_roots = [*getattr(instance, "past_roots", []), old]
    if task.drop:
        backend.delete_volume(old.id)


def restored(backend: Any, task: Task, old: Any) -> Any:
    """A new volume of the task's snapshot: of the old one's type, and as large as the larger of the two."""
    assert task.source is not None
    wanted = int(root_of(task.image)["VolumeSize"]) if task.image else task.source.size_gib
    new = backend.create_volume(size=max(int(old.size), wanted), zone_name=old.zone.name, volume_type=old.volume_type)
    new.snapshot_id, new.encrypted, new.kms_key_id = task.source.id, task.key is not None, task.key
    new.boots = getattr(old, "boots", None)
    return new


def finish(world: World, task: Task, state: str) -> None:
    task.shown.update(TaskState=state, CompleteTime=world.now().strftime(WIDTH))


def described(world: World, task: Task) -> dict[str, Any]:
    """A task in the shape of DescribeReplaceRootVolumeTasks, without its tags."""
    found = {
        "ReplaceRootVolumeTaskId": task.id,
        "InstanceId": task.instance.id,
        "TaskState": "pending",
        "StartTime": world.now().strftime(WIDTH),
        "DeleteReplacedRootVolume": task.drop,
    }
    more = {"ImageId": task.image, "SnapshotId": task.source}
    return {**found, **{name: one.id for name, one in more.items() if one}}


def shown(task: Task) -> dict[str, Any]:
    return {**task.shown, "Tags": tags.shown(*task.place, task.id)}


def describe(world: World, call: Call) -> dict[str, Any]:
    """Of this account and region; filtered, in pages of 50 at most."""
    names = call.params.get("ReplaceRootVolumeTaskIds", [])
    here = {name: task for name, task in world.roots.items() if task.place == (call.account, call.region)}
    if absent := [name for name in names if name not in here]:
        raise AwsError("InvalidReplaceRootVolumeTaskId.NotFound", f"The task ID '{absent[0]}' does not exist")
    asked = [shown(task) for name, task in here.items() if not names or name in names]
    size = min(call.params.get("MaxResults", 50), world.page_at_most)
    part, more = listing.part(listing.filtered(call, asked, FILTERS), call.params.get("NextToken"), size)
    return {"ReplaceRootVolumeTasks": part, **more}


RULES = {"CreateReplaceRootVolumeTask": create, "DescribeReplaceRootVolumeTasks": describe}
