"""`feed.update`: fetch newer data from every feed, and show what it changes for the images in the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from hardening.foundation.console import Cell, print_json, print_table, print_text, say
from hardening.foundation.errors import OutsideError
from hardening.foundation.grouping import by_key
from hardening.foundation.settings import NONE
from images import feeds
from images.advisories import FeedChange, changes, match, standing
from images.context import Context
from images.documents import to_json
from images.feeds import indexed
from images.ledger.artifacts import PackageList
from images.scan.base import Feed
from images.scan.judge import add_newer
from pipelines.cli.image_holders import holders_of
from pipelines.contract import Line
from pipelines.wiring import image_context

SHOWN, NAMED = 20, 3
FAILED = 4


class FeedLine(Line):
    """`feed.update`: one feed; `suite` is empty if its data covers every suite.

    `status`: `current`, `kept` (the last good copy, since asking failed), `failed` (there is none, or the sample that
    ships stands in), `sample` or `off` (by the settings). `note`, or `source` of the sample, says why.
    """

    name: str
    suite: str
    status: Literal["current", "sample", "kept", "failed", "off"]
    source: str
    date: datetime | None
    sha256: str
    note: str


class FeedChangeLine(Line):
    """`feed.update`: a vulnerability of a source package that newer data changed, and in which images.

    `change`: `exploited` (it began to be, by CISA's list), `opened` (they are known to have it now), `fixed` (a fix is
    out now), `closed` (they do not have it after all). `likelihood` (0 to 1): that it is exploited within 30 days.
    """

    change: FeedChange
    id: str
    source: str
    fixed: str
    exploited: bool
    likelihood: float | None
    images: tuple[str, ...]


class FeedUpdateOutput(Line):
    """`feed.update`: the feeds, and what changed since the last time for the `images` that the ledger knows.

    `first`: data came, and there was none before to compare it with. `unknown`: the images in which the version of a
    package's source is not known, so that not all changes are.
    """

    feeds: tuple[FeedLine, ...]
    changes: tuple[FeedChangeLine, ...]
    images: int
    first: bool
    unknown: tuple[str, ...]

    @property
    def compared(self) -> bool:
        """Whether the tracker's data, by which changes are seen, is real."""
        return any(line.name == "tracker" and line.status in ("current", "kept") for line in self.feeds)


def update_feeds(context: Context | None = None, after: timedelta = indexed.NOW) -> FeedUpdateOutput:
    """Ask every feed that was not asked for `after` for newer data, and tell what is new since this was told last.

    The last scans of all that channels point to, was built last or runs get what it opens, so that every command counts
    it.
    Raises OutsideError where the list of exploited ones is set and cannot be had.
    """
    context = replace(context or image_context(), lenient=True)
    settings, now = context.settings, context.now
    held = list(holders_of(context))
    contents = dict.fromkeys(holder.content for holder in held)
    lists = context.ledger.package_lists(of=contents)
    suites = _suites(context, lists.values())
    say(f"asking the feeds for newer data: {', '.join(suites) or 'no suite is known'}")
    data = {suite: feeds.current(settings, suite, now, after=after) for suite in suites}
    exploited = feeds.exploited(settings, now, after)
    likelihoods = indexed.likelihoods(settings, now, after)
    lines = [
        *(line for suite, (found, missing) in data.items() for line in of_suite(context, suite, found, missing)),
        _line(context, "kev", exploited.feed, exploited.missing),
        _line(context, "epss", likelihoods.feed, likelihoods.missing),
    ]
    current = {content: lists[content] for content in contents if content in lists}
    told, first = _changes(context, current.values(), {suite: found for suite, (found, _) in data.items()}, exploited)
    told = [line.model_copy(update={"likelihood": likelihoods.scores.get(line.id)}) for line in told]
    names = {(one.content, one.image) for one in held if one.content in lists}
    names |= {(content, one.name) for content, one in lists.items()}
    _add_newer(context, names, lists, data, replace(exploited, likely=likelihoods))
    if feed := next((found["tracker"] for found, _ in data.values() if "tracker" in found), None):
        indexed.mark_reported(settings, feed, exploited.ids if exploited.feed else None)
    each = {(line.name, line.suite): line for line in lines}
    return FeedUpdateOutput(
        feeds=tuple(each.values()), changes=tuple(sorted(told, key=_order)),
        images=len({one.name for one in current.values()}), first=first,
        unknown=tuple(sorted({one.name for one in current.values() if one.unversioned})),
    )  # fmt: skip


def _suites(context: Context, lists: Iterable[PackageList]) -> list[str]:
    """The suites of the ledger's images, and of the definitions that name one."""
    named = (loaded.definition.base.bootstrap for loaded in context.definitions.values())
    return sorted({*(one.suite for one in lists if one.suite), *(base.suite for base in named if base)})


OF_ONE_SUITE, OF_ALL = ("debsecan",), ("kev", "epss")


def of_suite(context: Context, suite: str, found: dict[str, Feed], missing: dict[str, str]) -> Iterator[FeedLine]:
    """The feeds that scanners of a suite judge by."""
    for name in sorted({*found, *missing}):
        yield _line(context, name, found.get(name), missing.get(name, ""), suite if name in OF_ONE_SUITE else "")


def _line(context: Context, name: str, feed: Feed | None, why: str, suite: str = "") -> FeedLine:
    if feed is None:
        off = _setting(context, name) == NONE
        return FeedLine(
            name=name, suite=suite, status="off" if off else "failed", source="", date=None, sha256="",
            note="by the settings" if off else why,
        )  # fmt: skip
    status: Literal["failed", "sample", "kept", "current"] = "kept" if feed.note else "current"
    if feed.sample:
        status = "sample" if _setting(context, name) == NONE else "failed"
    return FeedLine.of(feed, name=name, suite=suite, status=status)


def _setting(context: Context, name: str) -> str:
    """What the settings say of a feed, which some scanners' names spell otherwise."""
    return str(getattr(context.settings.feeds, _key(name)))


def _key(name: str) -> str:
    return feeds.DIRECTORIES.get(name, name)


def _changes(
    context: Context, images: Iterable[PackageList], data: dict[str, dict[str, Feed]], exploited: feeds.Exploited
) -> tuple[list[FeedChangeLine], bool]:
    """The changes for the images, the same in many of them as one; and whether data came for the first time."""
    found: dict[tuple[FeedChange, str, str, str], set[str]] = {}
    first = False
    for suite, held in by_key((image.suite, image) for image in images if image.suite).items():
        packages = tuple({package for image in held for package in image.packages})
        before, known = indexed.reported(context.settings, suite, packages)
        feed = data.get(suite, {}).get("tracker")
        if feed is None or feed.sample:  # beside real data the sample knows next to nothing
            continue
        if before is None:
            first = True
            continue
        after = indexed.advisories(feed, suite, packages)
        newly = frozenset[str]() if known is None else exploited.ids - known
        for image in held:
            was, now = standing(image.comparable, before), standing(image.comparable, after)
            for which, change in changes(was, now, newly).items():
                vulnerability, source = which
                found.setdefault((change, vulnerability, source, now.get(which, "")), set()).add(image.name)
    lines = [
        FeedChangeLine(
            change=change, id=vulnerability, source=source, fixed=fixed, exploited=vulnerability in exploited.ids,
            likelihood=None, images=tuple(sorted(names)),
        )
        for (change, vulnerability, source, fixed), names in found.items()
    ]  # fmt: skip
    return lines, first


def _add_newer(
    context: Context, names: Iterable[tuple[str, str]], lists: dict[str, PackageList],
    data: dict[str, tuple[dict[str, Feed], dict[str, str]]], exploited: feeds.Exploited,
) -> None:  # fmt: skip
    """Add what the tracker's data opens to the last scans of contents, each as the definition of that name."""
    for suite, some in by_key((lists[content].suite, (content, name)) for content, name in names).items():
        feed = data[suite][0].get("tracker") if suite else None
        if feed and not feed.sample:
            packages = {package for content, _ in some for package in lists[content].packages}
            advisories = indexed.advisories(feed, suite, packages)
            for content, name in some:
                add_newer(context, content, name, match(lists[content].comparable, advisories), feed, exploited)


def _order(line: FeedChangeLine) -> tuple[bool, int, float, str, str]:
    """Exploited ones first, then what was opened, the likeliest first."""
    return (not line.exploited, list(FeedChange).index(line.change), -(line.likelihood or 0), line.id, line.source)


def show_update(found: FeedUpdateOutput, *, as_json: bool) -> int:
    """Print the feeds and what they changed. Exit code 4 where one that the settings ask for could not be updated."""
    if as_json:
        print_json(to_json(found))
    else:
        rows: list[list[Cell]] = [
            [line.name, line.suite or "every", line.status, f"{line.date:%Y-%m-%d}" if line.date else "-", _from(line)]
            for line in found.feeds
        ]
        print_table(["feed", "suite", "status", "data of", "from, or why not"], rows)
        print_text(["", *_summary(found)])
        if found.changes:
            _show_changes(found)
    return FAILED if any(line.status in ("failed", "kept") for line in found.feeds) else 0


def _from(line: FeedLine) -> str:
    return "; ".join(text for text in (line.source, line.note) if text)


def _summary(found: FeedUpdateOutput) -> Iterator[str]:
    if not found.images:
        yield "the ledger knows no image that newer data could change anything for"
    elif found.first:
        yield f"{found.images} image(s) are known; the next feed.update that gets data tells what it changes for them"
    elif not found.compared:
        yield "without data of the tracker (feeds.tracker) nothing tells what changed"
    elif not found.changes:
        yield f"nothing changed for the {found.images} image(s) that the ledger knows"
    if found.unknown:
        why = "an earlier version of Goldsmith built them and did not keep the version of each source package"
        yield f"not all is known of {', '.join(found.unknown)}: {why}"


def failing(context: Context, lines: Iterable[FeedLine]) -> OutsideError | None:
    """What to say of feeds that somebody must look at: those that gave nothing newer, so that the last good copy
    serves, and those that the settings name and that gave nothing. None where there is none.

    A default address that never answered is none: not every network lets through to it, and policies judge without.
    """
    found = [
        line for line in lines
        if line.status == "kept" or (line.status == "failed" and not _is_default(context, line.name))
    ]  # fmt: skip
    if not found:
        return None
    names, told = ", ".join(line.name for line in found), "\n".join(f"{line.name}: {line.note}" for line in found)
    hint = "what was there before serves on, for as long as policies let it; ./goldsmith feed.update asks again"
    return OutsideError(f"no newer data: {names}", evidence=told, hint=hint)


def _is_default(context: Context, name: str) -> bool:
    return _setting(context, name) == str(type(context.settings.feeds).model_fields[_key(name)].default)


def changes_told(found: FeedUpdateOutput) -> tuple[str, str]:
    """What newer data changed, in a word and in a sentence: how many of each kind, and the first in full."""
    without = sorted({line.name for line in found.feeds if line.status in ("failed", "kept")})
    more = [f"no newer data: {', '.join(without)}"] if without else []
    more += [f"not all is known of {', '.join(found.unknown)}"] if found.unknown else []
    if not found.changes:
        told = "there was no data to compare with" if found.first or not found.compared else "nothing changed"
        told = told if found.images else "no image is known that newer data could change anything for"
        return "first" if found.first and found.images else "unchanged", "; ".join([told, *more])
    counts = Counter(line.change for line in found.changes)
    told = ", ".join(f"{counts[one]} {one}" for one in FeedChange if counts[one])
    named = "; ".join(f"{line.id} in {line.source} ({', '.join(line.images)})" for line in found.changes[:NAMED])
    others = f" and {len(found.changes) - NAMED} more" if found.changes[NAMED:] else ""
    return "changed", "; ".join([f"{told}: {named}{others}", *more])


def _show_changes(found: FeedUpdateOutput) -> None:
    counts: dict[str, Counter[FeedChange]] = {}
    for line in found.changes:
        for image in line.images:
            counts.setdefault(image, Counter())[line.change] += 1
    rows: list[list[Cell]] = [
        [name, *(str(count[one]) for one in FeedChange)] for name, count in sorted(counts.items())
    ]
    print_table(["image", *FeedChange], rows)
    print_text("")
    lines = [_change_row(line) for line in found.changes[:SHOWN]]
    print_table(["change", "vulnerability", "source", "fixed in", "EPSS", "images"], lines)
    if found.changes[SHOWN:]:
        print_text(f"and {len(found.changes) - SHOWN} more: --json lists all")


def _change_row(line: FeedChangeLine) -> list[Cell]:
    fixed = line.fixed or ("-" if line.change is FeedChange.CLOSED else "no fix")
    likely = "-" if line.likelihood is None else f"{line.likelihood:.1%}"
    known: Cell = [line.id, "exploited"] if line.exploited else line.id
    return [line.change, known, line.source, fixed, likely, list(line.images)]
