"""What is read of images: answers of scanners, registries, feeds and archives, attestations, layers, machines."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from hardening.findings import Outcome, ScanReport, merge
from hardening.foundation.durations import header_date
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import canonical
from hardening.trust import Trust
from images.advisories import is_before
from images.boot import guest, observations, qemu
from images.build import config, dockerfile
from images.documents import from_json, to_json
from images.feeds import data_index, facts, oci_files
from images.packages import debian
from images.registry import answers, client, heads
from images.release import lifecycle
from images.scan import MORE, SCANNERS, boot_state, reproduced
from images.scan import flow as scanning
from images.store import layers
from images.trust import channel_document, envelope, evidence
from images.trust.statement import Attestation, read_predicate
from tests.fuzz.harness import Form, Target, folder, refused_or_read
from tests.fuzz.mutation import slim
from tests.images.feeds import test_advisories as advisories
from tests.images.scan.test_scanners import EMPTY, of, sample
from tests.support.building import definition
from tests.support.evidence import ARTIFACT, RELEASE, judgement
from tests.support.publishing import NOW
from tests.support.scanning import SAMPLES
from tests.support.signing import KeyInMemory

# -- scanners ----------------------------------------------------------------------------------------------------------

OF_JSON = ("detect-secrets", "hadolint", "osv-scanner", "trivy", "trivy-config", "trivy-disk", "trivy-secret")
OF_TEXT = ("debsecan", "grype", "lynis", "openscap", "systemd-analyze")


def _scanner(name: str) -> Callable[[str], object]:
    scanner = {**SCANNERS, **MORE}[name]

    def read(said: str) -> object:
        report = scanning.reported(scanner, said, *of(name))
        assert (report.outcome in (Outcome.PASS, Outcome.FAIL)) <= (report.evaluated > 0), "no look is no pass"
        merge(report.findings)
        return _kept(report)

    return read


def _kept(report: ScanReport) -> bytes:
    """What the ledger and an attestation hold of a report."""
    told = to_json(report)
    assert to_json(from_json(ScanReport, told)) == told
    return canonical(told)


def _said(name: str) -> list[Any]:
    return [slim(json.loads(text)) for text in (sample(name), EMPTY[name])]


def _bills() -> list[Any]:
    return [[slim(json.loads((SAMPLES / f"{name}.json").read_text())) for name in ("syft", "syft-spdx")]]


def _normalised(both: list[Any]) -> object:
    """Both bills of syft, of a target whose packages are not counted."""
    target = replace(of("trivy")[0], packages=(), digest="sha256:1")
    cyclonedx, spdx = (json.dumps(one) for one in (*both, None, None)[:2]) if isinstance(both, list) else ("", "")
    return scanning.bills_of(cyclonedx, spdx, target)


SCANNING = [
    *(Target(f"scan-{name}", _scanner(name), lambda name=name: _said(name), Form.JSON) for name in OF_JSON),
    *(Target(f"scan-{name}", _scanner(name), lambda name=name: [sample(name), EMPTY[name]], Form.TEXT)
      for name in OF_TEXT),
    Target("sbom", _normalised, _bills),
    Target("sbom-rebuilt", lambda said: reproduced.packages_of(json.dumps(said).encode()), lambda: _bills()[0]),
    Target("rebuilt-list", lambda text: [*reproduced.entries(io.BytesIO(_encoded(text)))], lambda: [
        [{"name": "openssl", "version": "3", "architecture": "amd64", "status": "GOOD", "suite": None}]], Form.JSON),
]  # fmt: skip


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# -- registries --------------------------------------------------------------------------------------------------------

SHA = "sha256:" + "a" * 64
LISTED = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": SHA, "size": 7, "annotations": {"a": "b"},
    "platform": {"os": "linux", "architecture": "amd64"}, "artifactType": "application/x",
}  # fmt: skip
IMAGE = {"schemaVersion": 2, "config": LISTED, "layers": [LISTED, LISTED], "annotations": {"a": "b"},
         "subject": LISTED}  # fmt: skip
INDEX = {"schemaVersion": 2, "manifests": [LISTED, LISTED | {"platform": None}], "annotations": {"a": "b"}}
PREFIX = "dev.goldsmith."


def _manifest(text: str) -> None:
    """All that is ever asked of a manifest."""
    found = client.Manifest(SHA, "", 1, answers.loaded(text, "it"))
    refused_or_read(
        lambda: found.annotations,
        lambda: found.index,
        lambda: found.image.layers,
        lambda: found.content("linux/amd64"),
        lambda: answers.read_as(answers.Attached, text, "it").subject,
        lambda: answers.read_as(answers.Config, text, "it"),
        lambda: oci_files.made_at(found, "oci:x/y"),
        lambda: oci_files._listed(found, "x", "oci:x/y"),
        lambda: _release(found.annotations),
    )


def _release(annotations: Any) -> object:
    found = lifecycle.parse_annotations(annotations, PREFIX, repository="r.example/x", digest=SHA, content=SHA)
    return canonical(to_json(found)), lifecycle.dated_tag(found)


def _manifests() -> list[Any]:
    configuration = {"created": "2026-01-01T00:00:00Z", "config": {"Env": ["A=b"]}, "rootfs": {"diff_ids": [SHA]}}
    return [IMAGE, INDEX | {"annotations": lifecycle.annotations(RELEASE, PREFIX)}, configuration]


def _base(text: str) -> object:
    """A base's configuration, on which a definition's image is made."""
    made = definition("", base={"golden": "x"}, environment={"A": "b"}, healthcheck={"none_because": "it is a sample"})
    return canonical(config.image_config(made, "linux/amd64", answers.loaded(text, "it"), [SHA], 1, "x"))


BASE = {"history": [{"created_by": "x"}], "rootfs": {"diff_ids": [SHA]}, "config": {
    "User": "x", "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"a": "b"}, "Cmd": ["x"],
    "Healthcheck": {"Test": ["CMD", "x"]}}}  # fmt: skip
HEADERS = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT", "RateLimit": "100;w=21600;r=0;t=9", "RateLimit-Reset": "9"}


def _rests(headers: Any) -> object:
    said = {str(key): str(value) for key, value in headers.items()} if isinstance(headers, dict) else {}
    return heads.rest_wanted(said, advisories.NOW), heads.spent(said)


REGISTRIES = [
    Target("registry-manifest", _manifest, _manifests, Form.JSON),
    Target("registry-errors", lambda text: str(answers.explain(text, "r.example")), lambda: [
        "Error: manifest unknown", 'level=fatal msg="dial tcp: no such host"'], Form.TEXT),
    Target("registry-rest", _rests, lambda: [HEADERS]),
    Target("base-configuration", _base, lambda: [BASE], Form.JSON),
    Target("base-named", lambda text: heads.require_askable(*text.partition(" ")[::2], "r.example/x@sha256:1"),
           lambda: [f"debian:13 {SHA}"], Form.TEXT),
]  # fmt: skip


# -- attestations ------------------------------------------------------------------------------------------------------


def _attestations() -> list[Any]:
    whole = evidence.attestations(RELEASE, ARTIFACT, judgement(), None)
    return [[{"type": one.predicate_type, "predicate": json.loads(json.dumps(one.predicate))} for one in whole]]


def _evidence(said: Any) -> None:
    """What is signed well may still hold anything: as it comes out of envelopes, an object in each."""
    listed = [one for one in said if isinstance(one, dict)] if isinstance(said, list) else []
    texts = [json.dumps({"predicate": one.get("predicate")}) for one in listed]
    predicates = [answers.loaded(text, "it")["predicate"] for text in texts]
    found = [
        Attestation(str(one.get("type")), predicate)
        for one, predicate in zip(listed, predicates, strict=True)
        if isinstance(predicate, dict)
    ]
    for one in found:
        assert "\n" not in evidence.line(one)
        refused_or_read(lambda one=one: evidence.evidence_of([one]))
    known = evidence.evidence_of(found)
    for part in (known.artifact, known.checks, known.scan, known.verdict):
        canonical(to_json(part)) if part is not None else None


KEY = KeyInMemory(derive_private_key(7, SECP256R1()))


@cache
def _bundle() -> dict[str, Any]:
    statement = envelope.statement("https://example.com/x", {"a": [1, 2]}, {SHA: "image"})
    found: dict[str, Any] = json.loads(envelope.bundled(statement, KEY))
    return found


def _signed(text: str) -> object:
    found = envelope.read_bundle(_encoded(text), "it")
    return found.digests, found.predicate_type, found.is_signed_by(_key())


@cache
def _key() -> Any:
    return envelope.verifier(KEY.public)


def _statement(said: Any) -> object:
    """A well-formed envelope over any statement."""
    from base64 import b64encode

    made = json.loads(json.dumps(_bundle()))
    made["dsseEnvelope"]["payload"] = b64encode(json.dumps(said).encode()).decode()
    return _signed(json.dumps(made))


@cache
def _channels() -> channel_document.ChannelDocument:
    points = {"stable": channel_document.SignedChannel(digest=SHA, previous=SHA)}
    made = channel_document.ChannelDocument(
        repository="r.example/web", version=7, issued=NOW, expires=NOW + timedelta(days=7), channels=points
    )
    return made.revoking([SHA], NOW, "a hole")


def _channel_document(said: Any) -> object:
    """A signed statement of which only the predicate is hostile."""
    made = envelope.bundled(envelope.statement(channel_document.CHANNELS_PREDICATE, said, {SHA: "it"}), KEY)
    found = channel_document.verified(made, "r.example/web", (Trust(keys=(KEY.trusted(),)),), (), NOW)
    assert read_predicate(channel_document.ChannelDocument, found.predicate, "it") == found
    return found.lines, found.payload


ATTESTATIONS = [
    Target("channel-document", _channel_document, lambda: [_channels().predicate]),
    Target("evidence", _evidence, _attestations),
    Target("signed-bundle", _signed, lambda: [_bundle()], Form.JSON),
    Target("signed-statement", _statement, lambda: [
        json.loads(envelope.statement("https://example.com/x", {"a": [1, 2]}, {SHA: "image"}))]),
]  # fmt: skip


# -- feeds -------------------------------------------------------------------------------------------------------------


def _in_file(look: Callable[[Path], object]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        file = folder() / "feed"
        file.write_bytes(data)
        return look(file)

    return read


def _of_text(look: Callable[[Path], object], pack: Callable[[bytes], bytes] = bytes) -> Callable[[str], object]:
    return lambda text: _in_file(look)(pack(_encoded(text)))


def _index(build: Callable[[Path, sqlite3.Connection], object]) -> Callable[[Path], object]:
    """An index in memory over a feed."""

    def look(file: Path) -> object:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.executescript(data_index.TABLES)
            try:
                build(file, connection)
            except sqlite3.Error as error:
                raise OutsideError(f"as `_make` does: {error}") from None
            rows = connection.execute("SELECT fixed FROM advisory").fetchall()
        return [is_before("1.0-1", fixed) for (fixed,) in rows]

    return look


def _zipped(*documents: Any) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, one in enumerate(documents):
            archive.writestr(f"DEBIAN-CVE-{number}.json", json.dumps(one))
    return packed.getvalue()


OSV = [
    advisories.document("DEBIAN-CVE-2026-0007", fixed="3.5.8-1"),
    advisories.document("DSA-1-1", aliases=["CVE-2026-1"]),
]
TRACKER = advisories.said(trixie=advisories.resolved("3.5.4-1", nodsa="x", nodsa_reason="postponed"))
KEV = {"dateReleased": "2026-01-01T00:00:00Z", "vulnerabilities": [{"cveID": "CVE-2014-0160"}, {"cveID": "CVE-2026-1"}]}
EPSS = "#model_version:v1,score_date:2026-11-25T00:00:00+0000\ncve,epss,percentile\nCVE-2026-0001,0.5,0.9\n"
DEBSECAN = "VERSION 1\nCVE-2026-0001,,\n\nopenssl,0,S ?F,3.5.4-1,\n\n\n"
_tracker = _index(data_index.build_advisories(data_index.tracker_rows))
_osv = _index(data_index.build_advisories(data_index.osv_rows, first_counts=True))
_epss = _index(data_index.build_scores)

FEEDS = [
    Target("feed-exploited", _of_text(facts.exploited_facts), lambda: [KEV, KEV["vulnerabilities"]], Form.JSON),
    Target("feed-dated", _of_text(lambda file: facts.in_file(file, "NextUpdate")), lambda: [
        {"NextUpdate": "2026-01-01T00:00:00.123456789Z"}], Form.JSON),
    Target("feed-tracker", _of_text(_tracker), lambda: [TRACKER], Form.JSON),
    Target("feed-tracker-bytes", _in_file(_tracker), lambda: [gzip.compress(json.dumps(TRACKER).encode())], Form.BYTES),
    Target("feed-osv", lambda said: _in_file(_osv)(_zipped(*(said if isinstance(said, list) else [said]))),
           lambda: [OSV]),
    Target("feed-osv-bytes", _in_file(_osv), lambda: [_zipped(*OSV)], Form.BYTES),
    Target("feed-epss", _of_text(_epss), lambda: [EPSS], Form.TEXT),
    Target("feed-debsecan", _of_text(facts.debsecan_facts, zlib.compress), lambda: [DEBSECAN], Form.TEXT),
    Target("feed-debsecan-bytes", _in_file(facts.debsecan_facts), lambda: [zlib.compress(DEBSECAN.encode())],
           Form.BYTES),
    Target("header-date", header_date, lambda: ["Wed, 21 Oct 2026 07:28:00 GMT"], Form.TEXT),
]  # fmt: skip


# -- archives of packages ----------------------------------------------------------------------------------------------

ENTRY = """Package: openssl
Version: 3.5.4-1~deb13u1
Architecture: amd64
Source: openssl (3.5.4-1)
SHA256: {hash}
Filename: pool/main/o/openssl/openssl_3.5.4-1_amd64.deb
Size: 1000
Description: x
 more
 .
Status: install ok installed
""".format(hash="a" * 64)
RELEASE_FILE = "Origin: Debian\nSuite: stable\nDate: Sat, 09 Aug 2025 10:00:00 UTC\nSHA256:\n abc 1 main\n"
SOURCES = (
    "Types: deb\nURIs: http://deb.example/debian\nSuites: trixie trixie-updates\nComponents: main\nSigned-By: /k\n"
)
APT = """'http://deb.example/pool/o/openssl_3.5.4-1_amd64.deb' openssl_1%3a3.5.4-1_amd64.deb 1000 SHA256:{hash}
Inst libc6:amd64 [2.41-1] (2.41-2 Debian:13/stable [amd64])
The following packages have been kept back:
   curl (8.1-1 => 8.2-1)
openssl:
  Installed: 3.5.1-1
  Candidate: 3.5.4-1
 openssl | 3.5.4-1 | http://deb.example trixie/main amd64 Packages
""".format(hash="a" * 64)


def _entry(text: str) -> object:
    return debian.pool_name(debian.package_of(text)), debian.as_installed(text), debian.repository_stanza(text, "x.deb")


def _sources(text: str) -> object:
    found = [*(debian.one_line_sources if text.startswith("deb ") else debian.sources_of)(text)]
    return debian.may_be_unsigned(text), debian.for_suite(found, "trixie", ("main",)), [one.text("x") for one in found
                                                                                      if one.suites]  # fmt: skip


def _told_by_apt(text: str) -> object:
    return debian.parse_uris(text), debian.upgrades(text), debian.candidates(text), [*debian.listed(text)]


PACKAGES = [
    Target("package-entry", _entry, lambda: [ENTRY], Form.TEXT),
    Target("package-status", debian.installed, lambda: [f"{ENTRY}\n{ENTRY.replace('openssl', 'curl')}"], Form.TEXT),
    Target("os-release", debian.os_release, lambda: ["#a\nA=\"De\\\"b\nian\" #b\nID='x'\nB=a\\\nb\n"],
           Form.TEXT),
    Target("release-file", lambda text: header_date(debian.date_of(text)), lambda: [RELEASE_FILE], Form.TEXT),
    Target("sources", _sources, lambda: [SOURCES, "deb [signed-by=/k] http://deb.example trixie main\n"], Form.TEXT),
    Target("apt-answers", _told_by_apt, lambda: [APT], Form.TEXT),
    Target("versions", lambda text: [is_before(*text.partition("\n")[::2]), is_before("1", text)],
           lambda: ["1:3.5.4-1~deb13u1\n3.5.4-1", "2.9\n2.10"], Form.TEXT),
]  # fmt: skip


# -- layers and trees --------------------------------------------------------------------------------------------------


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("etc", tarfile.DIRTYPE), ("etc/a", tarfile.REGTYPE), ("etc/l", tarfile.SYMTYPE),
                           ("etc/h", tarfile.LNKTYPE), ("etc/.wh.b", tarfile.REGTYPE)):  # fmt: skip
            one = tarfile.TarInfo(name)
            one.type, one.linkname = kind, "etc/a" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            one.pax_headers = {"SCHILY.xattr.user.x": "y"} if kind == tarfile.REGTYPE else {}
            one.size = 3 if name == "etc/a" else 0
            tar.addfile(one, io.BytesIO(b"abc"))
    return packed.getvalue()


def _layer(kind: str, pack: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], object]:
    def look(file: Path) -> object:
        with layers.reading(file, kind) as tar:
            members = [(one.name, one.linkname, one.size) for one in tar]
        with TemporaryDirectory() as tree:
            layers.unpack(file, kind, Path(tree), only=["etc/a"])
        return members

    return lambda data: _in_file(look)(pack(data))


TAR = "application/vnd.oci.image.layer.v1.tar"
LAYERS = [
    Target("layer", _layer(TAR), lambda: [_tar()], Form.BYTES),
    Target("layer-gzip", _layer(f"{TAR}+gzip"), lambda: [gzip.compress(_tar())], Form.BYTES),
    Target("layer-zstd", _layer(f"{TAR}+zstd"), lambda: [zstandard.compress(_tar())], Form.BYTES),
    Target("layer-packed", _layer(f"{TAR}+zstd", zstandard.compress), lambda: [_tar()], Form.BYTES),
]


# -- definitions' files, machines --------------------------------------------------------------------------------------


GIVEN = dockerfile.values(definition("", base={"golden": "debian-base"}, packages=["curl"]), SHA, ("curl",), 1)


def _dockerfile(text: str) -> object:
    return dockerfile.problem(text, GIVEN), dockerfile.instructions(text)


def _console(data: bytes) -> object:
    return guest.parse(data, ["observed.completed"]), guest.tail(guest.plain(data.decode(errors="replace")))


def _observed(text: str) -> object:
    made = [judge(text) for judge in (observations._failed_units, observations._cloud_init)]
    return [*made, observations.judge_sockets(f"kernel 1\n{text}", ["22/tcp"])]


CLOUD_INIT = """result {"v1": {"datasource": "NoCloud", "errors": []}}
status {"v1": {"init": {"errors": [], "recoverable_errors": {"WARNING": ["x"]}}, "stage": null}}
instance goldsmith-boot-gate
"""
STATE = "[Mount]\nWhat=/dev/vda\nWhere=/srv\nType=ext4\nOptions=nosuid\nkernel.kptr_restrict = 1\n-net.a/b=2\n"


REPORT = b"record observed.completed 0 out=eA== err=eQ==\nend 1\n"


MACHINES = [
    Target("dockerfile", _dockerfile, lambda: [
        f"FROM {GIVEN['base']}\nRUN --mount=type=bind,from=debs,target=/x \\\n  true\n{GIVEN['harden']}\n"], Form.TEXT),
    Target("boot-report", _console, lambda: [REPORT], Form.BYTES),
    Target("boot-observed", _observed, lambda: [
        CLOUD_INIT, "units 3\nfailed x\n", (SAMPLES / "boot/ss.txt").read_text()], Form.TEXT),
    Target("disk-headers", qemu.sections, lambda: [_pe()], Form.BYTES),
    Target("boot-state", lambda text: (boot_state.unit_mount(text), boot_state.parameters(text)),
           lambda: [STATE], Form.TEXT),
]  # fmt: skip


def _pe() -> bytes:
    head = bytearray(0x200)
    head[:2], head[0x3C:0x40], head[0x80:0x84], head[0x86] = b"MZ", b"\x80\0\0\0", b"PE\0\0", 1
    head[0x98:0xA0] = b".linux\0\0"
    return bytes(head)


TARGETS: Sequence[Target] = (
    *SCANNING, *REGISTRIES, *ATTESTATIONS, *FEEDS, *PACKAGES, *LAYERS, *MACHINES,
)  # fmt: skip
