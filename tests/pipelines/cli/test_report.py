"""The report: one page that needs nothing else, whatever stands in it, and that hides no disagreement."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.settings import Settings
from hardening.model import Enforcement, Severity, Waiver
from images.context import Context
from images.documents import to_json
from images.ledger import ScanRecord
from pipelines.cli.report import (
    ImageReport,
    MemberReport,
    ReportOutput,
    RolloutReport,
    StepReport,
    disputed,
    gather,
    opinions,
    position,
    render_html,
    short,
    write_report,
)
from pipelines.contract import AuditReport, NightlyLine, NightlyOutput
from pipelines.rollout.plan import plan
from pipelines.rollout.state import MemberState, Order, Phase, RolloutStage, RolloutState
from tests.support.fleets import fleet, judged, release, target
from tests.support.publishing import PACKAGES, built

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOSTILE = "</td><script>alert('gold')</script><img src=x onerror=alert(1)>{{ 7*7 }}"
DIGEST = "sha256:" + "ab12" * 16


def scanner(name: str, outcome: Outcome = Outcome.PASS, *, sample: bool = False) -> ScanReport:
    return ScanReport(name, FindingKind.VULNERABILITY, outcome, 80, NOW, f"{name} data", "", sample=sample)


def finding(**says: Severity) -> Finding:
    return Finding(
        FindingKind.VULNERABILITY, "CVE-2026-1", "openssl", "3.5.1", "3.5.2", Severity.HIGH, tuple(says.items())
    )


def image(name: str = "web", **more: Any) -> ImageReport:
    """An image that is published and allowed."""
    made = ImageReport(
        name=name, content=DIGEST, built_at=NOW, packages=80, release=DIGEST, status="current", published_at=NOW - DAY,
        warn_at=NOW + 22 * DAY, expires_at=NOW + 29 * DAY, policy="default", judged_at=NOW, allowed=True, reasons=(),
        scanners=(scanner("trivy"), scanner("debsecan")), findings=(), running=("shop/web-1",),
    )  # fmt: skip
    return made.model_copy(update=more)


def report(*images: ImageReport, **more: Any) -> ReportOutput:
    empty: dict[str, Any] = dict.fromkeys(
        ("members", "rollouts", "waivers_active", "waivers_expired", "policies_to_review", "audit"), ()
    )
    return ReportOutput(made_at=NOW, images=images, **empty | more)


class Page(HTMLParser):
    """A page as a browser sees it: its elements, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(text: str) -> ReportOutput:
    """A report in which `text` stands wherever text can stand."""
    reason = Reason(text, text, Enforcement.ENFORCE, text, text, text, text)
    scan = replace(scanner(text, Outcome.ERROR, sample=True), reason=text, data_source=text)
    found = replace(finding(), id=text, package=text, installed=text, fixed=text, scanners=((text, Severity.LOW),))
    waiver = Waiver.model_construct(
        id=text, controls=(), vulnerabilities=("CVE-2026-0001",), packages=(text,), subjects=(text,),
        reason=text, owner=text,
        approver=f"{text}!",
        created=NOW.date(), expires=(NOW + DAY).date(),
    )  # fmt: skip
    line = NightlyLine(kind=text, name=text, status=text, detail=text, seconds=1)
    night = NightlyOutput(
        started_at=NOW,
        ended_at=NOW,
        built=(),
        published=(),
        promoted=(),
        lines=(line,),
        summary=text,
        exit_code=3,
        report=text,
    )
    rollout = RolloutReport(
        id=text, fleet=text, replacement=text, back=False, started_at=NOW, ended_at=NOW, open=False, owner=text,
        failure=text, steps=(StepReport(member=text, outcome=text, note=text),),
    )  # fmt: skip
    own = image(
        text, allowed=False, policy=text, reasons=(reason,), scanners=(scan,), findings=(found,), running=(text,)
    )
    return report(
        own,
        members=(MemberReport(member=text, digest=text, image=text, status=text, newest=False),),
        rollouts=(rollout,),
        waivers_active=(waiver,),
        waivers_expired=(waiver,),
        policies_to_review=(text,),
        audit=(AuditReport(at=NOW, actor=text, action=text, subject=text, detail=text),),
        night=night,
    )


def test_hostile_text_stays_text() -> None:
    """Reasons, names, findings, notes, audit: markup in them is shown, and never becomes any."""
    page, harmless = Page(render_html(everything(HOSTILE))), Page(render_html(everything("x")))
    assert page.elements == harmless.elements
    assert page.attributes == harmless.attributes
    assert page.text.count(HOSTILE) >= 30


def test_the_page_needs_nothing_else() -> None:
    """No script, and nothing is fetched: it can be mailed, and opened years later."""
    html = render_html(everything("x"))
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "href", "srcset", "data"} & page.attributes
    assert "url(" not in html
    assert "@import" not in html


def test_digests_are_short_everywhere() -> None:
    """People know a digest by its first twelve digits."""
    assert short(f"golden/web@{DIGEST} expires") == "golden/web@ab12ab12ab12 expires"
    full = everything(DIGEST)
    html = render_html(report(image(), audit=full.audit, rollouts=full.rollouts, members=full.members))
    audit, rollouts = html[html.index("What was done") :], html[html.index("Rollouts") :]
    assert audit.count("ab12ab12ab12<") >= 2
    assert f"to {'ab12' * 3}," in rollouts
    assert f"<code>{'ab12' * 3}</code>" in html


def test_the_image_table_tells_status_dates_and_who_runs_it() -> None:
    """And that nobody is known to, where nobody is."""
    text = Page(render_html(report(image(), image("base", running=())))).text
    for word in ("web", "current", "by default", "2026-11-24", "2026-12-24", "shop/web-1", "nobody yet"):
        assert word in text


def test_scanners_that_disagree_are_seen() -> None:
    """Another severity is a disagreement, and so is the silence of one that looked; who could not look has none."""
    agreed = finding(trivy=Severity.HIGH, debsecan=Severity.HIGH)
    worse = finding(trivy=Severity.HIGH, debsecan=Severity.LOW)
    alone = finding(trivy=Severity.HIGH)
    both = image()
    one = image(scanners=(scanner("trivy"), scanner("debsecan", Outcome.NOT_EVALUATED)))
    assert not disputed(agreed, both)
    assert disputed(worse, both)
    assert opinions(alone, both) == [("debsecan", "silent"), ("trivy", "high")]
    assert disputed(alone, both)
    assert not disputed(alone, one)
    text = Page(render_html(report(image(findings=(agreed, worse, alone))))).text
    assert "scanners disagree on 2" in text
    assert "debsecan: silent, trivy: high" in text


@pytest.mark.parametrize("sample", [True, False])
def test_a_sample_is_called_a_sample(sample: bool) -> None:
    """What was judged by the data that ships is not known to be good, and the page says so."""
    text = Page(render_html(report(image(scanners=(scanner("debsecan", sample=sample),))))).text
    assert ("judged by a sample" in text) == ("not known to be good" in text) == sample


@pytest.mark.parametrize("status", ["current", "warn", "expired", "revoked", "unknown"])
def test_members_that_must_not_run_on_are_counted_in_red(status: str) -> None:
    """What the ledger knows for certain; a newer release alone is for the fleet's policy to say."""
    member = MemberReport(member="shop/web-1", digest=DIGEST, image="web", status=status, newest=False)
    many, tone = (0, "") if status in ("current", "warn") else (1, "bad")
    tile = f'<b class="{tone}">{many}</b>members expired, revoked or unknown'
    assert tile in render_html(report(image(), members=(member,)))


def test_an_empty_report_says_what_to_type() -> None:
    """Where nothing has happened yet."""
    text = Page(render_html(report())).text
    assert "./goldsmith image.publish all" in text
    assert "./goldsmith fleet.check FLEET" in text


def test_the_time_line_is_clipped_at_its_ends() -> None:
    """Today is its middle; what lies outside stands at its end."""
    assert [position(NOW + days * DAY, NOW, 60) for days in (-99, -30, 0, 15, 99)] == [0, 0, 50, 75, 100]


def test_the_report_tells_what_the_ledger_knows(tmp_path: Path) -> None:
    """Artifact, release, verdict, scan, who runs what, rollouts, and the audit with the newest first."""
    context = Context(Settings(state=tmp_path), NOW, lambda: "", lambda: "")
    ledger = context.ledger
    artifact = replace(built(context.store, "debian-base"), packages=PACKAGES)
    old = release(1, name="debian-base", content="sha256:" + "1" * 64)
    new = release(2, name="debian-base", content=artifact.digest, expires_at=NOW + DAY, warn_at=NOW - DAY)
    ledger.record_artifact(artifact)
    ledger.record_release(old)
    ledger.record_release(new)
    ledger.record_verdict(artifact.digest, Verdict("debian-base", "demo", NOW, True, ()))
    ledger.record_scan(artifact.digest, ScanRecord((scanner("debsecan", sample=True),), (finding(),)), NOW)
    ledger.seen_fleet("shop", {"new": artifact.digest, "old": old.content, "odd": "sha256:" + "3" * 64}, NOW)
    ledger.audit(NOW - DAY, "ann", "publish", "debian-base")
    ledger.audit(NOW, "ann", "roll", "shop")
    found = gather(context)
    base = next(line for line in found.images if line.name == "debian-base")
    assert (base.status, base.release, base.packages, base.policy) == ("warn", new.digest, 2, "demo")
    assert (base.allowed, base.running, len(base.findings)) == (True, ("shop/new",), 1)
    assert [(m.member, m.image, m.status, m.newest) for m in found.members] == [
        ("shop/new", "debian-base", "warn", True),
        ("shop/odd", "", "unknown", False),
        ("shop/old", "debian-base", "expired", False),
    ]
    assert [line.action for line in found.audit] == ["roll", "publish"]
    assert next(line for line in found.images if line.name == "python-runtime").status == "unpublished"
    path = write_report(context)
    assert path == tmp_path / "reports/report-20261125-120000.html"
    assert "a newer one is out" in path.read_text()


def test_rollouts_are_read_from_what_was_saved(tmp_path: Path) -> None:
    """Members with outcome and note, begin and end, and why it failed."""
    fleets = tmp_path / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    (fleets / "shop.toml").write_text(
        'title = "t"\nowner = "o"\nkind = "docker"\nselector = { a = "b" }\nreplacement = { tag = "r/app:1" }\n'
    )
    context = Context(Settings(state=tmp_path, content=(tmp_path / "content",)), NOW, lambda: "", lambda: "")
    planned = plan(fleet(), [judged("web-1", "expired")], target(expires_at=NOW + timedelta(days=60)), NOW)
    member = MemberState(planned.steps[0].member.id, "web-1", Phase.OLD, failure="not healthy")
    state = RolloutState("shop-1", "shop", "r", NOW, 1, RolloutStage.ENDED, failure="web-1 failed", ended_at=NOW + DAY)
    context.ledger.begin_rollout("shop-1", "shop", "here:1", to_json(Order("shop-1", planned, fleet().limits)), NOW)
    context.ledger.save_member("shop-1", member.id, to_json(member))
    context.ledger.save_rollout("shop-1", to_json(state), NOW, is_open=False)
    (rollout,) = gather(context).rollouts
    assert (rollout.fleet, rollout.failure, rollout.ended_at, rollout.open) == (
        "shop",
        "web-1 failed",
        NOW + DAY,
        False,
    )
    assert rollout.steps == (StepReport(member="web-1", outcome="as it was", note="not healthy"),)
    text = Page(render_html(gather(context))).text
    for word in ("failed", "as it was", "not healthy", "86400 s", "here:1"):
        assert word in text
    assert "back" not in text[text.index("Rollouts") :]


def test_a_way_back_is_no_rollout_to_what_it_comes_from() -> None:
    """It is titled as what it is, and being as it was is what it is for."""
    steps = (StepReport(member="web-1", outcome="as it was", note=""),)
    made = everything("x").rollouts[0].model_copy(update={"fleet": "shop", "steps": steps})
    there, back = (render_html(report(rollouts=(made.model_copy(update={"back": way}),))) for way in (False, True))
    assert "shop brought back, 2026" in back
    assert "back from x, by" in back
    assert '<span class="badge good">as it was' in back
    assert '<span class="badge warn">as it was' in there
    assert "brought back" not in there
