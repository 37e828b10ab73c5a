"""What a rollout costs of a service that limits its callers, by its published token buckets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fleet.model import Fleet
from pipelines.rollout.cost import DESCRIBE, LAUNCHED, OTHER, RUN, TAG, TERMINATE, Bucket, calls, step_cost
from tests.support.fleets import fleet


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
