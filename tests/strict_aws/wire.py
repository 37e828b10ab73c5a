"""From a request on the wire to a named call with parameters, and from an answer back to bytes.

Parsing and serialising are moto's, over botocore's untouched service models; the unknown is found in `contract`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from tests.strict_aws.errors import AwsError

# Signing names whose requests are parsed and validated; all else goes to moto as it came.
SERVICES = {
    "ec2": "ec2",
    "ebs": "ebs",
    "ssm": "ssm",
    "kms": "kms",
    "sts": "sts",
    "iam": "iam",
    "organizations": "organizations",
    "autoscaling": "autoscaling",
    "ecs": "ecs",
    "eks": "eks",
    "elasticloadbalancing": "elbv2",
    "elasticloadbalancing 2012-06-01": "elb",  # Classic Load Balancers: the same signature, told by their version
}
CLASSIC = b"Version=2012-06-01"
SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request")
CONTENT = {"ec2": "text/xml;charset=UTF-8", "query": "text/xml", "json": "application/x-amz-json-1.1"}


@dataclass
class Answer:
    """What goes back."""

    status: int
    body: bytes
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Call:
    """A request that has been understood. `model` is None where it is not validated."""

    service: str
    operation: str
    region: str
    account: str
    model: Any
    body: bytes
    path: str
    query: str
    headers: Any
    params: dict[str, Any] = field(default_factory=dict)
    forward: Callable[..., Answer] = lambda body=None: Answer(
        500, b""
    )  # moto's answer, to another body if one is given

    @property
    def protocol(self) -> str:
        if self.service in SERVICES.values():
            return str(service_model(self.service).metadata["protocol"])
        return "json"


@cache
def service_model(name: str) -> Any:
    """botocore's model of a service, in the classes that moto's parsers need."""
    from botocore.loaders import Loader
    from moto.core.model import ServiceModel

    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def identify(request: Any) -> Call:
    """Which call this is, by its signature's scope and its protocol's way to name operations."""
    from moto.iam.models import get_account_id_from

    body = request.get_data(cache=False)
    found = SCOPE.search(request.headers.get("Authorization", ""))
    key, region, signing = found.groups() if found else ("", "us-east-1", "")
    signing = f"{signing} 2012-06-01" if signing == "elasticloadbalancing" and CLASSIC in body else signing
    account = key if re.fullmatch(r"\d{12}", key) else get_account_id_from(key)
    service = SERVICES.get(signing, signing)
    model = service_model(service) if signing in SERVICES else None
    operation = operation_of(request, body, model)
    known = model and operation in model.operation_names
    return Call(
        service, operation, region, account, model.operation_model(operation) if known else None, body,
        request.environ.get("PATH_INFO", "/"), request.query_string.decode(), request.headers,
    )  # fmt: skip


def operation_of(request: Any, body: bytes, model: Any) -> str:
    """The operation's name; for unmodelled services method and path."""
    if target := request.headers.get("X-Amz-Target"):
        return str(target).rpartition(".")[2]
    if request.mimetype == "application/x-www-form-urlencoded" and body:
        return dict(parse_qsl(body.decode())).get("Action", "")
    for name, method, pattern in routes(model) if model else ():
        if request.method == method and pattern.fullmatch(request.path):
            return name
    return f"{request.method} {request.path}"


@cache
def routes(model: Any) -> list[tuple[str, str, re.Pattern[str]]]:
    """Method and path of each operation of a REST service; the more literal path first."""
    found = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"].partition("?")[0]))
        found.append((name, http["method"], re.compile(pattern)))
    return sorted(found, key=lambda route: route[2].pattern.count("(?P"))


def parse(call: Call) -> dict[str, Any]:
    """The call's parameters by the model. Raises ValueError where a value has the wrong form."""
    from moto.core.parse import PROTOCOL_PARSERS
    from werkzeug.datastructures import Headers, MultiDict

    form = call.protocol in {"ec2", "query"}
    source = call.body.decode() if form else call.query
    matched = [
        route[2].fullmatch(call.path) for route in routes(call.model.service_model) if route[0] == call.operation
    ]
    url = {name: unquote(value) for name, value in matched[0].groupdict().items()} if matched and matched[0] else {}
    request = {
        "body": call.body,
        "headers": Headers(list(call.headers.items())),
        "method": "",
        "url_params": url,
        "url_path": call.path,
        "values": MultiDict(parse_qsl(source, keep_blank_values=True)),
    }
    return dict(PROTOCOL_PARSERS[call.protocol](call.model).parse(request) or {})


def render(call: Call, result: dict[str, Any]) -> Answer:
    """`result` in the shapes of the model. Raises ValueError where it has a member that the model lacks."""
    from moto.core.serialize import SerializationContext, get_serializer_class

    from tests.strict_aws.contract import check_shape

    if call.model.output_shape is not None:
        check_shape(call.model.output_shape, result, call.operation)
    serializer = get_serializer_class(call.service, call.protocol)(call.model, SerializationContext(str(uuid.uuid4())))
    answer = serializer.serialize(result)
    body = answer["body"]
    return Answer(
        answer["status_code"], body if isinstance(body, bytes) else body.encode(), list(answer["headers"].items())
    )


def render_error(call: Call, error: AwsError) -> Answer:
    """An error as the service's protocol writes it."""
    request_id = str(uuid.uuid4())
    status = error.status or modelled_status(call, error.code)
    if call.protocol in {"ec2", "query"}:
        inner = f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
        body = (
            f"<Response><Errors>{inner}</Errors><RequestID>{request_id}</RequestID></Response>"
            if call.protocol == "ec2"
            else f"<ErrorResponse>{inner}<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        return Answer(status, f'<?xml version="1.0" encoding="UTF-8"?>{body}'.encode(), [("Content-Type", "text/xml")])
    members = {"__type": error.code, "message": error.message, "Message": error.message, **error.members}
    headers = [("Content-Type", CONTENT["json"]), ("x-amzn-ErrorType", error.code), ("x-amzn-RequestId", request_id)]
    return Answer(status, json.dumps(members).encode(), headers)


def modelled_status(call: Call, code: str) -> int:
    """The HTTP status that the service's model gives an error; 400 where it names none."""
    shapes = call.model.service_model.error_shapes if call.model else []
    for shape in shapes:
        if code in {shape.name, shape.metadata.get("error", {}).get("code")}:
            return int(
                shape.metadata.get("error", {}).get("httpStatusCode", 500 if shape.metadata.get("fault") else 400)
            )
    return 400
