"""Kubernetes' own schemas of its newest version, read once a process: that takes forty times as long as to use them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from kubernetes_validate import utils

utils.schema_contents, utils.all_versions = cache(utils.schema_contents), cache(utils.all_versions)


def require_valid(made: Mapping[str, Any]) -> None:
    """Raises kubernetes_validate.ValidationError for an object that has an unknown field, lacks one, or a wrong one."""
    utils.validate(dict(made), utils.latest_version(), strict=True)
