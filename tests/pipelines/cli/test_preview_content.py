"""`policy.preview` over all content and at another day: the same as judging then by that content, and nothing else."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import CheckResult, Finding, FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation import process
from hardening.foundation.errors import ContentError, OutsideError, UsageError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Docker, Judging, Registry, Settings
from hardening.model import Enforcement, Severity
from images import feeds
from images.context import Context
from images.feeds.indexed import Likelihoods
from images.ledger import ScanRecord
from images.plan.planner import Planner
from images.scan import chosen
from images.scan.flow import inputs_of
from images.scan.judge import judge, scan_subject
from pipelines import revisions
from pipelines.cli import waiving
from pipelines.cli.preview import moment, preview, show_preview
from pipelines.cli.preview_output import PreviewLine, PreviewOutput, UnknownLine, markdown
from pipelines.cli.waiving import new_waiver, show_new
from pipelines.revisions import revisions_of
from pipelines.rollout.session import check, fleet_session
from pipelines.wiring import image_context
from tests.support.fleets import release
from tests.support.planted import PROMISES, plant_repository
from tests.support.publishing import built, running_registry
from tests.support.scanning import NO_FEEDS
from tests.support.yards import Yard

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DEFAULT = (ROOT / "hardening/policies/default.toml").read_text().partition("[running.approved_source]")[0]
DEFINITION = """
title = "t"
owner = "web"
kind = "container"
profile = "own"
policy = "own"
smoke = ["true"]
healthcheck = { none_because = "a test runs nothing" }
[base]
bootstrap = { family = "debian", suite = "trixie" }
"""
PROFILE = 'title = "t"\nowner = "o"\nextends = "container-base"\ncontrols = [%s]\n'
CONTROL = """
title = "t"
severity = "high"
applies_to = ["container"]
owner = "o"
rationale = "r"
cost = "c"
"""
CASES = '[[proof]]\ntitle = "t"\nplant = "true"\nevidence = "e"\n'
WAIVER = """
%s
subjects = ["%s"]
reason = "r"
owner = "web"
approver = "security"
created = 2026-11-01
expires = %s
"""
POLICY = """
title = "t"
owner = "security"
rationale = "r"
review_by = 2028-01-01
exception_contact = "s"
[image.judges]
data_max_age = "%sd"
"""


class House:
    """A content root of its own in git, with the images shop and bank: built, checked and scanned."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "root", folder / "state"
        self.state.mkdir(mode=0o700)
        self.write("policies/own.toml", DEFAULT.replace('data_max_age = "7d"', 'data_max_age = "90d"'))
        self.write("profiles/own.toml", PROFILE % '{ control = "own-check", enforcement = "warn" }')
        for name, text in {"control.toml": CONTROL, "check.sh": "echo 1\n", "cases.toml": CASES}.items():
            self.write(f"controls/own-check/{name}", text)
        for name in ("shop", "bank"):
            self.put(f"images/definitions/{name}/image.toml", DEFINITION)
        run(["git", "init", "-q", str(self.root)])
        self.commit("before")
        settings = {"content": (self.root,), "judging": {"roots": [self.root]}, "kinds": ("container",)}
        self.settings = Settings.model_validate({"state": self.state, **settings, "feeds": NO_FEEDS})
        self.context = Context(self.settings, NOW, str, str)

    def put(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def write(self, path: str, text: str) -> None:
        self.put(f"hardening/{path}", text)

    def waive(self, name: str, what: str, subject: str, expires: str) -> None:
        self.write(f"waivers/{name}.toml", WAIVER % (what, subject, expires))

    def commit(self, tag: str) -> None:
        """Keep the content as it stands, under a name that no other repository knows."""
        git = ["git", "-C", str(self.root), "-c", "user.name=ann", "-c", "user.email=ann@example.com"]
        run([*git, "add", "."])
        run([*git, "commit", "--allow-empty", "-qm", tag])
        run([*git, "tag", "--force", f"test-{tag}"])

    def judge(
        self, name: str, *found: Finding, failing: tuple[str, ...] = (), data_date: datetime = NOW, tar: bytes = b""
    ) -> None:
        """Keep that `name` was built, what its checks said and what scanners found, as real runs keep it."""
        ledger, store, scanners = self.context.ledger, self.context.store, chosen(self.settings.scanners)
        context = self.context.moved(NOW)  # of a run of its own, which has read the content as it is now
        artifact = replace(built(store, name, name, tar=tar), packages=())
        ledger.record_artifact(artifact)
        overlay = Planner(context).overlay(context.definitions[name])
        checks = [
            CheckResult(
                check.control, check.title, check.severity, check.enforcement,
                Outcome.FAIL if check.control in failing else Outcome.PASS, "/bin/su",
            )
            for check in overlay.checks
        ]  # fmt: skip
        ledger.record_checks(artifact.digest, tuple(checks), NOW, dict(overlay.parts["checks"]))
        reports = tuple(
            ScanReport(
                scanner, one.kind, Outcome.PASS, 9, data_date, "feed", "",
                tuple(f for f in found if f.kind is one.kind and dict(f.scanners).get(scanner)),
            )
            for scanner, one in sorted(scanners.items())
        )  # fmt: skip
        data, missing = feeds.current(self.settings, "trixie", NOW)
        subject, _ = scan_subject(context, artifact, None, disk=False)
        inputs = inputs_of(subject, scanners, data, missing)
        sbom = store.put_bytes(b"{}", "application/json")
        record = ScanRecord(reports, found, sbom.digest, "trixie", inputs, sbom.digest)
        ledger.record_scan(artifact.digest, record, NOW)

    def by_commands(self, at: datetime, monkeypatch: pytest.MonkeyPatch) -> dict[str, Verdict]:
        """What the real judgement says of both images by the content as it stands, with the clock moved to `at`."""
        monkeypatch.setenv("GOLDSMITH_NOW", at.isoformat())
        context = image_context(self.settings, looks=True)
        monkeypatch.delenv("GOLDSMITH_NOW")
        with closing(context.ledger):
            found = {name: context.ledger.latest_artifact(name, "linux/amd64") for name in ("shop", "bank")}
            return {name: judge(context, one, "own").verdict for name, one in found.items() if one}

    def scanned(self, name: str) -> tuple[str, ScanRecord]:
        """The digest of an image's artifact, and the last scan of it."""
        ledger, artifact = self.context.ledger, self.context.ledger.latest_artifact(name, "linux/amd64")
        assert artifact
        scan = ledger.scan(artifact.digest)
        assert scan
        return artifact.digest, scan

    def limit_age(self, more: str = "") -> None:
        """Let the policy accept data of a week; `more` ends it."""
        text = (self.root / "hardening/policies/own.toml").read_text()
        self.write("policies/own.toml", text.replace('data_max_age = "90d"', 'data_max_age = "7d"') + more)

    def release(self, name: str, content: str, number: int) -> None:
        """Keep that `content`, which an engine runs, was published as `name` and found to be as its artifact."""
        ledger, (digest, scan) = self.context.ledger, self.scanned(name)
        ledger.record_scan(content, scan, NOW)
        ledger.record_checks(content, ledger.checks(digest), NOW)
        dates = {"published_at": NOW - 5 * DAY, "warn_at": NOW + 30 * DAY, "expires_at": NOW + 40 * DAY}
        ledger.record_release(release(number, name=name, content=content, policy="own", **dates))

    def reach(self, docker_host: str, registry: str) -> None:
        """From now on the engine of fleets and the registry are these."""
        more = {"docker": Docker(host=docker_host), "registry": Registry(address=f"{registry}/golden")}
        self.settings = self.settings.model_copy(update=more)
        self.context = image_context(self.settings, looks=True).moved(NOW)

    def refused(self, at: datetime, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """The images that the real judgement refuses, and the members that the real check finds out of policy."""
        images = {name for name, verdict in self.by_commands(at, monkeypatch).items() if not verdict.allowed}
        context = image_context(self.settings, looks=True).moved(at)
        with closing(context.ledger), fleet_session("web", context, now=lambda: at) as session:
            return images | {f"web/{one.member.name}" for one in check(session) if one.violations}

    def preview(self, at: datetime | None = None, against: str = "test-before") -> PreviewOutput:
        self.context.__dict__.pop("controls", None)  # each command reads them anew
        output, errors = preview(against=against, at=at.isoformat() if at else "", context=self.context)
        assert errors == []
        return output


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    with closing(made.context.ledger):
        yield made


def hole(severity: Severity = Severity.MEDIUM, name: str = "CVE-2026-0001", **change: Any) -> Finding:
    base = Finding(FindingKind.VULNERABILITY, name, "openssl", "3.5", "3.6", severity, (("trivy", severity),))
    return replace(base, **{"fix_known_since": NOW - 2 * DAY, **change})


def told(output: PreviewOutput) -> dict[str, tuple[str, list[str]]]:
    """By name, what changes and by which rules."""
    return {line.name: (line.change, sorted({one.rule for one in (*line.gained, *line.lost)})) for line in output.lines}


def stricter(house: House) -> None:
    text = (house.root / "hardening/policies/own.toml").read_text()
    house.write("policies/own.toml", text.replace('severity = "medium"\nwithin = "7d"', 'severity = "medium"'))


def test_every_sort_of_content_is_compared(house: House) -> None:
    """A policy, a profile, and a waiver that another branch has changed, added or removed: each is named."""
    house.judge("shop", hole(), failing=("own-check",))
    house.judge("bank", hole(Severity.HIGH))
    assert house.preview().lines == house.preview().changed == ()
    stricter(house)
    house.waive("bank", 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]', "bank", "2026-12-30")
    output = house.preview()
    assert output.changed == ("policy own", "waiver bank (new)")
    assert told(output) == {"bank": ("freed", ["CVE-2026-0001"]), "shop": ("refused", ["CVE-2026-0001"])}
    house.commit("after")
    house.write("profiles/own.toml", PROFILE % '{ control = "own-check" }')
    (house.root / "hardening/waivers/bank.toml").unlink()
    output = house.preview(against="test-after")
    assert output.changed == ("profile own", "waiver bank (gone)")
    assert told(output) == {"bank": ("refused", ["CVE-2026-0001"]), "shop": ("more", ["own-check"])}
    house.write("profiles/own.toml", PROFILE % "")
    assert told(house.preview(against="test-after"))["bank"][0] == "refused"


def test_a_control_that_is_no_longer_asked_for_frees(house: House) -> None:
    """As the image that is built without it is."""
    house.write("profiles/own.toml", PROFILE % '{ control = "own-check" }')
    house.commit("before")
    house.judge("shop", failing=("own-check",))
    house.write("profiles/own.toml", PROFILE % "")
    assert told(house.preview()) == {"shop": ("freed", ["own-check"])}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("controls/own-check/check.sh", "echo 2\n"),
        ("profiles/own.toml", PROFILE % '{ control = "own-check", enforcement = "warn" }, { control = "no-swap" }'),
    ],
    ids=["its check", "new in the profile"],
)
def test_a_changed_control_of_which_nothing_is_known_is_unknown_and_never_free(
    house: House, path: str, text: str
) -> None:
    """Where its check cannot run, such as here, it is named with each image; what it said last stands. Exit code 4."""
    house.write("profiles/own.toml", PROFILE % '{ control = "own-check" }')
    house.commit("before")
    house.judge("shop", failing=("own-check",))
    house.judge("bank")
    if "no-swap" in text:
        text = text.replace(', enforcement = "warn"', "").replace("no-swap", "second")
        for name, words in {"control.toml": CONTROL, "check.sh": "echo 1\n", "cases.toml": CASES}.items():
            house.write(f"controls/second/{name}", words)
    house.write(path, text)
    output = house.preview()
    assert output.lines == ()
    control = "second" if "second" in text else "own-check"
    assert [(line.kind, line.name, line.controls) for line in output.unknown] == [
        ("image", "bank", (control,)), ("image", "shop", (control,)),
    ]  # fmt: skip
    assert show_preview((output, []), as_json=True) == 4


def layer(*files: str) -> bytes:
    """A layer with these files in /etc."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("usr", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name in files:
            tar.addfile(tarfile.TarInfo(f"etc/{name}"))
    return data.getvalue()


@pytest.mark.needs("root")
@pytest.mark.parametrize("recorded", [False, True], ids=["its check runs", "the last verification has its result"])
def test_a_new_control_is_answered_for_each_stored_image(house: House, recorded: bool) -> None:
    """By its last verification, else by a run of the check, which records nothing; what it does changes no result."""
    house.judge("shop", tar=layer("core"))
    house.judge("bank", tar=layer())
    check = 'if [ -e "$ROOT/etc/core" ]; then echo /etc/core; exit 1; fi\necho none\n'
    for name, words in {"control.toml": CONTROL, "check.sh": check, "cases.toml": CASES}.items():
        house.write(f"controls/second/{name}", words)
    house.write("controls/own-check/apply.sh", "true\n")
    house.write(
        "profiles/own.toml", PROFILE % '{ control = "own-check", enforcement = "warn" }, { control = "second" }'
    )
    artifact = house.context.ledger.latest_artifact("shop", "linux/amd64")
    assert artifact
    if recorded:
        house.judge("shop", failing=("second",), tar=layer("core"))
        (house.context.store.blob(artifact.digest)).unlink()
    known = house.context.ledger.checks(artifact.digest)
    output = house.preview()
    assert (told(output), output.unknown) == ({"shop": ("refused", ["second"])}, ())
    assert output.lines[0].gained[0].what.endswith("/bin/su" if recorded else "/etc/core")
    assert house.context.ledger.checks(artifact.digest) == known
    assert show_preview((output, []), as_json=True) == 3


@pytest.mark.needs("root")
def test_a_new_control_knows_the_files_of_a_definition(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does in a build: else the preview would refuse what a build accepts."""
    house.judge("shop", tar=layer())
    monkeypatch.setattr(Context, "declared", lambda _context, name: (f"/etc/{name}",))
    check = 'cat "$DECLARED_FILES"; grep -qx /etc/shop "$DECLARED_FILES"\n'
    for name, words in {"control.toml": CONTROL, "check.sh": check, "cases.toml": CASES}.items():
        house.write(f"controls/second/{name}", words)
    house.write(
        "profiles/own.toml", PROFILE % '{ control = "own-check", enforcement = "warn" }, { control = "second" }'
    )
    output = house.preview()
    assert (told(output), output.unknown) == ({}, ())


def test_an_image_without_the_result_of_a_control_is_unknown(house: House) -> None:
    """Its real judgement would verify it again first."""
    house.judge("shop")
    artifact = house.context.ledger.latest_artifact("shop", "linux/amd64")
    assert artifact
    known, scripts = house.context.ledger.checks(artifact.digest), house.context.ledger.check_scripts(artifact.digest)
    house.context.ledger.record_checks(artifact.digest, known[1:], NOW, scripts)
    assert [line.controls for line in house.preview().unknown] == [(known[0].control,)]


# -- another day -------------------------------------------------------------------------------------------------------


SCORES, EXPLOITED = {"CVE-2026-0000": 0.9, "CVE-2026-0001": 0.1}, frozenset({"CVE-2026-0002"})


def random_policy(draw: Any) -> str:
    """A policy of windows, stages and running rules; each is sound by itself."""
    text = POLICY % draw.choice((90, 10)) + '[[image.vulnerabilities]]\nseverity = "critical"\n'
    for _ in range(draw.randint(1, 3)):
        text += (
            f'[[image.vulnerabilities]]\nseverity = "{draw.choice([*Severity])}"\nwithin = "{draw.randint(0, 20)}d"\n'
        )
        text += draw.choice(
            ("", "exploited = true\n", "epss = 0.5\n", f"from = {day(draw)}\n", 'enforcement = "warn"\n')
        )
    for rule in ("secrets", "unfixed", "misconfigurations"):
        text += f"[image.{rule}]\n" + draw.choice(("", 'enforcement = "audit"\n', f"from = {day(draw)}\n"))
    return text


def day(draw: Any) -> date:
    return (NOW + draw.randint(-5, 25) * DAY).date()


def random_content(house: House, draw: Any) -> None:
    house.write("policies/own.toml", random_policy(draw))
    stage = f', stages = [{{ enforcement = "enforce", from = {day(draw)} }}]'
    enforcement = draw.choice(("audit", "warn", "enforce"))
    house.write(
        "profiles/own.toml",
        PROFILE % f'{{ control = "own-check", enforcement = "{enforcement}"{draw.choice(("", stage))} }}',
    )
    for subject in ("shop", "bank"):
        what = draw.choice(('controls = ["own-check"]', 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]'))
        house.waive(subject, what, subject, str(max(day(draw), date(2026, 11, 2))))


def random_findings(draw: Any) -> Iterator[Finding]:
    for number in range(draw.randint(0, 3)):
        since = NOW - draw.randint(0, 20) * DAY
        name = f"CVE-2026-000{number}"
        found = hole(draw.choice([*Severity]), name, fix_known_since=since, epss=SCORES.get(name))
        yield replace(found, exploited=name in EXPLOITED, fixed=draw.choice(("3.6", "3.6", "")))
    if draw.random() < 0.5:
        said = (("trivy-secret", Severity.HIGH),)
        yield replace(hole(), kind=FindingKind.SECRET, id="private-key", package="/root/key", scanners=said)


class Estimated(Likelihoods):
    """Estimates that no file holds."""

    @property
    def scores(self) -> Mapping[str, float]:
        """How likely each is."""
        return SCORES


@pytest.mark.parametrize("seed", range(6))
def test_a_preview_says_what_judging_says_on_that_day(house: House, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of generated content, findings and days: the same are refused, by the same reasons, before and after."""
    for name in ("exploited", "exploitation"):
        monkeypatch.setattr(feeds, name, lambda *_: feeds.Exploited(EXPLOITED, likely=Estimated()), raising=False)
    draw = random.Random(seed)
    random_content(house, draw)
    house.commit("before")
    for name in ("shop", "bank"):
        failing = ("own-check",) if draw.random() < 0.5 else ()
        house.judge(name, *random_findings(draw), failing=failing)
    at = NOW + draw.randint(0, 30) * DAY
    before = house.by_commands(at, monkeypatch)
    random_content(house, draw)
    after = house.by_commands(at, monkeypatch)
    output = house.preview(at)
    changes = {line.name: line for line in output.lines}
    for name in before:
        aged = name in output.aged
        old, new = (
            {(one.rule, one.what, one.enforcement, one.deadline) for one in side[name].refusals}
            for side in (before, after)
        )
        old, new = ({one for one in side if not aged or one[0] != "judges"} for side in (old, new))
        line = changes.get(name)
        expected = "refused" if new and not old else "freed" if old and not new else ""
        assert (line.change if line and line.change in ("refused", "freed") else "") == expected, name
        gained = {(one.rule, one.what, one.enforcement, one.deadline) for one in line.gained} if line else set()
        lost = {(one.rule, one.what, one.enforcement, one.deadline) for one in line.lost} if line else set()
        assert gained <= new - old
        assert lost <= old - new
        assert {one[:3] for one in new - old} - {one[:3] for one in old} == {one[:3] for one in gained} - {
            one[:3] for one in old
        }


def test_the_clock_a_day_later_refuses_what_a_waiver_let_pass(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends tomorrow passes today with a warning, by the real judgement with the clock moved."""
    house.judge("shop", hole(Severity.HIGH))
    house.waive("w", 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]', "shop", str(NOW.date()))
    today, tomorrow = (house.by_commands(NOW + days * DAY, monkeypatch)["shop"] for days in (0, 1))
    assert today.allowed
    assert [(one.rule, one.enforcement) for one in today.reasons if not one.waived_by] == [("waiver-ending", "warn")]
    assert not tomorrow.allowed
    assert [one.rule for one in tomorrow.refusals] == ["CVE-2026-0001"]


def test_without_another_content_a_day_is_compared_with_today(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dates alone will refuse: a window that ends, a stage that begins, a waiver that has ended."""
    house.judge("shop", hole(), failing=("own-check",))
    house.judge("bank", hole(Severity.HIGH))
    house.waive("bank", 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]', "bank", "2026-11-30")
    stage = '{ control = "own-check", enforcement = "warn", stages = [{ enforcement = "enforce", from = 2026-12-02 }] }'
    house.write("profiles/own.toml", PROFILE % stage)
    monkeypatch.setattr(revisions, "ROOMS", {})  # so that the checkout of whoever runs this may differ from its commit
    output = house.preview(NOW + 10 * DAY, against="")
    assert output.compared_with.startswith("today (2026-11-25)")
    assert told(output) == {"shop": ("refused", ["CVE-2026-0001", "own-check"]), "bank": ("refused", ["CVE-2026-0001"])}
    house.waive("bank", 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]', "bank", "2026-12-30")
    assert "bank" not in told(house.preview(NOW + 10 * DAY, against=""))


def test_the_age_that_todays_data_will_have_is_left_out_and_said(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else all that lies further ahead than a policy lets data be would be refused for that."""
    house.judge("shop", hole())
    stricter(house)
    house.limit_age()
    output = house.preview(NOW + 8 * DAY)
    assert output.aged == ("shop",)
    assert {rule for line in output.lines for rule in told(output)[line.name][1]} == {"CVE-2026-0001"}
    show_preview((output, []), as_json=False)
    assert "left out, since scans go on: on that day too old would be those of shop" in capsys.readouterr().err
    house.judge("shop", hole(), data_date=NOW - 30 * DAY)
    assert house.preview(NOW + 8 * DAY).aged == (), "today it is too old already, and refused for it"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        ("2027-01-31T12:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
        ("2027-01-31T12:00", datetime(2027, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_day_is_typed_as_such(typed: str, meant: datetime) -> None:
    """It begins at 00:00 UTC."""
    assert moment(typed) == meant
    with pytest.raises(UsageError, match=r"--at: invalid date: 31\.1\.2027\n.*such as 2027-01-31"):
        moment("31.1.2027")


@pytest.mark.parametrize("typed", ["0001-01-01", "9999-12-31", "2127-01-01", "0001-01-01T00:00+05:00"])
def test_a_day_that_dates_cannot_count_from_is_refused(house: House, typed: str) -> None:
    """What is added to it would lie beyond the last date that there is."""
    with pytest.raises(UsageError, match=f"--at: .*{re.escape(typed)}"):
        preview(at=typed, context=house.context)


FLEET = """
title = "t"
owner = "web"
kind = "docker"
policy = "own"
selector = { app = "fleet-test" }
replacement = { definition = "shop" }
"""


@pytest.mark.slow
@pytest.mark.needs("docker", "busybox", "docker-registry", "skopeo")
def test_exactly_the_images_and_running_containers_are_listed_that_then_do_fall_out(
    house: House, yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a real engine: the members on the image that the new policy refuses, and no other, as `fleet.check` says."""
    house.judge("shop", hole(fix_known_since=NOW - DAY))
    house.judge("bank", hole(Severity.LOW))
    for number, (name, image) in enumerate((("shop", "one"), ("bank", "two"))):
        house.release(name, yard.images[image], number)
        for member in (1, 2):
            yard.start(f"{name}-{member}", image=f"fleet-test:{image}")
    yard.start("stranger", image="fleet-test:faint")
    house.put("pipelines/fleets/web.toml", FLEET)
    house.commit("before")
    with running_registry(tmp_path / "registry") as address:
        house.reach(docker_host=yard.host, registry=address)
        before = house.refused(NOW, monkeypatch)
        stricter(house)
        output = house.preview()
        after = house.refused(NOW, monkeypatch)
        house.commit("stricter")
        house.waive("w", 'vulnerabilities = ["CVE-2026-0001"]\npackages = ["openssl"]', "shop", "2026-11-28")
        then = {days: house.refused(NOW + days * DAY, monkeypatch) for days in (3, 4)}
        house.write("controls/own-check/check.sh", "echo 2\n")  # by which a judgement would verify them again
        for days, still in then.items():  # on its last day it frees, and on the next one no more
            waived = house.preview(NOW + days * DAY, against="test-stricter")
            assert {line.name for line in waived.lines if line.change == "freed"} == after - still
            assert bool(waived.lines) is (days == 3)
    names = {f"web/{name}-{number}" for name in ("shop", "bank") for number in (1, 2)}
    assert {line.name for line in waived.unknown} == {"shop", "bank", *names}, "but the stranger has no control of ours"
    assert before == {"web/stranger"}
    assert (output.images, output.members) == (2, 5)
    assert {line.name for line in output.lines if line.change == "refused"} == after - before
    assert after - before == {"shop", "web/shop-1", "web/shop-2"}
    assert [line.name for line in output.lines] == sorted(after - before)


def test_the_age_that_the_list_of_rebuilt_packages_will_have_is_left_out_too(house: House) -> None:
    """As that of the scanners' data is."""
    house.judge("shop")
    digest, scan = house.scanned("shop")
    rebuilt = ScanReport("reproduced", FindingKind.REPRODUCTION, Outcome.PASS, 9, NOW, "feed", "", reproduced=9)
    house.context.ledger.record_scan(digest, replace(scan, reports=(*scan.reports, rebuilt)), NOW)
    house.limit_age('[image.reproduced]\nenforcement = "enforce"\nminimum_percent = 90\n')
    output = house.preview(NOW + 8 * DAY)
    assert (output.aged, told(output)) == (("shop",), {})


def test_packages_that_only_ageing_data_covers_are_left_out_too(house: House) -> None:
    """A scanner with newer data does not read them: today nothing is uncovered, then it would be."""
    house.judge("shop")
    digest, scan = house.scanned("shop")
    blind = [
        replace(one, beyond=(("npm", "1 package (lodash 4.17.4)"),)) if one.kind is FindingKind.VULNERABILITY else one
        for one in scan.reports
    ]
    sees = replace(
        next(one for one in scan.reports if one.kind is FindingKind.VULNERABILITY), scanner="other",
        data_date=NOW - 5 * DAY, ecosystems=("deb", "npm"),
    )  # fmt: skip
    house.limit_age()
    for reports, aged in (((*blind, sees), ("shop",)), (blind, ())):
        house.context.ledger.record_scan(digest, replace(scan, reports=tuple(reports)), NOW)
        output = house.preview(NOW + 3 * DAY)
        assert (output.aged, told(output)) == (aged, {}), "without `sees` it is refused today, and as before then"


def test_the_days_on_which_changed_rules_begin_are_named(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Of policies and of profiles: nobody is refused yet, and who looks at that day sees whom."""
    house.judge("shop", hole(fix_known_since=NOW - DAY), failing=("own-check",))
    stricter(house)
    text = (house.root / "hardening/policies/own.toml").read_text()
    house.write("policies/own.toml", text.replace('severity = "medium"', 'severity = "medium"\nfrom = 2026-12-01'))
    stage = '{ control = "own-check", enforcement = "warn", stages = [{ enforcement = "enforce", from = 2026-12-05 }] }'
    house.write("profiles/own.toml", PROFILE % stage)
    house.write("profiles/other.toml", PROFILE % stage.replace("2026-12-05", "2026-12-07"))
    house.commit("staged")
    assert house.preview(against="test-staged").begins == (), "of what was not changed"
    (house.root / "hardening/profiles/other.toml").unlink()
    output = house.preview()
    assert (output.lines, output.begins) == ((), (date(2026, 12, 1), date(2026, 12, 5)))
    assert output.weaker, "until then"
    show_preview((output, []), as_json=False)
    said = "rules begin on 2026-12-01, 2026-12-05: --at 2026-12-01 shows what they refuse"
    assert said in " ".join(capsys.readouterr().err.split())
    later = house.preview(datetime(2026, 12, 1, tzinfo=UTC))
    assert told(later) == {"shop": ("refused", ["CVE-2026-0001"])}
    assert later.begins == (date(2026, 12, 5),)


# -- what is compared with ---------------------------------------------------------------------------------------------


def test_a_directory_stands_in_the_place_of_the_checkout(house: House, tmp_path: Path) -> None:
    """Such as another work tree of git; a link that leads out of it is refused."""
    house.judge("shop", hole())
    other = tmp_path / "other"
    for room in ("hardening", "images/definitions"):
        shutil.copytree(ROOT / room, other / room, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    assert house.preview(against=str(other)).changed == ()
    (other / "hardening/policies/default.toml").write_text(DEFAULT)
    (other / "hardening/profiles/more.toml").write_text(PROFILE % "")
    output = house.preview(against=str(other))
    assert (output.changed, output.compared_with) == (("policy default", "profile more (gone)"), str(other))
    (other / "hardening/policies/default.toml").unlink()
    (other / "hardening/policies/default.toml").symlink_to(ROOT / "hardening/policies/default.toml")
    with pytest.raises(ContentError, match="a link out of"):
        house.preview(against=str(other))


def test_content_that_no_git_keeps_is_compared_with_today_alone(house: House, tmp_path: Path) -> None:
    """By its dates; what else to compare it with somebody must say."""
    house.judge("shop", hole())
    other = tmp_path / "copy"
    for room in ("hardening", "images/definitions"):
        shutil.copytree(ROOT / room, other / room, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.rmtree(house.root / ".git")
    house.context = house.context.over_content((other, house.root))
    assert told(house.preview(NOW + 6 * DAY, against="")) == {"shop": ("refused", ["CVE-2026-0001"])}
    with pytest.raises(UsageError, match=r"HEAD is neither(.|\n)*not a git repository(.|\n)*--against names"):
        house.preview(against="")


@pytest.mark.needs("root")
@pytest.mark.parametrize("ahead", [timedelta(), 10 * DAY])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda root: [os.chown(place, 1, 1) for place in (root, root / ".git")], "detected dubious ownership in"),
        (lambda root: (root / ".git/HEAD").unlink(), "not a git repository (or any"),
        (lambda root: (root / ".git/config").write_text("["), "bad config line"),
    ],
)
def test_a_root_that_git_refuses_is_never_left_out(
    house: House, wrong: Callable[[Path], object], why: str, ahead: timedelta
) -> None:
    """It was compared with itself, so that nothing in it had changed; the checkout has a last commit."""
    wrong(house.root)
    with pytest.raises(OutsideError) as error:
        house.preview(NOW + ahead, against="")
    assert error.value.message.startswith(f"git refuses {house.root}: fatal: {why}")
    assert error.value.exit_code == 4


def test_what_cannot_be_compared_with_is_said(house: House) -> None:
    """With what git said; nothing that looks like an option reaches git as one; and no two ways at once."""
    with pytest.raises(UsageError, match=r"nosuch is neither a directory nor a revision(.|\n)*it has no such revision"):
        house.preview(against="nosuch")
    with pytest.raises(UsageError, match="--help is neither a directory nor a revision"):
        house.preview(against="--help")
    with pytest.raises(UsageError, match="not both"):
        preview("own.toml", against="main", context=house.context)
    with pytest.raises(UsageError, match=r"waivers/x.toml is not a policy\n.*--against another revision"):
        preview("hardening/waivers/x.toml", context=house.context)
    with pytest.raises(UsageError, match="--instead-of is about a policy's file"):
        preview(instead_of="own", context=house.context)


def test_an_error_in_the_other_revision_names_that(house: House) -> None:
    """And not the folder that it was written to."""
    house.write("policies/own.toml", "nonsense = 1\n")
    house.commit("broken")
    house.write("policies/own.toml", DEFAULT)
    with pytest.raises(ContentError, match=r"^test-broken:1/hardening/policies/own.toml: nonsense: unknown key"):
        house.preview(against="test-broken")


def test_a_revision_larger_than_content_may_be_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a byte of it is written: a branch may be a stranger's."""
    for name, most in (("REVISION_BYTES", 1000), ("REVISION_FILES", 5)):
        with monkeypatch.context() as patched:
            limit = replace(getattr(revisions, name), most=most)
            patched.setattr(revisions, name, limit)
            with pytest.raises(OutsideError, match=rf"test-before of .* exceeds the limit {limit.name} "):
                house.preview()


def test_a_link_out_of_the_other_revision_is_refused(house: House) -> None:
    """It would read a file of this host."""
    (house.root / "hardening/policies/more.toml").symlink_to("/etc/passwd")
    house.commit("link")
    (house.root / "hardening/policies/more.toml").unlink()
    with pytest.raises(ContentError, match=r"^test-link:1/hardening/policies/more.toml: a link out of"):
        house.preview(against="test-link")


@pytest.mark.parametrize("trap", ["post-checkout", "post-index-change", "fsmonitor", "filter"])
def test_no_program_of_the_repository_runs(house: House, tmp_path: Path, trap: str) -> None:
    """No hook, and no filter that .gitattributes choose; its index and work tree stay as they are."""
    house.write("policies/more.toml", DEFAULT)
    git = ["git", "-C", str(house.root)]
    before = run([*git, "status", "--porcelain"]).stdout
    program = house.root / ".git/hooks" / trap
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    program.chmod(0o755)
    if trap == "filter":
        (house.root / ".git/info/attributes").write_text("* filter=planted\n")
        run([*git, "config", "filter.planted.smudge", str(program)])
    if trap == "fsmonitor":
        run([*git, "config", "core.fsmonitor", str(program)])
    house.preview()
    assert not (tmp_path / "ran").exists()
    program.unlink()
    assert run([*git, "status", "--porcelain"]).stdout == before


def test_content_that_is_itself_a_repository_runs_nothing(house: House, tmp_path: Path) -> None:
    """Neither where a content root is one, nor where the folder of a policy is."""
    for folder in ("hardening", "hardening/policies"):
        plant_repository(house.root / folder, tmp_path / "ran")
    with pytest.raises(OutsideError, match=r"cannot use bare repository .*safe\.bareRepository"):
        revisions_of([house.root / "hardening"], "HEAD", tmp_path)
    with pytest.raises(ContentError, match=r"no committed version(.|\n)*cannot use bare repository"):
        preview(str(house.root / "hardening/policies/own.toml"), context=house.context)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("allowed", ["GIT_NO_LAZY_FETCH", "GIT_ALLOW_PROTOCOL"])
def test_nothing_is_fetched_that_a_repository_lacks(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """Its configuration says by which program; each of two variables alone keeps git from that."""
    git = ["git", "-C", str(house.root)]
    blob = run([*git, "rev-parse", "HEAD:hardening/policies/own.toml"]).stdout.strip()
    (house.root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (house.root / ".git/config").write_text(PROMISES.replace("worktree = .", "") % (tmp_path / "ran"))
    of_git = process._of_git
    others = lambda argv: {name: value for name, value in of_git(argv).items() if name != allowed}  # noqa: E731
    monkeypatch.setattr(process, "_of_git", others)
    with pytest.raises(OutsideError, match=r"is a partial clone, and lacks files of HEAD"):
        revisions_of([house.root], "HEAD", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_policy_that_git_has_as_a_commit_runs_nothing(house: House, tmp_path: Path) -> None:
    """Shown as a commit, its differences would be made readable by a program of the repository."""
    git = ["git", "-C", str(house.root)]
    commit = run([*git, "rev-parse", "HEAD"]).stdout.strip()
    run([*git, "update-index", "--cacheinfo", f"160000,{commit},hardening/policies/own.toml"])
    run([*git, "-c", "user.name=ann", "-c", "user.email=ann@example.com", "commit", "-qm", "link"])
    (house.root / ".git/info/attributes").write_text("* diff=planted\n")
    run([*git, "config", "diff.planted.textconv", f"touch {tmp_path}/ran; cat"])
    with pytest.raises(ContentError, match="no committed version"):
        preview(str(house.root / "hardening/policies/own.toml"), context=house.context)
    assert not (tmp_path / "ran").exists()


def test_the_other_revision_is_written_byte_by_byte(house: House, tmp_path: Path) -> None:
    """Line breaks of another system too, and what is no text."""
    odd = house.root / "hardening/controls/odd/files/odd"
    odd.parent.mkdir(parents=True)
    odd.write_bytes(b"a\r\n\xff\0\n")
    house.commit("odd")
    run(["git", "-C", str(house.root), "config", "core.autocrlf", "true"])
    [root] = revisions_of([house.root], "test-odd", tmp_path)
    assert (root / "hardening/controls/odd/files/odd").read_bytes() == odd.read_bytes()


# -- markdown ----------------------------------------------------------------------------------------------------------


def test_the_markdown_escapes_what_strangers_wrote(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """A title with a table's bar, HTML, a mention and an image leads out of no cell."""
    house.judge("shop", hole(title="<img src=x> | @ann ![a](http://evil.example) `x`"))
    stricter(house)
    output = house.preview()
    assert show_preview((output, []), as_json=False, as_markdown=True) == 3
    text = capsys.readouterr().out
    assert text.startswith("## Policy preview: 1 image newly refused, none freed\n")
    assert "| image | 1 | 0 | 0 | 0 | 0 |" in text
    assert "- `CVE-2026-0001` (shop): CVE-2026-0001 in openssl 3.5" in text
    assert not re.search(r"(?<!\\)[<@!](?=img|ann|\[)", text), "outside of its own <details>"
    assert "http://" not in text
    rows = [line for line in text.splitlines() if line.startswith("| image | shop")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [5]


def test_the_markdown_of_thousands_fits_a_comment() -> None:
    """What is left out is counted."""
    reasons = tuple(Reason(f"CVE-2026-{one:04}", "x", Enforcement.ENFORCE, "<" * 9000, "", "") for one in range(50))
    lines = tuple(
        PreviewLine(
            kind="member", name=f"web/{'n' * 200}{one}", change=change, gained=tuple(reasons), lost=tuple(reasons)
        )
        for one in range(200)
        for change in ("refused", "freed")
    )
    unknown = tuple(UnknownLine(kind="image", name=f"i-{one}", controls=("c" * 200,) * 99) for one in range(500))
    names = tuple("n" * 200 + str(one) for one in range(500))
    text = markdown(
        PreviewOutput(
            file="", instead_of="", compared_with="main", images=1, members=2, lines=lines, unjudged=names,
            weaker=names, changed=names, unknown=unknown, aged=names,
        )
    )  # fmt: skip
    assert len(text) < 60_000
    assert "and 1 more" not in text
    assert re.search(r"And \d+ more, in the JSON", text)


# -- waiver.new --------------------------------------------------------------------------------------------------------

ASKED = {"reason": 'it is "not" compiled in \\ é', "approver": "security"}


def test_a_waiver_stands_in_the_root_of_its_subject(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """In the checkout where that root may add none, which one line says, and where several roots are meant."""
    assert waiving._root(house.settings, "", {house.root}) == house.root
    assert waiving._root(house.settings, "", {house.root, ROOT}) == ROOT
    assert capsys.readouterr().err == ""
    laxer = house.settings.model_copy(update={"judging": Judging()})
    assert waiving._root(laxer, "", {house.root}) == ROOT
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"written into the checkout: {house.root} may add no waiver without [judging] roots = [")


def test_a_new_waiver_is_written_and_says_whom_it_frees(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the package and version in which the scan found it, and is the definition's owner's."""
    house.judge("shop", hole(Severity.HIGH))
    house.judge("bank", hole(Severity.HIGH))
    made = new_waiver("shop", "CVE-2026-0001", context=house.context, **ASKED)
    output = made[0]
    assert output.file == str(house.root / "hardening/waivers/shop-cve-2026-0001.toml")
    waiver = output.waiver
    assert (waiver.packages, waiver.versions, waiver.owner, waiver.reason) == (
        ("openssl",), ("3.5",), "web", ASKED["reason"],
    )  # fmt: skip
    assert (waiver.created, waiver.expires) == (NOW.date(), NOW.date() + 30 * DAY)
    assert told(output.preview) == {"shop": ("freed", ["CVE-2026-0001"])}
    assert show_new(made, as_json=False) == 0
    said = capsys.readouterr()
    assert "freed, since no longer refused by CVE-2026-0001:" in said.out
    assert "approves" in said.err
    assert told(house.preview()) == {"shop": ("freed", ["CVE-2026-0001"])}, "the same as its pull request will show"
    written = Path(output.file).read_text()
    with pytest.raises(UsageError, match=r"exists already\n.*--name"):
        new_waiver("shop", "CVE-2026-0001", content=str(house.root), context=house.context, **ASKED)
    assert Path(output.file).read_text() == written
    more = {"packages": ("openssl",), "name": "narrow", "content": str(house.root), "context": house.context}
    narrow = new_waiver("shop", "CVE-2026-0001", **more, **ASKED)[0].waiver
    assert (narrow.packages, narrow.versions) == (("openssl",), ("3.5",)), "those that were found, as its help says"


@pytest.mark.parametrize(
    ("subject", "rule", "more", "said"),
    [
        ("shpo", "own-check", {"owner": "web"}, "shpo is neither a definition nor .*\n.*did you mean shop"),
        ("shop", "own-chek", {}, "own-chek is not a control, a rule, or a finding .*\n.*did you mean own-check"),
        (
            "shop",
            "zz",
            {},
            r"zz is not a control.*\n  hint: did you mean [\w-]+ or [\w-]+ or [\w-]+\? .*control\.list lists",
        ),
        ("shop", "CVE-2026-0002", {}, "no scan of shop found CVE-2026-0002.*\n.*--package.*CVE-2026-0001"),
        ("shop", "CVE-2026-0002", {"expires": "soon"}, "--expires: invalid date: soon"),
        ("shpo", "CVE-2026-0002", {}, "--owner must be given, since shpo .*\n.*--owner TEAM.*did you mean shop"),
        ("bank", "CVE-2026-0002", {}, "no scan of bank found CVE-2026-0002.*\n.*--package NAME.*image.scan bank"),
        ("shop", "revoked", {}, "revoked cannot be waived"),
        ("shop", "own-check", {"approver": "web"}, "approver and owner must be two people"),
        ("shop", "own-check", {"expires": "soon"}, "--expires: invalid date: soon"),
        ("shop", "own-check", {"expires": "2030-01-01"}, "within 366 days"),
        ("shop", "own-check", {"reason": ""}, "--reason must be given"),
        ("sh*", "own-check", {}, "--owner must be given"),
        ("shop", "own-check", {"name": "../../x"}, "a name of small letters"),
        ("shop", "own-check", {"content": "/nowhere"}, "add no waiver"),
        ("shop", "own-check", {"justification": "vulnerable_code_not_present"}, "justification is about vulnerab"),
    ],
)
def test_a_wrong_waiver_is_not_written(house: House, subject: str, rule: str, more: dict[str, str], said: str) -> None:
    """One clear error, with what was meant."""
    house.judge("shop", hole())
    given = {**ASKED, "content": str(house.root), **more}
    with pytest.raises((UsageError, ContentError), match=said):
        new_waiver(subject, rule, context=house.context, **given)
    assert not (house.root / "hardening/waivers").exists()


def test_secrets_rules_and_vulnerabilities_that_no_scan_found_are_named_as_they_are(house: House) -> None:
    """A path or a package that is given, and a rule as a refusal names it."""
    more = {**ASKED, "content": str(house.root), "context": house.context, "owner": "web"}
    secret = new_waiver("shop", "private-key", paths=("/usr/share/doc/key",), **more)[0].waiver
    assert (secret.secrets, secret.paths) == (("private-key",), ("/usr/share/doc/key",))
    rule = new_waiver("shop", "max_age", **more)[0]
    assert (rule.waiver.rules, rule.preview.lines) == (("max-age",), ())
    later = new_waiver("shop", "CVE-2027-0001", packages=("zlib1g",), versions=("1",), **more)[0].waiver
    assert (later.packages, later.versions) == (("zlib1g",), ("1",))


def test_the_clock_of_the_environment_moves_a_preview_too(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOLDSMITH_NOW and --at say the same."""
    house.judge("shop", hole())
    stricter(house)
    at = NOW + 20 * DAY
    monkeypatch.setenv("GOLDSMITH_NOW", at.isoformat())
    moved = image_context(house.settings, looks=True)
    with closing(moved.ledger):
        assert preview(against="test-before", context=moved)[0].lines == house.preview(at).lines
    assert os.environ["GOLDSMITH_NOW"]
