"""How a service is asked to pace its own rolling, so that the fleet's limits hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import RefusedError
from pipelines.fleet.ec2.pacing import pacing, preferences
from pipelines.fleet.model import Limits


def limits(**more: Any) -> Limits:
    return Limits.model_validate(more)


@given(desired=st.integers(1, 2000), surge=st.integers(1, 50), allowed=st.integers(0, 50))
def test_a_surge_takes_nobody_away_and_adds_about_as_many_as_it_may(desired: int, surge: int, allowed: int) -> None:
    """At least one at a time; in a group of up to a hundred less than one more than meant, in a larger one none more
    than one percent."""
    pace = pacing(limits(max_surge=surge, max_parallel=surge), desired, allowed)
    meant = max(1, min(surge, allowed))
    beside = desired * (pace.max_healthy_percent - 100) / 100
    assert pace.min_healthy_percent == 100
    assert 101 <= pace.max_healthy_percent <= 200
    assert beside < meant + 1 or beside <= desired / 100


@given(desired=st.integers(1, 2000), missing=st.integers(1, 50), allowed=st.integers(1, 50))
def test_in_place_never_lets_more_be_away_than_may(desired: int, missing: int, allowed: int) -> None:
    """The healthy minimum, rounded up as Auto Scaling does, keeps the floor; what cannot be said is refused."""
    asked = limits(method="in_place", max_unavailable=missing, max_parallel=missing)
    most = min(missing, allowed)
    try:
        pace = pacing(asked, desired, allowed)
    except RefusedError:
        assert most / desired < 0.01
        return
    assert math.ceil(desired * pace.min_healthy_percent / 100) >= desired - most
    assert pace.max_healthy_percent == 100


def test_in_place_with_nobody_away_is_refused() -> None:
    """It says which limit forbids it, also where a share is rounded down to none."""
    for missing in (0, "20%"):
        with pytest.raises(RefusedError, match="max_unavailable allows none of 4 to be missing"):
            pacing(limits(method="in_place", max_unavailable=missing), 4, 4)


def test_the_canary_is_a_checkpoint_and_the_bake_its_delay() -> None:
    """Without a canary the bake is at the end."""
    asked = preferences(pacing(limits(canary=1, bake_time="10m", min_healthy_time="1m", alarms=["errors"]), 4, 4))
    assert (asked["CheckpointPercentages"], asked["CheckpointDelay"]) == ([25, 100], 600)
    assert (asked["InstanceWarmup"], asked["SkipMatching"], asked["AutoRollback"]) == (60, True, True)
    assert asked["AlarmSpecification"] == {"Alarms": ["errors"]}
    assert "BakeTime" not in asked
    without = preferences(pacing(limits(canary=0, bake_time="10m"), 4, 4))
    assert ("CheckpointPercentages" in without, without["BakeTime"]) == (False, 600)


def test_addresses_are_no_alarms_of_the_service() -> None:
    """What is asked over http is watched by us."""
    assert not pacing(limits(alarms=["https://metrics.example/firing"]), 4, 4).alarms
