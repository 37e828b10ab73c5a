"""What a rollout costs of a service that limits its callers, by its published token buckets."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.durations import shown
from pipelines.fleet.docker.inventory import first_check as first_check_of
from pipelines.fleet.model import Fleet
from pipelines.rollout.cost import DESCRIBE, LAUNCHED, OTHER, RUN, TAG, TERMINATE, Bucket, calls, explained, step_cost
from pipelines.rollout.plan import plan
from tests.support.fleets import NOW, fleet, judged, member, target


def machines(way: str = "instance", **limits: Any) -> Fleet:
    """An EC2 fleet."""
    written = fleet(**limits).model_dump(exclude_unset=True) | {
        "kind": "ec2",
        "ec2": {"way": way},
        "health": {"kind": "ec2"},
    }
    return Fleet.model_validate(written)


def ids(count: int, region: str = "eu-central-1") -> list[str]:
    return [f"111122223333/{region}/ec2/i-{number}" for number in range(count)]


def test_containers_cost_no_calls() -> None:
    """The Docker Engine limits nobody."""
    assert calls(fleet(), ["host/local/docker/web"]) == ()


@pytest.mark.parametrize(
    ("limits", "first_check", "seconds", "parts"),
    [
        ({}, 0, 35, "3s to start, 30s healthy, 2s settle; and up to 30s more to stop (drain)"),
        (
            {"drain": "10s"}, 30, 68,
            "3s to start and 33s until its health check is asked, 30s healthy, 2s settle; and up to 10s more to "
            "stop (drain)",
        ),
        (
            {"method": "in_place", "max_unavailable": 1}, 30, 102,
            "twice (rehearsal and replacement) 3s to start and 33s until its health check is asked, 30s healthy; "
            "and up to 30s more to stop (drain)",
        ),
        (
            {"method": "in_place", "max_unavailable": 1, "rehearsal": False}, 0, 33,
            "3s to start, 30s healthy; and up to 30s more to stop (drain)",
        ),
    ],
)  # fmt: skip
def test_a_container_takes_as_long_as_its_own_health_check_is_not_asked(
    limits: dict[str, Any], first_check: int, seconds: int, parts: str
) -> None:
    """Twice, where it is tried beside the old one first; the plan says of what the time consists."""
    of, one = fleet(**limits), replace(member("web"), first_check=first_check)
    assert step_cost(of, first_check)[1].total_seconds() == seconds
    made = plan(of, [replace(judged("web", "expired"), member=one)], target(), NOW)
    assert [step.seconds for step in made.steps] == [seconds]
    assert made.takes == f"each takes {shown(timedelta(seconds=seconds))}: {parts}"


def test_of_machines_no_parts_are_named() -> None:
    """Nothing is known of how long they boot."""
    assert explained(machines(), [member("web")]) == explained(fleet(), []) == ""


@pytest.mark.parametrize(
    ("check", "seconds"),
    [
        ({}, 30),
        ({"Interval": 5_000_000_000}, 5),
        ({"Interval": 5_000_000_000, "StartPeriod": 60_000_000_000}, 5),
        ({"Interval": 60_000_000_000, "StartPeriod": 1, "StartInterval": 2_000_000_000}, 2),
        ({"Interval": 10**30}, 86400),
        ({"Interval": -1}, 30),
    ],
)
def test_an_engine_first_asks_a_health_check_after_its_interval(check: dict[str, int], seconds: int) -> None:
    """In the start period after that of the start period."""
    assert first_check_of({"Config": {"Healthcheck": check}}) == seconds


@pytest.mark.parametrize(
    ("bucket", "number", "seconds"),
    [
        (RUN, 5, 0),
        (RUN, 6, 1),
        (RUN, 105, 50),
        (LAUNCHED, 1010, 5),
        (OTHER, 1050, 200),
        (DESCRIBE, 120, 1),
        (DESCRIBE, 121, 2),
        (TERMINATE, 105, 1),
        (TERMINATE, 106, 2),
        (TAG, 110, 1),
        (TAG, 111, 2),
    ],
)
def test_a_full_bucket_is_spent_first_and_then_it_fills_steadily(bucket: Bucket, number: int, seconds: int) -> None:
    """105 launches: five at once, a hundred at two each second."""
    assert bucket.seconds(number) == seconds


@given(bucket=st.sampled_from([DESCRIBE, RUN, LAUNCHED, TERMINATE, TAG, OTHER]), number=st.integers(0, 3000))
def test_no_bucket_gives_more_calls_than_it_has_tokens(bucket: Bucket, number: int) -> None:
    """Played through second by second."""
    left, second, full = number - bucket.tokens, 0, bucket.tokens
    while left > 0:
        left -= bucket.each_second
        second += 1
    assert bucket.seconds(number) == second
    assert full + second * bucket.each_second >= number


def test_each_account_and_region_has_buckets_of_its_own() -> None:
    """Two regions launch twice as fast as one."""
    one = {call.bucket: call.seconds for call in calls(machines(), ids(105))}
    two = calls(machines(), [*ids(53), *ids(52, "eu-west-1")])
    assert one[RUN.name] == 50
    assert {call.seconds for call in two if call.bucket == RUN.name} == {24}
    assert {call.place for call in two} == {"111122223333/eu-central-1", "111122223333/eu-west-1"}


def test_a_root_volume_launches_and_terminates_nothing() -> None:
    """It is replaced inside the instance."""
    buckets = {call.bucket for call in calls(machines("root_volume"), ids(3))}
    assert not buckets & {RUN.name, LAUNCHED.name, TERMINATE.name}
    assert step_cost(machines("root_volume"))[1] != step_cost(machines())[1]
