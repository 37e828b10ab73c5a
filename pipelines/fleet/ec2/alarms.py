"""Edge: CloudWatch alarms by name, in every region of a fleet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hardening.foundation.errors import GoldsmithError
from images.aws.cloud import Cloud

FIRING, AT_ONCE = "ALARM", 100


def firing(cloud: Cloud, places: Iterable[tuple[str, str]], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the alarms that fire in some region; one that is nowhere, or cannot be asked, fires."""
    states: dict[str, set[str]] = {}
    try:
        for account, region in places:
            for name, state in _states(cloud, account, region, names):
                states.setdefault(name, set()).add(state)
    except GoldsmithError:
        return tuple(names)
    return tuple(name for name in names if FIRING in states.get(name, {FIRING}))


def _states(cloud: Cloud, account: str, region: str, names: Sequence[str]) -> Iterable[tuple[str, str]]:
    kinds = ["MetricAlarm", "CompositeAlarm"]
    for start in range(0, len(names), AT_ONCE):
        asked = {"AlarmNames": list(names[start : start + AT_ONCE]), "AlarmTypes": kinds}
        answer = cloud.client("cloudwatch", region, account).call("DescribeAlarms", **asked)
        for one in (*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())):
            yield one["AlarmName"], one["StateValue"]
