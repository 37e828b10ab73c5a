"""Listings that are moto's, in pages as AWS gives them: moto drops what is beyond 15 launch templates or versions."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from tests.strict_aws.errors import bad_value
from tests.strict_aws.listing import part
from tests.strict_aws.wire import Answer, Call
from tests.strict_aws.world import World

PLENTY = 1_000_000
MORE = re.compile(rb"<[Nn]ext(Token|Marker)>[^<]")


class Names(NamedTuple):
    """How an operation calls what is listed, the size of a page, and the token in the request and in the answer."""

    key: str
    size: str = "MaxResults"
    given: str = "NextToken"
    told: str = "NextToken"


def paged(names: Names, usual: int, most: int, world: World, call: Call) -> Any:
    """moto's whole answer, cut into pages of `usual` entries unless the request says otherwise."""
    size, given = call.params.get(names.size), call.params.get(names.given)
    if size is not None and not 1 <= size <= PLENTY:
        raise bad_value(f"{names.size} is {size}")
    size = min(size or usual, most, world.page_at_most)
    first = call.forward(asking(call, names, ""))
    if first.status >= 400 or (not given and fits(first.body, size)):
        return first
    answer = whole(call, names, first)
    if isinstance(answer, Answer):
        return answer
    shown, more = part(answer.get(names.key, []), given, size)
    return {**answer, names.key: shown, **({names.told: more["NextToken"]} if more else {})}


def fits(body: bytes, size: int) -> bool:
    """Whether an answer of moto's surely is one page: all lists in it together have no more entries."""
    return body.count(b"<item>") + body.count(b"<member>") <= size and not MORE.search(body)


def whole(call: Call, names: Names, answer: Answer) -> Any:
    """All that moto has, in the shapes of the model, from its first answer on; an error as it is."""
    from botocore.parsers import create_parser

    everything: list[Any] = []
    while True:
        if answer.status >= 400:
            return answer
        response = {"body": answer.body, "headers": dict(answer.headers), "status_code": answer.status}
        parsed = create_parser(call.protocol).parse(response, call.model.output_shape)
        parsed.pop("ResponseMetadata", None)
        token = parsed.pop(names.told, "") or ""
        everything.append(parsed)
        if not token:
            return joined(everything)
        answer = call.forward(asking(call, names, token))


def joined(pages: list[dict[str, Any]]) -> dict[str, Any]:
    keys = {key for page in pages for key in page}
    return {key: [entry for page in pages for entry in page.get(key, [])] for key in keys}


def asking(call: Call, names: Names, token: str) -> bytes:
    """The request for moto's next page; of operations whose pages moto cannot give, for all at once."""
    form = [(name, value) for name, value in parse_qsl(call.body.decode(), keep_blank_values=True)]
    form = [(name, value) for name, value in form if name not in {names.size, names.given}]
    if "LaunchTemplate" in call.operation:
        form.append((names.size, str(PLENTY)))
    return urlencode([*form, *([(names.given, token)] if token else [])]).encode()


EC2 = {
    "DescribeInstances": partial(paged, Names("Reservations"), 1000, 1000),
    "DescribeVolumes": partial(paged, Names("Volumes"), 1000, 1000),
    "DescribeTags": partial(paged, Names("Tags"), 1000, 1000),
    "DescribeLaunchTemplates": partial(paged, Names("LaunchTemplates"), 200, 200),
    "DescribeLaunchTemplateVersions": partial(paged, Names("LaunchTemplateVersions"), 200, 200),
}
AUTOSCALING = {
    "DescribeAutoScalingGroups": partial(paged, Names("AutoScalingGroups", "MaxRecords"), 50, 100),
    "DescribeAutoScalingInstances": partial(paged, Names("AutoScalingInstances", "MaxRecords"), 50, 50),
}
ELBV2 = {
    "DescribeTargetGroups": partial(paged, Names("TargetGroups", "PageSize", "Marker", "NextMarker"), 400, 400),
    "DescribeLoadBalancers": partial(paged, Names("LoadBalancers", "PageSize", "Marker", "NextMarker"), 400, 400),
}
