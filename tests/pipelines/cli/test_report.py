"""The report: one page that needs nothing else, whatever stands in it, and that hides no disagreement."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.settings import MOVED, ROOT, Settings
from hardening.foundation.text import short_digests
from hardening.model import Enforcement, Severity, Waiver
from images.context import Context
from images.documents import to_json
from images.ledger import FleetCheck, Move, ScanRecord
from pipelines.cli.page import render_html
from pipelines.cli.report import gather, write_report
from pipelines.cli.report_output import (
    ActionReport,
    EndingReport,
    FleetReport,
    ImageReport,
    MemberReport,
    ReportOutput,
    RolloutReport,
    StepReport,
    changes_of,
    disputed,
    findings_of,
    opinions,
    reasons_of,
)
from pipelines.contract import AuditReport, NightlyLine, NightlyOutput
from pipelines.fleet.violations import CheckedMember, verdict_of
from pipelines.rollout.plan import plan
from pipelines.rollout.state import MemberState, Order, Phase, RolloutStage, RolloutState
from tests.support.fleets import fleet, judged, release, target
from tests.support.publishing import PACKAGES, built
from tests.support.watched import FILE, watched

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
    made = {"findings": findings_of(images), "reasons": reasons_of(images)}
    return ReportOutput(made_at=NOW, images=images, **empty | made | more)


class Page(HTMLParser):
    """A page as a browser shows it: its elements, their attributes, and its text, which no script or style is."""

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
        self.text += "" if self.elements[-1:] in (["script"], ["style"]) else data


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
        members=(MemberReport(member=text, digest=text, image=text, status=text, newest=False, state=text),),
        fleets=(FleetReport(name=text.partition("/")[0], owner=text, checked_at=None, said=text, reasons=()),),
        actions=(ActionReport(owner=text, what=text, todo=text),),
        ending=(EndingReport(at=NOW, what=text, owner=text),),
        since=NOW,
        changes=(text,),
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
    """Its script stands within, and nothing is fetched: it can be mailed, and opened years later."""
    html = render_html(everything("x"))
    page = Page(html)
    assert not {"link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "srcset", "data", "style"} & page.attributes
    assert html.count("href=") == html.count('href="#') > 0, "what it leads to is on it"
    assert "url(" not in html
    assert "@import" not in html


def test_digests_are_short_everywhere() -> None:
    """People know a digest by its first twelve digits."""
    assert short_digests(f"golden/web@{DIGEST} expires") == "golden/web@ab12ab12ab12 expires"
    full = everything(DIGEST)
    html = render_html(report(image(), audit=full.audit, rollouts=full.rollouts, members=full.members))
    audit, rollouts = html[html.index("What was done") :], html[html.index("Rollouts") :]
    assert audit.count("ab12ab12ab12<") >= 2
    assert f"to {'ab12' * 3}," in rollouts
    assert f"<code>{'ab12' * 3}</code>" in html


def test_the_image_table_tells_status_dates_and_who_runs_it() -> None:
    """And that nobody is known to, where nobody is."""
    text = Page(render_html(report(image(), image("base", running=())))).text
    for word in ("web", "current", "by default", "2026-11-24", "2026-12-24", "shop/web-1", "no member"):
        assert word in text


def member(name: str = "shop/web-1", **more: Any) -> MemberReport:
    """A member that is within policy."""
    found = {"state": "within policy", "judged_at": NOW, "image": "web", "newest": True, **more}
    return MemberReport(member=name, digest=DIGEST, status="current", **found)


def test_a_candidate_stands_beside_stable_and_says_where_it_is_not_healthy() -> None:
    """What crashes is not the release."""
    other = "sha256:" + "cd34" * 16
    tried = image(candidate=other, stable=DIGEST, ill=("test/web-1",))
    text = " ".join(Page(render_html(report(tried))).text.split())
    assert "cd34cd34cd34 not healthy test/web-1" in text
    assert "the same" in Page(render_html(report(image(candidate=DIGEST, stable=DIGEST)))).text
    nothing = image(candidate=other, release="", status="candidate", published_at=None, expires_at=None)
    page = render_html(report(nothing))
    assert "nothing promoted" in page
    assert "0/1</b>images released" in page


def test_members_on_an_older_release_are_counted_beside_those_on_the_newest() -> None:
    """So that no page says both of one member."""
    on = (member(), member("shop/web-2", newest=False, superseded=True))
    text = " ".join(Page(render_html(report(image(running=("shop/web-1",)), members=on))).text.split())
    assert "shop/web-1 and 1 on an older one" in text
    assert text.count("a newer one is out") == 1


def test_what_a_base_brings_in_is_one_row_with_all_images_that_have_it() -> None:
    """A hole in the base of five is one thing to mend, in the base; the same in another base is another."""
    found = finding(trivy=Severity.HIGH)
    hole = Reason(
        "CVE-2026-1", "base", Enforcement.ENFORCE, "CVE-2026-1 in openssl", "why", "rebuild (`image.build base`)"
    )  # fmt: skip
    names = ("base", "a", "b", "c", "alone")
    images = [
        image(
            name, base="base" if name in "abc" else "", findings=(found,), allowed=False,
            reasons=(replace(hole, subject=name, todo=hole.todo.replace("base", name)),),
        )
        for name in names
    ]  # fmt: skip
    assert {(row.brought_by, row.images) for row in findings_of(images)} == {
        ("base", ("base", "a", "b", "c")), ("alone", ("alone",)),
    }  # fmt: skip
    of_base, alone = sorted(reasons_of(images), key=lambda one: one.brought_by, reverse=True)
    assert (of_base.subjects, of_base.todo) == (("base", "a", "b", "c"), hole.todo)
    assert alone.subjects == ("alone",)
    page = render_html(report(*images))
    assert page.count("<b>CVE-2026-1</b>:") == page.count("<tr><td><b>CVE-2026-1</b></td>") == 2


def test_what_changed_since_the_last_report_is_told() -> None:
    """Images, findings and members; nothing where nothing did."""
    before = report(image(), members=(member(),))
    now = report(
        image(allowed=False, findings=(finding(trivy=Severity.HIGH),)),
        members=(member(state="out of policy", rules=("expired",)), member("shop/web-2")),
    )
    assert changes_of(before, before) == ()
    assert changes_of(before, now) == (
        "web: current ab12ab12ab12, allowed → current ab12ab12ab12, refused",
        "1 finding(s) new: CVE-2026-1 in openssl (web)",
        "shop/web-1: within policy → expired",
        "shop/web-2: not there → within policy",
    )
    assert "1 finding(s) gone: CVE-2026-1 in openssl (web)" in changes_of(now, before)


def test_a_waiver_that_begins_ends_or_is_gone_has_changed_something() -> None:
    """Who reads "Nothing" after a waiver was added does not know what is accepted now."""
    given = {"controls": ("no-setuid",), "subjects": ("web",), "reason": "r", "owner": "o", "approver": "a"}
    ping, gone, new = (
        Waiver.model_validate({**given, "id": name, "created": date(2026, 1, 1), "expires": date(2026, 2, day)})
        for name, day in (("ping", 1), ("gone", 2), ("new", 3))
    )
    before = report(image(), waivers_active=(ping, gone))
    assert changes_of(before, report(image(), waivers_active=(new,), waivers_expired=(ping,))) == (
        "waiver gone: holds until 2026-02-02 → gone",
        "waiver new: not there → holds until 2026-02-03",
        "waiver ping: holds until 2026-02-01 → ended on 2026-02-01",
    )


def test_no_finding_is_gone_by_another_origin_or_for_want_of_a_scan() -> None:
    """A base was scanned and has it too, so that it brings it in; or the image was built again and not scanned yet."""
    hole = (finding(trivy=Severity.HIGH),)
    before = report(image("base"), image(base="base", findings=hole))
    by_base = report(image("base", findings=hole), image(base="base", findings=hole))
    assert changes_of(before, by_base) == ("1 finding(s) new: CVE-2026-1 in openssl (base)",)
    assert changes_of(before, report(image("base"), image(base="base", scanners=()))) == ()
    gone = "1 finding(s) gone: CVE-2026-1 in openssl (web)"
    assert changes_of(before, report(image("base"), image(base="base"))) == (gone,)
    assert changes_of(before, report(image("base"))) == ("web: current ab12ab12ab12, allowed → gone", gone)


def test_scanners_that_disagree_are_seen() -> None:
    """Another severity is a disagreement, and so is the silence of one that looked; who could not look has none."""
    agreed = replace(finding(trivy=Severity.HIGH, debsecan=Severity.HIGH), id="CVE-2026-2")
    worse = replace(finding(trivy=Severity.HIGH, debsecan=Severity.LOW), id="CVE-2026-3")
    alone = finding(trivy=Severity.HIGH)
    both = image()
    one = image(scanners=(scanner("trivy"), scanner("debsecan", Outcome.NOT_EVALUATED)))
    assert not disputed(opinions(agreed, both))
    assert disputed(opinions(worse, both))
    assert opinions(alone, both) == [("debsecan", "silent"), ("trivy", "high")]
    assert disputed(opinions(alone, both))
    assert not disputed(opinions(alone, one))
    text = Page(render_html(report(image(findings=(agreed, worse, alone))))).text
    assert "scanners disagree on 2" in text
    assert "debsecan: silent, trivy: high" in text


@pytest.mark.parametrize("sample", [True, False])
def test_a_sample_is_called_a_sample(sample: bool) -> None:
    """What was judged by the data that ships is not known to be good, and the page says so."""
    text = Page(render_html(report(image(scanners=(scanner("debsecan", sample=sample),))))).text
    assert ("judged by a sample" in text) == ("not known to be good" in text) == sample


@pytest.mark.parametrize("state", ["within policy", "out of policy", "unread", "not judged"])
def test_members_out_of_policy_are_counted_in_red(state: str) -> None:
    """What could not be read is not within it."""
    many = int(state in ("out of policy", "unread"))
    page = render_html(report(image(), members=(member(state=state),)))
    assert f'<b class="{"bad" if many else "good"}">{many}</b>{"member" if many else "members"} out of policy' in page
    assert "<b>1</b>member running" in page


def test_an_empty_report_says_what_to_type() -> None:
    """Where nothing has happened yet."""
    text = Page(render_html(report())).text
    assert "./goldsmith image.publish all" in text
    assert "./goldsmith fleet.check FLEET" in text


def test_the_report_tells_what_the_ledger_knows(tmp_path: Path) -> None:
    """Artifact, release, verdict, scan, who runs what, rollouts, and the audit with the newest first."""
    files = tmp_path / "content/pipelines/fleets"
    files.mkdir(parents=True)
    for name in ("shop", "never"):
        (files / f"{name}.toml").write_text(FILE.format(name=name, owner="o"))
    context = Context(Settings(state=tmp_path, content=(tmp_path / "content",)), NOW, lambda: "", lambda: "")
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
    ledger.seen_fleet("never", {"a": old.content}, NOW)
    verdicts = {
        "new": verdict_of(judged("new")), "old": verdict_of(judged("old", "expired", "superseded")),
        "odd": verdict_of(judged("odd", "unknown")),
    }  # fmt: skip
    kept = [
        CheckedMember("new", "i", "debian-base", new.digest, new.content, verdicts["new"], ()),
        CheckedMember("odd", "i", "", "", "sha256:" + "3" * 64, verdicts["odd"], ()),
        CheckedMember("old", "i", "debian-base", old.digest, old.content, verdicts["old"], ()),
    ]
    ledger.record_check(FleetCheck("shop", NOW, to_json(tuple(kept))))
    ledger.audit(NOW - DAY, "ann", "publish", "debian-base")
    ledger.audit(NOW, "ann", "roll", "shop")
    found = gather(context)
    base = next(line for line in found.images if line.name == "debian-base")
    assert (base.status, base.release, base.packages, base.policy) == ("warn", new.digest, 2, "demo")
    assert (base.allowed, base.running, len(base.findings)) == (True, ("shop/new",), 1)
    assert [(m.member, m.image, m.status, m.newest, m.state, m.rules) for m in found.members] == [
        ("never/a", "debian-base", "expired", False, "not judged", ()),
        ("shop/new", "debian-base", "warn", True, "within policy", ()),
        ("shop/odd", "", "unknown", False, "out of policy", ("unknown",)),
        ("shop/old", "debian-base", "expired", False, "out of policy", ("expired", "superseded")),
    ]
    assert [line.action for line in found.audit] == ["roll", "publish"]
    assert next(line for line in found.images if line.name == "python-runtime").status == "unpublished"
    path = write_report(context)
    assert path == tmp_path / "reports/report-20261125-120000.html"
    assert ">expired, superseded</span>" in path.read_text()
    assert gather(context).changes == (), "it has just been written"
    ledger.record_move(Move(new.repository, "candidate", new.digest, NOW, ""))
    assert (release_of(context).release, release_of(context).status) == ("", "candidate")
    ledger.record_move(Move(new.repository, "stable", old.digest, NOW, ""))
    assert (release_of(context).release, release_of(context).candidate) == (old.digest, new.digest)
    assert "debian-base: warn" in gather(context).changes[0]


def release_of(context: Context) -> ImageReport:
    """The image that has releases."""
    return next(line for line in gather(context).images if line.name == "debian-base")


def test_a_look_at_a_day_to_come_is_not_what_the_next_report_is_compared_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a moved clock only the page is written."""
    context = Context(Settings(state=tmp_path, kinds=("container",)), NOW, lambda: "", lambda: "")
    write_report(context)
    with monkeypatch.context() as moved:
        moved.setenv(MOVED, "2027-12-31T12:00Z")
        assert write_report(context.moved(NOW + 401 * DAY)).exists()
    assert gather(context).since == NOW


def test_only_the_kinds_that_are_set_are_shown(tmp_path: Path) -> None:
    """Who builds no machines is not told that none is published."""
    settings = Settings(state=tmp_path, kinds=("container",))
    names = {image.name for image in gather(Context(settings, NOW, lambda: "", lambda: "")).images}
    assert "debian-base" in names
    assert "debian-server" not in names


def test_what_ends_soon_and_who_must_act_have_their_owners(tmp_path: Path) -> None:
    """A release at its end is its image's owner's."""
    context = Context(Settings(state=tmp_path), NOW, lambda: "", lambda: "")
    for days, said in ((3, "ends"), (-1, "acts"), (40, "")):
        ends = release(2, name="debian-base", expires_at=NOW + days * DAY, warn_at=NOW - DAY)
        context.ledger.record_release(ends)
        found = gather(context)
        ending = [(one.what, one.owner) for one in found.ending if "debian-base" in one.what]
        actions = [(one.what, one.owner) for one in found.actions if "debian-base" in one.what]
        owner = context.definitions["debian-base"].definition.owner
        assert ending == ([("the release of debian-base", owner)] if said == "ends" else [])
        assert actions == ([("debian-base is expired", owner)] if said == "acts" else [])


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
    assert "shop rolled back, 2026" in back
    assert "back from x, by" in back
    assert '<span class="badge good">as it was' in back
    assert '<span class="badge warn">as it was' in there
    assert "rolled back" not in there


def test_rollouts_of_years_are_told_by_the_newest_of_each_fleet_and_what_is_under_way(tmp_path: Path) -> None:
    """The page and its data would else grow by each of them, with all its members."""
    context = watched(tmp_path, 4)
    planned = plan(fleet(), [judged("web-1", "expired")], target(expires_at=NOW + 60 * DAY), NOW)
    for number in range(9):
        begun, rollout = NOW - (500 - number) * DAY, f"old-{number}"
        written = to_json(Order(rollout, planned, fleet().limits))
        context.ledger.begin_rollout(rollout, "shop", "here:1", written, begun)
        state = RolloutState(rollout, "shop", "r", begun, 1, RolloutStage.ENDED, ended_at=begun)
        context.ledger.save_rollout(rollout, to_json(state), begun, is_open=number == 1)
    told = [one.id for one in gather(context).rollouts if one.fleet == "shop"]
    assert told[1:] == ["old-8", "old-7", "old-6", "old-5", "old-4", "old-1"]
    assert len(told) == 7, "with that of the ledger in which fleets have run for weeks"


def test_what_was_done_is_told_behind_the_steps_of_a_great_rollout(tmp_path: Path) -> None:
    """Each member of it has some lines of its own."""
    context = Context(Settings(state=tmp_path), NOW, lambda: "", lambda: "")
    context.ledger.audit(NOW - DAY, "ann", "publish", "debian-base")
    for number in range(1001):
        context.ledger.audit(NOW, "ann", "step: replace", "shop-1", str(number))
    assert [one.action for one in gather(context).audit] == ["publish"]


def test_the_page_says_where_content_is_newer_than_the_verdicts(tmp_path: Path) -> None:
    """Such as after a waiver: until it is judged again, the page shows what was said before. A removal counts too.

    That a fleet was checked says nothing of an image of its name, as `adopt --definition` drafts both.
    """
    root = tmp_path / "content"
    context = watched(tmp_path, 4)
    for part in ("hardening/controls", "hardening/policies", "hardening/profiles", "images/definitions"):
        shutil.copytree(ROOT / part, root / part)
    (root / "hardening/waivers").mkdir()
    context = replace(context, settings=context.settings.over((root,)))
    verdict, check = NOW - 7 * DAY, NOW - timedelta(hours=3)
    fleets = root / "pipelines/fleets"
    (fleets / "debian-base.toml").write_text((fleets / "shop.toml").read_text())
    context.ledger.record_check(FleetCheck("debian-base", check, to_json(())))
    for at, names in (
        (verdict - timedelta(seconds=1), ()),
        (check - DAY, ("debian-base",)),
        (check + DAY, ("debian-base", "shop", "warehouse")),
    ):  # fmt: skip
        for path in root.rglob("*"):
            os.utime(path, (verdict.timestamp() - 1, verdict.timestamp() - 1))
        os.utime(root / "hardening/waivers", (at.timestamp(), at.timestamp()))
        report = gather(context)
        assert (report.judged_before, report.content_changed_at) == (names, at if names else None)
        text = render_html(report)
        assert ("content is newer" in text) is bool(names)
    assert "2026-11-26 09:00 UTC, after the last verdict on debian-base, shop, warehouse" in text
    os.utime(root / "hardening/waivers", (verdict.timestamp() - 1, verdict.timestamp() - 1))
    os.utime(root / "pipelines/fleets/shop.toml")
    assert gather(context).judged_before == ("shop",), "a fleet's file is of that fleet alone"


@pytest.mark.parametrize("alone", [False, True])
def test_evidence_names_the_sample_only_where_nothing_else_judged(tmp_path: Path, alone: bool) -> None:
    """As where `feeds.debsecan` is off, and the matcher judged by the tracker's data."""
    context = watched(tmp_path, 4)
    newest = context.ledger.releases()[0]
    scan = ScanRecord((scanner("debsecan", sample=True), scanner("matcher", sample=alone)), ())
    context.ledger.record_scan(newest.content, scan, context.now, newest.name)
    [evidence] = (one.evidence for one in gather(context).releases if one.digest == newest.digest)
    [line] = (one for one in evidence if "finding(s) by" in one)
    assert ("vulnerabilities by a sample" in line) is alone


@pytest.mark.parametrize(
    "part", ["controls/no-setuid/check.sh", "functions/files.sh", "policies/default.toml", "profiles/cis-level1.toml",
             "waivers/README.md"],
)  # fmt: skip
def test_each_part_that_verdicts_depend_on_makes_them_older_than_content(tmp_path: Path, part: str) -> None:
    """By a file that was edited in it, which leaves the time of its folder as it was."""
    root = tmp_path / "content"
    context = watched(tmp_path, 4)
    for name in ("hardening", "images/definitions"):
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True)
    context = replace(context, settings=context.settings.over((root,)))
    for path in (*root.rglob("*"), root):
        os.utime(path, (0, 0))
    assert gather(context).judged_before == ()
    os.utime(root / "hardening" / part)
    assert gather(context).judged_before == ("debian-base", "shop", "warehouse")


def test_a_fleet_whose_file_is_gone_is_counted_and_shown_no_more(tmp_path: Path) -> None:
    """At once; the page names it for a week, since another checkout may share the database."""
    context = watched(tmp_path, 4)
    context = replace(context, now=NOW + 3 * DAY)
    before = gather(context)
    assert {one.fleet for one in before.members} == {"shop", "warehouse"}
    context.ledger.seen_fleet("other", {"a": DIGEST}, NOW)
    (tmp_path / "content/pipelines/fleets/warehouse.toml").unlink()
    after = gather(context)
    assert {one.fleet for one in after.members} == {"shop"}
    assert not {point.name for point in after.open_points} & {"warehouse", "other"}
    assert [line.members + line.others for line in before.history.days[-4:]] == [4, 4, 4, 4]
    assert [line.members + line.others for line in after.history.days[-4:]] == [2] * 4
    assert after.history.days[-5].members + after.history.days[-5].others == 4
    checked = "warehouse (checked 2026-11-25 09:00 UTC)"
    assert (after.without_file, f"no file here names it: {checked}" in render_html(after)) == ((checked,), True)
    changed = [line.partition(" → ")[2] for line in changes_of(before, after) if line.startswith("warehouse/")]
    assert changed == ["not counted, no file names its fleet"] * 2, "its members run still"
    assert gather(replace(context, now=NOW + 8 * DAY)).without_file == ()
