"""Listings that are moto's, in pages as AWS gives them: moto drops what is beyond 15 launch templates or versions."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws.errors import bad_value
from tests.strict_aws.listing import part
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import World

PLENTY = 1_000_000


def paged(key: str, size_name: str, usual: int, most: int, world: World, call: Call) -> Any:
    """moto's whole answer, cut into pages of `usual` entries under `key` unless `size_name` says otherwise."""
    size = call.params.get(size_name)
    if size is not None and not 1 <= size <= PLENTY:
        raise bad_value(f"{size_name} is {size}")
    answer = whole(call, size_name)
    if isinstance(answer, Answer):
        return answer
    found = answer.get(key, [])
    shown, more = part(found, call.params.get("NextToken"), min(size or usual, most, world.page_at_most))
    return {**answer, key: shown, **more}


def whole(call: Call, size_name: str) -> Any:
    """All that moto has, in the shapes of the model; its answer as it is where it is an error."""
    from botocore.parsers import create_parser

    everything: list[Any] = []
    token = ""
    while True:
        answer = call.forward(asking(call, size_name, token))
        if answer.status >= 400:
            return answer
        response = {"body": answer.body, "headers": dict(answer.headers), "status_code": answer.status}
        parsed = create_parser(call.protocol).parse(response, call.model.output_shape)
        parsed.pop("ResponseMetadata", None)
        token = parsed.pop("NextToken", "") or ""
        everything.append(parsed)
        if not token:
            return joined(everything)


def joined(pages: list[dict[str, Any]]) -> dict[str, Any]:
    keys = {key for page in pages for key in page}
    return {key: [entry for page in pages for entry in page.get(key, [])] for key in keys}


def asking(call: Call, size_name: str, token: str) -> bytes:
    """The request for moto's next page; of operations whose pages moto cannot give, for all at once."""
    form = [(name, value) for name, value in parse_qsl(call.body.decode(), keep_blank_values=True)]
    form = [(name, value) for name, value in form if name not in {size_name, "NextToken"}]
    if "LaunchTemplate" in call.operation:
        form.append((size_name, str(PLENTY)))
    return urlencode([*form, *([("NextToken", token)] if token else [])]).encode()


EC2 = {
    "DescribeInstances": partial(paged, "Reservations", "MaxResults", 1000, 1000),
    "DescribeVolumes": partial(paged, "Volumes", "MaxResults", 1000, 1000),
    "DescribeNetworkInterfaces": partial(paged, "NetworkInterfaces", "MaxResults", 1000, 1000),
    "DescribeTags": partial(paged, "Tags", "MaxResults", 1000, 1000),
    "DescribeLaunchTemplates": partial(paged, "LaunchTemplates", "MaxResults", 200, 200),
    "DescribeLaunchTemplateVersions": partial(paged, "LaunchTemplateVersions", "MaxResults", 200, 200),
}
AUTOSCALING = {
    "DescribeAutoScalingGroups": partial(paged, "AutoScalingGroups", "MaxRecords", 50, 100),
    "DescribeAutoScalingInstances": partial(paged, "AutoScalingInstances", "MaxRecords", 50, 50),
}
