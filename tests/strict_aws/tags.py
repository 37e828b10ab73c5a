"""Tags of snapshots and images lie where moto keeps those of all else, so that DescribeTags sees them too."""

from __future__ import annotations

from typing import Any

from tests.strict_aws.errors import AwsError, bad_value
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

MOST = 50


def backend(account: str, region: str) -> Any:
    """moto's EC2 of an account in a region."""
    from moto.ec2.models import ec2_backends

    return ec2_backends[account][region]


def check(given: dict[str, str]) -> None:
    """Raise AwsError for tags that AWS refuses."""
    for key, value in given.items():
        if key.startswith("aws:"):
            raise bad_value(f"Tag keys starting with 'aws:' are reserved: {key}")
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise bad_value(f"Tag '{key}' is too long, or its key empty")
    if len(given) > MOST:
        raise AwsError("TagLimitExceeded", f"More than {MOST} tags")


def put(call: Call, name: str, given: dict[str, str]) -> None:
    """Tag a resource of the calling account."""
    if given:
        backend(call.account, call.region).tags[name].update(given)


def of(account: str, region: str, name: str) -> dict[str, str]:
    return dict(backend(account, region).tags.get(name, {}))


def shown(account: str, region: str, name: str) -> list[dict[str, str]]:
    """Tags in the shape of DescribeImages and DescribeSnapshots."""
    return [{"Key": key, "Value": value} for key, value in sorted(of(account, region, name).items())]


def drop(account: str, region: str, name: str) -> None:
    backend(account, region).tags.pop(name, None)


def specified(call: Call, *allowed: str) -> dict[str, dict[str, str]]:
    """TagSpecifications as resource type → tags. Raises AwsError for another resource type than `allowed`."""
    found: dict[str, dict[str, str]] = {}
    for entry in call.params.get("TagSpecifications", []):
        kind = entry.get("ResourceType")
        if kind not in allowed:
            raise bad_value(f"'{kind}' is not a valid taggable resource type for {call.operation}")
        found.setdefault(kind, {}).update({tag["Key"]: tag.get("Value", "") for tag in entry.get("Tags", [])})
    for given in found.values():
        check(given)
    return found


def create_tags(world: World, call: Call) -> dict[str, Any]:
    """Tags what exists and belongs to the caller; all or nothing."""
    given = {tag["Key"]: tag.get("Value", "") for tag in call.params["Tags"]}
    check(given)
    _owned(world, call)
    for name in call.params["Resources"]:
        if len({*of(call.account, call.region, name), *given}) > MOST:
            raise AwsError("TagLimitExceeded", f"More than {MOST} tags on {name}")
    for name in call.params["Resources"]:
        put(call, name, given)
    return {}


def delete_tags(world: World, call: Call) -> dict[str, Any]:
    """Removes tags by key, or by key and value; without tags all of them."""
    _owned(world, call)
    wanted = {tag["Key"]: tag.get("Value") for tag in call.params.get("Tags", [])}
    for name in call.params["Resources"]:
        held = backend(call.account, call.region).tags[name]
        for key, value in (wanted or dict.fromkeys(list(held))).items():
            if key in held and value in (None, held[key]):
                del held[key]
    return {}


def _owned(world: World, call: Call) -> None:
    """Raise AwsError unless every named resource is there and the caller's."""
    kept = {"snap": (world.snapshots, "InvalidSnapshot.NotFound"), "ami": (world.images, "InvalidAMIID.NotFound")}
    elsewhere = []
    for name in call.params["Resources"]:
        known, code = kept.get(name.partition("-")[0], (None, ""))
        if known is None:
            elsewhere.append(name)
        elif name not in known or (known[name].owner, known[name].region) != (call.account, call.region):
            raise AwsError(code, f"The ID '{name}' does not exist")
    if elsewhere:
        _ask_moto(call, elsewhere)


def _ask_moto(call: Call, names: list[str]) -> None:
    from moto.core.exceptions import ServiceException

    try:
        backend(call.account, call.region).do_resources_exist(names)
    except ServiceException as error:
        raise AwsError(error.code, error.message) from error


RULES = {"CreateTags": create_tags, "DeleteTags": delete_tags}
