"""Packages that no scanner evaluated refuse an image, as an image that nobody evaluated is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.catalog import load_policy
from hardening.findings import FindingKind, Outcome, Reason, ScanReport
from hardening.foundation.errors import MalformedError
from hardening.foundation.settings import ROOT, Settings
from hardening.gate import judge_image
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from images.scan import MORE, SCANNERS
from images.scan.contents import contents_of, key_of, listed_by, with_ecosystems
from images.scan.flow import scan, system_of
from images.scan.syft import Bills
from tests.images.scan.test_scanners import INPUTS, TARGET, sample
from tests.support.scanning import CURRENT, NO_FEEDS, OS_RELEASE, make_target

NOW = datetime(2026, 12, 2, tzinfo=UTC)
POLICY = load_policy((ROOT,), "default")
REPORT = ScanReport("debsecan", FindingKind.VULNERABILITY, Outcome.PASS, 90, NOW, "Debian", "")
LODASH = {"npm": {"npm/lodash": "lodash 4.17.4", "npm/minimist": "minimist 0.0.8"}}


def package(purl: str, name: str = "") -> dict[str, object]:
    """A package of an SPDX document."""
    known, _, version = purl.rpartition("@")
    return {
        "SPDXID": name or purl,
        "name": known.rpartition("/")[2],
        "versionInfo": version,
        "externalRefs": [{"referenceType": "purl", "referenceLocator": purl}],
    }


def bill(*purls: str, owned: Iterable[tuple[str, str]] = ()) -> bytes:
    """An SPDX document in which packages own others, (owner, owned)."""
    claims = [
        {"spdxElementId": one, "relatedSpdxElement": other, "comment": "ownership-by-file-overlap: …"}
        for one, other in owned
    ]
    return json.dumps({"packages": [*map(package, purls), {"SPDXID": "root"}], "relationships": claims}).encode()


DEB, ACORN, LODASH_URL = "pkg:deb/debian/node-acorn@8.8.1", "pkg:npm/acorn@8.8.1", "pkg:npm/lodash@4.17.4"


def test_what_the_distribution_brought_counts_as_its_own() -> None:
    """Advisories are about its package; what another package claims is nobody's."""
    assert contents_of(bill(DEB, ACORN, LODASH_URL, owned=[(DEB, ACORN), (ACORN, LODASH_URL)])) == {
        "npm": {"npm/lodash": "lodash 4.17.4"}
    }
    assert contents_of(b"{}") == contents_of(b"") == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pkg:pypi/ruamel.yaml@1", "pkg:pypi/ruamel-yaml@1"),
        ("pkg:pypi/Jinja2@2.4.1", "pkg:pypi/jinja2@2.4.1"),
        ("pkg:npm/%40types/node@1", "pkg:npm/@types/node@1?x=y"),
        ("pkg:golang/github.com/a/b@v1#cmd/b", "pkg:golang/github.com/a/b@1"),
    ],
)
def test_scanners_agree_on_the_names_of_packages(one: str, other: str) -> None:
    """However each of them writes it."""
    assert key_of(one) == key_of(other) != ""


def test_a_scanner_evaluated_the_ecosystems_of_which_it_lists_every_package() -> None:
    """One package that it passed over suffices; of Go programs any module counts."""
    held = {**LODASH, "golang": {"golang/github.com/us/app": "app"}, "pypi": {"pypi/jinja2": "jinja2 2.4.1"}}
    listed = {"npm/lodash", "golang/stdlib", "pypi/jinja2"}
    report = with_ecosystems(REPORT, listed, held)
    assert report.ecosystems == ("deb", "golang", "pypi")
    assert report.beyond == (("npm", "1 package (minimist 0.0.8)"),)
    assert with_ecosystems(REPORT, (), held).beyond[1] == ("npm", "2 packages (lodash 4.17.4, minimist 0.0.8)")
    silent = replace(REPORT, outcome=Outcome.NOT_EVALUATED)
    assert with_ecosystems(silent, (), held) == silent


@pytest.mark.parametrize("name", ["trivy", "grype", "osv-scanner"])
def test_scanners_of_languages_list_what_they_looked_at(name: str) -> None:
    """By the recorded output of each, with a package of Python in it."""
    said = {
        "trivy": json.dumps(
            {
                "SchemaVersion": 2,
                "Results": [{"Packages": [{"Name": "Jinja2", "Identifier": {"PURL": "pkg:pypi/jinja2@2.4.1"}}]}],
            }
        ),
        "grype": '{"matches": []} {"components": [{"purl": "pkg:pypi/jinja2@2.4.1"}, {"name": "x"}]}',
        "osv-scanner": json.dumps({"results": [{"packages": [{"package": {"name": "Jinja2", "ecosystem": "PyPI"}}]}]}),
    }[name]
    assert listed_by({**SCANNERS, **MORE}[name].lists, said) == {"pypi/jinja2"}
    assert not any(key.startswith("pypi") for key in listed_by({**SCANNERS, **MORE}[name].lists, sample(name)))


def reasons(*reports: ScanReport, policy: Policy = POLICY, waivers: tuple[Waiver, ...] = ()) -> list[Reason]:
    """The reasons of the gate about packages that no scanner evaluated."""
    verdict = judge_image(policy, "web", None, reports, (), waivers, NOW)
    found = [one for one in verdict.reasons if one.rule.startswith("uncovered-")]
    assert verdict.allowed is not any(one in verdict.refusals for one in found)
    return found


def test_an_ecosystem_that_no_counting_scanner_evaluated_refuses_the_image() -> None:
    """The reason names the packages, which scanner evaluated what, and why the others did not."""
    blind = with_ecosystems(REPORT, (), LODASH)
    silent = replace(REPORT, scanner="trivy", outcome=Outcome.NOT_EVALUATED, reason="feeds.trivy names no database")
    [reason] = reasons(blind, replace(blind, scanner="matcher"), silent)
    assert reason.rule == "uncovered-npm"
    assert reason.what == (
        "no scanner that counts evaluated the image's npm packages: 2 packages (lodash 4.17.4, minimist 0.0.8); "
        "debsecan evaluated deb, matcher evaluated deb; trivy: feeds.trivy names no database"
    )
    assert "set feeds.trivy" in reason.todo
    sees = with_ecosystems(replace(REPORT, scanner="trivy"), LODASH["npm"], LODASH)
    assert reasons(blind, sees) == []
    old = replace(sees, data_date=NOW - timedelta(days=8))
    assert [one.rule for one in reasons(blind, old)] == ["uncovered-npm"], "what is too old counts for nothing"
    other = with_ecosystems(REPORT, (), {"new": {"new/x": "x 1"}})
    assert [one.rule for one in reasons(other)] == ["uncovered-other"]


def test_a_policy_may_only_warn_of_it_and_a_waiver_ends() -> None:
    """`image.judges.uncovered`; a waiver names the ecosystem."""
    blind = with_ecosystems(REPORT, (), LODASH)
    judges = POLICY.image.judges.model_copy(update={"uncovered": Enforcement.WARN})
    lenient = POLICY.model_copy(update={"image": POLICY.image.model_copy(update={"judges": judges})})
    assert [one.enforcement for one in reasons(blind, policy=lenient)] == [Enforcement.WARN]
    given = {
        "id": "w", "subjects": ("web",), "reason": "r", "owner": "ann", "approver": "bob",
        "created": NOW.date(), "expires": NOW.date() + timedelta(days=9),
    }  # fmt: skip
    for rule, waived in (("uncovered-npm", True), ("uncovered-pypi", False)):
        [reason] = reasons(blind, waivers=(Waiver.model_validate({**given, "rules": (rule,)}),))
        assert bool(reason.waived_by) is waived


# -- the system that a scanner took the image for ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trivy", "trivy-disk", "grype", "osv-scanner"])
@pytest.mark.parametrize(
    ("system", "evaluated"),
    [
        ("debian 13", True),
        ("debian", True),
        ("debian 12", False),
        ("debian 1", False),
        ("ubuntu 13", False),
        ("", False),
    ],
)
def test_a_scanner_that_took_the_image_for_another_system_did_not_evaluate_it(
    name: str, system: str, evaluated: bool
) -> None:
    """By the advisories of another release, or of none, it finds nothing."""
    scanner = {**SCANNERS, **MORE}[name]
    report = scanner.parse(sample(name), TARGET, replace(INPUTS, system=system))
    assert (report.outcome is not Outcome.NOT_EVALUATED) is evaluated
    if not evaluated:
        assert report.reason.startswith("it took the image for debian 13")
        assert report.reason.endswith(f"; os-release says {system or 'nothing'}")


@pytest.mark.parametrize("name", ["trivy", "grype", "osv-scanner"])
def test_of_an_image_of_others_a_scanner_must_see_what_its_package_manager_lists(name: str) -> None:
    """No plan says what is in it."""
    others = replace(TARGET, packages=())
    scanner = {**SCANNERS, **MORE}[name]
    more = "\n\nPackage: more\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n"
    assert scanner.parse(sample(name), others, INPUTS).outcome is Outcome.FAIL
    hidden = scanner.parse(sample(name), others, replace(INPUTS, status=INPUTS.status.rstrip() + more))
    assert (hidden.outcome, hidden.reason) == (Outcome.NOT_EVALUATED, "it saw 4 of the image's 5 packages")


@pytest.mark.parametrize(
    ("etc", "usr", "named"),
    [(OS_RELEASE, "", "debian 13"), ("", OS_RELEASE, "debian 13"), ("ID=debian\n", "", "debian"), ("", "", "")],
)
def test_the_system_is_what_os_release_says(tmp_path: Path, etc: str, usr: str, named: str) -> None:
    """/etc/os-release stands before the one of /usr."""
    for folder, text in (("etc", etc), ("usr/lib", usr)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "os-release").write_text(text)
    assert system_of(tmp_path) == named


# -- the real tools ----------------------------------------------------------------------------------------------------


def test_a_bill_that_is_no_bill_is_an_error_of_syft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody knows which ecosystems there are to evaluate."""
    odd = Bills(b"{}", json.dumps({"relationships": [{"comment": None}]}).encode())
    monkeypatch.setattr("images.scan.flow._sbom", lambda *_: odd)
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=NO_FEEDS)
    with pytest.raises(MalformedError, match="the answer of syft is not understood"):
        scan(make_target(tmp_path, CURRENT), settings, {}, now=NOW)


def npm(name: str, version: str) -> bytes:
    return json.dumps({"name": name, "version": version, "license": "MIT"}).encode()


@pytest.mark.slow
@pytest.mark.needs("trivy", "syft", "debsecan")
@pytest.mark.parametrize("database", [False, True])
def test_old_packages_of_a_language_are_not_published_unseen(tmp_path: Path, advisories: Path, database: bool) -> None:
    """lodash is refused without trivy's database, and evaluated with it; what Debian packaged is Debian's."""
    owned = "usr/share/nodejs/acorn/package.json"
    layer = {
        owned: npm("acorn", "8.8.1"),
        "var/lib/dpkg/info/node-acorn.list": f"/.\n/{owned}\n".encode(),
        "var/lib/dpkg/info/node-acorn.md5sums": f"d41d8cd98f00b204e9800998ecf8427e  {owned}\n".encode(),
        "srv/app/node_modules/lodash/package.json": npm("lodash", "4.17.4"),
    }
    acorn = "Package: node-acorn\nStatus: install ok installed\nArchitecture: all\nVersion: 8.8.1\n"
    status = f"{CURRENT.rstrip()}\n\n{acorn}"
    feeds = {**NO_FEEDS, **({"trivy": str(advisories / "trivy")} if database else {})}
    settings = Settings(state=tmp_path / "state", retry_for="0s", feeds=feeds)
    result = scan(make_target(tmp_path, status, layers=(layer,)), settings, now=NOW)
    judges = POLICY.image.judges.model_copy(update={"accept_sample": True, "data_max_age": timedelta(days=999)})
    policy = POLICY.model_copy(update={"image": POLICY.image.model_copy(update={"judges": judges})})
    verdict = judge_image(policy, "web", None, result.reports, (), (), NOW)
    found = [one.what for one in verdict.refusals]
    assert verdict.allowed is database
    if not database:
        assert [one.partition(";")[0] for one in found] == [
            "no scanner that counts evaluated the image's npm packages: 1 package (lodash 4.17.4)"
        ]
