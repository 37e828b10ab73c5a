"""The ledger keeps what it is told, in times that carry their zone, from several threads and processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, select
from sqlalchemy.schema import CreateIndex, CreateTable

from hardening.findings import BaseImage, CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.errors import OutsideError, UsageError
from hardening.foundation.hashing import digest
from hardening.foundation.settings import ROOT
from hardening.model import Enforcement, Severity
from images.artifact import Artifact, Package, Release
from images.documents import Document
from images.ledger import Begun, CommandRow, FleetCheck, Holder, Ledger, Move, ScanRecord, SeenChannels
from images.ledger.database import _with_same
from images.ledger.tables import VERSION, _type_of, metadata, publications
from tests.conftest import POSTGRES
from tests.support.postgres import Server

NOW = datetime(2026, 11, 25, 12, 0, 0, 5, tzinfo=UTC)
DAY = timedelta(days=1)
ARTIFACT = Artifact(
    name="web",
    platform="linux/amd64",
    input_digest="sha256:in1",
    digest="sha256:c1",
    inputs={"packages": ["pkg:deb/debian/openssl@3.5"], "nested": {"a": [1, None, True]}},
    packages=(Package("openssl", "3.5", "amd64", "ab", "openssl"), Package("tzdata", "1", "all", "cd")),
    created=datetime(2026, 1, 1, tzinfo=UTC),
    built_at=NOW,
    size_bytes=5_000_000_000,
)
RELEASE = Release(
    name="web",
    repository="localhost/web",
    digest="sha256:r1",
    content="sha256:c1",
    input_digest="sha256:in1",
    profile="container-base",
    policy="default",
    published_at=NOW,
    warn_at=NOW + 23 * DAY,
    expires_at=NOW + 30 * DAY,
)
FINDING = Finding(
    FindingKind.VULNERABILITY,
    "CVE-2026-1",
    "openssl",
    "3.5",
    "3.6",
    Severity.HIGH,
    (("trivy", Severity.HIGH), ("debsecan", Severity.LOW)),
    title="bad",
    fix_known_since=NOW,
)
REPORT = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 90, NOW, "sample", "", (FINDING,), "0.76")
CHECK = CheckResult("no-setuid", "No setuid", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "none found")
VERDICT = Verdict("web", "default", NOW, False, (Reason("r", "web", Enforcement.ENFORCE, "what", "why", "todo"),))


@pytest.fixture
def ledger(database: str):
    """A new ledger, on SQLite and on PostgreSQL."""
    ledger = Ledger.open(database)
    yield ledger
    ledger.close()


def test_an_artifact_comes_back_as_it_was(ledger: Ledger) -> None:
    """Every field survives, nested inputs, packages and aware times included."""
    ledger.record_artifact(ARTIFACT)
    assert ledger.artifact_by_input("web", "linux/amd64", "sha256:in1") == ARTIFACT
    assert ledger.artifact_by_input("web", "linux/arm64", "sha256:in1") is None


def test_the_same_inputs_are_one_artifact_and_the_last_built_is_the_latest(ledger: Ledger) -> None:
    """Recording twice doubles nothing; going back to older inputs makes them the latest again."""
    newer = replace(ARTIFACT, input_digest="sha256:in2", digest="sha256:c2", built_at=NOW + DAY)
    again = replace(ARTIFACT, built_at=NOW + 2 * DAY)
    for artifact in (ARTIFACT, newer, again):
        ledger.record_artifact(artifact)
    assert ledger.artifacts("web") == (again, newer)
    assert ledger.latest_artifact("web", "linux/amd64") == again
    assert ledger.latest_artifact("nothing", "linux/amd64") is None
    ledger.record_artifact(other := replace(ARTIFACT, name="other"))
    ledger.record_artifact(replace(other, platform="linux/arm64", built_at=NOW + DAY))
    ledger.record_artifact(replace(other, name="third"))
    assert ledger.latest_artifacts(["other", "nothing", "web"], "linux/amd64") == {"web": again, "other": other}


def test_what_an_image_has_from_its_bases_is_known_as_far_as_they_are(ledger: Ledger) -> None:
    """Packages, findings and broken controls of each, the nearest first; an upstream base says nothing."""
    low = replace(ARTIFACT, name="low", digest="sha256:low", inputs={"parent": "sha256:upstream"})
    middle = replace(ARTIFACT, name="middle", digest="sha256:middle", inputs={"parent": "sha256:low"}, packages=())
    web = replace(ARTIFACT, inputs={"parent": "sha256:middle"})
    for artifact in (low, middle, web):
        ledger.record_artifact(artifact)
    ledger.record_checks("sha256:low", (replace(CHECK, outcome=Outcome.FAIL),), NOW)
    ledger.record_scan("sha256:low", ScanRecord((), (FINDING,)), NOW)
    assert ledger.bases_of("sha256:c1") == (
        BaseImage("middle"),
        BaseImage(
            "low", frozenset({("openssl", "3.5"), ("tzdata", "1")}),
            frozenset({(FINDING.kind, "CVE-2026-1", "openssl")}), frozenset({(CHECK.control, CHECK.evidence)}),
        ),
    )  # fmt: skip
    assert (ledger.bases_of("sha256:low"), ledger.bases_of("sha256:nothing"), ledger.bases_from("")) == ((), (), ())


def test_what_every_content_holds_is_read_in_one_pass(ledger: Ledger) -> None:
    """Only the packages that are asked for; the suite is the scan's, the definition's own, or that of what it is on."""
    own = {"definition": {"base": {"bootstrap": {"suite": "trixie"}}}, "parent": ""}
    child = {"definition": {"base": {"golden": "web"}}, "parent": "sha256:c1"}
    ledger.record_artifact(replace(ARTIFACT, inputs=own))
    ledger.record_artifact(replace(ARTIFACT, name="shop", digest="sha256:c2", inputs=child))
    ledger.record_artifact(replace(ARTIFACT, name="old", digest="sha256:c3"))
    ledger.record_artifact(replace(ARTIFACT, name="told", digest="sha256:c4"))
    ledger.record_scan("sha256:c4", ScanRecord((), (), suite="bookworm"), NOW)
    found = ledger.package_lists()
    assert {digest: (one.name, one.parent, one.suite) for digest, one in found.items()} == {
        "sha256:c1": ("web", "", "trixie"), "sha256:c2": ("shop", "sha256:c1", "trixie"),
        "sha256:c3": ("old", "", ""), "sha256:c4": ("told", "", "bookworm"),
    }  # fmt: skip
    assert {one.packages for one in found.values()} == {ARTIFACT.packages}
    assert {one.packages for one in ledger.package_lists({"tzdata"}).values()} == {ARTIFACT.packages[1:]}
    assert {one.packages for one in ledger.package_lists(()).values()} == {()}


def test_equal_definitions_share_a_content_and_no_result(ledger: Ledger) -> None:
    """A night refused one for a verdict about the other, and scanned and published both in turns for ever."""
    one, two = (replace(VERDICT, subject=name) for name in ("one", "two"))
    for number, verdict in enumerate((one, two)):
        later = NOW + timedelta(minutes=number)
        ledger.record_artifact(replace(ARTIFACT, name=verdict.subject, digest="sha256:same", built_at=later))
        ledger.record_verdict("sha256:same", verdict)
        ledger.record_verdict("sha256:same", verdict, told=True)
        check = replace(CHECK, evidence=verdict.subject)
        ledger.record_checks("sha256:same", (check,), NOW, {check.control: verdict.subject}, name=verdict.subject)
        ledger.record_scan("sha256:same", ScanRecord((), (), inputs={"a": verdict.subject}), NOW, verdict.subject)
    for name in ("one", "two"):
        verdict, told = ledger.verdict("sha256:same", name), ledger.verdict("sha256:same", name, told=True)
        scan, over = ledger.scan("sha256:same", name), ledger.artifact_over("sha256:same", name)
        found = verdict and verdict.subject, told and told.subject, scan and scan.inputs["a"], over and over.name
        assert found == (name, name, name, name)
        assert [check.evidence for check in ledger.checks("sha256:same", name)] == [name]
        assert ledger.check_scripts("sha256:same", name) == {CHECK.control: name}
        assert ledger.checks_with_scripts("sha256:same", name) == ((check_of(name),), {CHECK.control: name})
    assert ledger.verdict("sha256:same", "three") is None
    ledger.record_checks("sha256:old", (CHECK,), NOW)
    assert ledger.checks("sha256:old", "one") == (CHECK,), "a line of an earlier version names no definition"
    inputs = {"parent": "sha256:same", "definition": {"base": {"golden": "one"}}}
    ledger.record_artifact(replace(ARTIFACT, inputs=inputs))
    assert [base.name for base in ledger.bases_of("sha256:c1")] == ["one"], "the parent that its definition names"


def test_judgements_of_a_content_come_back_and_the_last_one_stands(ledger: Ledger) -> None:
    """Checks, scan and verdict survive with their enums; what was never judged is not a pass."""
    assert (ledger.checks("sha256:c1"), ledger.scan("sha256:c1"), ledger.verdict("sha256:c1")) == ((), None, None)
    scan = ScanRecord((REPORT,), (FINDING,), "sha256:sbom", "trixie", {"debsecan": "sha256:in"})
    ledger.record_checks("sha256:c1", (CHECK,), NOW)
    ledger.record_scan("sha256:c1", scan, NOW)
    ledger.record_verdict("sha256:c1", replace(VERDICT, allowed=True))
    ledger.record_verdict("sha256:c1", VERDICT)
    assert ledger.checks("sha256:c1") == (CHECK,)
    assert ledger.scan("sha256:c1") == scan
    assert ledger.verdict("sha256:c1") == VERDICT


def test_a_vulnerability_keeps_the_day_it_was_first_seen(ledger: Ledger) -> None:
    """Fix windows run from the first sight, not from the last."""
    assert ledger.first_seen_all([("CVE-1", "openssl")], NOW) == {("CVE-1", "openssl"): NOW}
    assert ledger.first_seen_all([("CVE-1", "openssl")], NOW + DAY) == {("CVE-1", "openssl"): NOW}
    seen = ledger.first_seen_all([("CVE-1", "openssl"), ("CVE-2", "openssl")], NOW + DAY)
    assert seen == {("CVE-1", "openssl"): NOW, ("CVE-2", "openssl"): NOW + DAY}


def test_a_first_sight_that_lies_ahead_is_today(ledger: Ledger) -> None:
    """A clock that was moved, as for a rehearsal, must not lengthen a fix window; the earlier day then stays."""
    ledger.first_seen_all([("CVE-1", "openssl")], NOW + 90 * DAY)
    assert ledger.first_seen_all([("CVE-1", "openssl")], NOW) == {("CVE-1", "openssl"): NOW}
    assert ledger.first_seen_all([("CVE-1", "openssl")], NOW + DAY) == {("CVE-1", "openssl"): NOW}


def test_releases_are_found_by_name_digest_and_content(ledger: Ledger) -> None:
    """The newest stands first; revocation and pruning mark one release, not the others over its content."""
    redated = replace(RELEASE, digest="sha256:r2", published_at=NOW + DAY)
    ledger.record_release(RELEASE)
    ledger.record_release(redated)
    ledger.revoke("sha256:r1", "leaked key", NOW + DAY)
    ledger.mark_pruned("sha256:r1", NOW + 2 * DAY)
    assert ledger.releases_of_content("sha256:c1") == ledger.releases("web") == ledger.releases()
    assert ledger.release("sha256:r2") == redated
    assert ledger.release("sha256:r1") == replace(
        RELEASE, revoked_reason="leaked key", revoked_at=NOW + DAY, pruned_at=NOW + 2 * DAY
    )


def test_a_revocation_is_found_by_whichever_digest_is_asked_for(ledger: Ledger) -> None:
    """A release's own or its content, wherever it stands among them; of several the newest release."""
    older = replace(RELEASE, digest="sha256:r0", published_at=NOW - DAY)
    other = replace(RELEASE, digest="sha256:r2", content="sha256:c2", published_at=NOW + DAY)
    for release in (older, RELEASE, other):
        ledger.record_release(release)
    assert ledger.revoked_of("sha256:r1", "sha256:c1", "sha256:r2") is None
    for release in (older, RELEASE):
        ledger.revoke(release.digest, f"of {release.digest}", NOW)
    for name in ("sha256:r1", "sha256:c1"):
        for asked in ((name,), (name, "sha256:none"), ("sha256:none", name), ("sha256:r2", name, "sha256:c2")):
            found = ledger.revoked_of(*asked)
            assert found
            assert (found.digest, found.revoked_reason) == ("sha256:r1", "of sha256:r1")
    assert ledger.revoked_of("sha256:r2", "sha256:c2", "sha256:none") is None
    assert ledger.revoked_of() is None


def test_a_publication_is_open_until_it_is_ended(ledger: Ledger) -> None:
    """What a killed run began is found by the next one."""
    begun = Begun(RELEASE, (Document("a/x", '{"ü":1}'.encode(), {"k": "v"}), Document("a/y")))
    ledger.begin_publication(begun)
    assert ledger.open_publications("localhost/web") == (begun,)
    ledger.end_publication(RELEASE)
    assert ledger.open_publications("localhost/web") == ()
    assert ledger._rows(select(publications)) == [], "an SBOM is large, and each release would leave a line"


def test_lists_of_packages_are_read_of_what_is_asked_for_and_what_it_stands_on(ledger: Ledger) -> None:
    """The suite of the lowest one is that of all above it; what nobody asks for is not read."""
    below, other = replace(ARTIFACT, name="base", digest="sha256:c0", inputs={}), "sha256:c9"
    above = replace(ARTIFACT, name="app", digest="sha256:c2", inputs={"parent": "sha256:c1"})
    for one in (below, replace(ARTIFACT, inputs={"parent": "sha256:c0"}), above, replace(above, digest=other)):
        ledger.record_artifact(replace(one, input_digest=one.digest))
    ledger.record_scan("sha256:c0", ScanRecord((), (), suite="trixie"), NOW)
    assert ledger.package_lists(of=[]) == {}
    found = ledger.package_lists(of=["sha256:c2", "sha256:none"])
    assert {digest: (one.name, one.suite) for digest, one in found.items()} == {
        "sha256:c0": ("base", "trixie"), "sha256:c1": ("web", "trixie"), "sha256:c2": ("app", "trixie"),
    }  # fmt: skip
    every = ledger.package_lists()
    assert set(every) == {*found, other}
    assert found.items() <= every.items()


def test_channel_moves_and_audit_keep_their_order(ledger: Ledger) -> None:
    """The history of a channel is what a rollback reads."""
    moves = tuple(Move("localhost/web", "stable", f"sha256:r{n}", NOW + n * DAY, "promote") for n in (2, 1, 3))
    for move in moves:
        ledger.record_move(move)
        ledger.audit(move.at, "ann", "promote", "web", move.digest)
    assert ledger.moves("localhost/web", "stable") == moves
    assert ledger.moves("localhost/web", "candidate") == ()
    assert [line.detail for line in ledger.audit_lines()] == ["sha256:r2", "sha256:r1", "sha256:r3"]
    assert [line.detail for line in ledger.audit_lines(limit=1)] == ["sha256:r3"]


def test_the_newest_channel_document_stays(ledger: Ledger) -> None:
    """An older one, read before it and kept after it, replaces nothing; nor does another one of the same version."""
    for version, text in ((7, "a"), (8, "b"), (7, "c"), (8, "d")):
        ledger.see_channels(SeenChannels("localhost/web", version, {"says": text}))
    assert ledger.seen_channels("localhost/web") == SeenChannels("localhost/web", 8, {"says": "b"})


def test_where_all_channels_point_is_where_each_does(ledger: Ledger) -> None:
    """By the last move of each repository and channel, whatever its date."""
    assert ledger.last_moves() == {}
    places = [("a/web", "stable"), ("a/web", "candidate"), ("b/web", "stable")]
    for number, (repository, channel) in enumerate([*places, *places[::-1], places[1]]):
        ledger.record_move(Move(repository, channel, f"sha256:r{number}", NOW - number * DAY, "promote"))
    found = ledger.last_moves()
    assert found == {place: ledger.last_move(*place) for place in places}
    assert [found[place].digest for place in places] == ["sha256:r5", "sha256:r6", "sha256:r3"]
    assert ledger.last_move("c/web", "stable") is None


def test_what_runs_is_known_by_digest_and_forgotten_when_gone(ledger: Ledger) -> None:
    """A digest that no member runs any more does not hold its release back from pruning."""
    ledger.seen_fleet("shop", {"a": "sha256:r1"}, NOW)
    ledger.seen_fleet("shop", {"a": "sha256:r2"}, NOW)
    ledger.seen_fleet("bank", {"b": "sha256:r2"}, NOW)
    assert ledger.running_digests() == {"sha256:r2": ("bank/b", "shop/a")}
    ledger.seen_fleet("shop", {"c": "sha256:r3"}, NOW)
    assert ledger.running_digests() == {"sha256:r2": ("bank/b",), "sha256:r3": ("shop/c",)}
    ledger.seen_fleet("shop", {}, NOW)
    assert set(ledger.running_digests()) == {"sha256:r2"}


def test_what_a_fleet_that_is_gone_ran_is_forgotten_after_a_year(ledger: Ledger) -> None:
    """It would never be pruned; one that is still there may just be unread, and stays."""
    for fleet, days in (("gone", 366), ("unread", 366), ("lately", 364)):
        ledger.seen_fleet(fleet, {"a": f"sha256:{fleet}"}, NOW - days * DAY)
    ledger.forget_fleets(["unread", "new"], NOW)
    assert ledger.running_digests() == {"sha256:lately": ("lately/a",), "sha256:unread": ("unread/a",)}
    ledger.forget_fleets([], NOW)
    assert ledger.running_digests() == {"sha256:lately": ("lately/a",)}


def test_a_rollout_is_saved_over_itself_until_it_is_over(ledger: Ledger) -> None:
    """The last state stands; a finished rollout is no longer open."""
    ledger.begin_rollout("r1", "shop", "host:1", {"plan": []}, NOW)
    assert ledger.open_rollouts()[0].state is None
    ledger.save_rollout("r1", {"step": 1}, NOW)
    ledger.save_rollout("r1", {"step": 2, "done": []}, NOW + DAY)
    (found,) = ledger.open_rollouts("shop")
    assert (found.state, found.owner, found.at) == ({"step": 2, "done": []}, "host:1", NOW + DAY)
    ledger.save_rollout("r1", {"step": 3}, NOW + DAY, is_open=False)
    assert ledger.open_rollouts() == ()
    assert ledger.rollout("r1") == ledger.rollouts("shop")[0]
    assert ledger.rollout("r2") is None


OURS = Holder("shop", "host-a", "r1")
THEIRS = Holder("shop", "host-b", "r2")
ENDED = timedelta(seconds=-1)  # a lease that ends as soon as it is had


def test_a_fleet_has_one_owner_until_its_lease_ends(ledger: Ledger) -> None:
    """A second owner is told who has it and until when; after the end it gets the fleet, and the first has lost it."""
    assert ledger.lease("shop") is None
    ours = ledger.acquire_lease(OURS, DAY)
    assert (ours.owner, ledger.lease_lasts(OURS)) == ("host-a", True)
    assert ledger.acquire_lease(THEIRS, DAY) == ledger.lease("shop") == ours
    assert ledger.renew_lease(OURS, ENDED)
    assert ledger.lease_lasts(OURS) is False
    theirs = ledger.acquire_lease(THEIRS, 3 * DAY)
    assert theirs == ledger.lease("shop")
    assert theirs.owner == "host-b"
    assert ledger.lease_lasts(OURS) is None
    assert not ledger.renew_lease(OURS, DAY)
    assert ledger.acquire_lease(replace(OURS, fleet="bank"), DAY).fleet == "bank"


def test_an_owner_renews_its_lease_and_gives_it_back(ledger: Ledger) -> None:
    """Also one that ended, as long as nobody took it; giving back what another has by now takes nothing from it."""
    assert not ledger.renew_lease(OURS, DAY)
    first = ledger.acquire_lease(OURS, DAY)
    assert ledger.renew_lease(OURS, 5 * DAY)
    later = ledger.lease("shop")
    assert later
    assert later.until > first.until + 3 * DAY
    assert ledger.renew_lease(OURS, ENDED)
    assert ledger.renew_lease(OURS, DAY)
    stands = ledger.acquire_lease(OURS, DAY)
    assert stands.owner == "host-a"
    for foreign in (replace(OURS, owner="host-b"), replace(OURS, rollout="r2")):
        ledger.release_lease(foreign)
        assert ledger.lease("shop") == stands
    ledger.release_lease(stands)
    assert ledger.lease("shop") is None


def test_an_owner_does_not_get_a_fleet_for_a_second_rollout_beside_the_first(ledger: Ledger) -> None:
    """One rollout per fleet, whoever asks."""
    first = ledger.acquire_lease(OURS, DAY)
    assert ledger.acquire_lease(replace(OURS, rollout="r2"), DAY) == first
    assert not ledger.renew_lease(replace(OURS, rollout="r2"), DAY)


@pytest.mark.parametrize("held", [(), (replace(OURS, owner="dead"),)], ids=["free", "ended"])
def test_of_many_who_want_a_fleet_at_once_one_gets_it(ledger: Ledger, held: tuple[Holder, ...]) -> None:
    """Whether it is nobody's or a dead owner's: everyone is told the same owner."""
    for dead in held:
        ledger.acquire_lease(dead, ENDED)
    wanted = [replace(OURS, owner=f"host-{n}") for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda one: ledger.acquire_lease(one, DAY), wanted))
    assert len({lease.owner for lease in told}) == 1
    assert told[0] == ledger.lease("shop")


def test_a_lease_is_dated_by_the_database_and_by_no_client(ledger: Ledger) -> None:
    """B7: the database's moment, in UTC; a test's own clock says only whether it is near."""
    before = ledger.now()
    lease = ledger.acquire_lease(OURS, DAY)
    assert before + DAY <= lease.until <= ledger.now() + DAY
    assert abs(before - datetime.now(UTC)) < timedelta(minutes=30), "not some other time zone's"


@pytest.mark.needs(POSTGRES)
def test_a_process_that_is_suspended_in_a_transaction_locks_nobody_out_for_long(running_postgres: Server) -> None:
    """The server ends the session of one that says nothing more in the middle of a transaction."""
    with closing(Ledger.open(running_postgres.new_database())) as ledger, ledger._begin() as connection:
        assert connection.exec_driver_sql("show idle_in_transaction_session_timeout").scalar() == "30s"


def test_no_module_about_leases_reads_a_clock_of_its_own() -> None:
    """B7: an operator's clock that is two hours ahead would end other people's leases."""
    for module in ("images/ledger/fleets.py", "pipelines/rollout/lease.py"):
        text = (ROOT / module).read_text()
        assert "datetime.now" not in text, module
        assert "time.time" not in text, module


def test_the_newest_command_stands_and_each_is_audited(ledger: Ledger) -> None:
    """Who told a rollout what, in the order in which they did, also within one moment."""
    given = [CommandRow("r1", name, who, NOW) for name, who in (("pause", "ann"), ("resume", "bob"), ("pause", "cy"))]
    for command in given:
        ledger.give_command(command, "from a test")
    assert ledger.commands("r1") == tuple(given)
    assert ledger.commands("r2") == ()
    assert [(line.actor, line.action, line.subject) for line in ledger.audit_lines()] == [
        ("ann", "pause", "r1"), ("bob", "resume", "r1"), ("cy", "pause", "r1"),
    ]  # fmt: skip


def test_times_come_back_in_utc_and_must_carry_a_zone(ledger: Ledger) -> None:
    """A moment in another zone is the same moment; a time without a zone is refused."""
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    ledger.audit(east, "ann", "x", "y")
    assert ledger.audit_lines()[0].at == NOW
    assert ledger.audit_lines()[0].at.tzinfo is UTC
    with pytest.raises(OutsideError, match="no time zone"):
        ledger.audit(NOW.replace(tzinfo=None), "ann", "x", "y")


def test_threads_and_processes_share_a_ledger(database: str) -> None:
    """Forty writers at once, two of them processes that also make the tables, lose no line."""
    url = database
    script = (
        "import sys; from datetime import datetime, UTC; from images.ledger import Ledger\n"
        "ledger = Ledger.open(sys.argv[1])\n"
        "for n in range(20): ledger.audit(datetime.now(UTC), 'child', 'x', str(n))\n"
        "ledger.close()"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT) for _ in range(2)]
    ledger = Ledger.open(url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ledger.first_seen_all([(f"CVE-{n % 5}", "p")], NOW), range(40)))
        list(pool.map(lambda n: ledger.audit(NOW, "thread", "x", str(n)), range(40)))
    assert [child.wait(600) for child in children] == [0, 0]
    assert len(ledger.audit_lines()) == 80
    ledger.close()


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    """One clear error, not a traceback."""
    (tmp_path / "no").write_text("not a database, but long enough to be looked at as one " * 40)
    with pytest.raises(OutsideError, match=r"not a database(.|\n)*image\.rebuild"):
        Ledger.open(f"sqlite:///{tmp_path}/no")


def test_an_empty_file_beside_images_is_no_new_ledger(tmp_path: Path) -> None:
    """Releases and approvals would be forgotten. A first run that was killed may leave such a file too."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    (tmp_path / "ledger.sqlite").touch()
    (tmp_path / "store" / "blobs").mkdir(parents=True)
    with pytest.raises(OutsideError, match=r"is empty(.|\n)*backup(.|\n)*image\.rebuild"):
        Ledger.open(url)
    (tmp_path / "store" / "blobs").rmdir()
    Ledger.open(url).close()


def test_a_ledger_of_another_version_is_refused(database: str) -> None:
    """What another version wrote is not read as though it were ours."""
    other = Ledger.open(database)
    with other._begin() as connection:
        connection.exec_driver_sql("update versions set version = 99")
    other.close()
    with pytest.raises(UsageError, match=r"another version"):
        Ledger.open(database)


def test_a_ledger_of_before_fleets_were_kept_as_judged_opens(tmp_path: Path) -> None:
    """What is new is made where it is missing, and what was there stays."""
    url = f"sqlite:///{tmp_path / 'old.sqlite'}"
    with closing(Ledger.open(url)) as old:
        old.seen_fleet("shop", {"a": "sha256:r1"}, NOW)
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as database:
        database.execute("DROP TABLE fleet_checks")
    with closing(Ledger.open(url)) as ledger:
        assert ledger.fleet_checks() == {}
        ledger.record_check(FleetCheck("shop", NOW, [{"name": "a"}]))
        ledger.record_check(FleetCheck("shop", NOW + DAY, [{"name": "b"}]))
        assert ledger.fleet_checks() == {"shop": FleetCheck("shop", NOW + DAY, [{"name": "b"}])}
        assert ledger.running_digests() == {"sha256:r1": ("shop/a",)}


def test_a_ledger_of_before_an_index_was_thought_of_gets_it(database: str) -> None:
    """Once, also where several open it at the same moment; what was there stays."""
    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    with closing(Ledger.open(database)) as old:
        old.seen_fleet("shop", {"a": "sha256:r1"}, NOW)
        with old._begin() as connection:
            for name in sorted(wanted):
                connection.exec_driver_sql(f"drop index {name}")
    with ThreadPoolExecutor(4) as pool:
        for ledger in pool.map(Ledger.open, [database] * 4):
            ledger.close()
    with closing(Ledger.open(database)) as ledger, ledger._begin() as connection:
        found = inspect(connection)
        assert wanted <= {str(one["name"]) for table in metadata.tables for one in found.get_indexes(table)}
        assert ledger.running_digests() == {"sha256:r1": ("shop/a",)}


def test_a_ledger_of_before_opens_for_who_may_only_read_it(running_postgres: Server) -> None:
    """Indexes make it faster, and no more; who owns its tables makes them."""
    url = running_postgres.new_database()
    with closing(Ledger.open(url)) as old, old._begin() as connection:
        connection.exec_driver_sql("drop index ix_audit_subject")
        connection.exec_driver_sql("create role reader login")
        connection.exec_driver_sql("grant select on all tables in schema public to reader")
    with closing(Ledger.open(make_url(url).set(username="reader").render_as_string())) as ledger:
        assert ledger.audit_lines() == ()


def test_a_ledger_of_before_opens_while_another_writes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or while the disk is full: whoever only reads need not wait for an index."""
    url = f"sqlite:///{tmp_path / 'ledger'}"
    with closing(Ledger.open(url)) as old, old._begin() as connection:
        connection.exec_driver_sql("drop index ix_audit_subject")
    monkeypatch.setattr("images.ledger.database.BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "ledger")) as other:
        other.execute("begin immediate")
        with closing(Ledger.open(url)) as ledger:
            assert ledger.audit_lines() == ()


def test_what_is_asked_again_and_again_reads_no_table_from_end_to_end(tmp_path: Path) -> None:
    """After a year a night, each member of a rollout and whoever looks at the page would wait for that."""
    asked = list[tuple[str, Any]]()
    note: Any = lambda _connection, _cursor, statement, given, *_: asked.append((statement, given))  # noqa: E731
    with closing(Ledger.open(f"sqlite:///{tmp_path / 'ledger'}")) as ledger:
        ledger.record_scan("sha256:c1", ScanRecord((), (), suite="trixie"), NOW)
        event.listen(Engine, "before_cursor_execute", note)
        try:
            ledger.latest_artifact("web", "linux/amd64")
            ledger.package_lists(of=["sha256:c1"])
            ledger.first_seen_all([("CVE-1", "p")], NOW)
            ledger.release("sha256:r1")
            ledger.revoked_of("sha256:r1", "sha256:c1")
            ledger.moves("localhost/web", "stable")
            ledger.last_moves()
            ledger.open_rollouts()
            ledger.open_rollouts("shop")
            ledger.rollouts("shop", 1)
            ledger.rollout_ids("shop")
            ledger.ended_rollouts("shop")
            ledger.state_stamp()
            ledger.audit_lines(subject="web")
            ledger.record_whole_fleet("shop", {"a": "sha256:c1"}, NOW, "check")
            ledger.member_runs("shop", "a")
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        with ledger._begin() as connection:
            steps = [
                str(row.detail)
                for statement, given in asked if statement.lstrip().startswith(("SELECT", "WITH", "DELETE"))
                for row in connection.exec_driver_sql(f"explain query plan {statement}", given)
            ]  # fmt: skip
    small = ("fleet_checks", "anon", "found", "CONSTANT")  # of each fleet one line
    read = {step for step in steps if step.startswith("SCAN") and " USING " not in step}
    assert {step for step in read if not step.split()[1].startswith(small)} == set()
    assert len(steps) > 20


def test_a_ledger_file_whose_making_broke_off_holds_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables and their indexes are made in one transaction: whoever opens it next makes all of them."""
    make = metadata.create_all

    def broken(connection: Connection) -> None:
        make(connection)
        raise InterruptedError

    monkeypatch.setattr(metadata, "create_all", broken)
    with pytest.raises(InterruptedError):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger'}")
    with closing(sqlite3.connect(tmp_path / "ledger")) as file:
        assert file.execute("SELECT name FROM sqlite_master").fetchall() == []
    monkeypatch.undo()
    Ledger.open(f"sqlite:///{tmp_path / 'ledger'}").close()


def check_of(name: str) -> CheckResult:
    """The result that is kept of a content as that definition."""
    return replace(CHECK, evidence=name)


def test_a_question_is_made_once_whatever_it_is_asked_of(ledger: Ledger) -> None:
    """SQLAlchemy takes longer to make and compile one than the database to answer it."""
    ledger.release("sha256:a"), ledger.latest_artifact("a", "linux/amd64"), ledger.seen_channels("a")
    made = _with_same.cache_info().misses
    ledger.release("sha256:b"), ledger.latest_artifact("b", "linux/amd64"), ledger.seen_channels("b")
    assert _with_same.cache_info().misses == made


def test_a_ledger_that_is_there_is_opened_without_asking_for_each_table(database: str) -> None:
    """Every command opens it, and a server may be far."""
    Ledger.open(database).close()
    asked: list[str] = []
    note: Any = lambda _connection, _cursor, statement, *_: asked.append(statement)  # noqa: E731
    event.listen(Engine, "before_cursor_execute", note)
    try:
        Ledger.open(database).close()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert 0 < len(asked) < len(metadata.tables) / 2, asked


def test_a_changed_table_has_another_version_or_a_way_from_the_old_one() -> None:
    """Tables follow dataclasses: a field that somebody adds is a column that no older ledger has. Where it is meant,
    raise VERSION, or test that a ledger without it still opens; then write down what the tables are now.
    """
    tables = metadata.sorted_tables
    indexes = sorted(str(CreateIndex(index)) for table in tables for index in table.indexes)
    made = digest("\n".join([*(str(CreateTable(table)) for table in tables), *indexes]))
    assert (VERSION, made) == (3, "sha256:971c26eecf6d4a64d0b9c54e067c60292f6a568ca88af63beee65ded27f1a805")


@pytest.mark.parametrize("kind", [float, bytes, str | None])
def test_no_column_is_made_of_a_kind_that_is_not_known(kind: object) -> None:
    """It would be kept as JSON by chance."""
    with pytest.raises(TypeError, match="no column is made of"):
        _type_of(kind)


def test_connections_are_kept_as_long_as_somebody_wants_them(tmp_path: Path) -> None:
    """Two at once, of whom one ends; afterwards none is open, and what was written stands."""
    ledger, files = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Path("/proc/self/fd")

    def opened() -> bool:
        return any("ledger.sqlite" in str(one.resolve()) for one in files.iterdir() if not one.name.endswith("lock"))

    with ledger.kept_open():
        with ledger.kept_open():
            ledger.record_artifact(ARTIFACT)
        assert ledger.latest_artifact("web", "linux/amd64") == ARTIFACT
        assert opened()
    assert not opened()
    assert ledger.latest_artifact("web", "linux/amd64") == ARTIFACT
    ledger.close()


def test_a_thread_that_is_late_leaves_no_connection_open(tmp_path: Path) -> None:
    """A thread that was given up may be in a transaction when the ledger closes: its connection closes later."""
    ledger, files = Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Path("/proc/self/fd")
    began, may_end = threading.Event(), threading.Event()

    def opened() -> bool:
        return any(str(one.resolve()) == str(tmp_path / "ledger.sqlite") for one in files.iterdir())

    def ask() -> None:
        with ledger._begin():
            began.set()
            may_end.wait()

    with ledger.kept_open():
        thread = threading.Thread(target=ask)
        thread.start()
        began.wait()
    assert opened()
    may_end.set()
    thread.join()
    assert not opened()
    ledger.close()


def test_files_of_tests_have_the_tables_that_sqlalchemy_words(tmp_path: Path) -> None:
    """Also the second of a process, which is made by the words of the first."""
    said = []
    for name in ("one", "two", "three"):
        file = tmp_path / name
        if name == "three":
            type(metadata).create_all(metadata, engine := create_engine(f"sqlite:///{file}"))
            engine.dispose()
        else:
            Ledger.open(f"sqlite:///{file}").close()
        with closing(sqlite3.connect(file)) as database:
            said.append(database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall())
    assert said[0] == said[1] == said[2]
    assert len(said[0]) > len(metadata.tables)
