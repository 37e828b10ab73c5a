"""The text of a digest: similar points share a line; as plain text, for chat, as HTML, as data. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Literal

from hardening.foundation.durations import in_short
from hardening.foundation.grouping import by_key
from hardening.foundation.text import listed, one_line, short_digests
from pipelines.cli.digest_points import OVERDUE, DigestStage, News
from pipelines.contract import Line

MOST_LINES = 15  # what is read in ten seconds; the next digest has the rest
MOST_CHARACTERS = 400  # of one line
MOST_NAME = 80
NEAR = timedelta(days=2)
TITLES = {
    DigestStage.ACT: "Goldsmith acts, or the time is over",
    DigestStage.MARK: "New",
    DigestStage.REMIND: "Still open",
    DigestStage.ENDED: "Ended",
}
COUNTED = {
    DigestStage.ACT: "acted on or overdue",
    DigestStage.MARK: "new",
    DigestStage.REMIND: "still open",
    DigestStage.ENDED: "ended",
}


class DigestLine(Line):
    """`digest`: similar points of one fleet, or of one image and its fleets. `stage`: mark, remind, act, ended.

    `names` are the members, or vulnerabilities; `since` the earliest, `due` the first of them, `marked_at` when the
    first was told first. `doing`: what Goldsmith does by itself; empty: `acts` has to do what stands in `todo`.
    """

    stage: DigestStage
    place: str
    rule: str
    names: tuple[str, ...]
    text: str
    since: datetime | None
    due: datetime | None
    marked_at: datetime
    doing: str
    acts: str
    todo: str


class TargetDigest(Line):
    """`digest`: what one target of a channel is sent, or would be. `left_out`: points that did not fit; they come with
    the next digest. `outcome`: sent, planned (`--dry-run`), rehearsed (nothing is sent), nothing (there is no news),
    busy (another process sends it), failed (`detail` says why; the next digest repeats everything).
    """

    channel: str
    target: str
    outcome: Literal["sent", "planned", "rehearsed", "nothing", "busy", "failed"]
    subject: str
    lines: tuple[DigestLine, ...]
    left_out: int
    detail: str = ""


class DigestOutput(Line):
    """`digest`: what is sent to each target of the channels in [digest]."""

    at: datetime
    dry_run: bool
    targets: tuple[TargetDigest, ...]


def grouped(news: Sequence[News], now: datetime) -> list[tuple[DigestLine, tuple[News, ...]]]:
    """The lines of a digest, the most pressing first, each with what it tells: one vulnerability has one line."""
    same = by_key((_kind(one, now), _who(one)) for one in news)
    keyed = ((_alike(one, same[_kind(one, now)], now), one) for one in news)
    return [(_line(alike, now), tuple(alike)) for alike in by_key(keyed).values()]


def _kind(item: News, now: datetime) -> tuple[object, ...]:
    """A vulnerability in an image and in all that runs it; any other point by itself."""
    return item.stage, item.point.image or item.point.subject, item.point.one, _overdue(item, now)


def _who(item: News) -> tuple[str, ...]:
    return item.point.place, item.point.rule, item.point.acts, item.point.todo, item.point.doing


def _alike(item: News, places: Sequence[tuple[str, ...]], now: datetime) -> tuple[object, ...]:
    """A point but for its name: vulnerabilities of the same packages and `places` share a line, and so do members."""
    ended = item.point.what if item.stage is DigestStage.ENDED else ""  # why it has, such as by a waiver
    return item.stage, item.point.image, item.point.severity, frozenset(places), _overdue(item, now), ended


def _overdue(item: News, now: datetime) -> bool:
    return bool(item.point.due and item.point.due <= now)


def _line(same: Sequence[News], now: datetime) -> DigestLine:
    first, stage = same[0].point, same[0].stage
    names = tuple(dict.fromkeys(one.point.one for one in same if one.point.one))
    fleets = {one.point.place: one.point.members for one in same if one.point.members}
    place = first.image or first.place
    since = min((one.point.since for one in same if one.point.since), default=None)
    due = min((one.point.due for one in same if one.point.due), default=None)
    marked = min(one.marked_at for one in same)
    shown = listed([_cut(name, MOST_NAME) for name in names])
    about = f"{place}: {f'{shown}: ' if shown else ''}{first.what}"
    if first.image:
        packages = listed(sorted({one.point.rule for one in same}))
        running = f", in {sum(fleets.values())} member(s) of {listed(list(fleets))}" if fleets else ""
        about = f"{place}: {shown} in {packages} ({first.severity}): the fix is missing{running}"
    said = [_cut(about, MOST_CHARACTERS // 2), *_dates(stage, since, due, marked, now)]
    if stage is not DigestStage.ENDED:
        said += dict.fromkeys(one.point.doing or f"{one.point.acts}: {one.point.todo}" for one in same)
    late = stage is DigestStage.REMIND or (due is not None and due <= now)
    if late and first.explain:  # the nights before have not replaced it
        said.append(f"what keeps it: ./goldsmith fleet.explain {_cut(first.explain, MOST_NAME)}")
    return DigestLine(
        stage=stage, place=place, rule=first.rule, names=names,
        text=_cut(short_digests(one_line("; ".join(filter(None, said)))), MOST_CHARACTERS), since=since, due=due,
        marked_at=marked, doing=first.doing, acts=first.acts, todo=first.todo,
    )  # fmt: skip


def _dates(
    stage: DigestStage, since: datetime | None, due: datetime | None, marked: datetime, now: datetime
) -> Iterable[str]:
    """How long it is open, and when it is due."""
    if stage is DigestStage.ENDED:
        return [f"ended after {_about(now, marked)}"] if now > marked else ["ended"]
    open_for = f"open for {_about(now, since)}" if since and since < now else ""
    if due is None:
        return [open_for]
    if due <= now:
        return [f"{OVERDUE} since {_moment(due, now)}"]
    return [open_for, f"due {_moment(due, now)}, in {_about(due, now)}"]


def _moment(at: datetime, now: datetime) -> str:
    """A day; where it is near, the minute too."""
    return f"{at:%Y-%m-%d %H:%M} UTC" if abs(at - now) < NEAR else f"{at:%Y-%m-%d}"


def _about(later: datetime, earlier: datetime) -> str:
    return in_short(later - earlier).partition(" ")[0]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def subject_of(channel: str, told: Iterable[News]) -> str:
    """How many points a digest tells of, by stage. Nothing that strangers write stands in it."""
    counts = Counter(one.stage for one in told)
    said = ", ".join(f"{counts[stage]} {words}" for stage, words in COUNTED.items() if counts[stage])
    return f"Goldsmith, {channel}: {said}"


def rest_of(left_out: int) -> str:
    """What stands below the lines."""
    more = f"{left_out} more with the next digest. " if left_out else ""
    return f"{more}All that is open: ./goldsmith report"


def as_text(digest: TargetDigest) -> str:
    """A digest as plain text."""
    lines = [digest.subject]
    for title, texts in _sections(digest):
        lines += ["", title, *(f"- {text}" for text in texts)]
    return "\n".join([*lines, "", rest_of(digest.left_out)]) + "\n"


def as_html(digest: TargetDigest) -> str:
    """A digest as an HTML page without links, images or scripts: all text of it is escaped."""
    parts = [f"<p><b>{escape(digest.subject)}</b></p>"]
    for title, texts in _sections(digest):
        items = "".join(f"<li>{escape(text)}</li>" for text in texts)
        parts.append(f"<h4>{escape(title)}</h4><ul>{items}</ul>")
    body = "\n".join([*parts, f"<p>{escape(rest_of(digest.left_out))}</p>"])
    return f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><body>\n{body}\n</body></html>\n'


def _sections(digest: TargetDigest) -> Iterable[tuple[str, list[str]]]:
    for stage, title in TITLES.items():
        if texts := [line.text for line in digest.lines if line.stage is stage]:
            yield title, texts
