"""Edge: how instances run, with the security groups and launch templates that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from hardening.foundation.asking import ask_each, portions
from hardening.foundation.errors import GoldsmithError, MalformedError, understood
from hardening.runtime import Observed
from images.aws.cloud import Cloud
from images.aws.permissions import LOOKING, permit
from pipelines.fleet.ec2.instance_facts import GROUP, facts_of, group_ids, template_of
from pipelines.fleet.ec2.instance_spec import InstanceDescription, Json
from pipelines.fleet.ec2.region_client import RegionClient
from pipelines.fleet.rollout_targets import MACHINES

PERMISSIONS = (permit("ec2:DescribeSecurityGroups ec2:DescribeLaunchTemplateVersions", *LOOKING, on=MACHINES),)

NO_TEMPLATE = {"InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.VersionNotFound"}


@dataclass(frozen=True)
class RunningInstance:
    """One instance that runs. `image` is the one whose disk it runs from, `release` the digest that its tags tell.

    `where` is its account and region.
    """

    where: str
    shown: InstanceDescription
    image: str
    release: str
    healthy: bool

    @property
    def group(self) -> str:
        """The Auto Scaling group that it is in."""
        return self.shown.tags.get(GROUP, "")


def look_at(cloud: Cloud, instances: Mapping[str, RunningInstance]) -> dict[str, Observed]:
    """How instances run, by the ids of members. What cannot be read of a region is unread for those in it.

    The regions are asked side by side, each for `aws.read_within` at most.
    """
    places = {where: dict[str, RunningInstance]() for where in sorted({one.where for one in instances.values()})}
    for name, one in instances.items():
        places[one.where][name] = one
    answers = ask_each({where: partial(_around, cloud, where, here) for where, here in places.items()},
                       cloud.aws.read_within)  # fmt: skip
    found = dict[str, Observed]()
    for where, here in places.items():
        answer = answers[where]
        seen = _nothing(where, here, answer.message) if isinstance(answer, GoldsmithError) else answer
        found |= {name: _observed(one, seen) for name, one in here.items()}
    return found


def _observed(one: RunningInstance, seen: _Around) -> Observed:
    try:
        with understood("EC2"):
            why, named = dict(seen.no_groups), template_of(one.shown)
            if named in seen.no_template:
                why["template_drift"] = seen.no_template[named]
            template = seen.templates.get(named) if named else None
            return Observed("instance", facts_of(one.shown, one.image, seen.groups, template, why))
    except MalformedError as error:
        return Observed("instance", None, unread=error.message)


@dataclass(frozen=True)
class _Around:
    """The security groups of instances and the data of their templates; by rule and by template, what is unread."""

    groups: dict[str, Json] | None
    no_groups: dict[str, str]
    templates: dict[tuple[str, str], Json]
    no_template: dict[tuple[str, str] | None, str]


@understood("EC2")
def _around(cloud: Cloud, where: str, here: Mapping[str, RunningInstance]) -> _Around:
    region = _Region(RegionClient(cloud.clients, *where.split("/")))
    return _Around(*region.groups(here.values()), *region.templates(here.values()))


def _nothing(where: str, here: Mapping[str, RunningInstance], why: str) -> _Around:
    """What is known of a region that did not answer."""
    named = (template_of(one.shown) for one in here.values())
    return _Around(None, {"open_group": f"{where}: {why}"}, {}, {of: f"{where}: {why}" for of in named if of})


@dataclass(frozen=True)
class _Region:
    place: RegionClient

    def groups(self, instances: Iterable[RunningInstance]) -> tuple[dict[str, Json] | None, dict[str, str]]:
        """The security groups that instances name, by id; or None and, by rule, why they cannot be read."""
        named, found = {group for one in instances for group in group_ids(one.shown)}, dict[str, Json]()
        try:
            for some in portions(named):
                asked = [{"Name": "group-id", "Values": some}]
                pages = self.place.ec2.pages("DescribeSecurityGroups", "SecurityGroups", Filters=asked)
                found |= {str(one["GroupId"]): one for one in pages}
        except GoldsmithError as error:
            return None, {"open_group": f"the security groups of {self.place.region}: {error.message}"}
        return found, {}

    def templates(
        self, instances: Iterable[RunningInstance]
    ) -> tuple[dict[tuple[str, str], Json], dict[tuple[str, str] | None, str]]:
        """The data of the templates that instances were launched from; and why some cannot be read.

        One that is gone says nothing any more, and nothing drifts from it.
        """
        found, unread = dict[tuple[str, str], Json](), dict[tuple[str, str] | None, str]()
        named = {of for one in instances if (of := template_of(one.shown))}
        for template in sorted({name for name, _ in named}):
            for some in portions(version for name, version in named if name == template):
                try:
                    found |= {(template, version): data for version, data in self._versions(template, some).items()}
                except GoldsmithError as error:
                    unread |= {
                        (template, version): f"the launch template {template} version {version}: {error.message}"
                        for version in some
                    }
        return found, unread

    def _versions(self, template: str, versions: list[str]) -> dict[str, Json]:
        """The data of those versions that are there, asked all at once; one by one where one of them is gone."""
        asked = {"LaunchTemplateId": template, "Versions": versions}
        answer = self.place.ec2.call_unless("DescribeLaunchTemplateVersions", NO_TEMPLATE, **asked)
        if answer is None and versions[1:]:
            return {version: data for one in versions for version, data in self._versions(template, [one]).items()}
        shown = answer["LaunchTemplateVersions"] if answer else ()
        return {str(one["VersionNumber"]): one["LaunchTemplateData"] for one in shown}
