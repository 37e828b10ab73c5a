"""Edge: one region of one account, in the verbs that a replacement is made of. Each can be said again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from hardening.foundation.errors import LateError, OutsideError, RefusedError
from images.aws.client import AwsError, Clients
from images.aws.tags import as_list
from pipelines.fleet.ec2.instance_spec import ENDED, InstanceDescription, Json, Registration
from pipelines.fleet.ec2.launch_requests import is_launched
from pipelines.fleet.ec2.moving import Balancers, Moving, of_instance
from pipelines.fleet.members import MEMBER, ROLLOUT
from pipelines.fleet.port import GoneError, InProgressError

ATTRIBUTES = ("userData", "instanceInitiatedShutdownBehavior")
PROTECTIONS = {"disableApiTermination": "terminated", "disableApiStop": "stopped"}
BURSTABLE = ("t2.", "t3.", "t3a.", "t4g.")
LOG_LINES = 10
AT_ONCE = 100
MOMENT = timedelta(seconds=0.5)  # how long an effect waits by itself


class RegionClient:
    """One region of one account. What takes longer than a moment there is an InProgressError, to be asked for again."""

    def __init__(self, clients: Clients, account: str, region: str) -> None:
        self.clients = clients
        self.account = account
        self.region = region
        self.ec2 = clients.client("ec2", region, account)
        self.balancers = Balancers(clients, account, region)

    def find(self, instance: str) -> Json | None:
        """The instance of that id; None once it is terminated."""
        try:
            answer = self.ec2.call("DescribeInstances", InstanceIds=[instance])
        except AwsError as error:
            if error.code == "InvalidInstanceID.NotFound":
                return None
            raise
        found = [one for each in answer["Reservations"] for one in each["Instances"]]
        return found[0] if found and found[0]["State"]["Name"] not in ENDED else None

    def need(self, instance: str) -> Json:
        """The instance of that id. Raises GoneError when it is gone."""
        found = self.find(instance)
        if found is None:
            raise GoneError(f"the instance {instance} is gone from {self.region}")
        return found

    def launched(self, rollout: str, member: str) -> tuple[Json | None, int]:
        """What a rollout launched for a member, and how many of those have ended already.

        Its tags find it, and the token that it was launched by proves it: a tag can be put on any instance.
        """
        wanted = {f"tag:{ROLLOUT}": rollout, f"tag:{MEMBER}": member}
        filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
        found = [
            one
            for each in self.ec2.pages("DescribeInstances", "Reservations", Filters=filters)
            for one in each["Instances"]
        ]
        found = [one for one in found if is_launched(one, rollout, member, len(found))]
        alive = [one for one in found if one["State"]["Name"] not in ENDED]
        return (alive[0] if alive else None), len(found) - len(alive)

    def shown(self, instance: Json) -> InstanceDescription:
        """An instance with all that hangs on it."""
        mine = [{"Name": "attachment.instance-id", "Values": [instance["InstanceId"]]}]
        volumes = {one["VolumeId"]: one for one in self.ec2.pages("DescribeVolumes", "Volumes", Filters=mine)}
        kind = self.types([instance])[instance["InstanceType"]]
        return InstanceDescription(instance, volumes, self._attributes(instance), self.registrations(instance), kind)

    def _attributes(self, instance: Json) -> dict[str, Any]:
        name = instance["InstanceId"]
        found = {key: self.attribute(name, key) for key in ATTRIBUTES}
        first = InstanceDescription(instance).primary.get("NetworkInterfaceId", "")
        asked = [{"Name": "network-interface-id", "Values": [first]}]
        addresses = self.ec2.call("DescribeAddresses", Filters=asked)["Addresses"] if first else []
        found["addresses"] = tuple(one["AllocationId"] for one in addresses)
        if str(instance["InstanceType"]).startswith(BURSTABLE):
            answer = self.ec2.call("DescribeInstanceCreditSpecifications", InstanceIds=[name])
            found["credits"] = next((one["CpuCredits"] for one in answer["InstanceCreditSpecifications"]), None)
        return found

    def attribute(self, instance: str, key: str) -> Any:
        """An attribute of an instance that it does not show of itself."""
        answer = self.ec2.call("DescribeInstanceAttribute", InstanceId=instance, Attribute=key)
        return answer.get(key[0].upper() + key[1:], {}).get("Value")

    def refuse_protected(self, instance: str) -> None:
        """Raise RefusedError where a person has forbidden what a replacement must do in the end."""
        for key, what in PROTECTIONS.items():
            if self.attribute(instance, key):
                raise RefusedError(
                    f"{instance} is protected from being {what} ({key})",
                    hint='take the protection off, or set ec2.way = "root_volume", which keeps the instance',
                )

    def registrations(self, instance: Json) -> tuple[Registration, ...]:
        """Where an instance is registered, by its id or its addresses, and how it is there."""
        return of_instance(instance, self.balancers.registered({instance.get("VpcId", "")}))

    def types(self, instances: Iterable[Json]) -> dict[str, Json]:
        """What the instance types of instances support, by name."""
        names = sorted({str(one["InstanceType"]) for one in instances})
        found = [self.ec2.call("DescribeInstanceTypes", InstanceTypes=some) for some in portions(names)]
        return {one["InstanceType"]: one for answer in found for one in answer["InstanceTypes"]}

    def encrypts(self) -> bool:
        """Whether every new volume is encrypted here, whatever it is made of."""
        return bool(self.ec2.call("GetEbsEncryptionByDefault")["EbsEncryptionByDefault"])

    def health(self, instance: str) -> tuple[bool, str]:
        """Whether both status checks passed, and what they say."""
        found = self.ec2.call("DescribeInstanceStatus", InstanceIds=[instance])["InstanceStatuses"]
        if not found:
            return False, f"{instance} is not running"
        said = found[0]["InstanceStatus"]["Status"], found[0]["SystemStatus"]["Status"]
        return said == ("ok", "ok"), f"{instance}: instance check {said[0]}, system check {said[1]}"

    def age(self, task: Json) -> timedelta:
        """How long ago a task that replaces a root volume ended, by the service's own clock."""
        answer = self.ec2.call(
            "DescribeReplaceRootVolumeTasks", ReplaceRootVolumeTaskIds=[task["ReplaceRootVolumeTaskId"]]
        )
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])  # every answer of AWS has it
        return now - datetime.fromisoformat(answer["ReplaceRootVolumeTasks"][0]["CompleteTime"])

    def tag(self, resources: Iterable[str], tags: Mapping[str, str]) -> None:
        """Write tags."""
        self.ec2.call("CreateTags", Resources=list(resources), Tags=as_list(tags))

    def untag(self, resources: Iterable[str], keys: Iterable[str]) -> None:
        """Take tags away."""
        if named := [{"Key": key} for key in sorted(keys)]:
            self.ec2.call("DeleteTags", Resources=list(resources), Tags=named)

    def register(self, instance: str, places: Iterable[Registration]) -> None:
        """Into target groups."""
        if named := list(places):
            self.balancers.register(self.need(instance), named)

    def deregister(self, instance: str, places: Iterable[Registration], drain: timedelta) -> None:
        """Out of target groups; returns when nothing is in flight there any more, or `drain` is over."""
        if not (left := list(places)):
            return
        found = self.need(instance)
        self.balancers.deregister(found, left)
        if drain > timedelta():
            draining = self.balancers.draining
            self.until(lambda: not any(draining(found, one) for one in left), f"{instance} to be drained")

    def stop(self, instance: str, *, wait: bool) -> None:
        """Stop an instance; with `wait`, until it is stopped and what hangs on it can be taken off."""
        state = self.need(instance)["State"]["Name"]
        if state in ("pending", "running"):
            if state == "pending":
                self.until_state(instance, "running")
            self.ec2.call("StopInstances", InstanceIds=[instance])
        if wait:
            self.until_state(instance, "stopped")

    def start(self, instance: str) -> None:
        """Start an instance, and wait until it runs."""
        if self.need(instance)["State"]["Name"] in ("stopping", "stopped"):
            self.until_state(instance, "stopped")
            self.ec2.call("StartInstances", InstanceIds=[instance])
        self.until_state(instance, "running")

    def until_state(self, instance: str, wanted: str) -> Json:
        """The instance once it is in that state. Raises GoneError, and InProgressError while it is on its way."""
        found: Json = self.until(
            lambda: (one := self.need(instance))["State"]["Name"] == wanted and one, f"{instance} to be {wanted}"
        )
        return found

    def until(self, done: Callable[[], Any], what: str) -> Any:
        """What `done` returns once it is true. Raises InProgressError when that takes longer than a moment."""
        try:
            return self.clients.until(done, what, within=MOMENT)
        except LateError:
            raise InProgressError(what) from None

    def console(self, instance: str) -> str:
        """The last lines that an instance wrote to its console, as far as the service has them by now."""
        output = self.ec2.call("GetConsoleOutput", InstanceId=instance).get("Output") or ""
        return "\n".join(str(output).splitlines()[-LOG_LINES:])

    def terminate(self, instance: str) -> None:
        """End an instance for good."""
        self._gone("TerminateInstances", InstanceIds=[instance])

    def moving(self, *members: str) -> Moving:
        """What moves between these instances."""
        return Moving(self.ec2, self.until, *members)

    def detached(self, rollout: str, member: str) -> list[str]:
        """The volumes that a rollout made or took off for a member and that hang nowhere."""
        wanted = {f"tag:{ROLLOUT}": rollout, f"tag:{MEMBER}": member, "status": "available"}
        filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
        return [one["VolumeId"] for one in self.ec2.pages("DescribeVolumes", "Volumes", Filters=filters)]

    def delete_volume(self, volume: str) -> None:
        """Delete a volume, if it is there."""
        self._gone("DeleteVolume", VolumeId=volume)

    def _gone(self, operation: str, **request: Any) -> None:
        """Remove something, which may be gone already."""
        try:
            self.ec2.call(operation, **request)
        except AwsError as error:
            if not error.code.endswith(".NotFound"):
                raise

    def volume(self, volume: str) -> Json:
        """A volume as the region shows it."""
        found: Json = self.ec2.call("DescribeVolumes", VolumeIds=[volume])["Volumes"][0]
        return found

    def image(self, image: str) -> Json:
        """An image as this account sees it. Raises OutsideError where it does not."""
        found = self.ec2.call("DescribeImages", ImageIds=[image], IncludeDeprecated=True)["Images"]
        if not found:
            raise OutsideError(f"{image} cannot be seen in {self.region} by account {self.account}")
        shown: Json = found[0]
        return shown


def portions(found: Iterable[str]) -> Iterator[list[str]]:
    """As many names as one call takes, in order."""
    names = sorted(found)
    for start in range(0, len(names), AT_ONCE):
        yield names[start : start + AT_ONCE]
