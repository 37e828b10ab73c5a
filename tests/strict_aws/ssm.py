"""Parameters within the limits of their tier, and images that exist where a parameter says that it holds one."""

from __future__ import annotations

import re
from typing import Any

from tests.strict_aws import images
from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

STANDARD, ADVANCED = 4096, 8192
NAME = re.compile(r"[\w.\-/]+")
LEVELS = 15


def put_parameter(world: World, call: Call) -> Any:
    """moto may store it once it is what AWS would store."""
    params = call.params
    _check_name(params["Name"])
    known = _known(call, params["Name"])
    tier = params.get("Tier") or (known.tier if known else "Standard")
    _check_size(tier, len(params["Value"].encode()))
    if known and known.tier == "Advanced" and params.get("Tier") == "Standard":
        raise AwsError("ValidationException", "An advanced parameter cannot become a standard one")
    if (pattern := params.get("AllowedPattern")) and not re.fullmatch(pattern, params["Value"]):
        raise AwsError("ParameterPatternMismatchException", f"The value does not match {pattern}")
    if params.get("DataType") == "aws:ec2:image" and not _holds_image(world, call, params["Value"]):
        return _lost(params, known)
    return None


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise AwsError("ValidationException", f"Parameter name: {name} has other characters than a-zA-Z0-9_.-/")
    if "/" in name and not name.startswith("/"):
        raise AwsError("ValidationException", "Parameter name must be a fully qualified name.")
    if name.count("/") > LEVELS:
        raise AwsError("HierarchyLevelLimitExceededException", f"More than {LEVELS} levels")


def _check_size(tier: str, size: int) -> None:
    limit = STANDARD if tier == "Standard" else ADVANCED
    if size > limit:
        raise AwsError("ValidationException", f"{tier} tier parameters support a maximum value of {limit} characters")


def _holds_image(world: World, call: Call, value: str) -> bool:
    """Whether the value is an image that the account sees in this region."""
    if not re.fullmatch(r"ami-[0-9a-f]{8,17}", value):
        raise AwsError("ValidationException", f"'{value}' is no image id, which the data type aws:ec2:image wants")
    image = world.images.get(value)
    return image is not None and image.region == call.region and images.visible(world, image, call.account)


def _lost(params: dict[str, Any], known: Any) -> dict[str, Any]:
    """AWS checks the image only after it has answered: the answer is good, and nothing is stored."""
    if known and not params.get("Overwrite"):
        raise AwsError("ParameterAlreadyExists", "The parameter already exists.")
    return {"Version": known.version + 1 if known else 1, "Tier": params.get("Tier", "Standard")}


def _known(call: Call, name: str) -> Any:
    from moto.ssm.models import ssm_backends

    return ssm_backends[call.account][call.region].get_parameter(name)


RULES = {"PutParameter": put_parameter}
