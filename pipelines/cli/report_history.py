"""How images, members and fixes were over time, day by day and week by week. Pure: the history is an argument."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from hardening.foundation.grouping import by_key
from images.artifact import Release
from images.ledger.tables import FleetDay, MemberRun
from pipelines.contract import Line
from pipelines.patch_times import Spread

DAYS = 90
DAY = timedelta(days=1)
AGES = ((7, "up to 7 days"), (14, "8 to 14 days"), (30, "15 to 30 days"), (60, "31 to 60 days"))
OLDER, UNKNOWN = "more than 60 days", "unknown"


class DayLine(Line):
    """`report`: the end of one day. `members` ran releases of ours, `in_date` of them one that was neither expired nor
    revoked; `others` ran other images. `judged` were, as of their last check, `within` policy or not.
    """

    day: date
    members: int
    in_date: int
    others: int
    judged: int
    within: int


class WeekLine(Line):
    """`report`: the fixes that were closed in the week that began on `monday`: in images, or in fleets with their last
    member. Seconds from each fix's start.
    """

    monday: date
    kind: Literal["image", "fleet"]
    fixes: int
    median: float
    p90: float


class AgeLine(Line):
    """`report`: how many members run a release of that age."""

    age: str
    members: int


class HistoryReport(Line):
    """`report`: the last 90 days, and the age of what runs now."""

    days: tuple[DayLine, ...] = ()
    weeks: tuple[WeekLine, ...] = ()
    ages: tuple[AgeLine, ...] = ()


def by_day(
    releases: Iterable[Release], runs: Sequence[MemberRun], checks: Iterable[FleetDay], now: datetime
) -> tuple[DayLine, ...]:
    """The last 90 days on which anything ran or was judged, today last. `runs` in the order in which it was told."""
    dated = by_key((release.content, release) for release in releases)
    ordered = sorted(runs, key=lambda run: run.at)
    judged = by_key((one.fleet, one) for one in sorted(checks, key=lambda check: check.at))
    running, counts = dict[tuple[str, str], str](), Counter[str]()
    lines, at = list[DayLine](), 0
    for back in range(DAYS - 1, -1, -1):
        day = now.date() - back * DAY
        end = min(now, datetime.combine(day + DAY, time(), UTC))
        while at < len(ordered) and ordered[at].at <= end:
            _move(running, counts, ordered[at])
            at += 1
        known = {content: many for content, many in counts.items() if many and content in dated}
        good = sum(many for content, many in known.items() if in_date(dated[content], end))
        total, within = _as_of(judged, day)
        lines.append(
            DayLine(
                day=day, members=sum(known.values()), in_date=good, others=counts.total() - sum(known.values()),
                judged=total, within=within,
            )
        )  # fmt: skip
    begins = next((number for number, one in enumerate(lines) if one.members + one.others + one.judged), len(lines))
    return tuple(lines[begins:])


def _move(running: dict[tuple[str, str], str], counts: Counter[str], run: MemberRun) -> None:
    """Let a member run what it was told to run then."""
    key = run.fleet, run.member
    if (before := running.pop(key, None)) is not None:
        counts[before] -= 1
    if not run.gone:
        running[key] = run.content
        counts[run.content] += 1


def in_date(releases: Iterable[Release], at: datetime) -> bool:
    """Whether one of a content's releases was published, and neither expired nor revoked, at a moment."""
    return any(
        one.published_at <= at < one.expires_at and (one.revoked_at is None or at < one.revoked_at) for one in releases
    )


def _as_of(judged: Mapping[str, Sequence[FleetDay]], day: date) -> tuple[int, int]:
    """How many members were judged by the last check of each fleet up to a day, and how many of them within policy.

    `judged`: by fleet, what each day's last check counted, the first day first.
    """
    last = [
        checks[number - 1]
        for checks in judged.values()
        if (number := bisect_right(checks, day, key=lambda check: check.at.date()))
    ]
    return sum(one.members for one in last), sum(one.within for one in last)


def by_week(closed: Iterable[tuple[Literal["image", "fleet"], datetime, float]], now: datetime) -> tuple[WeekLine, ...]:
    """How long fixes took that were closed within the last 90 days: of each, where, when, and after how many seconds.

    A week in which none was closed has no line.
    """
    spans = by_key(
        ((at.date() - at.weekday() * DAY, kind), timedelta(seconds=seconds))
        for kind, at, seconds in closed
        if now - DAYS * DAY <= at <= now
    )
    lines = list[WeekLine]()
    for (monday, kind), found in sorted(spans.items()):
        if spread := Spread.of(found):
            median, p90 = spread.median.total_seconds(), spread.p90.total_seconds()
            lines.append(WeekLine(monday=monday, kind=kind, fixes=len(found), median=median, p90=p90))
    return tuple(lines)


def by_age(published: Iterable[datetime | None], now: datetime) -> tuple[AgeLine, ...]:
    """How many members run a release of each age, by when each one's was published; None: unknown."""
    counts = Counter(UNKNOWN if at is None else _age(now - at) for at in published)
    names = [*(name for _, name in AGES), OLDER, UNKNOWN]
    return tuple(AgeLine(age=name, members=counts[name]) for name in names) if counts else ()


def _age(span: timedelta) -> str:
    return next((name for most, name in AGES if span <= most * DAY), OLDER)
