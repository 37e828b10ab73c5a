"""How a service that rolls a group itself is asked to pace it, so that the fleet's limits hold. Pure.

EC2 Auto Scaling reads its percentages of the desired capacity so that the healthy minimum is rounded up: a group of up
to a hundred gets exactly the number that is meant, a larger one never fewer healthy members than that.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hardening.foundation.errors import RefusedError
from pipelines.fleet.delegated import ALL
from pipelines.fleet.model import Limits, Method
from pipelines.fleet.port import Pacing

LONGEST = timedelta(hours=48)  # of a checkpoint and of a bake
ALARMS_AT_MOST = 10


def pacing(limits: Limits, desired: int, allowed: int) -> Pacing:
    """The pace of a group of `desired` members of which `allowed` may be replaced at once, by budgets and people.

    Raises RefusedError where no percentage says what the limits mean.
    """
    at_once = max(1, min(limits.max_parallel, allowed))
    surge = limits.method is Method.SURGE
    beside = min(at_once, limits.surge(desired)) if surge else 0
    missing = 0 if surge else min(at_once, limits.unavailable(desired))
    stops = _canary(limits, desired)
    return Pacing(
        min_healthy_percent=_at_least(desired, missing) if not surge else ALL,
        max_healthy_percent=ALL + _at_most(desired, beside),
        checkpoint_percents=stops,
        checkpoint_delay=min(limits.bake_time, LONGEST) if stops else timedelta(),
        warmup=limits.min_healthy_time,
        bake=min(limits.bake_between_waves if stops else limits.bake_time, LONGEST),
        alarms=limits.named_alarms,
        auto_rollback=limits.auto_rollback,
    )


def _at_least(desired: int, missing: int) -> int:
    """The healthy percentage at which `missing` members of `desired` may be away, never more."""
    if not missing or not desired:
        hint = 'raise limits.max_unavailable, or set limits.method = "surge"'
        what = f"method in_place stops members, but max_unavailable allows none of {desired} to be missing"
        raise RefusedError(what, hint=hint)
    exact = ALL * (desired - missing) / desired
    percent = int(exact) if desired <= ALL else -int(-exact // 1)
    if percent >= ALL:
        hint = "raise limits.max_unavailable to at least 1%"
        raise RefusedError(f"{missing} of {desired} is less than one percent, the minimum of Auto Scaling", hint=hint)
    return percent


def _at_most(desired: int, beside: int) -> int:
    """The percentage that `beside` new ones add: at least one, in a large group never more than meant, at most 100."""
    if not beside or not desired:
        return 0
    exact = ALL * beside / desired
    return min(ALL, max(1, -int(-exact // 1) if desired <= ALL else int(exact)))


def _canary(limits: Limits, desired: int) -> tuple[int, ...]:
    """Where the service waits: after the canary, and the end."""
    if not 0 < limits.canary < desired:
        return ()
    first = min(ALL - 1, -(-ALL * limits.canary // desired))
    return (first, ALL)


def preferences(pacing: Pacing) -> dict[str, Any]:
    """An instance refresh's Preferences. Members with the desired configuration are left, protected ones skipped."""
    asked: dict[str, Any] = {
        "MinHealthyPercentage": pacing.min_healthy_percent,
        "MaxHealthyPercentage": pacing.max_healthy_percent,
        "InstanceWarmup": int(pacing.warmup.total_seconds()),
        "SkipMatching": True,
        "AutoRollback": pacing.auto_rollback,
        "ScaleInProtectedInstances": "Ignore",
        "StandbyInstances": "Ignore",
    }
    if pacing.checkpoint_percents:
        asked["CheckpointPercentages"] = list(pacing.checkpoint_percents)
        asked["CheckpointDelay"] = int(pacing.checkpoint_delay.total_seconds())
    if pacing.bake:
        asked["BakeTime"] = int(pacing.bake.total_seconds())
    if pacing.alarms:
        asked["AlarmSpecification"] = {"Alarms": list(pacing.alarms[:ALARMS_AT_MOST])}
    return asked
