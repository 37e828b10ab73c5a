"""Packages that a stranger describes: what a base image or a kept file says never stands for what an archive signed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Packages, Settings
from images.artifact import Package
from images.build import build
from images.catalog import LoadedDefinition
from images.context import Context
from images.model import Bootstrap
from images.packages import debian
from images.packages.index import PackageIndex
from images.packages.pool import write_repository
from images.plan.planner import Planner
from images.plan.upstream import LOCK, Pin, Upstream, render_lock
from images.scan.verify import offered, refusals
from images.store import layers
from images.store.oci import Store
from tests.support.archive import Archive
from tests.support.building import definition, job
from tests.support.publishing import NOW

TRIXIE = Bootstrap(family="debian", suite="trixie")
STATIC = 'packages = ["tool"]\nbase = { bootstrap = { family = "debian", suite = "trixie", variant = "static" } }'
REFERENCE = "registry.example.com/debian:13"
SHA256 = "a" * 64
STANZA = {"Package": "libx", "Version": "1.0", "Architecture": "amd64", "SHA256": SHA256, "Description": "x"}


def stanza(**over: str) -> str:
    """A package's entry; `over` replaces or adds fields."""
    return "".join(f"{key}: {value}\n" for key, value in {**STANZA, **over}.items() if value)


def installed(**over: str) -> str:
    return stanza(Status="install ok installed", **over)


def upstream_with(
    root: Path, status: str, state: Path, release: str = 'ID=debian\nVERSION_CODENAME="trixie"\n'
) -> Upstream:
    """An upstream image that says `status` of itself, pinned by a content root."""
    tree, store = root / "tree", Store(state / "store")
    for name, text in {"usr/lib/os-release": release, "var/lib/dpkg/status": status}.items():
        (tree / name).parent.mkdir(parents=True)
        (tree / name).write_text(text)
    layer, diff_id = store.write_layer(layers.tree_entries(tree), 1)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    digest = store.write_image(config, [layer]).digest
    (root / LOCK).parent.mkdir(parents=True)
    (root / LOCK).write_text(render_lock({REFERENCE: Pin(digest=digest, platforms={"linux/amd64": digest})}))
    return Upstream(Settings(state=state, content=(root,), retry_for="0s"), store, NOW)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "over",
    [
        {"Package": "../../../../outside"},
        {"Package": "Lib_X"},
        {"Version": "1/../../../outside"},
        {"Version": "not a version"},
        {"Architecture": "../amd64"},
        {"SHA256": "../../../../../outside"},
        {"SHA256": "A" * 64},
        {"SHA256": "a" * 63},
        {"Filename": "../../etc/passwd"},
        {"Filename": "/etc/passwd"},
        {"Source": "../x"},
        {"Installed-Size": "many"},
        {"Version": "1.0\npackage: other"},
        {"Version": ""},
        {"Description": "x\x00y"},
        {"Description": "x\rNote: y"},
        {"Description": "x\nno field at all"},
    ],
)
def test_a_base_images_package_that_is_none_is_refused(over: dict[str, str], tmp_path: Path) -> None:
    """While planning, before a path is made of it: nothing is written outside the state, and the image is named."""
    upstream = upstream_with(tmp_path / "root", installed(**over), tmp_path / "a/b/state")
    before = files_below(tmp_path)
    with pytest.raises(OutsideError, match=REFERENCE):
        upstream.packages(REFERENCE)
    assert [name for name in files_below(tmp_path) if name not in before and "/store/texts/" not in name] == []


def test_a_base_image_never_names_the_hash_of_a_package(tmp_path: Path) -> None:
    """Its own dpkg status is no archive: what it says stands under the image's digest, and has no hash."""
    upstream = upstream_with(tmp_path / "root", installed(Depends="evil"), tmp_path / "state")
    (found,) = upstream.packages(REFERENCE)
    assert found == Package("libx", "1.0", "amd64", "", "libx")
    with pytest.raises(OutsideError, match="never resolved"):
        upstream.index.stanzas([Package("libx", "1.0", "amd64", SHA256, "libx")])
    assert not [name for name in files_below(tmp_path / "state/apt") if SHA256 in name]


@pytest.mark.needs("apt-get", "gpg")
def test_one_base_image_says_nothing_of_anothers_packages(tmp_path: Path) -> None:
    """Two images hold a package of the same version, described otherwise: each plan goes by its own image's words."""
    archive = Archive(tmp_path / "archive")
    archive.add("tool", control="Depends: helper")
    archive.add("helper")
    archive.publish()
    settings = Settings(
        state=tmp_path / "state", retry_for="0s",
        packages=Packages(mirror=archive.uri, suites=("./",), keyring=archive.keyring),
    )  # fmt: skip
    index = PackageIndex(settings)
    added = []
    for name, provides in (("liar", "helper"), ("honest", "")):
        upstream = upstream_with(tmp_path / name, installed(SHA256="", Provides=provides), tmp_path / "state")
        digest = upstream.locked(REFERENCE)
        found = index.resolve(TRIXIE, ("tool",), upstream.packages(REFERENCE), digest)
        added.append([package.name for package in found])
    assert added == [["tool"], ["helper", "tool"]]


@pytest.mark.needs("apt-get", "gpg")
def test_a_version_that_no_archive_can_have_offered_is_refused(tmp_path: Path) -> None:
    """The version `99:9-9` would hide every vulnerability. An older one was offered before, and the index is fetched
    again before a newer one is refused."""
    archive = Archive(tmp_path / "archive")
    for name, version in (("current", "2.0-1"), ("older", "2.0-1"), ("forged", "2.0-1"), ("newer", "2.0-1")):
        archive.add(name, version)
    archive.publish()
    said = {"current": "2.0-1", "older": "1.9-1~deb13u1", "forged": "99:9-9", "newer": "3.0-1", "unheard": "1"}
    status = "\n".join(installed(Package=name, Version=version, SHA256="") for name, version in said.items())
    upstream_with(tmp_path / "root", status, tmp_path / "state")
    packages = Packages(mirror=archive.uri, suites=("./",), keyring=archive.keyring)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "root",), retry_for="0s", packages=packages)
    loaded = LoadedDefinition(definition(f'base = {{ image = "{REFERENCE}" }}'), tmp_path)
    planner = Planner(Context(settings, NOW, str, str))
    planner.context.index.refresh(TRIXIE)
    archive.add("newer", "3.0-1")
    archive.publish()
    strange = planner.not_offered(loaded)
    assert strange == (
        "forged 99:9-9: newer than 2.0-1, the newest that is offered",
        "unheard 1: not offered at all",
    )
    assert [result.control for result in refusals(offered(strange))] == ["packages-offered"]
    assert offered(()) == ()


def test_a_release_name_that_is_none_is_refused(tmp_path: Path) -> None:
    """It becomes a directory and an address."""
    upstream = upstream_with(tmp_path / "root", "", tmp_path / "state", "ID=debian\nVERSION_CODENAME=../../x\n")
    with pytest.raises(OutsideError, match=r"VERSION_CODENAME.*\.\./\.\./x"):
        upstream.bootstrap(REFERENCE)


def test_a_pin_is_a_digest(tmp_path: Path) -> None:
    """What the lock file names becomes a path."""
    for wrong in ("sha256:../../x", "sha256:1", "../x"):
        with pytest.raises(ValueError, match="digest"):
            Pin(digest=wrong, platforms={})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> PackageIndex:
    base = tmp_path_factory.mktemp("own")
    archive = Archive(base / "archive")
    archive.add("tool")
    archive.publish()
    packages = Packages(mirror=archive.uri, suites=("./",), keyring=archive.keyring)
    return PackageIndex(Settings(state=base / "state", retry_for="0s", packages=packages))


@pytest.mark.needs("apt-get", "gpg")
def test_a_pool_file_that_changed_is_fetched_again(own: PackageIndex) -> None:
    """The pool is hashed before each use, not only when it is filled."""
    (package,) = own.resolve(Bootstrap(family="debian", suite="trixie", variant="static"), ("tool",))
    path = own.download(TRIXIE, [package])[package]
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(b"poison")
    assert own.download(TRIXIE, [package])[package].read_bytes() == good


@pytest.mark.needs("root", "apt-get", "gpg")
def test_the_static_builder_unpacks_only_what_was_planned(own: PackageIndex, tmp_path: Path) -> None:
    """A .deb that was exchanged between the download and the build reaches no tree."""
    (tmp_path / "folder").mkdir()
    wanted = job(own, Store(tmp_path / "store"), definition(STATIC), tmp_path / "folder", tmp_path / "work")
    (path,) = wanted.debs.values()
    good = path.read_bytes()
    other = Archive(tmp_path / "other").add("tool", files={"/usr/bin/evil": "evil"})
    path.write_bytes(other.read_bytes())
    try:
        with pytest.raises(OutsideError, match="is not the file that was planned"):
            build(wanted)
        assert not (tmp_path / "work/tree/usr/bin/evil").exists()
    finally:
        path.write_bytes(good)


@pytest.mark.needs("apt-get", "gpg")
def test_the_repository_of_a_build_takes_no_changed_file_and_no_other_entry(own: PackageIndex, tmp_path: Path) -> None:
    """apt trusts that repository: it is made of hashed files, and of entries for exactly these."""
    (package,) = own.resolve(Bootstrap(family="debian", suite="trixie", variant="static"), ("tool",))
    entry = own.stanzas([package])
    poison = tmp_path / "poison.deb"
    poison.write_bytes(b"poison")
    with pytest.raises(OutsideError, match="is not the file that was planned"):
        write_repository(tmp_path / "one", "trixie", {package: poison}, entry)
    path = own.download(TRIXIE, [package])[package]
    with pytest.raises(OutsideError, match="libx"):
        write_repository(tmp_path / "two", "trixie", {package: path}, f"{entry}\n{stanza()}")


def test_a_kept_entry_describes_what_it_is_kept_for(own: PackageIndex) -> None:
    """An entry on disk that tells of another package is not handed to apt."""
    (package,) = own.resolve(Bootstrap(family="debian", suite="trixie", variant="static"), ("tool",))
    kept = own._entry_path(package)
    good = kept.read_text()
    kept.write_text(stanza())
    try:
        with pytest.raises(OutsideError, match="libx"):
            own.stanzas([package])
    finally:
        kept.write_text(good)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (stanza() + "SHA256: " + "b" * 64, "SHA256 twice"),
        (stanza() + "sha256: " + "b" * 64, "sha256 twice"),
        (stanza(SHA256=""), "SHA256"),
        (stanza(Package="x/y"), "Package"),
    ],
)
def test_an_index_entry_is_one_package_by_debians_grammar(text: str, said: str) -> None:
    """Each field once, in the letters that Debian allows."""
    with pytest.raises(OutsideError, match=said):
        debian.package_of(text.strip())


def test_what_apt_would_fetch_and_what_it_shows_are_one(own: PackageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash of an entry is the one that apt takes from the signed index, not one that a dpkg status brought."""
    real = debian.parse_uris
    monkeypatch.setattr(debian, "parse_uris", lambda text: dict.fromkeys(real(text), "b" * 64))
    with pytest.raises(OutsideError, match="tool"):
        PackageIndex(own.settings)._resolve(
            Bootstrap(family="debian", suite="trixie", variant="static"), ("tool",), (), ""
        )
