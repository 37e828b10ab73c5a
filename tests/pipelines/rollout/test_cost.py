"""What a rollout costs of a service that limits its callers, by its published token buckets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.fleet.model import Fleet
from pipelines.rollout.plan import TOKENS, Bucket, calls, seconds_at_least, step_time
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
        (Bucket.RUN, 5, 0),
        (Bucket.RUN, 6, 1),
        (Bucket.RUN, 105, 50),
        (Bucket.LAUNCHED, 1010, 5),
        (Bucket.OTHER, 1050, 200),
    ],
)
def test_a_full_bucket_is_spent_first_and_then_it_fills_steadily(bucket: Bucket, number: int, seconds: int) -> None:
    """105 launches: five at once, a hundred at two each second."""
    assert seconds_at_least(bucket, number) == seconds


@given(bucket=st.sampled_from(Bucket), number=st.integers(0, 3000))
def test_no_bucket_gives_more_calls_than_it_has_tokens(bucket: Bucket, number: int) -> None:
    """Played through second by second."""
    tokens, each_second = TOKENS[bucket]
    left, second, full = number - tokens, 0, tokens
    while left > 0:
        left -= each_second
        second += 1
    assert seconds_at_least(bucket, number) == second
    assert full + second * each_second >= number


def test_each_account_and_region_has_buckets_of_its_own() -> None:
    """Two regions launch twice as fast as one."""
    one = {call.bucket: call.seconds for call in calls(machines(), ids(105))}
    two = calls(machines(), [*ids(53), *ids(52, "eu-west-1")])
    assert one[Bucket.RUN] == 50
    assert {call.seconds for call in two if call.bucket is Bucket.RUN} == {24}
    assert {call.place for call in two} == {"111122223333/eu-central-1", "111122223333/eu-west-1"}


def test_a_root_volume_launches_and_terminates_nothing() -> None:
    """It is replaced inside the instance."""
    buckets = {call.bucket for call in calls(machines("root_volume"), ids(3))}
    assert not buckets & {Bucket.RUN, Bucket.LAUNCHED, Bucket.TERMINATE}
    assert step_time(machines("root_volume")) != step_time(machines())
