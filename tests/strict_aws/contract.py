"""Requests against botocore's service model, as AWS would: unknown, missing and ill-typed members, enums, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from tests.strict_aws.errors import AwsError
from tests.strict_aws.wire import Call, parse

PLAIN = {"Action", "Version"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\d(T.*)?|\d+(\.\d+)?")


def understand(call: Call) -> dict[str, Any]:
    """The call's parameters. Raises AwsError where AWS would refuse the request by its form alone."""
    try:
        params = parse(call)
    except (ValueError, TypeError, AttributeError) as error:
        raise refusal(call, [f"a value has the wrong form: {error}"]) from error
    missing, wrong = required(call.model.input_shape, params)
    if missing:
        raise lacking(call, missing)
    problems = [*unknown(call, params), *wrong, *limits(call.model.input_shape, params, "")]
    if problems:
        raise refusal(call, problems)
    return params


def lacking(call: Call, missing: list[str]) -> AwsError:
    """The service's error for a required member that is absent."""
    if call.service == "ec2":
        return AwsError("MissingParameter", f"The request must contain the parameter {missing[0]}")
    return refusal(call, [f"{name} is required" for name in missing])


def refusal(call: Call, problems: list[str]) -> AwsError:
    """The service's error for a request that breaks its model."""
    message = f"{call.operation}: {'; '.join(problems)}"
    if call.service == "ec2":
        code = "UnknownParameter" if problems[0].endswith("unknown member") else "InvalidParameterValue"
        return AwsError(code, message, 400)
    if call.service == "ebs":
        return AwsError("ValidationException", message, 400, Reason="INVALID_PARAMETER_VALUE")
    return AwsError("ValidationError" if call.protocol == "query" else "ValidationException", message, 400)


def required(shape: Any, params: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is missing, and what botocore's own validator says besides."""
    from botocore.validate import ParamValidator

    if shape is None:
        return [], []
    errors = ParamValidator().validate(params, shape)._errors
    absent = "missing required field"
    missing = [detail["required_name"] for kind, _, detail in errors if kind == absent]
    return missing, [f"{name or '.'}: {kind}" for kind, name, _ in errors if kind != absent]


def unknown(call: Call, params: dict[str, Any]) -> Iterator[str]:
    """Members that came and that the model does not know: what botocore would not have written from `params`."""
    if call.protocol in {"ec2", "query"}:
        yield from unknown_in_form(call, params)
    elif call.protocol == "json" or (call.body and "payload" not in call.model.input_shape.serialization):
        yield from strangers(call.model.input_shape, json.loads(call.body or b"{}"), "")
    if call.protocol == "rest-json":
        known = {m.serialization.get("name") for m in call.model.input_shape.members.values()}
        yield from (f"{name}: unknown member" for name, _ in parse_qsl(call.query) if name not in known)


def unknown_in_form(call: Call, params: dict[str, Any]) -> Iterator[str]:
    from botocore.serialize import create_serializer

    written = create_serializer(call.protocol, include_validation=False).serialize_to_request(params, call.model)[
        "body"
    ]
    for name, value in parse_qsl(call.body.decode(), keep_blank_values=True):
        if name in PLAIN or (name not in written and not value):
            continue
        if name not in written:
            yield f"{name}: unknown member"
        elif str(written[name]).lower() != value.lower() and not MOMENT.fullmatch(value):
            yield f"{name}: {value!r} has the wrong form"


def strangers(shape: Any, value: Any, at: str) -> Iterator[str]:
    """Members of a JSON document that the model lacks, and values whose JSON type is not the model's."""
    kinds = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "integer": int, "long": int}
    if value is None:
        return
    if not isinstance(value, kinds.get(shape.type_name, object)):
        yield f"{at}: a {type(value).__name__}, not a {shape.type_name}"
    elif shape.type_name == "structure":
        names = {member.serialization.get("name", name): member for name, member in shape.members.items()}
        for name, entry in value.items():
            if name in names:
                yield from strangers(names[name], entry, f"{at}.{name}")
            else:
                yield f"{at}.{name}: unknown member"
    elif shape.type_name == "list":
        for entry in value:
            yield from strangers(shape.member, entry, f"{at}[]")


def limits(shape: Any, value: Any, at: str) -> Iterator[str]:
    """Enums, patterns and maxima, which botocore leaves to the service; minima it knows itself."""
    if shape is None or value is None:
        return
    if shape.type_name == "structure":
        for name, entry in value.items():
            if name in shape.members:
                yield from limits(shape.members[name], entry, f"{at}.{name}".lstrip("."))
    elif shape.type_name == "list":
        for entry in value:
            yield from limits(shape.member, entry, at)
    else:
        yield from limits_of_scalar(shape, value, at)


def limits_of_scalar(shape: Any, value: Any, at: str) -> Iterator[str]:
    rules = shape.metadata
    if rules.get("enum") and value not in rules["enum"]:
        yield f"{at}: {value!r} is none of {', '.join(rules['enum'][:20])}"
    size = value if isinstance(value, int | float) else len(value) if isinstance(value, str | bytes) else 0
    if "max" in rules and size > rules["max"] and not shape.serialization.get("streaming"):
        yield f"{at}: more than {rules['max']}"
    if shape.type_name == "string" and "pattern" in rules and not matches(rules["pattern"], value):
        yield f"{at}: {value!r} does not match {rules['pattern']}"


def matches(pattern: str, value: str) -> bool:
    """Whether `value` is as the model's pattern wants it; patterns that Python cannot read are let through."""
    try:
        return re.search(rf"^(?:{pattern})$", value) is not None
    except re.error:
        return True


def check_shape(shape: Any, value: Any, at: str) -> None:
    """Raise ValueError where one of our own answers has a member that the model lacks."""
    if value is None or shape.type_name not in {"structure", "list"}:
        return
    if shape.type_name == "list":
        for entry in value:
            check_shape(shape.member, entry, at)
        return
    for name, entry in value.items():
        if name not in shape.members:
            raise ValueError(f"{at} answers {name}, which {shape.name} has not")
        check_shape(shape.members[name], entry, f"{at}.{name}")
