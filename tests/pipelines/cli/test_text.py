"""Text of strangers on a terminal, in logs, in HTML and in markdown: seen as it is, never obeyed."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.disagreement import disagreements
from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.foundation import console, text
from hardening.foundation.console import print_table
from hardening.foundation.errors import OutsideError
from hardening.foundation.text import bounded, last_line
from hardening.gate import explain
from hardening.model import Enforcement, Severity
from pipelines.cli import image, image_output, rollout
from pipelines.cli.check_output import MemberLine
from pipelines.cli.page import render_html
from pipelines.cli.report_output import ImageReport, MemberReport, ReportOutput
from pipelines.cli.rollout_output import markdown
from pipelines.cli.scanning import show_scan
from pipelines.contract import ScanOutput
from tests.pipelines.cli.test_roll_shown import planned

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
CLEARS = "\x1b[2J\x1b[H"
LINK = "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\"
HOSTILE = {
    "escape sequences": CLEARS,
    "a link": LINK,
    "a title": "\x1b]0;title\x07",
    "C1": "\x9b2J",
    "return": "refused\rallowed",
    "backspace": "refused\b\b\b\b\b\b\ballowed",
    "right to left": "\u202ella\u2066x\u2069\u200f",
    "zero width": "a\u200bdmin\ufeff\u2060",
    "hidden tags": "\U000e0041\U000e0042",
    "no text": "caf\udce9",
    "other newlines": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "soft hyphen": "ad\xadmin",
}
SEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
FORGED = "web\nother-member  within policy"


def test_a_note_has_an_end_and_keeps_its_beginning_and_its_last_words() -> None:
    """A health check with a traceback made 300 lines of it."""
    note = "\n".join(["it fell ill", *(f"line {number}" for number in range(300)), "x" * 9000])
    lines = bounded(note).splitlines()
    assert (lines[0], lines[5], len(lines)) == ("it fell ill", "… 282 lines", 21)
    assert max(map(len, lines)) <= 301
    assert bounded("two\nlines") == "two\nlines"
    assert (last_line("Traceback:\n  x\nError: y\n"), last_line("")) == ("Error: y (2 lines before it)", "")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on both consoles, as on a terminal with colours of 80 columns."""
    sink = io.StringIO()
    made = console.careful()(file=sink, width=80, force_terminal=True, color_system=None)
    for module in (console, image_output, image, rollout):
        for name in ("out", "err"):
            monkeypatch.setattr(module, name, lambda: made, raising=False)
    return sink


@pytest.mark.parametrize("way", HOSTILE)
def test_what_a_terminal_would_obey_is_written_as_its_escape(way: str) -> None:
    """No such character is left, and what was there can be read."""
    seen = text.visible(HOSTILE[way])
    assert not SEEN.search(seen)
    assert "\\" in seen
    seen.encode()


def test_text_that_people_write_stays_as_it_is() -> None:
    """Letters of any script, accents, emoji of one character, tabs and newlines; the ends of lines of Windows."""
    plain = "Zażółć 日本語 שלום 🎉 a\tb\nc \\x1b"
    assert text.visible(plain) == plain
    assert text.visible("a\r\nb") == "a\nb"
    assert text.visible(CLEARS) == "\\x1b[2J\\x1b[H"
    assert text.visible("\u202e\U000e0041") == "\\u202e\\U000e0041"


@given(st.text())
def test_nothing_that_is_not_seen_is_ever_left(any_text: str) -> None:
    """Whatever comes in; a second time changes nothing, and one line is one line."""
    seen = text.visible(any_text)
    assert not SEEN.search(seen)
    assert text.visible(seen) == seen
    assert len(text.one_line(any_text).splitlines()) <= 1


@pytest.mark.parametrize("way", HOSTILE)
def test_everything_that_is_printed_is_visible(way: str, printed: io.StringIO) -> None:
    """Progress, results, text, tables with their titles and headings, rules and errors."""
    hostile = HOSTILE[way]
    console.say(hostile)
    console.out().print(hostile)
    console.out().out(hostile)
    console.print_text(hostile)
    console.print_text([hostile])
    console.print_table([hostile], [[hostile], [[hostile, "b"]]], title=hostile)
    console.print_rule(hostile)
    image_output.finish([OutsideError(hostile, hint=hostile, evidence=hostile)])
    assert not SEEN.search(printed.getvalue())
    assert printed.getvalue().count("\\") >= 11


def test_markup_and_emoji_codes_of_strangers_are_text(printed: io.StringIO) -> None:
    """A label such as [red] or :bug: is shown, and a wrong one does not end the program."""
    for label in ("[red]allowed[/red]", "[link=https://evil.example]x[/link]", "[/nothing]", ":warning:"):
        console.say(label)
        console.print_table(["name"], [[label]], title=label)
        console.print_rule(label)
        assert printed.getvalue().count(label) == 4


def test_a_newline_forges_no_row_and_no_line(printed: io.StringIO) -> None:
    """In a cell it is written out; in a message what follows it is indented; lines of our own stay lines."""
    console.print_table([FORGED, "state"], [[FORGED, ["one", "two"]], ["web-2", [FORGED]]], title=FORGED)
    console.print_rule(FORGED)
    assert printed.getvalue().count("other-member") == printed.getvalue().count("web\\nother-member") == 5
    console.say(f"replacing {FORGED}")
    console.print_text([f"left alone: {FORGED}"])
    image_output.finish([OutsideError(f"no such member: {FORGED}")])
    assert "web\\nother-member" in printed.getvalue()
    assert not [line for line in printed.getvalue().splitlines() if line.startswith("other-member")]
    assert re.search(r"one\s*\n\s+two", printed.getvalue())


def test_a_scan_shows_titles_and_names_as_they_are(printed: io.StringIO) -> None:
    """What scanners, packages and labels say, with all that they would do to a terminal."""
    finding = Finding(
        FindingKind.VULNERABILITY, f"CVE-1{CLEARS}", f"open{LINK}ssl", "3\r4", "", Severity.LOW,
        (("trivy", Severity.LOW),), title="[blink]x[/blink]",
    )  # fmt: skip
    report = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.FAIL, 3, NOW, f"source{CLEARS}", reason="\u202ex")
    reason = Reason("rule", f"subject{CLEARS}", Enforcement.ENFORCE, f"what\nallowed{LINK}", f"why{CLEARS}", "do\x07")
    silent = replace(report, scanner=f"debsecan{CLEARS}")
    reports = (replace(report, findings=(finding,)), silent)
    scan = ScanOutput(
        ref=f"ref{CLEARS}", digest="sha256:0", reports=reports, findings=(finding,), allowed=False, policy="p",
        reasons=(reason,), disagreements=disagreements(reports), agreement="one",
    )  # fmt: skip
    show_scan(scan)
    assert not SEEN.search(printed.getvalue())
    assert not [line for line in printed.getvalue().splitlines() if line.startswith("allowed")]


def test_the_members_of_a_fleet_are_shown_one_to_a_line(printed: io.StringIO) -> None:
    """A container's name and image are whatever somebody on the host chose."""
    line = MemberLine(
        member="1", name=FORGED, image=f"img{CLEARS}", release="", base="", expires_at=None, healthy=True,
        violations=("expired",), deadline=None, reasons=(),
    )  # fmt: skip
    rollout.show_members([line])
    assert not SEEN.search(printed.getvalue())
    assert not [line for line in printed.getvalue().splitlines() if line.startswith("other-member")]


def test_an_explanation_keeps_its_lines(printed: io.StringIO) -> None:
    """What stands in a reason forges no other reason."""
    reason = Reason("rule\nx", "s", Enforcement.ENFORCE, "what\nwarn: nothing", "why\n  do:  nothing", "todo\nx")
    assert len(explain([reason, replace(reason, rule="other\ny")]).splitlines()) == 4


def test_the_html_report_shows_what_is_not_seen() -> None:
    """Beside HTML, which is escaped, marks that turn text around and characters that take no room."""
    image = ImageReport(
        name="<b>x</b>\u202e", content="", built_at=None, packages=0, release="", status="unpublished",
        published_at=None, warn_at=None, expires_at=None, policy="", judged_at=None, allowed=None, reasons=(),
        scanners=(), findings=(), running=(f"web{CLEARS}",),
    )  # fmt: skip
    member = MemberReport(member="a\u200bb", digest="", image="", status="unknown", newest=False)
    page = render_html(
        ReportOutput(
            made_at=NOW, images=(image,), members=(member,), rollouts=(), waivers_active=(), waivers_expired=(),
            policies_to_review=(), audit=(), night=None,
        )
    )  # fmt: skip
    assert not SEEN.search(page)
    assert "&lt;b&gt;x&lt;/b&gt;\\u202e" in page
    assert "a\\u200bb" in page
    assert "<b>x</b>" not in page


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        ("[click](https://evil.example)", r"\[click\](https\://evil.example)"),
        ("https://evil.example", r"https\://evil.example"),
        ("www.evil.example", r"www\.evil.example"),
        ("![x](y)", r"\!\[x\](y)"),
        ("a | b", r"a \| b"),
        ("`code`", r"\`code\`"),
        ("<img src=x>", r"\<img src=x\>"),
        ("&lt;img&gt;", r"\&lt;img\&gt;"),
        ("# heading", r"\# heading"),
        ("line\n## heading", r"line \#\# heading"),
        ("@everyone ~gone~ *b* _i_", r"\@everyone \~gone\~ \*b\* \_i\_"),
        ("back\\", "back\\\\"),
        ("\u202ex", r"\\u202ex"),
        (CLEARS, r"\\x1b\[2J\\x1b\[H"),
    ],
)
def test_markdown_shows_what_is_written(hostile: str, seen: str) -> None:
    """No links, images, cells, code, HTML, headings, mentions or marks of strangers."""
    assert text.markdown(hostile) == seen.replace(r"\\u", "\\\\u").replace(r"\\x1b", "\\\\x1b")


def test_code_in_markdown_ends_at_nothing_of_its_own() -> None:
    """Neither at a backtick nor at the end of a cell or of a line."""
    assert text.markdown_code("a`b | c\n# d\u202e") == "`a'b / c # d\\u202e`"


def test_the_plan_in_markdown_cannot_be_written_by_labels() -> None:
    """Names, zones and reasons in it, and the replacement, which stands as code."""
    evil = "x` | [a](https://evil.example) <b>\n# approved \u202e"
    [step, *_] = planned().steps
    roll = planned().model_copy(
        update={
            "replacement": evil,
            "fleet": evil,
            "steps": (step.model_copy(update={"member": evil, "why": (evil,)}),),
        }
    )
    shown = markdown(roll, evil, "")
    assert not SEEN.search(shown)
    assert not re.search(r"^# approved", shown, re.M)
    assert "<b>" not in re.sub(r"`[^`\n]*`", "", shown).replace(r"\<b\>", "")
    assert not re.search(r"(?<!\\)\]\(|(?<![\\`x])https://", re.sub(r"`[^`\n]*`", "", shown))
    [first] = [line for line in shown.splitlines() if line.startswith("To `")]
    assert first.count("`") - first.count("\\`") == 2


@pytest.mark.parametrize(
    "name", ["www.evil.example", "WWW.evil.example", "https://evil.example", "<https://e.example|ok>"]
)
def test_a_chat_makes_no_link_of_an_address(name: str) -> None:
    """A container may be called www.evil.example, which some chats link."""
    said = text.chat(f"shop: {name}: it is old")
    assert not re.search(r"(?i)www\.|://|<|\|", said)
    assert text.chat("awww.x") == "awww.x"


def test_a_table_in_a_pipe_is_one_line_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Logs of CI and `grep` take lines. With COLUMNS it folds as at a terminal; nothing of it is obeyed either way."""
    row = ["web", ["first " * 30, "second"], f"{CLEARS}日本"]
    monkeypatch.delenv("COLUMNS")
    print_table(["image", "because", "note"], [row, ["db", "-", "-"]], title="all", whole=["image"])
    title, heading, first, second = capsys.readouterr().out.splitlines()
    assert title == "all"
    assert first.startswith("web    first first")
    assert "; second  " in first
    assert "\x1b" not in first
    assert heading.index("note") == first.index("\\x1b")
    assert second.index("-") == heading.index("because")
    assert not any(line.endswith(" ") for line in (title, heading, first, second))
    monkeypatch.setenv("COLUMNS", "80")
    print_table(["image", "because", "note"], [row])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_paths_and_digests_in_a_table_are_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """People copy them: they make a row wider than the terminal. What else is long still folds, nothing is padded."""
    digest, path, prose = f"sha256:{'a' * 64}", "/var/lib/goldsmith/keys/2026-12-03-0001-f7236db6ec75.pub", "word " * 30
    print_table(["image", "file", "what"], [["web", path, [digest, prose]], ["x" * 90, "-", "/" * 500]])
    shown = capsys.readouterr().out
    assert path in shown
    assert digest in shown
    assert prose not in shown
    assert "x" * 90 not in shown
    assert "/" * 200 not in shown, "a name of hundreds of characters"
    assert not any(line.endswith(" ") for line in shown.splitlines())
