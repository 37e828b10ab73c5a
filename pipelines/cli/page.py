"""Our pages as self-contained HTML: style, script and charts are inside; nothing is fetched, all is escaped."""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from hardening.foundation.durations import in_short
from hardening.foundation.text import short_digests, visible
from pipelines.blast_radius.descriptions import COLOURS
from pipelines.cli.charts import bars, graph, over_time
from pipelines.cli.member_rows import in_order, judged_by_name, member_rows
from pipelines.cli.open_points import STALE
from pipelines.cli.report_history import UNKNOWN, HistoryReport, WeekLine
from pipelines.cli.report_output import ReportOutput, disputed
from pipelines.fleet.judged_state import JudgedState
from pipelines.fleet.violations import PolicyState

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = Path(__file__).with_name("report.html.j2")
STYLE = Path(__file__).with_name("report.css")
SCRIPT = Path(__file__).with_name("report.js")
SHOWN = 100
"""Points, findings and steps that a table shows."""
MOST_BARS = 20
"""Releases of which a bar shows when they expire."""
ROWS = 50
"""Members that their table shows at first, as the script has it too, which shows more."""

SURE = {colour: word for word, colour in COLOURS.items()}


def render_html(report: ReportOutput, state: JudgedState | None = None, stamp: str = "") -> str:
    """The page as text. Pure but for reading its files. `stamp`: which state it shows; `serve` tells it of others."""
    judged = judged_by_name(state)
    return compiled(TEMPLATE).render(
        report=report, stale=STALE, style=style(), script=Markup(SCRIPT.read_text(encoding="utf-8")),  # noqa: S704
        policy=content_policy(live=bool(stamp)), stamp=stamp, shown=SHOWN, bars=MOST_BARS, judged=judged,
        first=in_order(report.members)[:ROWS], rows=Markup(member_rows(report, state)),  # noqa: S704 - escaped there
        charts=charts_of(report), counts=_counts(report),
    )  # fmt: skip


def _counts(report: ReportOutput) -> dict[str, Any]:
    """What is counted over all members: a template would take seconds for it."""
    members = report.members
    return {
        "astray": sum(one.state in (PolicyState.OUT, PolicyState.UNREAD) for one in members),
        "ill": sum(bool(one.ailment) for one in members),
        "on": Counter(one.image for one in members),
        "fleets": {one.name: one.checked_at for one in report.fleets if one.checked_at}
        | {one.fleet: one.judged_at for one in reversed(members)},
    }


def content_policy(*, live: bool) -> str:
    """The Content-Security-Policy of the page: its own style and script by their hashes, and nothing else."""
    style_hash, script_hash = (_hash(file.read_text(encoding="utf-8")) for file in (STYLE, SCRIPT))
    parts = [
        "default-src 'none'", f"style-src '{style_hash}'", f"script-src '{script_hash}'", "base-uri 'none'",
        "form-action 'none'", *(["connect-src 'self'"] if live else []),
    ]  # fmt: skip
    return "; ".join(parts)


def _hash(text: str) -> str:
    """As Content-Security-Policy names what stands between two tags."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


@cache
def compiled(template: Path) -> Template:
    """What renders one of our pages: all that is put in is escaped, and invisible characters of strangers are shown.

    Compiled once a process, which takes longer than to render: `serve` renders its page again and again.
    """
    from jinja2 import Environment, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_seen)
    made.filters |= {"short": short_digests, "disputed": disputed, "ago": in_short, "commands": with_commands}
    return made.from_string(template.read_text(encoding="utf-8"))


COMMAND = re.compile(
    r"`(?P<quoted>[^`]+)`|(?P<plain>\./goldsmith [a-z-]+(?:\.[a-z-]+(?: [\w/.@:-]*[\w])?)?"
    r'(?: --[a-z-]+(?: (?:"[^"]*"|[A-Z][A-Z-]*\b))?)*)'
)


def with_commands(text: str) -> Markup:
    """Text in which each command stays on one line, and is selected whole by a click. All of it is escaped."""
    parts, end = Markup(), 0
    for match in COMMAND.finditer(text := visible(text)):
        command = match["quoted"] or match["plain"]
        parts += Markup('{}<span class="command"><code>{}</code></span>').format(text[end : match.start()], command)
        end = match.end()
    return parts + text[end:]


def style() -> Markup:
    """The style sheet of our pages, which stands within each."""
    return Markup(STYLE.read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _seen(value: object) -> object:
    """What the page shows of a value: strangers' text with all that is not seen made visible."""
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def charts_of(report: ReportOutput) -> dict[str, Any]:
    """The charts by name; those of which there is nothing to draw are None."""
    found: dict[str, Any] = dict.fromkeys(("compliance", "latency", "ages", "expiring", "reach"))
    if len(report.history.days) > 1:
        found["compliance"] = _compliance(report.history)
    if report.history.weeks:
        found["latency"] = _latency(report.history.weeks)
    if any(line.members for line in report.history.ages):
        found["ages"] = _ages(report.history)
    if expiring := sorted((one.expires_at, one.name) for one in report.images if one.release and one.expires_at):
        first = expiring[:MOST_BARS]
        days = [max(0.0, round((at - report.made_at) / timedelta(days=1), 1)) for at, _ in first]
        names = [visible(name) for _, name in first]
        found["expiring"] = bars("Days until the releases expire", names[::-1], days[::-1], " d", lying=True)
    if (reach := report.blast_radius) and reach.drawing:
        with suppress(ValueError):  # the tables say the same
            found["reach"] = graph(reach.drawing, f"What is reached from {visible(reach.sizes[0].member)}", SURE)
    return found


def _compliance(history: HistoryReport) -> Markup:
    lines = {
        "in date": [_percent(one.in_date, one.members) for one in history.days],
        "within policy": [_percent(one.within, one.judged) for one in history.days],
    }
    labels = [f"{one.day:%d %b}" for one in history.days]
    return over_time("Members in date and within policy, in percent, day by day", labels, lines, "%")


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def _latency(weeks: tuple[WeekLine, ...]) -> Markup:
    mondays = sorted({week.monday for week in weeks})
    days = {(str(week.kind), week.monday): round(week.median / 86400, 1) for week in weeks}
    lines = {
        name: [days.get((kind, monday)) for monday in mondays]
        for kind, name in (("image", "in stable"), ("fleet", "on the last member"))
    }
    labels = [f"{monday:%d %b}" for monday in mondays]
    return over_time("Days until half of the fixes were closed, week by week", labels, lines, " d")


def _ages(history: HistoryReport) -> Markup:
    known = [one for one in history.ages if one.members or one.age != UNKNOWN]
    names = [one.age for one in known][::-1]
    return bars("Members by the age of their release", names, [one.members for one in known][::-1], lying=True)
