"""What `image.scan` prints and writes: its forms by name and by ending, and one page of HTML."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hardening.disagreement import disagreements, summary
from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.errors import ContentError, UsageError
from hardening.model import Enforcement, Severity, Waiver
from images.registry.references import require_reference
from pipelines.cli.image_output import write_out
from pipelines.cli.scanning import form_of, html, require_one, show_scan, show_scans
from pipelines.contract import ScanOutput

DAY = datetime(2026, 11, 20, tzinfo=UTC)
EVIL = "<script>alert(1)</script>\x1b[31m"
FOUND = Finding(
    FindingKind.VULNERABILITY, "CVE-2026-0001", EVIL, "1", "2", Severity.HIGH, (("trivy", Severity.HIGH),), title=EVIL
)  # fmt: skip
TRIVY = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.FAIL, 9, DAY, EVIL, "", (FOUND,))
DEBSECAN = replace(TRIVY, scanner="debsecan", outcome=Outcome.PASS, findings=())
REBUILT = ScanReport("reproduced", FindingKind.REPRODUCTION, Outcome.PASS, 8, DAY, "feed", "not known: 2", reproduced=6)
REASON = Reason("CVE-2026-0001", "web", Enforcement.ENFORCE, EVIL, "because", "update")


def scan(*reports: ScanReport) -> ScanOutput:
    """A scan as it is printed."""
    told = disagreements(reports)
    return ScanOutput(
        ref="registry.example.com/web:1", digest="sha256:1", reports=reports, findings=(FOUND,), allowed=False,
        policy="default", reasons=(REASON,), disagreements=told, agreement=summary(reports, told),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("form", "output", "meant"),
    [
        ("", "", "table"), ("html", "", "html"), ("", "a/scan.sarif", "sarif"), ("", "x.sarif.json", "sarif"),
        ("", "x.cdx.json", "cyclonedx"), ("", "x.json", "json"), ("", "x.html", "html"), ("sarif", "x.txt", "sarif"),
    ],
)  # fmt: skip
def test_the_form_is_named_or_follows_from_the_files_ending(form: str, output: str, meant: str) -> None:
    """A name wins."""
    assert form_of(form, output) == meant


def test_a_form_that_nobody_knows_and_several_images_in_one_document_are_refused() -> None:
    """With what there is instead."""
    with pytest.raises(UsageError, match=r"unknown form: xml\n.*sarif, cyclonedx, html"):
        form_of("xml", "")
    with pytest.raises(UsageError, match=r"the ending of x\.txt names no form"):
        form_of("", "x.txt")
    with pytest.raises(ContentError, match="all may mean several images, and --form sarif describes one"):
        require_one("all", "sarif", "")
    with pytest.raises(UsageError, match="a table is for people"):
        require_one("web", "table", "x")
    require_one("all", "json", "")
    require_one("registry.example.com/web:1", "html", "x.html")


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_strangers_text_and_runs_none_of_it() -> None:
    """Names and titles come from images; nothing is fetched from anywhere."""
    waiver = Waiver(
        id="w", vulnerabilities=("CVE-2026-0001",), packages=(EVIL,), subjects=("*",), reason="later", owner="a",
        approver="b", created=date(2026, 11, 1), expires=date(2026, 12, 1),
    )  # fmt: skip
    page = Page(html((scan(DEBSECAN, TRIVY, REBUILT), b"{}", {("CVE-2026-0001", EVIL): waiver})))
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    told = " ".join(page.text.split())
    assert "scanners disagree on 1: 1 unexplained" in told
    assert "8, 6 reproduced" in told
    assert "w until 2026-12-01: later" in told


def test_a_refused_scan_in_a_file_says_why_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, as the table does; of what is allowed, nothing."""
    refused = scan(DEBSECAN, TRIVY)
    for output, code in ((refused, 3), (refused.model_copy(update={"allowed": True}), 0)):
        target = str(tmp_path / "scan.json")
        assert show_scans("web", ([(output, b"{}", {})], []), form="json", output=target) == code
        said = capsys.readouterr().err
        assert ("refused by the policy default" in said, "because" in said) == (code == 3, code == 3)


def test_scanners_whose_answers_do_not_count_are_not_said_to_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """By sample data nothing was evaluated, so their agreement means nothing."""
    both = scan(replace(TRIVY, findings=()), DEBSECAN)
    show_scan(both)
    assert "agree" in capsys.readouterr().out
    silent = Reason("judges", "web", Enforcement.ENFORCE, "nothing was evaluated: 0 of at least 2", "why", "todo")
    refused = both.model_copy(update={"reasons": (silent,), "findings": ()})
    show_scan(refused)
    assert "agree" not in capsys.readouterr().out
    text = Page(html((refused, b"{}", {}))).text
    assert "scanners of vulnerabilities agree" not in text
    assert "\u2013disagreements" in text
    assert "Nothing was found, and too few scanners judged it." in text
    assert "scanners of vulnerabilities agree" in Page(html((both, b"{}", {}))).text


def test_the_table_tells_in_a_line_whether_scanners_agree(capsys: pytest.CaptureFixture[str]) -> None:
    """Where fewer than two evaluated it there is nothing to say."""
    show_scan(scan(DEBSECAN, TRIVY, REBUILT))
    said = " ".join(capsys.readouterr().out.split())
    assert "scanners disagree on 1: 1 unexplained" in said
    assert "75.0 % reproduced; not known: 2" in said
    show_scan(scan(TRIVY))
    assert "disagree" not in capsys.readouterr().out


def test_the_reasons_of_a_refusal_hang_under_their_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of one stands where the next begins, and no word of it is cut."""
    address = f"https://feeds.example.com/{'a' * 60}"
    reason = Reason("judges", "web", Enforcement.ENFORCE, f"silent ({address})", "why " * 30, "do " * 40)
    show_scan(scan(TRIVY).model_copy(update={"reasons": (reason,), "allowed": False}))
    said = capsys.readouterr().out.partition("refused by the policy default\n")[2].splitlines()
    indented = said[next(number for number, line in enumerate(said) if line.startswith(" ")) :]
    assert [line[:10] for line in indented if line[:4].strip()] == ["  why: why", "  do:  do d"[:10]]
    assert any(address in line for line in said)


def test_a_file_that_cannot_be_is_refused_before_anything_is_scanned(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a file"):
        require_one("web", "sarif", str(tmp_path / "no/such/folder/x.sarif"))


@pytest.mark.parametrize("place", ["/proc/x.json", f"/tmp/{'x' * 240}.json", f"/tmp/{'x' * 300}/x.json"])
def test_a_file_that_cannot_be_written_is_one_error(place: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be written: |cannot be a file"):
        write_out("text", place)


@pytest.mark.parametrize(
    "ref", ["", "me:hunter2@127.0.0.1:1/x/y:1", "a/b/c:d@e", "http://x/y", "web@sha256:00", "web:a b", "-x:y\x1b"]
)
def test_what_is_no_reference_is_refused_without_its_password(ref: str) -> None:
    with pytest.raises(ContentError, match="is neither the name of an image nor a reference") as error:
        require_reference(ref)
    assert "hunter2" not in str(error.value)


def test_a_tag_and_a_digest_at_once_are_told() -> None:
    with pytest.raises(ContentError, match=r"'docker.io/library/nginx:1@sha256:0+'") as error:
        require_reference(f"docker.io/library/nginx:1@sha256:{'0' * 64}")
    assert "not both" in error.value.hint


@pytest.mark.parametrize(
    "ref",
    ["web", "web:1", "golden/web:1_2", "127.0.0.1:5000/golden/web:stable", "[::1]:5000/x:1", f"h/x@sha256:{'0' * 64}"],
)  # fmt: skip
def test_a_reference_is_one(ref: str) -> None:
    require_reference(ref)
