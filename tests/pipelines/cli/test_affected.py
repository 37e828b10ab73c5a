"""`image.affected` and `feed.update`: who has a vulnerability, and what newer data changes, by ledger and feed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from hardening.findings import Finding, FindingKind, Outcome
from hardening.foundation import confinement
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import ROOT, Settings
from hardening.model import Enforcement, Severity
from images.artifact import Artifact, Package, Release
from images.context import Context
from images.feeds import DIRECTORIES, indexed
from images.ledger import FleetCheck, MemberRun, Move, ScanRecord, tables
from images.scan import MORE
from pipelines.cli.affected import show_affected, who_is_affected
from pipelines.cli.feeds import FeedUpdateOutput, changes_told, show_update, update_feeds
from pipelines.cli.latency import patch_latency
from pipelines.cli.report import gather
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.golden_status import GoldenStatus
from pipelines.nightly.stages import WorldStages
from pipelines.nightly.urgency import urgent_fixes
from tests.support.nights import order_of
from tests.support.publishing import REPORT
from tests.support.scanning import NO_FEEDS

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CVE, OPEN, OTHER = "CVE-2026-0001", "CVE-2026-0002", "CVE-2026-0003"
BASE, WEB, WEB_FIXED = ("sha256:" + digit * 64 for digit in "123")
OPENSSL = Package("openssl", "3.5.1-1", "amd64", "aa", "openssl")
LIBSSL = Package("libssl3t64", "3.5.1-1+b1", "amd64", "ab", "openssl", source_version="3.5.1-1")
NGINX = Package("nginx", "1.26-3", "amd64", "ac", "nginx")
FIXED = tuple(replace(one, version="3.5.4-1", source_version="") for one in (OPENSSL, LIBSSL))


def entry(fixed: str = "", **more: Any) -> dict[str, Any]:
    """What the tracker says of trixie."""
    said = {"status": "resolved", "fixed_version": fixed} if fixed else {"status": "open"}
    return {"description": "A hole", "releases": {"trixie": {"repositories": {}, "urgency": "medium", **said, **more}}}


TRACKER = {
    "openssl": {CVE: entry("3.5.4-1"), OTHER: entry("0")},
    "nginx": {CVE: entry("1.26-4"), OPEN: entry(nodsa="Minor issue", nodsa_reason="")},
}


def artifact(name: str, digest: str, packages: tuple[Package, ...], parent: str = "", **more: Any) -> Artifact:
    """One as the ledger keeps it; only what stands on nothing names a suite."""
    base: dict[str, Any] = {"golden": "debian-base"} if parent else {"bootstrap": {"suite": "trixie"}}
    inputs = {"definition": {"base": base}, "parent": parent}
    return Artifact(name, "linux/amd64", digest, digest, inputs, packages, NOW, more.get("at", NOW))


def released(context: Context, name: str, content: str, day: int, *channels: str) -> Release:
    """A release over a content that many days ago, and the channels that point to it since."""
    digest, at = f"sha256:{content[7:70]}{day % 10}", NOW - day * DAY
    release = Release(name, f"registry/{name}", digest, content, content, "p", "default", at, at, at + 30 * DAY)
    context.ledger.record_release(release)
    for channel in channels:
        context.ledger.record_move(Move(f"registry/{name}", channel, digest, at, ""))
    return release


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with the feeds, as somebody without the internet has one."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, TRACKER)
    (folder / "metadata.json").write_text('{"date": "2026-11-24"}')
    (folder / "kev.json").write_text(json.dumps([{"cveID": CVE}]))
    (folder / "epss.csv").write_text(
        f"#model_version:v2026,score_date:2026-11-24T00:00:00+0000\ncve,epss,percentile\n{CVE},0.42,0.9\n"
    )
    return folder


def write(folder: Path, tracker: dict[str, Any]) -> None:
    known = {"linux": {f"CVE-2000-{number}": entry("0.1") for number in range(1000, 1020)}}
    known["openssl"] = {"CVE-2000-1000": entry("0.1")}
    (folder / "tracker.json").write_text(json.dumps({**known, **tracker}))


@pytest.fixture
def context(tmp_path: Path, data: Path) -> Context:
    """debian-base with openssl, and nginx-unprivileged on it with nginx; both released, and the latter runs."""
    feeds = NO_FEEDS | {"tracker": str(data), "kev": str(data / "kev.json"), "epss": str(data)}
    files = tmp_path / "shop/pipelines/fleets"
    files.mkdir(parents=True)
    (files / "shop.toml").write_text(FLEET)
    settings = Settings(
        state=tmp_path / "state", retry_for="0s", feeds=feeds, kinds=("container",), content=(tmp_path / "shop",)
    )
    made = Context(settings, NOW, str, str)
    made.ledger.record_artifact(artifact("debian-base", BASE, (OPENSSL, LIBSSL)))
    made.ledger.record_artifact(artifact("nginx-unprivileged", WEB, (OPENSSL, LIBSSL, NGINX), BASE))
    released(made, "debian-base", BASE, 9, "candidate", "stable")
    released(made, "nginx-unprivileged", WEB, 8, "candidate", "stable")
    made.ledger.seen_fleet("shop", {"web-1": WEB, "odd": "sha256:" + "9" * 64}, NOW)
    return made


def asked(context: Context, vulnerability: str = CVE) -> dict[tuple[str, str], Any]:
    """The answer by who has it and by which source."""
    return {(line.name, line.source): line for line in who_is_affected(vulnerability, context).lines}


def test_it_says_who_has_it_since_when_fixed_where_and_whose_it_is(context: Context) -> None:
    """What an image has from its base is the base's to fix, the rest its own; a member has what its image has."""
    context.ledger.first_seen_all([(CVE, "openssl")], NOW - 3 * DAY)
    found = who_is_affected(CVE, context)
    lines = {(line.name, line.source): line for line in found.lines}
    assert list(lines) == [
        ("debian-base", "openssl"), ("nginx-unprivileged", "nginx"), ("nginx-unprivileged", "openssl"),
        ("shop/web-1", "nginx"), ("shop/web-1", "openssl"),
    ]  # fmt: skip
    below, own = lines["nginx-unprivileged", "openssl"], lines["nginx-unprivileged", "nginx"]
    assert (below.part, below.comes_from, own.part, own.comes_from) == ("base", "debian-base", "yours", "")
    assert {one.name for one in below.packages} == {"openssl", "libssl3t64"}, "a rebuilt one is of the same source"
    assert (below.fixed, own.fixed) == ("3.5.4-1", "1.26-4")
    assert (below.since, below.channels) == (NOW - 8 * DAY, ("candidate", "stable"))
    assert below.fix_known_since == NOW - 3 * DAY
    assert below.due == NOW - 3 * DAY, "the policy gives no time for what is exploited"
    assert below.enforcement is Enforcement.ENFORCE
    member = lines["shop/web-1", "openssl"]
    assert (member.kind, member.image, member.part, member.comes_from) == (
        "member", "nginx-unprivileged", "base", "debian-base"
    )  # fmt: skip
    assert (found.exploited, found.likelihood, found.title, found.severity) == (True, 0.42, "A hole", Severity.MEDIUM)
    assert f"{found.data_date:%Y-%m-%d}" == "2026-11-24"
    assert found.unknown == ("shop/odd",)
    assert show_affected(found, as_json=True) == 1


def test_who_acts_is_who_can_do_the_next_step(context: Context) -> None:
    """First the base's owner rebuilds; once a fixed candidate is there it is promoted; once it is stable, rolled."""
    base = context.definitions["debian-base"].definition.owner
    own = context.definitions["nginx-unprivileged"].definition.owner
    line = asked(context)["nginx-unprivileged", "openssl"]
    assert (line.acts, line.todo) == (
        base, "./goldsmith image.publish debian-base, then ./goldsmith image.publish nginx-unprivileged"
    )  # fmt: skip
    assert asked(context)["nginx-unprivileged", "nginx"].todo == "./goldsmith image.publish nginx-unprivileged"
    context.ledger.record_artifact(artifact("debian-base", "sha256:" + "5" * 64, FIXED, at=NOW + DAY))
    line = asked(context)["nginx-unprivileged", "openssl"]
    assert (line.acts, line.todo) == (own, "./goldsmith image.publish nginx-unprivileged"), "its base is built already"
    fixed = (*FIXED, replace(NGINX, version="1.26-4"))
    context.ledger.record_artifact(artifact("nginx-unprivileged", WEB_FIXED, fixed, at=NOW + DAY))
    released(context, "nginx-unprivileged", WEB_FIXED, 1, "candidate")
    line = asked(context)["nginx-unprivileged", "openssl"]
    assert (line.channels, line.acts, line.todo) == (("stable",), own, "./goldsmith image.promote nginx-unprivileged")
    released(context, "nginx-unprivileged", WEB_FIXED, 1, "stable")
    lines = asked(context)
    assert lines["shop/web-1", "openssl"].todo == "./goldsmith roll.start shop"
    assert ("nginx-unprivileged", "openssl") not in lines
    assert show_affected(who_is_affected(CVE, context), as_json=False) == 1


def test_what_has_no_fix_yet_says_so_and_what_scanners_said_counts_too(context: Context) -> None:
    """The severity is the worst that anybody gave; a window counts from the fix, so without one nothing is due."""
    said = Finding(
        FindingKind.VULNERABILITY, OPEN, "nginx", "1.26-3", "", Severity.HIGH, (("trivy", Severity.HIGH),)
    )  # fmt: skip
    context.ledger.record_scan(WEB, ScanRecord((REPORT,), (said,), suite="trixie"), NOW)
    line = asked(context, OPEN)["nginx-unprivileged", "nginx"]
    assert (line.fixed, line.due, line.enforcement) == ("", None, Enforcement.AUDIT)
    assert line.todo == "no fix yet: take the package out of nginx-unprivileged, or wait for one"


def test_that_no_image_is_affected_is_said_only_where_all_could_be_told(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4 where a running member's packages are not known: what was not looked at is no pass."""
    found = who_is_affected(OTHER.lower(), context)
    assert (found.lines, found.looked_at, found.unknown) == ((), 3, ("shop/odd",))
    assert show_affected(found, as_json=False) == 4
    context.ledger.seen_fleet("shop", {"web-1": WEB}, NOW)
    assert show_affected(who_is_affected(OTHER, context), as_json=False) == 0
    assert "no image here is affected: 3 release(s) and member(s) were looked at" in capsys.readouterr().out


FLEET = """
title = "Of a test"
owner = "tests"
kind = "docker"
selector = { of = "test" }
replacement = { tag = "registry.invalid/none:1" }
"""


def test_a_fleet_that_was_never_looked_at_is_unknown(context: Context, tmp_path: Path) -> None:
    """And of the others it is said when they were."""
    (tmp_path / "shop/pipelines/fleets/bank.toml").write_text(FLEET.replace('"test"', '"bank"'))
    assert who_is_affected(OTHER, context).unknown == ("bank", "shop/odd")
    context.ledger.record_check(FleetCheck("bank", NOW, []))
    found = who_is_affected(OTHER, context)
    assert (found.unknown, found.fleets) == (("shop/odd",), {"bank": NOW})


def test_a_fleet_without_a_file_is_not_counted(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, so that neither its members nor the exit code speak of it; a line names it."""
    context.ledger.record_check(FleetCheck("shop", NOW, []))
    (tmp_path / "shop/pipelines/fleets/shop.toml").unlink()
    found = who_is_affected(OTHER, context)
    assert ([line for line in found.lines if line.kind == "member"], found.unknown, found.fleets) == ([], (), {})
    assert show_affected(found, as_json=False) == 0
    assert "because no file here names it: shop (checked 2026-11-25 12:00 UTC)" in capsys.readouterr().out


def on_base(context: Context, **kept: Any) -> None:
    """A member with an application image on debian-base, and what the last check kept of it."""
    context.ledger.seen_fleet("shop", {"app": BASE}, NOW)
    line = {"name": "app", "image": "app:1", "golden": "debian-base", "release": "", "runs": BASE, **kept}
    context.ledger.record_check(FleetCheck("shop", NOW, [line]))


@pytest.mark.parametrize("kept", [{"on_base": True}, {}, {"on_base": False, "runs": WEB}])
def test_an_image_on_a_golden_one_has_packages_that_are_not_known(context: Context, kept: dict[str, Any]) -> None:
    """Its base answers for what is of the base only; so too where the check is of another time or version."""
    on_base(context, **kept)
    found = who_is_affected(CVE, context)
    [line] = [line for line in found.lines if line.kind == "member"]
    assert (line.name, line.source, line.part, line.comes_from) == ("shop/app", "openssl", "base", "debian-base")
    assert found.unknown == ("shop/app",)
    found = who_is_affected(OTHER, context)
    assert (found.lines, found.unknown) == ((), ("shop/app",))
    assert show_affected(found, as_json=True) == 4


def test_a_member_that_runs_a_golden_image_itself_is_known(context: Context) -> None:
    """All its packages are the image's."""
    on_base(context, on_base=False)
    assert who_is_affected(OTHER, context).unknown == ()


def test_a_release_that_cannot_be_answered_for_is_named_with_its_channel(context: Context) -> None:
    """That another of the same image can be does not hide it."""
    released(context, "nginx-unprivileged", "sha256:" + "7" * 64, 1, "stable")
    found = who_is_affected(OTHER, context)
    assert found.unknown == ("nginx-unprivileged:stable", "shop/odd")


def with_feeds(context: Context, **feeds: str) -> Context:
    """The same context by other feeds."""
    settings = context.settings
    other = settings.feeds.model_copy(update=feeds)
    return replace(context, settings=settings.model_copy(update={"feeds": other}))


def test_where_a_feed_is_missing_exploitation_is_not_known(
    context: Context, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither "no" nor silence: null, with the reason."""
    monkeypatch.setattr("images.feeds.KEV", "http://127.0.0.1:1/kev")
    monkeypatch.setattr("images.feeds.indexed.EPSS", "http://127.0.0.1:1/epss")
    found = who_is_affected(CVE, with_feeds(context, kev="download", epss="download"))
    assert (found.exploited, found.likelihood) == (None, None)
    kev, epss = found.notes
    assert kev.startswith("known exploited vulnerabilities (KEV): no data: http://127.0.0.1:1/kev does not answer")
    assert epss.startswith("likelihood of exploitation (EPSS): no data: http://127.0.0.1:1/epss does not answer")
    show_affected(found, as_json=False)
    said = capsys.readouterr().out
    assert "whether it is exploited is not known" in said
    assert "(KEV): no data" in said
    assert who_is_affected(CVE, with_feeds(context, kev="none")).notes == (
        "known exploited vulnerabilities (KEV): no data: by the settings",
    )


def test_that_no_image_is_affected_is_no_answer_by_the_sample_or_old_data(
    context: Context, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4, with the reason: what data does not know yet is no pass."""
    context.ledger.seen_fleet("shop", {"web-1": WEB}, NOW)
    (data / "metadata.json").write_text('{"date": "2026-11-10"}')
    found = who_is_affected(OTHER, context)
    assert (found.lines, found.sample, found.outdated) == ((), False, "it is 15 days old; the policy accepts 7d")
    assert show_affected(found, as_json=False) == 4
    said = capsys.readouterr().out
    assert "this data does not count: it is 15 days old" in said
    assert "no image here is known to be affected" in said
    known = json.loads((Path(indexed.SAMPLE) / "trixie.json").read_text())["sources"]
    other = next(ids[0] for source, fixes in known.items() if source != "openssl" for ids in fixes.values())
    found = who_is_affected(other, with_feeds(context, tracker="none"))
    assert (found.lines, found.sample) == ((), True)
    assert found.outdated.startswith("it is the sample that ships")
    assert show_affected(found, as_json=True) == 4


def test_an_older_copy_that_answered_is_noted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every other command says it."""
    real = indexed.tracker
    monkeypatch.setattr(indexed, "tracker", lambda *given: replace(real(*given), note="last good copy, 30h old"))
    assert who_is_affected(CVE, context).notes == ("vulnerabilities: last good copy, 30h old",)


def test_a_members_date_is_by_the_policy_that_its_image_was_published_by(context: Context, tmp_path: Path) -> None:
    """As fleet.check judges it; the fleet's policy gives the grace, and all where that one is gone."""
    folder = tmp_path / "content"
    (folder / "pipelines/fleets").mkdir(parents=True)
    (folder / "hardening/policies").mkdir(parents=True)
    (folder / "pipelines/fleets/shop.toml").write_text(FLEET)
    lax = (ROOT / "hardening/policies/default.toml").read_text().replace('"7d"\n\n[[', '"30d"\n\n[[')
    lax = lax.replace('exploited = true\nwithin = "0s"', 'exploited = true\nwithin = "5d"').replace('"3d"', '"4d"')
    (folder / "hardening/policies/lax.toml").write_text(lax)
    settings = context.settings.model_copy(update={"content": (folder,)})
    ours = replace(context, settings=settings)
    context.ledger.first_seen_all([(CVE, "openssl")], NOW)
    assert asked(ours)["shop/web-1", "openssl"].due == NOW + 3 * DAY
    at = NOW - DAY
    for policy, days in (("lax", 5 + 3), ("gone", 3)):
        release = Release("nginx-unprivileged", "registry/n", f"sha256:{policy}", WEB, WEB, "p", policy, at, at, NOW)
        context.ledger.record_release(release)
        at += timedelta(hours=1)
        assert asked(ours)["shop/web-1", "openssl"].due == NOW + days * DAY


def test_an_older_release_that_nothing_points_to_is_only_counted(context: Context) -> None:
    """A line for each of last month's releases would hide the ones that matter."""
    old = "sha256:" + "4" * 64
    context.ledger.record_artifact(artifact("debian-base", old, (OPENSSL,), at=NOW - 20 * DAY))
    released(context, "debian-base", old, 20)
    assert who_is_affected(CVE, context).older == 1
    assert who_is_affected(OTHER, context).older == 0


def test_a_vulnerability_that_the_data_does_not_know_is_an_error(context: Context, tmp_path: Path) -> None:
    """Nobody has what was misspelt; and where nothing is known of any image, nothing can be told."""
    with pytest.raises(ContentError, match=r"unknown vulnerability: CVE-2099-1 is not in file .* of 2026-11-24"):
        who_is_affected("CVE-2099-1", context)
    knows_few = r"^CVE-2099-1 is not in the sample that ships, which knows few\n"  # it may well exist
    with pytest.raises(OutsideError, match=knows_few):
        who_is_affected("CVE-2099-1", with_feeds(context, tracker="none"))
    empty = Context(context.settings.model_copy(update={"state": tmp_path / "other"}), NOW, str, str)
    with pytest.raises(ContentError, match="the ledger knows no image's packages"):
        who_is_affected(CVE, empty)
    (tmp_path / "data" / "tracker.json").unlink()
    with pytest.raises(OutsideError, match="there is no file"):
        who_is_affected(CVE, context)


def test_what_publish_refuses_by_answers_where_the_tracker_does_not_know_it(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a package of another ecosystem that trivy read: the last scans have it, with their date."""
    hole = Finding(
        FindingKind.VULNERABILITY, "CVE-2021-23337", "lodash", "4.17.20", "4.17.21", Severity.HIGH,
        (("trivy", Severity.HIGH),), "command injection", fix_known_since=NOW - DAY,
    )  # fmt: skip
    report = replace(REPORT, scanner="trivy", data_date=NOW - 2 * DAY, sample=False)
    context.ledger.record_scan(WEB, ScanRecord((report,), (hole,), suite="trixie"), NOW)
    context.ledger.seen_fleet("shop", {"web-1": WEB}, NOW)
    found = who_is_affected("CVE-2021-23337", context)
    assert [(line.name, line.source, line.fixed, line.part) for line in found.lines] == [
        ("nginx-unprivileged", "lodash", "4.17.21", "yours"), ("shop/web-1", "lodash", "4.17.21", "yours"),
    ]  # fmt: skip
    assert (found.severity, found.data, found.data_date) == ("high", "the last scans, by trivy", NOW - 2 * DAY)
    assert found.unknown == ("debian-base:candidate", "debian-base:stable"), "it was not scanned"
    assert show_affected(found, as_json=False) == 1
    said = capsys.readouterr().out
    assert "by the data of 2026-11-23: the last scans, by trivy" in said
    failed = replace(report, outcome=Outcome.ERROR, evaluated=0, findings=())
    other = replace(report, scanner="grype", findings=())
    context.ledger.record_scan(BASE, ScanRecord((failed, other), (), suite="trixie"), NOW)
    again = who_is_affected("CVE-2021-23337", context)
    assert (again.unknown, again.looked_at) == (found.unknown, found.looked_at), "trivy evaluated nothing of it"
    context.ledger.record_scan(BASE, ScanRecord((replace(report, findings=()),), (), suite="trixie"), NOW)
    assert who_is_affected("CVE-2021-23337", context).unknown == ()
    with pytest.raises(OutsideError, match="there is no file"):
        who_is_affected("CVE-2021-23337", with_feeds(context, tracker=str(tmp_path / "missing.json")))
    both = replace(hole, id=CVE)  # the tracker knows it of another package
    context.ledger.record_scan(WEB, ScanRecord((report,), (both,), suite="trixie"), NOW)
    assert ("nginx-unprivileged", "lodash") in asked(context)
    assert ("nginx-unprivileged", "nginx") in asked(context)


def test_no_scanner_is_started(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ledger and feed know it all."""
    monkeypatch.setattr(confinement, "run", lambda *_, **__: pytest.fail("a program was run"))
    assert asked(context)


def test_its_table_fits_eighty_columns(context: Context, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the packages, and what has to be done below it. A path is as long as it is, in a line of its own."""
    show_affected(who_is_affected(CVE, context), as_json=False)
    said = capsys.readouterr().out
    lines = said.splitlines()
    lines.remove(str(data / "tracker.json"))
    assert max(map(len, lines)) <= 80
    assert "known to be exploited; 42.0% likely to be within 30 days" in said
    assert "./goldsmith image.publish debian-base" in said


# feed.update


def updated(context: Context) -> FeedUpdateOutput:
    return update_feeds(context)


@pytest.mark.parametrize("again", [False, True], ids=["wrong key", "one name twice"])
def test_a_broken_fleet_file_stops_neither_the_update_nor_what_is_urgent(
    context: Context, tmp_path: Path, again: bool
) -> None:
    """Both need the names of fleets only: a fix for an exploited vulnerability waits for nobody's typing error."""
    before = urgent_fixes(context, list(context.definitions)), updated(context).images
    root = tmp_path / ("more" if again else "shop")
    broken = root / f"pipelines/fleets/{'shop' if again else 'bad'}.toml"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text("nonsense = 1\n")
    settings = context.settings.model_copy(update={"content": (*context.settings.content, root)}) if again else None
    there = replace(context, settings=settings) if settings else context
    assert (urgent_fixes(there, list(there.definitions)), updated(there).images) == before


def test_without_data_of_the_tracker_no_update_is_the_first(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    """Night after night would say so; nor is it said that nothing changed, which nobody knows."""
    found = updated(with_feeds(context, tracker="none"))
    assert (found.first, changes_told(found)) == (False, ("unchanged", "there was no data to compare with"))
    show_update(found, as_json=False)
    assert "without data of the tracker (feeds.tracker) nothing tells what changed" in " ".join(
        capsys.readouterr().out.split()
    )


def test_an_update_tells_what_newer_data_changes_the_exploited_ones_first(
    context: Context, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing the first time; then what was opened, fixed, closed, and what began to be exploited, each with images."""
    assert updated(context).first
    assert updated(context).changes == ()
    newer = {
        "openssl": {OTHER: entry("3.5.5-1")},
        "nginx": {CVE: entry("1.26-4"), OPEN: entry("1.26-5")},
    }
    write(data, newer)
    (data / "kev.json").write_text(json.dumps([{"cveID": CVE}, {"cveID": OPEN}]))
    found = updated(context)
    assert [(line.change, line.id, line.source, line.fixed, line.images) for line in found.changes] == [
        ("exploited", OPEN, "nginx", "1.26-5", ("nginx-unprivileged",)),
        ("closed", CVE, "openssl", "", ("debian-base", "nginx-unprivileged")),
        ("opened", OTHER, "openssl", "3.5.5-1", ("debian-base", "nginx-unprivileged")),
    ]  # fmt: skip
    assert show_update(found, as_json=False) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert updated(context).changes == (), "each change is told once"


def test_what_newer_data_opens_counts_on_every_screen_before_the_next_scan(context: Context, data: Path) -> None:
    """What `image.affected` says of a member, `fleet.check`, `latency` and the report say too; a scan removes it."""
    for content, name in ((BASE, "debian-base"), (WEB, "nginx-unprivileged")):
        context.ledger.record_scan(content, ScanRecord((), ()), NOW - DAY, name)
    context.ledger.record_run(MemberRun("shop", "web-1", WEB, gone=False, told_by="check", at=NOW - DAY))
    write(data, {"openssl": {OTHER: entry("3.5.4-1")}, "nginx": {OPEN: entry("1.26-4")}})
    (data / "kev.json").write_text(json.dumps([{"cveID": OTHER}]))
    updated(context)
    assert {line.name for line in who_is_affected(OTHER, context).lines} >= {"shop/web-1"}
    lacking = {(one.name, one.vulnerability) for one in patch_latency(context=context).patches}
    assert lacking >= {("shop", OTHER), ("shop", OPEN), ("nginx-unprivileged", OPEN), ("debian-base", OTHER)}
    member = asked(context, OTHER)["shop/web-1", "openssl"]
    shop = [one for one in patch_latency(context=context).patches if (one.name, one.vulnerability) == ("shop", OTHER)]
    assert {(one.acts, one.todo) for one in shop} == {(member.acts, member.todo)}, "the base comes first"
    assert "publish debian-base, then" in member.todo
    points = {one.vulnerability: one for one in gather(context).open_points}
    assert points[OTHER].exploited
    assert points[OPEN].members == 1
    status = GoldenStatus(load_fleet(context.settings.roots, "shop"), context, (), NOW)
    [web] = (one for one in context.ledger.releases() if one.content == WEB)
    assert OTHER in status.refused(web)[0], "what is exploited is due at once"
    assert OPEN in " ".join(one.what for one in status.lacking(web))
    write(data, {})
    later = replace(context, now=NOW + DAY)
    update_feeds(later)
    kept = context.ledger.scan(WEB, "nginx-unprivileged")
    assert kept
    assert {one.id for one in kept.findings} == {OTHER, OPEN}, "only a scan takes a finding away"
    assert {one.fix_known_since for one in kept.findings} == {NOW}


def test_a_scan_by_newer_data_than_that_of_this_machine_stays(context: Context) -> None:
    """Such as one of another machine of the same ledger: it may have closed what is open here."""
    newer = replace(REPORT, scanner="matcher", data_date=NOW)
    for report, found in ((newer, set()), (replace(newer, data_date=NOW - 9 * DAY), {CVE, OPEN})):
        context.ledger.record_scan(WEB, ScanRecord((report,), ()), NOW, "nginx-unprivileged")
        updated(context)
        kept = context.ledger.scan(WEB, "nginx-unprivileged")
        assert kept
        assert {one.id for one in kept.findings} == found


def test_a_night_tells_what_newer_data_changes(context: Context, data: Path) -> None:
    """In a line of its own: how many of each kind, the first of them in full, each told once."""

    def line() -> tuple[str, str]:
        (told,) = WorldStages(context).feed_changes(order_of(context)).lines
        assert (told.kind, told.name) == ("feeds", "changes")
        return told.status, told.detail

    assert line()[0] == "first"
    write(data, {"nginx": {CVE: entry("1.26-4"), OPEN: entry("1.26-5")}, "openssl": {OTHER: entry("3.5.5-1")}})
    opened = f"{OTHER} in openssl (debian-base, nginx-unprivileged)"
    closed = f"{CVE} in openssl (debian-base, nginx-unprivileged)"
    status, detail = line()
    assert status == "changed"
    assert "1 opened" in detail
    assert opened in detail
    assert closed in detail
    assert line() == ("unchanged", "nothing changed")


def test_an_update_says_which_feed_could_not_be_had(context: Context, data: Path) -> None:
    """Exit code 4; what the settings turn off is no failure."""
    found = updated(context)
    status = {line.name: line.status for line in found.feeds}
    assert status == {"debsecan": "sample", "tracker": "current", "trivy": "off", "kev": "current", "epss": "current"}
    assert show_update(found, as_json=True) == 0
    (data / "epss.csv").unlink()
    found = updated(context)
    [failed] = [line for line in found.feeds if line.status == "failed"]
    assert (failed.name, failed.note) == ("epss", f"feeds.epss: there is no file {data}, and no epss.csv.gz in it")
    assert show_update(found, as_json=True) == 4


def test_a_day_without_the_list_of_exploited_ones_loses_no_news(
    context: Context, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Day 1 it is there, on day 2 it cannot be had, on day 3 what began meanwhile is told, once."""
    updated(context)
    with monkeypatch.context() as day_2:
        day_2.setattr("images.feeds.KEV", "http://127.0.0.1:1/kev")
        found = updated(with_feeds(context, kev="download"))
    assert {line.status for line in found.feeds if line.name == "kev"} == {"failed"}
    assert found.changes == ()
    (data / "kev.json").write_text(json.dumps([{"cveID": CVE}, {"cveID": OPEN}]))
    assert [(line.change, line.id) for line in updated(context).changes] == [("exploited", OPEN)]
    assert updated(context).changes == ()


@pytest.mark.parametrize("earlier", [True, False])
def test_without_a_former_list_nothing_counts_as_newly_exploited(context: Context, earlier: bool) -> None:
    """Else all that ever was would be news; an earlier version wrote an empty list where it had none."""
    updated(with_feeds(context, kev="none"))
    if earlier:
        (context.settings.state_dir / "feeds/tracker" / f"{indexed.REPORTED}.json").write_text("[]")
    assert updated(context).changes == ()


@pytest.mark.parametrize("scanner", MORE)
def test_a_scanner_that_is_named_without_data_is_a_feed_that_failed(context: Context, scanner: str) -> None:
    """Each of them, whatever its setting is called; one without data of its own is no feed."""
    named = replace(context, settings=context.settings.model_copy(update={"scanners": (scanner,)}))
    status = {line.name: line.status for line in updated(named).feeds}
    assert status.get(scanner) == ("failed" if scanner in DIRECTORIES else None)


def test_a_source_whose_version_an_earlier_version_did_not_keep_is_unknown(
    context: Context, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A binary's own version says nothing of its source's: it may have another epoch. What can be compared is."""
    login = Package("login", "1:4.16.0-2+really2.41-5", "amd64", "ad", "util-linux")
    context.ledger.record_artifact(artifact("nginx-unprivileged", WEB, (OPENSSL, login, NGINX), BASE))
    context.ledger.seen_fleet("shop", {"web-1": WEB}, NOW)
    with context.ledger._begin() as connection:
        rows = connection.execute(select(tables.artifacts.c.packages).where(tables.artifacts.c.digest == WEB)).scalar()
        old = [{key: value for key, value in row.items() if key != "source_version"} for row in rows]
        change = update(tables.artifacts).where(tables.artifacts.c.digest == WEB).values(packages=old)
        connection.execute(change)
    write(data, TRACKER | {"util-linux": {OTHER: entry("2.41-6")}})
    found = who_is_affected(OTHER, context)
    unknown = ("nginx-unprivileged:candidate", "nginx-unprivileged:stable", "shop/web-1")
    assert (found.lines, found.unknown) == ((), unknown)
    assert show_affected(found, as_json=True) == 4
    assert who_is_affected(CVE, context).unknown == (), "of what it is asked for all versions are known"
    first = updated(context)
    assert (first.unknown, show_update(first, as_json=False)) == (("nginx-unprivileged",), 0)
    assert "not all is known of nginx-unprivileged" in capsys.readouterr().out
    write(
        data,
        TRACKER
        | {"util-linux": {OTHER: entry("2.41-6"), OPEN: entry("2.41-7")}, "openssl": {"CVE-2000-1000": entry("0.1")}},
    )
    assert {(line.change, line.source) for line in updated(context).changes} == {("closed", "openssl")}


def test_what_cannot_wait_for_the_night_is_exploited_or_critical_and_has_a_fix(context: Context, data: Path) -> None:
    """By what holds now, however often it is asked; what no version fixes yet waits, and so does what is neither."""
    names = list(context.definitions)
    assert urgent_fixes(context, names) == {"debian-base": (CVE,), "nginx-unprivileged": (CVE,)}
    assert urgent_fixes(context, ["debian-base"]) == {"debian-base": (CVE,)}
    write(data, {"nginx": {CVE: entry()}, "openssl": {OTHER: entry("3.5.5-1")}})
    assert urgent_fixes(context, names) == {}
    hole = Finding(FindingKind.VULNERABILITY, OPEN, "nginx", "1.26-3", "1.26-5", Severity.CRITICAL, ())
    context.ledger.record_scan(WEB, ScanRecord((), (hole,), suite="trixie"), NOW)
    for _ in range(2):
        assert urgent_fixes(context, names) == {"nginx-unprivileged": (OPEN,)}


def test_what_no_channel_points_to_any_more_is_not_read_to_find_what_is_urgent(context: Context) -> None:
    """It is asked every quarter of an hour, and a ledger keeps the lists of years."""
    told = urgent_fixes(context, list(context.definitions)), updated(context).images
    old = replace(artifact("nginx-unprivileged", f"sha256:{'0' * 64}", (NGINX,), BASE), built_at=NOW - 900 * DAY)
    context.ledger.record_artifact(old)
    with context.ledger._begin() as connection:
        unreadable = update(tables.artifacts).where(tables.artifacts.c.digest == old.digest)
        connection.execute(unreadable.values(packages=[{"odd": 1}]))
    assert (urgent_fixes(context, list(context.definitions)), updated(context).images) == told
