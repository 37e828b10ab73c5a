"""A policy as people read it: nothing that it asks is left out."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from hardening.foundation.content import parse
from hardening.foundation.settings import ROOT
from hardening.policy import Policy
from pipelines.cli.controls import policy_text

DEFAULT = tomllib.loads((ROOT / "hardening/policies/default.toml").read_text())


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """`data` with another value at `path`."""
    if not path:
        return value
    if isinstance(data, list):
        return [changed(item, path[1:], value) if n == path[0] else item for n, item in enumerate(data)]
    return {**data, path[0]: changed(data.get(path[0], {}), path[1:], value)}


def text_of(data: dict[str, Any]) -> str:
    return policy_text(parse(data, Policy, "test", name="default"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", "other"),
        ("owner", "other"),
        ("rationale", "other"),
        ("exception_contact", "other"),
        ("image.judges.minimum", 2),
        ("image.judges.data_max_age", "9d"),
        ("image.judges.accept_sample", True),
        ("image.judges.enforcement", "warn"),
        ("image.unfixed.enforcement", "warn"),
        ("image.unfixed.grace", "9d"),
        ("image.secrets.enforcement", "warn"),
        ("image.misconfigurations.enforcement", "audit"),
        ("image.reproduced", {"minimum_percent": 80}),
        ("image.reproduced", {"minimum_percent": 0, "enforcement": "warn"}),
        ("running.expired.grace", "9d"),
        ("running.revoked.enforcement", "warn"),
        ("running.unknown.enforcement", "audit"),
        ("running.superseded.grace", "9d"),
        ("running.refused.grace", "9d"),
        ("running.max_age.limit", "9d"),
        ("running.approved_source.prefixes", ["registry.example.com/golden"]),
        ("image.vulnerabilities.0.severity", "critical"),
        ("image.vulnerabilities.0.exploited", False),
        ("image.vulnerabilities.0.within", "9d"),
        ("image.vulnerabilities.0.enforcement", "warn"),
    ],
)
def test_every_field_of_a_policy_is_shown(path: str, value: Any) -> None:
    """Whatever is set otherwise reads otherwise."""
    keys = tuple(int(part) if part.isdigit() else part for part in path.split("."))
    assert text_of(changed(DEFAULT, keys, value)) != text_of(DEFAULT)


def test_what_is_not_asked_is_said() -> None:
    """A rule that a policy leaves out reads as one, and not as silence."""
    text = text_of({**DEFAULT, "running": {}})
    assert "max_age: not asked" in text
    assert "reproduced: not asked" in text
    assert "approved_source: not asked" in text
