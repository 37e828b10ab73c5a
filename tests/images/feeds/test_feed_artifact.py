"""Feeds from an OCI artifact that oras pushed: asked by digest, as old as they say, and never from a stranger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import Limit
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from hardening.trust import PREDICATES
from images import feeds
from images.feeds import download, oci_files
from images.registry.attestations import signed_document
from images.registry.client import RegistryClient
from images.registry.referrers import EMPTY, attach
from images.store.oci import MANIFEST, Store, as_json
from images.trust.envelope import statement
from tests.images.feeds.test_feeds import FIRST, NOW, SECOND
from tests.support.loop import Goldsmith
from tests.support.publishing import running_registry
from tests.support.scanning import NO_FEEDS
from tests.support.signing import UPSTREAM_RULE, KeyInMemory

pytestmark = [pytest.mark.slow, pytest.mark.needs("docker-registry", "skopeo", "oras")]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MADE = "org.opencontainers.image.created"
KEV = {"catalogVersion": "2026.11.20", "dateReleased": "2026-11-20T10:00:00Z", "count": 1,
       "vulnerabilities": [{"cveID": "CVE-2026-0001"}]}  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """A registry that hands out feeds, and what asks it."""

    address: str
    folder: Path

    @property
    def reference(self) -> str:
        return f"{self.address}/feeds:latest"

    def push(self, *files: str, made: str = f"{NOW - DAY:%Y-%m-%dT%H:%M:%SZ}", **content: bytes) -> None:
        """Push files of this folder with oras, as docs/feeds.md shows it."""
        for name, data in content.items():
            (self.folder / name).write_bytes(data)
        named = files or tuple(content)
        argv = ["oras", "push", "--plain-http", "--annotation", f"{MADE}={made}", self.reference, *named]
        run(argv, cwd=self.folder)

    def push_by_hand(self, said: dict[str, str], *files: bytes) -> None:
        """Push files that are all called `kev.json`, with these annotations, as no tool would."""
        store = Store(self.folder / "layout")
        named = {"annotations": {"org.opencontainers.image.title": "kev.json"}}
        layers = [as_json(store.put_bytes(file, "text/json")) | named for file in files]
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "x/y", "layers": layers, "annotations": said,
            "config": as_json(store.put_bytes(b"{}", EMPTY)),
        }  # fmt: skip
        pushed = store.put_json(manifest, MANIFEST)
        RegistryClient(self.address, self.settings()).push_root(store.path, pushed, self.reference, index_only=False)

    def settings(self, **more: object) -> Settings:
        asked = NO_FEEDS | {"debsecan": f"oci:{self.reference}", "kev": f"oci:{self.reference}"}
        return Settings(state=self.folder / "state", retry_for="0s", feeds=asked, **more)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with running_registry(tmp_path / "registry") as address:
        folder = tmp_path / "files"
        folder.mkdir()
        yield Shelf(address, folder)


def kev(*ids: str) -> bytes:
    """CISA's list with these vulnerabilities."""
    return json.dumps(KEV | {"count": len(ids), "vulnerabilities": [{"cveID": one} for one in ids]}).encode()


def test_feeds_come_from_the_artifact_and_are_as_old_as_it(shelf: Shelf) -> None:
    """Of a file that names no date, the artifact's; of one that does, its own."""
    shelf.push(trixie=FIRST, **{"kev.json": kev("CVE-2026-0001")})
    ours = shelf.settings()
    found, _ = feeds.refresh(ours, "trixie", NOW)
    feed = found["debsecan"]
    assert (feed.directory / "trixie").read_bytes() == FIRST
    assert (feed.date, feed.source, feed.sample) == (NOW - DAY, f"oci:{shelf.reference}", False)
    exploited = feeds.exploited(ours, NOW)
    assert exploited.ids == {"CVE-2026-0001"}
    assert exploited.feed
    assert exploited.feed.date == datetime(2026, 11, 20, 10, tzinfo=UTC)


def test_newer_files_replace_the_old_within_an_hour(shelf: Shelf) -> None:
    """The registry is asked by the artifact's digest, and nothing that was fetched for it lies about."""
    shelf.push(trixie=FIRST, **{"kev.json": kev("CVE-2026-0001")})
    ours = shelf.settings()
    assert feeds.exploited(ours, NOW).ids == {"CVE-2026-0001"}
    shelf.push(trixie=FIRST, **{"kev.json": kev("CVE-2026-0001", "CVE-2026-0002")})
    assert feeds.exploited(ours, NOW + HOUR / 2).ids == {"CVE-2026-0001"}
    assert feeds.exploited(ours, NOW + HOUR).ids == {"CVE-2026-0001", "CVE-2026-0002"}
    assert {path.name for path in (shelf.folder / "state/feeds").iterdir()} == {"kev"}


def test_the_last_good_copy_serves_on(tmp_path: Path) -> None:
    """While the registry does not answer, as its note says; without a copy it is an error that names the artifact."""
    (folder := tmp_path / "files").mkdir()
    with running_registry(tmp_path / "registry") as address:
        shelf = Shelf(address, folder)
        shelf.push(trixie=FIRST, **{"kev.json": kev("CVE-2026-0001")})
        assert feeds.exploited(shelf.settings(), NOW).ids
    kept = feeds.exploited(shelf.settings(), NOW + 2 * HOUR)
    assert kept.ids == {"CVE-2026-0001"}
    assert kept.feed
    assert kept.feed.note.startswith("last good copy, 2h old, because oci:")
    with pytest.raises(OutsideError, match=address):
        feeds.exploited(shelf.settings().model_copy(update={"state": tmp_path / "new"}), NOW)


@pytest.mark.parametrize("lost", ["the file", "the tag", "most of it", "the format"])
def test_what_is_worse_does_not_take_the_place_of_the_good_copy(shelf: Shelf, lost: str) -> None:
    """A file that was forgotten, a tag that is gone, a list that was cut: the good copy serves on, and says why."""
    many = [f"CVE-2026-{number:04}" for number in range(1000)]
    shelf.push(**{"kev.json": kev(*many)})
    ours = shelf.settings()
    assert len(feeds.exploited(ours, NOW).ids) == len(many)
    if lost == "the file":
        shelf.push(trixie=FIRST)
    elif lost == "the tag":
        registry = RegistryClient(shelf.address, ours)
        registry.delete(shelf.reference.rpartition(":")[0], registry.get(shelf.reference).digest)
    elif lost == "most of it":
        shelf.push(**{"kev.json": kev(*many[:10])})
    else:
        shelf.push(**{"kev.json": b"nothing", "trixie": b"nothing"})
    found = feeds.exploited(ours, NOW + HOUR)
    assert len(found.ids) == len(many)
    assert found.feed
    assert "last good copy" in found.feed.note


@pytest.mark.parametrize(
    "said", [{}, {MADE: "yesterday"}, {MADE: "9999-12-31T23:59:59-14:00"}], ids=["none", "no date", "after all years"]
)
def test_an_artifact_of_no_day_is_refused(shelf: Shelf, said: dict[str, str]) -> None:
    """Else old data would pass for new."""
    shelf.push_by_hand(said, kev("CVE-2026-0001"))
    with pytest.raises(OutsideError, match="does not say when it was made"):
        feeds.exploited(shelf.settings(), NOW)


def test_a_name_that_two_files_have_is_none(shelf: Shelf) -> None:
    """Which of them is meant would be anybody's choice."""
    shelf.push_by_hand({MADE: "2026-11-24T12:00:00Z"}, kev("CVE-2026-0001"), kev("CVE-2026-0002"))
    with pytest.raises(OutsideError, match=r"holds more than one file kev\.json"):
        feeds.exploited(shelf.settings(), NOW)


def test_other_bytes_than_are_listed_are_no_data(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fetched them."""
    shelf.push(**{"kev.json": kev("CVE-2026-0001")})
    download_of = RegistryClient.download

    def spoilt(registry: RegistryClient, reference: str, directory: Path) -> None:
        download_of(registry, reference, directory)
        for blob in directory.iterdir():
            blob.write_bytes(kev("CVE-2026-0002"))

    monkeypatch.setattr(RegistryClient, "download", spoilt)
    with pytest.raises(OutsideError, match=r"gave other bytes for kev\.json than it lists"):
        feeds.exploited(shelf.settings(), NOW)


def test_doctor_tells_whether_the_artifact_is_there(shelf: Shelf) -> None:
    """By asking its registry once."""
    asked = {"GOLDSMITH_FEEDS": json.dumps(shelf.settings().feeds.model_dump(mode="json"))}
    doctor = Goldsmith(shelf.folder / "state", "", settings=asked)

    def said() -> str:
        lines = doctor.here("doctor", "--json").json
        return " ".join(str(line["detail"]) for line in lines if "advisories" in json.dumps(line))

    assert f"debsecan: oci:{shelf.reference}: nothing is published as" in said()
    shelf.push(trixie=FIRST)
    assert f"debsecan: oci:{shelf.reference}: answers" in said()


def test_a_name_that_leads_elsewhere_is_no_file(shelf: Shelf) -> None:
    """Only the very name is taken; what is there is told."""
    (shelf.folder / "sub").mkdir()
    (shelf.folder / "sub" / "kev.json").write_bytes(kev("CVE-2026-0001"))
    shelf.push("sub/kev.json")
    with pytest.raises(OutsideError, match=r"holds no file kev\.json") as refused:
        feeds.exploited(shelf.settings(), NOW)
    assert "sub/kev.json" in refused.value.evidence
    assert not list((shelf.folder / "state").rglob("kev.json"))


def test_a_file_over_its_limit_is_not_fetched(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """The artifact says how large it is."""
    shelf.push(**{"kev.json": kev("CVE-2026-0001")})
    monkeypatch.setattr(download, "FEED_BYTES", Limit("feed.bytes", 10))
    monkeypatch.setattr(RegistryClient, "download", lambda *_: pytest.fail("it was fetched"))
    with pytest.raises(OutsideError, match=r"exceeds the limit feed\.bytes|feed\.bytes"):
        feeds.exploited(shelf.settings(), NOW)


def test_an_artifact_over_its_limit_is_not_fetched(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its files come for one: those that nobody asked for count too."""
    shelf.push(trixie=b"x" * 9999, **{"kev.json": kev("CVE-2026-0001")})
    monkeypatch.setattr(oci_files, "FEED_ARTIFACT", Limit("feed.artifact", 9999))
    monkeypatch.setattr(RegistryClient, "download", lambda *_: pytest.fail("it was fetched"))
    with pytest.raises(OutsideError, match=r"exceeds the limit feed\.artifact"):
        feeds.exploited(shelf.settings(), NOW)


def test_an_older_artifact_does_not_take_the_place_of_the_good_copy(shelf: Shelf) -> None:
    """Whoever may push can push last month's again; of a file without a date the artifact's counts."""
    ours = shelf.settings()
    shelf.push(trixie=SECOND)
    feeds.refresh(ours, "trixie", NOW)
    shelf.push(trixie=FIRST, made=f"{NOW - 30 * DAY:%Y-%m-%dT%H:%M:%SZ}")
    feed = feeds.refresh(ours, "trixie", NOW + HOUR)[0]["debsecan"]
    assert (feed.directory / "trixie").read_bytes() == SECOND
    assert feed.date == NOW - DAY
    assert "the new data is of 2026-10-26 12:00; the data before is of 2026-11-24 12:00" in feed.note


def test_a_rule_says_who_signs_the_artifact(shelf: Shelf, tmp_path: Path) -> None:
    """One that nobody signed, or another key did, gives no data; that key's does."""
    key, other = KeyInMemory(), KeyInMemory()
    root = tmp_path / "root"
    policy = root / "hardening/policies/strict.toml"
    policy.parent.mkdir(parents=True)
    policy.write_text((ROOT / "hardening/policies/default.toml").read_text() + UPSTREAM_RULE % key.trusted().public)
    shelf.push(**{"kev.json": kev("CVE-2026-0001")})
    ours = shelf.settings(content=(root,), judging={"floor": "strict", "policies": ["strict"], "roots": [root]})
    registry = RegistryClient(shelf.address, ours)
    found, repository = registry.get(shelf.reference), shelf.reference.rpartition(":")[0]
    said = statement(PREDICATES["provenance"], {"by": "us"}, {found.digest: repository})
    with pytest.raises(OutsideError, match=r"not trusted \(unsigned\)"):
        feeds.exploited(ours, NOW)
    attach(registry, repository, found.descriptor, [signed_document(said, other)])
    with pytest.raises(OutsideError, match=r"not trusted \(unknown-key\)"):
        feeds.exploited(ours, NOW + HOUR)
    attach(registry, repository, found.descriptor, [signed_document(said, key)])
    assert feeds.exploited(ours, NOW + 2 * HOUR).ids == {"CVE-2026-0001"}
