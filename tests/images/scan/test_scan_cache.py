"""A scan whose every input is the same is not made again; the verdict is; and whatever changes is looked at anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.catalog import load_policy
from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from hardening.foundation.settings import ROOT, Feeds, Settings
from hardening.gate import judge_image
from hardening.model import Kind, Severity
from images.feeds import debsecan_format
from images.scan import SCANNERS, flow
from images.scan.base import Feed, ScanInputs, Scanner, ScanTarget, report
from images.scan.flow import SBOM, FeedsOnce, ScanResult, at_best, inputs_of, scan, still_valid, unchanged
from images.scan.judge import silent_judges
from images.scan.syft import Bills
from tests.support.publishing import CHECK
from tests.support.scanning import LINUX, NO_FEEDS, make_target, with_bill

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
FEED = Feed(Path("/feeds"), NOW, "an address", "sha256:1")
ONE = {"debsecan": SCANNERS["debsecan"]}


def outcome(name: str, what: Outcome = Outcome.PASS) -> ScanReport:
    """A report that says no more than its outcome."""
    return ScanReport(name, FindingKind.SECRET, what, 1, None, "", "")


def test_programs_are_looked_up_once_for_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of each image the same enters as when it is asked for alone."""
    asked: list[str] = []
    monkeypatch.setattr(flow, "which", asked.append)
    program = FeedsOnce().program
    for subject in ("image", "image 2"):
        assert inputs_of(subject, SCANNERS, {}, {}, program) == inputs_of(subject, SCANNERS, {}, {}, flow._program)
    asked.clear()
    inputs_of("image 3", SCANNERS, {}, {}, program)
    assert asked == []


@pytest.mark.parametrize(
    "feed",
    [
        replace(FEED, date=NOW + timedelta(days=1)),
        replace(FEED, sha256="sha256:2"),
        replace(FEED, source="another"),
        replace(FEED, note="last good copy"),
        replace(FEED, stamps=("trivy.db 5 6",)),
        None,
    ],
)
def test_other_data_is_another_scan(feed: Feed | None) -> None:
    """Its date too, and whether there is any; the bill of materials does not depend on it."""
    before = inputs_of("image", ONE, {"debsecan": FEED}, {})
    after = inputs_of("image", ONE, {"debsecan": feed} if feed else {}, {})
    assert after["debsecan"] != before["debsecan"]
    assert after[SBOM] == before[SBOM]


def test_another_image_reason_or_program_is_another_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is another one when its file is; what the environment says reaches no scanner."""
    program = tmp_path / "my-scanner"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    mine = {"mine": replace(ONE["debsecan"], name="mine", program="my-scanner", feed="mine")}
    seen = [inputs_of("image", mine, {}, {})["mine"]]
    assert inputs_of("image", mine, {}, {})["mine"] == seen[0]
    seen.append(inputs_of("image 2", mine, {}, {})["mine"])
    seen.append(inputs_of("image", mine, {}, {"mine": "no data"})["mine"])
    program.write_text("#!/bin/sh\nexit 0\n")
    seen.append(inputs_of("image", mine, {}, {})["mine"])
    monkeypatch.setenv("TRIVY_SEVERITY", "CRITICAL")
    assert inputs_of("image", mine, {}, {})["mine"] == seen[-1]
    program.unlink()
    seen.append(inputs_of("image", mine, {}, {})["mine"])
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    "module",
    [
        "images.scan.sandbox",
        "hardening.findings",
        "images.advisories",
        "images.artifact",
        "images.packages.debian",
    ],
)
def test_our_own_code_around_a_scanner_is_an_input(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How it is shut in, which versions are denied, and what a finding is: another text of it is another scan."""
    read, changed = Path.read_bytes, import_module(module).__file__

    def reads(path: Path) -> bytes:
        return read(path) + (b"# changed" if str(path) == changed else b"")

    before = flow._own_code.__wrapped__()
    monkeypatch.setattr(Path, "read_bytes", reads)
    assert flow._own_code.__wrapped__() != before


def test_a_judge_without_a_program_evaluates_nothing_at_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And one without data; that is known before there is an image."""
    settings = Settings(state=tmp_path, feeds=Feeds(trivy=str(tmp_path)))
    monkeypatch.setattr("images.scan.flow.feeds.current", lambda *_, **__: ({"debsecan": FEED}, {}))
    monkeypatch.setattr("images.scan.flow.process.which", lambda name: Path("/usr/bin") / name)
    with_programs = {r.scanner: (r.outcome, r.reason) for r in at_best(settings, "trixie", NOW)}
    monkeypatch.setattr("images.scan.flow.process.which", lambda _name: None)
    without = {r.scanner: (r.outcome, r.reason) for r in at_best(settings, "trixie", NOW)}
    assert with_programs["debsecan"] == (Outcome.PASS, "")
    assert with_programs["trivy"] == (Outcome.NOT_EVALUATED, "it has no data")
    assert without["debsecan"] == (Outcome.NOT_EVALUATED, "debsecan is not installed")


def test_who_is_for_other_kinds_of_images_could_judge_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that only a scanner of containers has data for is not built in vain; nor is that one named."""
    settings = Settings(state=tmp_path, scanners=("osv-scanner",))
    monkeypatch.setattr("images.scan.flow.feeds.current", lambda *_, **__: ({"osv-scanner": FEED}, {}))
    monkeypatch.setattr("images.scan.flow.process.which", lambda name: Path("/usr/bin") / name)

    def silent(kind: Kind) -> str:
        one = SimpleNamespace(definition=SimpleNamespace(kind=kind, policy="default"))
        context: Any = SimpleNamespace(
            settings=settings, now=NOW, definitions={"one": one}, policy_of=lambda _: "default"
        )
        return silent_judges(context, "one", "trixie")

    assert silent(Kind.CONTAINER) == ""
    assert "debsecan: " in silent(Kind.MACHINE)
    assert "osv-scanner" not in silent(Kind.MACHINE)


def test_an_error_never_stands() -> None:
    """Nor does what nobody remembers the inputs of."""
    reports = [outcome("a"), outcome("b", Outcome.ERROR), outcome("c"), outcome("d")]
    inputs = {"a": "1", "b": "1", "c": "2", "d": "1"}
    assert still_valid(reports, {"a": "1", "b": "1", "c": "1"}, inputs) == {"a": reports[0]}


class Clinic:
    """An image, a feed, and two scanners that leave a mark whenever they really run."""

    def __init__(self, folder: Path, bill: Bills) -> None:
        self.folder = folder
        self.settings = Settings(state=folder / "state", feeds=NO_FEEDS | {"debsecan": str(folder / "feed")})
        self.feed(NOW)
        self.target = replace(make_target(folder / "image"), subject="image")
        self.bill = with_bill(self.target, bill)
        self.scanners = {"debsecan": self._scanner("debsecan"), "other": self._scanner("other")}

    def feed(self, date: datetime) -> None:
        """The vulnerability data, now of that date."""
        (self.folder / "feed").mkdir(exist_ok=True)
        data = debsecan_format({**LINUX, "openssl": {"3.5.4-1": ["CVE-2026-0001"]}})
        (self.folder / "feed/trixie").write_bytes(data)
        (self.folder / "feed/metadata.json").write_text(json.dumps({"date": date.isoformat()}))

    def runs(self) -> list[str]:
        """Which scanners ran since the last look."""
        marks = sorted(self.folder.glob("ran-*"))
        for mark in marks:
            mark.unlink()
        return [mark.name.removeprefix("ran-") for mark in marks]

    def scan(self, known: ScanResult | None = None, now: datetime = NOW) -> ScanResult:
        """A scan that may rest on an earlier one, at least for its bill of materials."""
        return scan(self.target, self.settings, self.scanners, now=now, known=known or self.bill)

    def unchanged(self, known: ScanResult, now: datetime = NOW) -> ScanResult | None:
        """The scan without a look at the image."""
        return unchanged(known, self.target.subject, self.settings, self.scanners, now=now)

    def _scanner(self, name: str) -> Scanner:
        def command(_target: ScanTarget, _inputs: ScanInputs) -> list[str]:
            (self.folder / f"ran-{name}").touch()  # the scanner itself can write to no place of ours
            return ["true"]

        def parse(_out: str, _target: ScanTarget, inputs: ScanInputs) -> ScanReport:
            opinion = ((name, Severity.LOW),)
            found = Finding(FindingKind.VULNERABILITY, "CVE-2026-0001", "openssl", "1", "", Severity.LOW, opinion)
            return report(name, FindingKind.VULNERABILITY, [found], 1, "", feed=inputs.feeds.get(name))

        return Scanner(name, FindingKind.VULNERABILITY, "true", command, parse, feed=name if name == "debsecan" else "")


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Bills:
    """The bill of materials of the clinic's image."""
    folder = tmp_path_factory.mktemp("bill")
    made = scan(make_target(folder / "image"), Settings(state=folder / "state", feeds=NO_FEEDS), {}, now=NOW)
    return Bills(made.sbom, made.spdx)


@pytest.fixture
def clinic(tmp_path: Path, bill: Bills) -> Clinic:
    """The clinic, in a folder of the test's own."""
    return Clinic(tmp_path, bill)


@pytest.mark.needs("syft")
def test_where_nothing_changed_no_scanner_runs_and_the_answer_is_the_same(clinic: Clinic) -> None:
    """With or without a look at the image, on a later day too."""
    first = clinic.scan()
    assert clinic.runs() == ["debsecan", "other"]
    tomorrow = NOW + timedelta(days=1)
    assert clinic.scan(first, tomorrow) == clinic.unchanged(first, tomorrow) == first
    assert clinic.runs() == []


@pytest.mark.needs("syft")
def test_only_what_new_data_concerns_is_scanned_again(clinic: Clinic) -> None:
    """The others' reports and the bill of materials stand."""
    first = clinic.scan()
    clinic.runs()
    clinic.feed(NOW + timedelta(days=1))
    assert clinic.unchanged(first) is None
    second = clinic.scan(first)
    assert clinic.runs() == ["debsecan"]
    assert [r.data_date for r in second.reports] == [NOW + timedelta(days=1), None]
    assert (second.sbom, second.inputs["other"]) == (first.sbom, first.inputs["other"])
    assert clinic.unchanged(second) == second


@pytest.mark.needs("syft")
def test_a_scan_that_stands_does_not_make_its_data_younger(clinic: Clinic) -> None:
    """The gate is asked again, and refuses when the policy accepts the data's age no more."""
    first = clinic.scan()
    policy = load_policy((ROOT,), "default")
    allowed = [
        judge_image(policy, "image", (CHECK,), found.reports, found.findings, (), now).allowed
        for now in (NOW, NOW + timedelta(days=8))
        if (found := clinic.unchanged(first, now))
    ]
    assert allowed == [True, False]


@pytest.mark.needs("syft")
def test_what_is_exploited_is_asked_anew(clinic: Clinic) -> None:
    """The list of it is no input of any scanner."""
    first = clinic.scan()
    listed = clinic.folder / "kev.json"
    listed.write_text('[{"cveID": "CVE-2026-0001"}]')
    feeds = clinic.settings.feeds.model_copy(update={"kev": str(listed)})
    clinic.settings = clinic.settings.model_copy(update={"feeds": feeds})
    again = clinic.unchanged(first)
    assert again
    assert [r.scanner for r in again.reports] == ["debsecan", "other", "kev"]
    assert ([f.exploited for f in first.findings], [f.exploited for f in again.findings]) == ([False], [True])


@pytest.mark.needs("syft")
@pytest.mark.parametrize(
    "forget", [lambda r: replace(r, inputs={}), lambda r: replace(r, inputs={**r.inputs, SBOM: ""})]
)
def test_what_is_not_remembered_whole_is_made_anew(clinic: Clinic, forget: Callable[[ScanResult], ScanResult]) -> None:
    """A scan of an older version of ours says nothing of its inputs; a bill that is gone is written again."""
    first = clinic.scan()
    assert clinic.unchanged(forget(first)) is None
    assert clinic.scan(forget(first)) == first
