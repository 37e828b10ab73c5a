"""`latency`: what a real ledger tells of fixes, by image and fleet, against the policy's windows, and who acts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from hardening.findings import Finding, FindingKind
from hardening.foundation.errors import OutsideError, UsageError
from hardening.foundation.settings import Nightly, Settings
from hardening.gate import judge_image
from hardening.model import Severity, Waiver
from images import context as images_context
from images.artifact import Artifact, Release
from images.context import Context
from images.ledger import ClosedFix, FleetCheck, Ledger, MemberRun, Move, ScanRecord
from pipelines.cli import latency
from pipelines.cli.latency import NONE_YET, LatencyOutput, patch_latency, show_latency
from pipelines.cli.schemas import printed_schema
from tests.support.loop import Goldsmith

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
IMAGE = "nginx-unprivileged"
OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
FLEET = """
title = "Of a test"
owner = "shop team"
kind = "docker"
selector = { app = "shop" }
replacement = { definition = "nginx-unprivileged" }
"""


def fix(number: int, severity: str = "high", ago: timedelta = 6 * DAY, **more: object) -> ClosedFix:
    """Closed by the newer release, which was published so long ago; the fix was known for half a day by then."""
    at = NOW - ago
    made = ClosedFix(
        f"CVE-2026-{number:04}", "openssl", IMAGE, NEW, "3.5.4-1", severity, exploited=False, epss=None,
        policy="default", upstream_at=at - DAY, seen_at=at - DAY / 2, built_at=at - HOUR, published_at=at,
    )  # fmt: skip
    return replace(made, **more)


def released(ledger: Ledger, content: str, ago: timedelta, *stable: timedelta) -> None:
    """A release over a content, and when `stable` was moved to it."""
    at, digest = NOW - ago, f"{content[:-1]}f"
    ledger.record_release(Release(IMAGE, f"r/{IMAGE}", digest, content, content, "p", "default", at, at, at + 30 * DAY))
    for moved in stable:
        ledger.record_move(Move(f"r/{IMAGE}", "stable", digest, NOW - moved, "promote"))


def ran(ledger: Ledger, member: str, content: str, ago: timedelta) -> None:
    ledger.record_run(MemberRun("shop", member, content, gone=False, told_by="check", at=NOW - ago))


@pytest.fixture
def context(tmp_path: Path, database: str) -> Iterator[Context]:
    """Two releases of an image, and a fleet of it, on both kinds of database; nothing was closed yet."""
    folder = tmp_path / "content/pipelines/fleets"
    folder.mkdir(parents=True)
    (folder / "shop.toml").write_text(FLEET)
    settings = Settings(state=tmp_path / "state", database=database, content=(tmp_path / "content",))
    made = Context(settings, NOW, str, str)
    (tmp_path / "state").mkdir(exist_ok=True)
    released(made.ledger, OLD, 20 * DAY, 20 * DAY)
    released(made.ledger, NEW, 6 * DAY)
    yield made
    made.ledger.close()


def by_name(found: LatencyOutput) -> dict[str, object]:
    return {line.name: line for line in found.lines}


def test_a_fix_is_followed_to_the_last_member(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """Table, JSON and metrics say the same; the window is the policy's and its grace for what runs; all fits a
    terminal.
    """
    ledger = context.ledger
    ledger.record_fixes([fix(1), fix(2, "medium"), fix(3, "low", exploited=True)])
    ledger.record_move(Move(f"r/{IMAGE}", "stable", f"{NEW[:-1]}f", NOW - 5 * DAY, "promote"))
    for member, ago in (("web-1", 4 * DAY), ("web-2", 2 * DAY)):
        ran(ledger, member, OLD, 15 * DAY)
        ran(ledger, member, NEW, ago)
    ran(ledger, "odd", "", 3 * DAY)
    found = patch_latency("", context)
    lines = by_name(found)
    image, shop = lines[IMAGE], lines["shop"]
    assert (image.fixes, image.published.median, image.promoted.longest) == (3, 86400, 2 * 86400)
    assert (image.in_time, image.judged) == (3, 3)
    assert (shop.fixes, shop.closed.longest, shop.open, shop.unknown) == (3, 5 * 86400, 0, ("odd",))
    assert (shop.in_time, shop.judged) == (1, 3)  # medium: a week and three days; the others three days
    Draft202012Validator(printed_schema("latency")).validate(json.loads(found.model_dump_json()))
    metrics = context.settings.state_dir / "patch.prom"
    assert show_latency(found, metrics=str(metrics), as_json=False) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert f"{IMAGE}  3      1d / 1d / 1d  2d / 2d / 2d  3 of 3" in said
    assert "shop   3      5d / 5d / 5d  1 of 3" in said
    assert "3 of 6" not in said
    families = {family.name: family for family in text_string_to_metric_families(metrics.read_text())}
    values = {
        tuple(value for _, value in sorted(one.labels.items())): one.value
        for one in families["goldsmith_patch_latency_seconds"].samples
    }
    assert values["fleet", "shop", "1", "closed"] == 5 * 86400
    assert [one.value for one in families["goldsmith_patch_unknown_members"].samples] == [0, 1]
    assert [path.name for path in metrics.parent.glob(".*")] == []


def test_what_is_open_is_named_with_its_age_and_who_acts(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """What is due first stands first: five of them, and how many there are."""
    ledger = context.ledger
    ledger.record_fixes([fix(number, "medium") for number in range(1, 6)])
    ran(ledger, "web-1", OLD, 15 * DAY)
    hole = Finding(
        FindingKind.VULNERABILITY, "CVE-2026-0100", "zlib1g", "1", "2", Severity.HIGH, (), exploited=True,
        fix_known_since=NOW - HOUR,
    )  # fmt: skip
    for content in (OLD, NEW):
        ledger.record_scan(content, ScanRecord((), (hole, replace(hole, id="CVE-2026-0101", fixed=""))), NOW)
    found = patch_latency("", context)
    assert {line.vulnerability for line in found.patches} == {f"CVE-2026-{n:04}" for n in (1, 2, 3, 4, 5, 100)}
    waits = {(line.kind, line.waits_for, line.acts, line.todo) for line in found.patches}
    assert waits == {
        ("image", "publication", "platform", f"./goldsmith image.publish {IMAGE}"),
        ("fleet", "publication", "platform", f"./goldsmith image.publish {IMAGE}"),
        ("image", "promotion", "platform", f"./goldsmith image.promote {IMAGE}"),
        ("fleet", "promotion", "platform", f"./goldsmith image.promote {IMAGE}"),
    }
    show_latency(found, as_json=False)
    said = capsys.readouterr().out
    assert "open: 6, of which the 5 that are due first" in said
    assert said.index("CVE-2026-0100 in zlib1g (high, exploited), 1h old, due 2026-11-28") < said.index("CVE-2026-0001")
    assert "    fleet shop (web-1); image nginx-unprivileged: waits for its promotion\n" in said
    assert "CVE-2026-0005" not in said
    ledger.record_move(Move(f"r/{IMAGE}", "stable", f"{NEW[:-1]}f", NOW, "promote"))
    later = patch_latency("", context.moved(NOW + DAY))
    [held] = {(one.acts, one.todo, one.left) for one in later.patches if one.waits_for == "rollout"}
    assert held == ("shop team", "./goldsmith roll.start shop", ("web-1",))


def test_the_window_of_what_is_open_is_that_of_the_nights_policy(context: Context) -> None:
    """Which judges the release that closes it: so a page by hand and `serve` show the day that the night's page has."""
    hole = Finding(
        FindingKind.VULNERABILITY, "CVE-2026-0100", "zlib1g", "1", "2", Severity.LOW, (), fix_known_since=NOW - HOUR
    )
    for content in (OLD, NEW):
        context.ledger.record_scan(content, ScanRecord((), (hole,)), NOW)

    def due() -> datetime:
        return next(one.due for one in patch_latency("", context).patches if one.kind == "image" and one.due)

    own = due()
    context.__dict__["settings"] = context.settings.model_copy(update={"nightly": Nightly(policy="demo")})
    assert due() < own
    context.__dict__["policy"] = "default"
    assert due() == own


def test_what_the_mirror_lacks_is_waited_for_as_the_scan_says(context: Context) -> None:
    """`image.publish` would answer that nothing changed, without a reason."""
    ledger = context.ledger
    there, lacking = (
        Finding(FindingKind.VULNERABILITY, id_, package, "1", "2", Severity.HIGH, (), fix_known_since=NOW - HOUR)
        for id_, package in (("CVE-2026-0100", "zlib1g"), ("CVE-2026-0101", "openssl"))
    )
    ledger.record_artifact(Artifact(IMAGE, "linux/amd64", NEW, NEW, {}, (), NOW, NOW))
    ledger.record_scan(NEW, ScanRecord((), (there, lacking)), NOW)
    verdict = judge_image(
        context.policies["default"], IMAGE, None, (), (there, lacking), (), NOW, offered={("zlib1g", "2")}
    )
    ledger.record_verdict(NEW, verdict)
    scan_says = next(reason.todo for reason in verdict.reasons if reason.rule == lacking.id)
    assert "or wait: the mirror's index lacks openssl 2 so far" in scan_says
    todos = {line.vulnerability: line.todo for line in patch_latency("", context).patches}
    assert todos == {there.id: f"./goldsmith image.publish {IMAGE}", lacking.id: scan_says}


def test_who_acts_is_by_what_the_fleet_follows(context: Context, tmp_path: Path) -> None:
    """One of `candidate` waits for no promotion; one of application images has to build its own on the newer base."""
    file = tmp_path / "content/pipelines/fleets/shop.toml"
    context.ledger.record_fixes([fix(1)])
    ran(context.ledger, "web-1", OLD, 15 * DAY)

    def held(replacement: str) -> tuple[str, str]:
        file.write_text(FLEET.replace(f'{{ definition = "{IMAGE}" }}', replacement))
        [line] = [one for one in patch_latency("", context).patches if one.kind == "fleet"]
        return line.waits_for, line.todo

    promotion = ("promotion", f"./goldsmith image.promote {IMAGE}")
    assert held(f'{{ definition = "{IMAGE}" }}') == promotion
    assert held(f'{{ definition = "{IMAGE}", channel = "candidate" }}') == ("rollout", "./goldsmith roll.start shop")
    assert held('{ tag = "r/app:1" }') == promotion
    context.ledger.record_move(Move(f"r/{IMAGE}", "stable", f"{NEW[:-1]}f", NOW - DAY, "promote"))
    assert held('{ tag = "r/app:1" }')[1] == f"build r/app:1 on the newest {IMAGE}, then ./goldsmith roll.start shop"


def test_since_leaves_out_what_was_closed_before(context: Context) -> None:
    """A span back, a day or a moment; what is neither is a usage error."""
    context.ledger.record_fixes([fix(1)])
    context.ledger.record_move(Move(f"r/{IMAGE}", "stable", f"{NEW[:-1]}f", NOW - 5 * DAY, "promote"))
    assert [len(patch_latency(text, context).patches) for text in ("6d", "2026-11-20", "4d", "2026-11-21")] == [
        1,
        1,
        0,
        0,
    ]
    for text in ("soon", "-3d", "9999999999999d"):
        with pytest.raises(UsageError, match="--since: invalid"):
            patch_latency(text, context)


def test_a_file_of_metrics_that_cannot_be_written_is_told(context: Context) -> None:
    """Exit code 4, with the path."""
    with pytest.raises(OutsideError, match=r"none/patch\.prom cannot be written: No such file"):
        show_latency(patch_latency("", context), metrics=f"{context.settings.state_dir}/none/patch.prom", as_json=True)


def test_on_a_state_in_which_nothing_happened_it_says_so(tmp_path: Path) -> None:
    """And nothing else; wrong words end with exit code 1."""
    inv = Goldsmith(tmp_path / "state", f"unix://{tmp_path}/no.sock")
    answer = inv.here("latency")
    assert (answer.code, answer.out.strip()) == (0, "")
    assert " ".join(answer.err.split()) == NONE_YET
    assert inv.here("latency", "--since", "yesterday").code == 1
    assert inv.here("latency", "--json").json["lines"] == []


def test_a_fleet_whose_file_is_gone_waits_for_no_fix(context: Context) -> None:
    """Nobody looks at it any more: its members would be late for ever, in each digest and alert."""
    ledger = context.ledger
    ledger.record_fixes([fix(1, ago=12 * DAY)])
    for fleet in ("shop", "removed"):
        ledger.record_run(MemberRun(fleet, "web-1", OLD, gone=False, told_by="check", at=NOW - 15 * DAY))
        ledger.record_run(MemberRun(fleet, "odd", "", gone=False, told_by="check", at=NOW - 15 * DAY))
        ledger.record_check(FleetCheck(fleet, NOW - 2 * DAY, []))
    lines = by_name(patch_latency("", context))
    assert (lines["shop"].open, lines["shop"].unknown) == (1, ("odd",))
    assert "removed" not in lines, "nor has its member closed it, which still ran the old content when last looked at"
    ledger.record_run(MemberRun("removed", "web-1", NEW, gone=False, told_by="check", at=NOW - 3 * DAY))
    lines = by_name(patch_latency("", context))
    assert (lines["removed"].open, lines["removed"].unknown) == (0, ())
    assert lines["removed"].closed.longest == lines["shop"].oldest_seconds - 3 * 86400
    assert "removed" not in by_name(patch_latency("1d", context))


@pytest.mark.parametrize(
    ("versions", "installed", "waived"), [((), "1", True), (("1",), "1", True), (("1",), "3", False)]
)
def test_a_waived_fix_is_in_no_count(
    context: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, versions: tuple[str, ...],
    installed: str, waived: bool,
) -> None:  # fmt: skip
    """Of the image and of the fleet that runs it, as long as the waiver covers what each has."""
    waiver = Waiver(
        id="zlib", vulnerabilities=("CVE-2026-0100",), packages=("zlib1g",), versions=versions, subjects=(IMAGE,),
        reason="not reached", owner="web", approver="security", created=date(2026, 11, 1), expires=date(2026, 12, 9),
    )  # fmt: skip
    monkeypatch.setattr(latency, "load_waivers", lambda _: (waiver,))
    hole = Finding(
        FindingKind.VULNERABILITY, "CVE-2026-0100", "zlib1g", "1", "2", Severity.HIGH, (), exploited=True,
        fix_known_since=NOW - HOUR,
    )  # fmt: skip
    context.ledger.record_scan(NEW, ScanRecord((), (hole,)), NOW)
    context.ledger.record_scan(OLD, ScanRecord((), (replace(hole, installed=installed),)), NOW)
    ran(context.ledger, "web-1", OLD, 15 * DAY)
    context.ledger.record_move(Move(f"r/{IMAGE}", "stable", f"{NEW[:-1]}f", NOW - 5 * DAY, "promote"))
    found = patch_latency("", context)
    cited = "zlib until 2026-12-09: not reached"
    assert {line.kind: line.waived_by for line in found.patches} == {"image": cited, "fleet": cited if waived else ""}
    lines = by_name(found)
    assert (IMAGE in lines, lines["shop"].open if "shop" in lines else 0) == (False, 0 if waived else 1)
    show_latency(found, as_json=False)
    out = capsys.readouterr().out
    assert "waived, so not counted: 1 (./goldsmith waiver.list)" in out
    assert ("open: 1" in out) is not waived
    later = patch_latency("", moved := context.moved(NOW + 20 * DAY))
    assert {line.waived_by for line in later.patches} == {""}, "it counts again once the waiver has ended"
    moved.ledger.close()


def test_a_waiver_of_the_newest_version_alone_waives_nothing_of_an_image(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stable` has another version, which the waiver does not cover."""
    waiver = Waiver(
        id="zlib", vulnerabilities=("CVE-2026-0100",), packages=("zlib1g",), versions=("1",), subjects=(IMAGE,),
        reason="not reached", owner="web", approver="security", created=date(2026, 11, 1), expires=date(2026, 12, 9),
    )  # fmt: skip
    monkeypatch.setattr(latency, "load_waivers", lambda _: (waiver,))
    hole = Finding(FindingKind.VULNERABILITY, "CVE-2026-0100", "zlib1g", "1", "2", Severity.HIGH, (), exploited=True)
    for installed in ("1", "0.9"):
        context.ledger.record_scan(NEW, ScanRecord((), (hole,)), NOW)
        context.ledger.record_scan(OLD, ScanRecord((), (replace(hole, installed=installed),)), NOW)
        [line] = [line for line in patch_latency("", context).patches if line.kind == "image"]
        assert bool(line.waived_by) is (installed == "1"), installed


@pytest.mark.parametrize(("runs", "scanned"), [(OLD, True), (OLD, False), ("sha256:" + "9" * 64, True)])
def test_no_waiver_covers_a_member_of_which_nobody_knows_what_it_runs(
    context: Context, monkeypatch: pytest.MonkeyPatch, runs: str, scanned: bool
) -> None:
    """Also not one without versions: whether it has what was accepted is unknown."""
    waiver = Waiver(
        id="openssl", vulnerabilities=("CVE-2026-0001",), packages=("openssl",), subjects=(IMAGE,),
        reason="not reached", owner="web", approver="security", created=date(2026, 11, 1), expires=date(2026, 12, 9),
    )  # fmt: skip
    monkeypatch.setattr(latency, "load_waivers", lambda _: (waiver,))
    hole = Finding(FindingKind.VULNERABILITY, "CVE-2026-0001", "openssl", "3.5.1-1", "3.5.4-1", Severity.HIGH, ())
    if scanned:
        context.ledger.record_scan(OLD, ScanRecord((), (hole,)), NOW)
    context.ledger.record_fixes([fix(1, ago=5 * DAY)])
    ran(context.ledger, "web-1", OLD, 15 * DAY)
    if runs != OLD:
        ran(context.ledger, "web-1", runs, 4 * DAY)
        context.ledger.record_scan(runs, ScanRecord((), ()), NOW)
    lines = [line for line in patch_latency("", context).patches if line.kind == "fleet"]
    assert [(line.left, bool(line.waived_by)) for line in lines] == [(("web-1",), runs == OLD and scanned)]


def test_policies_are_read_once_for_all_fixes(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year has tens of thousands of fixes, and whoever scrapes the metrics asks each minute."""
    loads, load = list[object](), images_context.load_policies
    monkeypatch.setattr(images_context, "load_policies", lambda roots: loads.append(roots) or load(roots))
    context.ledger.record_fixes([fix(number) for number in range(1, 9)])
    assert len(patch_latency("", context).patches) == 8
    assert len(loads) == 1
