"""What tests of our own roles share: their policies as they are rendered, and the emulator that enforces them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

from hardening.foundation.settings import Settings
from images.aws.permissions import Permission
from pipelines.fleet.model import Fleet
from pipelines.network.model import RoleGroup
from pipelines.role_facts import installation
from pipelines.role_policies import EDGES, policies
from tests.strict_aws import ACCOUNT, StrictAws

Json = dict[str, Any]
PASSED = tuple(f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("shop-0", "web", "nodes"))


@cache
def edges() -> dict[str, tuple[Permission, ...]]:
    """What each module declares."""
    return {edge: import_module(edge).PERMISSIONS for edge in EDGES}


def every() -> list[Permission]:
    """All of it."""
    return [one for found in edges().values() for one in found]


def rendered(
    role: str, settings: Settings, fleets: Iterable[Fleet], account: str = "", *, groups: Iterable[RoleGroup] = (),
    **changes: Any,
) -> list[Json]:  # fmt: skip
    """The policies of a role."""
    own = settings.aws.model_copy(update={"passed_roles": PASSED, **changes})
    at = installation(settings.model_copy(update={"aws": own}), fleets, account, groups)
    return list(policies(role, every(), at).values())


@contextmanager
def enforced(aws: StrictAws, policies: dict[str, list[Json]]) -> Iterator[None]:
    """During the block, what is not allowed by the policies of an account is denied to us; tests may do all."""
    aws.enforce(policies)
    try:
        yield
    finally:
        aws.enforce({})
