"""The package index: apt's formats as values, and apt itself on a signed archive of our own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import Packages, Settings
from images.artifact import Package
from images.model import Bootstrap
from images.packages import aptroot, debian
from images.packages.index import PackageIndex
from images.packages.pool import write_repository
from images.store.files import file_digest
from tests.support.archive import Archive

TRIXIE = Bootstrap(family="debian", suite="trixie")
STATIC = Bootstrap(family="debian", suite="trixie", variant="static")
SHA256 = "abc0" * 16
STANZA = f"""\
Package: libx
Source: x-source (1.0)
Version: 1:2.0+b1
Architecture: amd64
Depends: libc6,
 libz
Description: something
Filename: pool/main/x/libx_2.0_amd64.deb
Size: 7
SHA256: {SHA256}"""


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path / "archive")
    archive.add("base-files", control="Essential: yes\nPriority: required")
    archive.add("apt", control="Depends: base-files")
    archive.add("tool", control="Depends: tool-data (>= 1.0)\nRecommends: tool-doc")
    archive.add("tool-data")
    archive.add("tool-doc")
    archive.publish()
    return archive


def index_of(archive: Archive, tmp_path: Path, **more: object) -> PackageIndex:
    values = {"mirror": archive.uri, "suites": ("./",), "keyring": archive.keyring, **more}
    return PackageIndex(Settings(state=tmp_path / "state", retry_for="0s", packages=Packages(**values)))


def names(packages: tuple[Package, ...]) -> list[str]:
    return [package.name for package in packages]


def test_a_stanza_becomes_a_package_with_its_source() -> None:
    """Name, version with epoch, architecture, hash, and the source without its version."""
    assert debian.package_of(STANZA) == Package("libx", "1:2.0+b1", "amd64", SHA256, "x-source", source_version="1.0")


def test_an_installed_stanza_says_so_and_forgets_the_archive() -> None:
    """What only an archive knows goes; continuation lines stay with what they continue."""
    text = debian.as_installed(STANZA)
    assert text.splitlines()[:2] == ["Package: libx", "Status: install ok installed"]
    assert "Filename" not in text
    assert "SHA256" not in text
    assert "\n libz\n" in text
    assert list(debian.installed(text)) == [Package("libx", "1:2.0+b1", "amd64", "", "x-source", source_version="1.0")]


def test_only_what_is_installed_counts() -> None:
    """A package that was removed but left its configuration is not installed."""
    removed = debian.as_installed(STANZA).replace("install ok installed", "deinstall ok config-files")
    assert debian.installed(removed) == {}
    held = debian.as_installed(STANZA).replace("install ok installed", "hold ok installed")
    assert len(debian.installed(held)) == 1


def test_uris_become_names_with_versions() -> None:
    """The epoch's colon, which file names escape, is read back."""
    line = "'http://mirror.example.com/x_1%3a2-1_amd64.deb' x_1%3a2-1_amd64.deb 10 SHA256:aa"
    assert debian.parse_uris(f"Reading…\n{line}\n") == {"x=1:2-1": "aa"}


def test_the_hosts_sources_are_narrowed_to_the_suite() -> None:
    """Other suites, disabled stanzas, sources only and unsigned places are left out."""
    text = """\
# a comment
Types: deb deb-src
URIs: https://mirror.example.com/debian
Suites: trixie trixie-updates sid
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://mirror.example.com/debian
Suites: trixie-security
Components: main
Enabled: no

Types: deb
URIs: file:/unsigned
Suites: trixie
Trusted: yes
"""
    found = debian.for_suite(debian.sources_of(text), "trixie", ("main",))
    assert [(s.suites, s.components) for s in found] == [(("trixie", "trixie-updates"), ("main",))]


def test_a_source_that_apt_trusts_unsigned_is_known() -> None:
    """Its dates prove nothing."""
    text = "Types: deb\nURIs: https://a.example.com\nSuites: ./\n"
    for field in ("Trusted: yes", "trusted:  Yes", "Allow-Insecure: true", "TRUSTED: 1"):
        assert debian.may_be_unsigned(f"{text}{field}\nSigned-By: /k\n")
    assert not any(debian.may_be_unsigned(f"{text}{more}\n") for more in ("", "Trusted: no", "# Trusted: yes"))


def test_one_line_sources_are_read_too() -> None:
    """Options, comments and deb-src lines as apt reads them."""
    text = """\
deb [arch=amd64 signed-by=/k.pgp] https://mirror.example.com/debian trixie main contrib # why
deb-src https://mirror.example.com/debian trixie main
#deb https://mirror.example.com/debian sid main
deb [trusted=yes] file:/x ./
"""
    found = list(debian.one_line_sources(text))
    assert [(s.uris, s.suites, s.components, s.signed_by) for s in found] == [
        (("https://mirror.example.com/debian",), ("trixie",), ("main", "contrib"), "/k.pgp")
    ]


def test_a_keyring_of_ones_own_stands_inside_the_images_sources() -> None:
    """A key that no package brings goes along, armored, as a continuation that deb822 can read back."""
    text = debian.Source(("https://m.example.com",), ("trixie",), ("main",)).text(debian.armored(b"\x99key" * 30))
    key = debian.fields(text)["Signed-By"]
    assert key.startswith("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n ")
    assert next(debian.sources_of(text)).uris == ("https://m.example.com",)


def test_a_distribution_without_any_archive_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    """A host that does not use the suite, and no mirror set."""
    with pytest.raises(ContentError, match="no archive is known for bo") as error:
        aptroot.sources_text(Settings(state=tmp_path), Bootstrap(family="debian", suite="bo"))
    assert "packages.mirror" in error.value.hint


@pytest.mark.needs("apt-get", "gpg")
def test_apt_resolves_on_our_own_signed_archive(archive: Archive, tmp_path: Path) -> None:
    """A new system gets the base set; dependencies come along, recommendations do not."""
    index = index_of(archive, tmp_path)
    base = index.resolve(TRIXIE, ())
    assert names(base) == ["apt", "base-files"]
    assert names(index.resolve(TRIXIE, ("tool",))) == ["apt", "base-files", "tool", "tool-data"]
    assert names(index.resolve(TRIXIE, ("tool",), base)) == ["tool", "tool-data"]
    assert index.resolve(TRIXIE, ("tool",), base)[0].source == "tool-source"
    assert index.resolve(TRIXIE, (), base) == ()


@pytest.mark.needs("apt-get", "gpg")
def test_a_static_image_gets_exactly_what_it_names(archive: Archive, tmp_path: Path) -> None:
    """No base set, no dependency."""
    assert names(index_of(archive, tmp_path).resolve(STATIC, ("tool",))) == ["tool"]


@pytest.mark.needs("apt-get", "gpg")
def test_downloads_are_what_was_planned_and_happen_once(archive: Archive, tmp_path: Path) -> None:
    """The pool keeps a .deb by its hash; a second request needs no archive."""
    index = index_of(archive, tmp_path)
    packages = index.resolve(TRIXIE, ("tool",))
    debs = index.download(TRIXIE, packages)
    assert all(file_digest(debs[package]) == package.sha256 for package in packages)
    archive.directory.rename(tmp_path / "gone")
    assert index.download(TRIXIE, packages) == debs
    assert index.resolve(TRIXIE, ("tool",)) == packages


@pytest.mark.needs("apt-get", "gpg")
def test_a_deb_that_was_swapped_is_refused(archive: Archive, tmp_path: Path) -> None:
    """apt notices, and nothing enters the pool."""
    index = index_of(archive, tmp_path)
    packages = index.resolve(TRIXIE, ("tool-doc",))
    (archive.directory / "tool-doc_1.0_all.deb").write_bytes(b"not what was signed")
    with pytest.raises(OutsideError):
        index.download(TRIXIE, packages)
    assert not list((tmp_path / "state/apt").glob("pool/*/tool-doc*"))


@pytest.mark.needs("apt-get", "gpg")
def test_a_version_that_was_published_anew_is_not_what_was_planned(archive: Archive, tmp_path: Path) -> None:
    """Same name, same version, other bytes, properly signed: the plan's hash decides."""
    index = index_of(archive, tmp_path)
    packages = index.resolve(TRIXIE, ("tool-doc",))
    archive.add("tool-doc", files={"/usr/share/tool-doc/more": "other bytes"})
    archive.publish()
    index.refresh(TRIXIE)
    with pytest.raises(OutsideError, match="is not the file that was planned") as error:
        index.download(TRIXIE, packages)
    assert "plan again" in error.value.hint


@pytest.mark.needs("apt-get", "gpg")
def test_a_newer_package_shows_only_after_a_refresh(archive: Archive, tmp_path: Path) -> None:
    """The index is what was fetched: state and resolution change together, and what was planned stays describable."""
    index = index_of(archive, tmp_path)
    before, packages = index.state(TRIXIE), index.resolve(TRIXIE, ("tool",))
    archive.add("tool-data", "1.1")
    archive.publish()
    assert (index.state(TRIXIE), index.resolve(TRIXIE, ("tool",))) == (before, packages)
    index.refresh(TRIXIE)
    assert index.state(TRIXIE) != before
    newer = index.resolve(TRIXIE, ("tool",))
    assert {p.name: p.version for p in newer} == {"apt": "1.0", "base-files": "1.0", "tool": "1.0", "tool-data": "1.1"}
    assert "Version: 1.0\n" in index.stanzas(p for p in packages if p.name == "tool-data")
    assert names(index.resolve(TRIXIE, ("tool-data",), packages)) == ["tool-data"]


@pytest.mark.needs("apt-get", "gpg")
def test_extra_sources_count_for_planning_but_not_for_the_image(archive: Archive, tmp_path: Path) -> None:
    """A local archive laid over another one brings its newer version; images never hear of it."""
    over = Archive(tmp_path / "over")
    over.add("tool-data", "2.0")
    over.publish()
    index = index_of(archive, tmp_path, extra_sources=(over.sources(),))
    assert {p.version for p in index.resolve(TRIXIE, ("tool",)) if p.name == "tool-data"} == {"2.0"}
    assert over.uri not in index.sources(TRIXIE)
    assert archive.uri in index.sources(TRIXIE)


@pytest.mark.needs("apt-get", "gpg")
def test_an_unknown_package_is_named_with_the_nearest(archive: Archive, tmp_path: Path) -> None:
    """What was meant is suggested."""
    with pytest.raises(ContentError, match="no package tol-data in trixie"):
        index_of(archive, tmp_path).resolve(TRIXIE, ("tol-data",))
    with pytest.raises(ContentError, match="no package tool-dta in trixie") as error:
        index_of(archive, tmp_path).resolve(TRIXIE, ("tool-dta",))
    assert "tool-data" in error.value.hint


@pytest.mark.needs("apt-get", "gpg")
def test_what_cannot_be_installed_says_why(archive: Archive, tmp_path: Path) -> None:
    """apt's own explanation is the evidence."""
    archive.add("broken", control="Depends: nowhere")
    archive.publish()
    with pytest.raises(ContentError, match="no way to install") as error:
        index_of(archive, tmp_path).resolve(TRIXIE, ("broken",))
    assert "nowhere" in error.value.evidence


@pytest.mark.needs("apt-get", "gpg")
def test_an_unreachable_mirror_is_one_clear_error(archive: Archive, tmp_path: Path) -> None:
    """Exit code 4, the address in the evidence, and a hint."""
    with pytest.raises(OutsideError, match="package index of trixie could not be fetched") as error:
        index_of(archive, tmp_path, mirror="http://127.0.0.1:9/debian").refresh(TRIXIE)
    assert "127.0.0.1" in error.value.evidence
    assert "packages.mirror" in error.value.hint


@pytest.mark.needs("apt-get", "gpg")
def test_the_date_of_an_index_is_the_one_that_was_signed(archive: Archive, tmp_path: Path) -> None:
    """apt passes over what a mirror writes before the signed text: by that date nothing would wait out a cooldown."""
    over = Archive(tmp_path / "over")
    over.add("tool", "2.0")
    over.publish(date="Thu, 01 Jan 2026 00:00:00 UTC")
    file = over.directory / "InRelease"
    file.write_bytes(file.read_bytes().replace(b"\n\n", b"\nNote: \xff\nDate: Thu, 01 Jan 2015 00:00:00 UTC\n\n", 1))
    index = index_of(archive, tmp_path, extra_sources=(over.sources(),))
    index.refresh(TRIXIE)
    assert [(one.name, one.signed) for one in index.offers(TRIXIE)] == [("tool", datetime(2026, 1, 1, tzinfo=UTC))]


SIGNED = """-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n{before}
{blank}
{text}
-----BEGIN PGP SIGNATURE-----{after}

abc=
-----END PGP SIGNATURE-----
"""


@pytest.mark.parametrize("blank", ["", " \t"])
def test_only_a_signed_text_has_a_date(blank: str) -> None:
    """Not the lines before and after it, also where it names none, and nothing of what is cut short."""
    parts = {"before": "Date: of nobody", "after": "\nDate: of nobody", "blank": blank}
    text = SIGNED.format(text="Suite: x\nDate: of its owner", **parts)
    assert debian.date_of(text) == debian.date_of(text.replace("Date: of its", "- Date: of its")) == "of its owner"
    assert debian.date_of(SIGNED.format(text="Suite: x", **parts)) == ""
    assert debian.date_of(text.partition("-----BEGIN PGP SIGNATURE")[0]) == debian.date_of(f"\n{text}") == ""
    assert debian.date_of("Suite: x\nDate: plain\n") == "plain"


@pytest.mark.needs("apt-get", "gpg")
def test_an_archive_signed_by_somebody_else_is_refused(archive: Archive, tmp_path: Path) -> None:
    """The settings' keyring decides, nothing of the host's."""
    other = Archive(tmp_path / "other")
    with pytest.raises(OutsideError, match="could not be fetched"):
        index_of(archive, tmp_path, keyring=other.keyring).refresh(TRIXIE)


@pytest.mark.needs("apt-get", "gpg")
def test_the_repository_of_a_build_holds_exactly_the_plan(archive: Archive, tmp_path: Path) -> None:
    """Hard links and an index over them."""
    index = index_of(archive, tmp_path)
    packages = index.resolve(TRIXIE, ("tool",))
    debs = index.download(TRIXIE, packages)
    write_repository(tmp_path / "repository", "trixie", debs, index.stanzas(packages))
    text = (tmp_path / "repository/Packages").read_text()
    found = [debian.fields(stanza)["Filename"] for stanza in debian.stanzas(text)]
    assert sorted(found) == sorted(f"./{p.name}_1.0_all.deb" for p in packages)
    assert all((tmp_path / "repository" / name).stat().st_nlink > 1 for name in found)


@pytest.mark.needs("mirror", "apt-get")
def test_the_real_archive_resolves_a_small_system(tmp_path: Path) -> None:
    """By the host's own apt configuration: a minimal Debian with exactly one libc6, and the real sources for images."""
    index = PackageIndex(Settings(state=tmp_path / "state", retry_for="1s"))
    packages = index.resolve(TRIXIE, ("ca-certificates",))
    assert len(packages) > 60
    assert names(packages).count("libc6") == 1
    assert "Suites: trixie" in index.sources(TRIXIE)
    assert f"Signed-By: {debian.KEYRING}" in index.sources(TRIXIE)


def test_what_looks_like_an_option_is_a_name_to_apt(archive: Archive, tmp_path: Path) -> None:
    """Even past the model: apt looks for a package of that name, and runs no solver that a name asks for."""
    index = index_of(archive, tmp_path)
    with pytest.raises(ContentError, match="no package --solver in"):
        index.resolve(TRIXIE, ("--solver=x",))
