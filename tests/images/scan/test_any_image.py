"""`image.scan` on images that are not ours: by tag and by digest, in every form; and what scanners disagree about."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hardening.disagreement import DisagreementCause, disagreements
from hardening.findings import Outcome
from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from images.documents import from_json
from images.feeds import debsecan_format
from images.scan.flow import image_config
from images.store.oci import Store
from pipelines.cli import scanning
from pipelines.contract import ScanOutput
from pipelines.host import embedded_registry
from tests.images.scan.test_formats import require_cyclonedx, require_sarif
from tests.support.loop import Goldsmith
from tests.support.publishing import running_registry
from tests.support.scanning import LINUX, NO_FEEDS, canary_status, make_target

pytestmark = [pytest.mark.slow, pytest.mark.needs("docker-registry", "skopeo", "trivy", "syft", "debsecan")]


@pytest.fixture
def judged(advisories: Path, tmp_path: Path) -> Iterator[Goldsmith]:
    """A new state whose judges have the real advisories: of the same day, but for the tracker's file."""
    (tmp_path / "data").mkdir()
    shutil.copy(advisories / "debsecan" / "trixie", tmp_path / "data" / "trixie")
    date = json.loads((advisories / "trivy/db/metadata.json").read_text())["UpdatedAt"][:10]
    (tmp_path / "data" / "metadata.json").write_text(json.dumps({"date": date}))
    tracker = str(advisories / "debian-tracker.json.gz")
    feeds = NO_FEEDS | {"debsecan": str(tmp_path / "data"), "trivy": str(advisories / "trivy"), "tracker": tracker}
    yield Goldsmith(tmp_path / "state", "", settings={"GOLDSMITH_FEEDS": json.dumps(feeds)})
    embedded_registry.stop(Settings(state=tmp_path / "state"))


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[str]:
    """The canary in somebody's registry, as Docker's own media types; its repository."""
    target = make_target(tmp_path / "image", canary_status(), config={"User": "65532"})
    with running_registry(tmp_path / "registry") as address:
        place = f"{address}/somebody/web"
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--format=v2s2", "--dest-tls-verify=false"]
        subprocess.run([*argv, f"oci:{target.layout}", f"docker://{place}:1.0"], check=True)
        yield place


@pytest.fixture
def scanned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands in this process say of a reference they look at once, whatever form they say it in."""
    monkeypatch.setattr(scanning, "scan_images", cache(scanning.scan_images))


@pytest.mark.usefixtures("scanned_once")
def test_anybodys_image_is_scanned_by_tag_and_by_digest_in_every_form(
    judged: Goldsmith, stranger: str, tmp_path: Path
) -> None:
    """Refused by the default policy, since it is full of holes; nothing is written to the registry or kept as ours."""
    told = judged("image.scan", f"{stranger}:1.0", "--json")
    assert told.code == 3, told.err
    assert told.json["ref"] == f"{stranger}:1.0"
    assert told.json["agreement"] == "the 3 scanners of vulnerabilities agree"
    assert len(told.json["findings"]) >= 75
    for name in ("scan.sarif", "scan.cdx.json", "scan.html"):
        answer = judged.here("image.scan", f"{stranger}@{told.json['digest']}", "--output", str(tmp_path / name))
        assert (answer.code, answer.out) == (3, ""), answer.err
        assert f"wrote {tmp_path / name}" in " ".join(answer.err.split())
    [sarif] = require_sarif((tmp_path / "scan.sarif").read_text())["runs"]
    assert len(sarif["results"]) == len(told.json["findings"])
    bom = require_cyclonedx((tmp_path / "scan.cdx.json").read_text())
    assert len(bom["vulnerabilities"]) == 75
    assert {"libssl3t64", "libc6"} <= {component["name"] for component in bom["components"]}
    page = (tmp_path / "scan.html").read_text()
    assert "CVE-2025-15467" in page
    assert not any(word in page for word in ("<script", "http-equiv", "@import", "url("))
    assert judged.ledger.latest_artifact("web", "linux/amd64") is None
    untagged = judged("image.scan", stranger)
    assert (untagged.code, f"{stranger}:latest is not in the registry" in untagged.err) == (2, True)
    assert "known: 1.0" in untagged.err


@pytest.mark.usefixtures("scanned_once")
def test_what_only_one_scanner_knows_is_told_with_its_cause(judged: Goldsmith, stranger: str) -> None:
    """With data of another day, that; with the same day's and less in it, it is unexplained, and stands first."""
    given = json.loads(judged.settings["GOLDSMITH_FEEDS"])
    place = Path(given["debsecan"]).with_name("of-another-day")  # another place, which no data before is compared with
    place.mkdir()
    judged = judged.with_(feeds=json.dumps(given | {"debsecan": str(place)}))
    (place / "metadata.json").write_text('{"date": "2025-01-01"}')
    (place / "trixie").write_bytes(debsecan_format({**LINUX, "openssl": {"3.5.4-1~deb13u2": ["CVE-2025-15467"]}}))
    told = from_json(ScanOutput, judged.here("image.scan", f"{stranger}:1.0", "--json").json)
    assert {one.cause for one in told.disagreements} == {DisagreementCause.DATA_DATE}
    assert len(told.disagreements) == 72
    assert told.agreement == "scanners disagree on 72: 72 data date"
    day = next(one.data_date for one in told.reports if one.scanner == "trivy")
    same = [replace(one, data_date=day) for one in told.reports]
    assert {one.cause for one in disagreements(same)} == {DisagreementCause.UNEXPLAINED}
    table = judged.here("image.scan", f"{stranger}:1.0").out
    assert "scanners disagree on 72: 72 data date" in table
    assert all(len(line) <= 80 for line in table.splitlines())


def test_of_the_shipped_catalog_no_disagreement_is_unexplained(
    house: Goldsmith, judged: Goldsmith, tmp_path: Path
) -> None:
    """All three judges looked at each image; with data of the same day, so that no date is an excuse."""
    inv = replace(house.fork(tmp_path / "fork"), settings=judged.settings)
    for scan in from_json(tuple[ScanOutput, ...], inv("image.scan", "all", "--json").json):
        looked = {one.scanner for one in scan.reports if one.outcome in (Outcome.PASS, Outcome.FAIL)}
        assert {"debsecan", "matcher", "trivy"} <= looked
        day = next(one.data_date for one in scan.reports if one.scanner == "trivy")
        told = disagreements([replace(one, data_date=day) for one in scan.reports])
        assert [one for one in told if one.cause is DisagreementCause.UNEXPLAINED] == []


def test_a_layout_as_docker_saves_it_is_read_by_others(tmp_path: Path) -> None:
    """By skopeo, with the same configuration: osv-scanner reads nothing but such archives."""
    target = make_target(tmp_path)
    assert target.layout
    config, digest = image_config(target.layout)
    Store(target.layout).save_as_docker(digest, tmp_path / "image.tar")
    said = run(["skopeo", "inspect", "--config", "--raw", f"docker-archive:{tmp_path / 'image.tar'}"]).stdout
    assert json.loads(said) == config
