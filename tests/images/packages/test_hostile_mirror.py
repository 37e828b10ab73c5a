"""A mirror that means harm: each thing it may do is one clear error, bounded in time, disk and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.foundation.limits import FEED_BYTES, Limit
from hardening.foundation.settings import Packages, Settings
from images.model import Bootstrap
from images.packages import aptroot
from images.packages.index import PackageIndex
from tests.support.archive import Archive
from tests.support.hostile import GIB, MIB, Asked, Drip, Hostile, Reply, endless, hostile, redirect, xz_bomb

STATIC = Bootstrap(family="debian", suite="trixie", variant="static")
pytestmark = pytest.mark.needs("apt-get", "gpg", "prlimit")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("mirror") / "archive")
    archive.add("tool", files={"/usr/share/tool/data": "x" * 5000})
    archive.publish()
    return archive


@pytest.fixture
def server() -> Iterator[Hostile]:
    with hostile() as running:
        yield running


def mirror(archive: Archive) -> Callable[[Asked], Reply]:
    """The archive as it is, over HTTP."""

    def serve(asked: Asked) -> Reply:
        file = archive.directory / asked.path.rsplit("/", 1)[-1]
        return Reply(file.read_bytes()) if file.is_file() else Reply(status=404)

    return serve


def index_of(server: Hostile, archive: Archive, tmp_path: Path) -> PackageIndex:
    """An index over the server; whatever it has no route for is what the archive holds."""
    server.fallback = mirror(archive)
    packages = Packages(mirror=f"{server.address}/d", suites=("./",), keyring=archive.keyring)
    return PackageIndex(Settings(state=tmp_path / "state", retry_for="0s", packages=packages))


def outside(tmp_path: Path) -> set[str]:
    """Everything there is beside the state directory."""
    return {str(path) for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "state")}


def refused(index: PackageIndex, tmp_path: Path) -> OutsideError:
    """The one error of asking that mirror for a package; what it wrote stands under the state alone."""
    before = outside(tmp_path)
    with pytest.raises(OutsideError) as error:
        index.download(STATIC, index.resolve(STATIC, ("tool",)))
    assert outside(tmp_path) == before
    assert error.value.hint
    assert not list((tmp_path / "state").glob("apt/pool/*/*"))
    return error.value


def test_the_mirror_itself_is_sound(server: Hostile, archive: Archive, tmp_path: Path) -> None:
    """What follows is refused for its harm and nothing else."""
    index = index_of(server, archive, tmp_path)
    assert index.download(STATIC, index.resolve(STATIC, ("tool",)))


@pytest.mark.parametrize("name", ["InRelease", "Packages", "tool_1.0_all.deb"])
@pytest.mark.parametrize("harm", ["truncated", "cut off", "other bytes", "longer", "endless", "not there"])
def test_a_file_that_is_not_the_signed_one_is_refused(
    name: str, harm: str, server: Hostile, archive: Archive, tmp_path: Path
) -> None:
    """Shorter, cut off in the middle, other bytes, more bytes, bytes without end, or none."""
    good = (archive.directory / name).read_bytes()
    server[f"/d/./{name}"] = {
        "truncated": Reply(good[: len(good) // 2]),
        "cut off": Reply(good[: len(good) // 2], claim=len(good)),
        "other bytes": Reply(bytes(byte ^ 1 for byte in good)),
        "longer": Reply(good + b"more"),
        "endless": Reply(endless(b"x" * MIB)),
        "not there": Reply(status=404),
    }[harm]
    index = index_of(server, archive, tmp_path)
    refused(index, tmp_path)
    assert any(path.endswith(name) for path in server.paths)


@pytest.mark.parametrize("name", ["InRelease", "tool_1.0_all.deb"])
@pytest.mark.parametrize("target", ["file:///etc/shadow", "copy:/etc/shadow", "/d/./NAME", "ELSEWHERE/secret"])
def test_a_mirror_that_sends_us_on_gains_nothing(
    name: str, target: str, server: Hostile, archive: Archive, tmp_path: Path
) -> None:
    """To a file of this host, round in a circle, or to another host that has other bytes."""
    server["/secret"] = Reply(b"what another host keeps from strangers")
    server[f"/d/./{name}"] = redirect(target.replace("NAME", name).replace("ELSEWHERE", server.elsewhere))
    error = refused(index_of(server, archive, tmp_path), tmp_path)
    assert "root:" not in str(error)
    assert "keeps from strangers" not in str(error)
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not any(b"keeps from strangers" in data or b"root:" in data for data in kept)


@pytest.mark.parametrize("name", ["InRelease", "Packages", "tool_1.0_all.deb"])
def test_a_mirror_that_never_ends_is_given_up(
    name: str, server: Hostile, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers and sends nothing: one call of apt has an end."""
    server[f"/d/./{name}"] = slow = Drip([], claim=(archive.directory / name).stat().st_size)
    index = index_of(server, archive, tmp_path)
    if name.endswith(".deb"):
        index.refresh(STATIC)
    for seconds in (3.0, 60.0, 600.0):  # a busy machine may not come so far in the first
        monkeypatch.setattr(aptroot, "LONGEST_SECONDS", seconds)
        error = refused(index, tmp_path)
        assert f"{seconds:g} s" in str(error)
        if slow.started.is_set():
            return
    raise AssertionError("it never asked for what does not end")


def signed(archive: Archive, files: dict[str, bytes], sizes: dict[str, int]) -> bytes:
    """A release that the archive's owner signed over `files`; `sizes` are lies about how long they are unpacked."""
    lines = [f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}" for name, data in files.items()]
    lines += [f" {hashlib.sha256(b'').hexdigest()} {size} {name}" for name, size in sizes.items()]
    head = "Suite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
    (archive.home / "Bad").write_text(head + "\n".join(lines) + "\n")
    out = archive.home / "BadInRelease"
    out.unlink(missing_ok=True)
    archive._gpg("--output", str(out), "--clear-sign", str(archive.home / "Bad"))
    return out.read_bytes()


def test_a_bomb_that_an_archives_owner_signed_ends_at_the_limit(
    server: Hostile, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of a few kilobytes that unpacks to gigabytes fills neither disk nor memory."""
    bomb = xz_bomb(GIB)
    server["/d/./InRelease"] = Reply(signed(archive, {"Packages.xz": bomb}, {"Packages": GIB}))
    server["/d/./Packages.xz"] = Reply(bomb)
    server["/d/./Packages"] = Reply(status=404)
    monkeypatch.setattr(aptroot, "LARGEST_INDEX", 8 * MIB)
    error = refused(index_of(server, archive, tmp_path), tmp_path)
    assert "/d/./Packages.xz" in server.paths
    assert "index of trixie could not be fetched" in error.message
    assert "the limit index.bytes" in error.hint
    assert sum(path.stat().st_size for path in (tmp_path / "state").rglob("*") if path.is_file()) < 32 * MIB


@pytest.mark.parametrize(
    "line",
    [
        "Filename: ../../../../outside.deb",
        "Filename: /etc/outside.deb",
        "Version: 1.0/../../outside",
        "Architecture: ../all",
        "SHA256: " + "b" * 64,
        "Size: -1",
    ],
)
def test_an_entry_that_an_archives_owner_signed_names_no_path(
    line: str, server: Hostile, archive: Archive, tmp_path: Path
) -> None:
    """A third party's archive may name what it likes: it becomes no path of ours, and a hash is the file's."""
    key = line.partition(":")[0]
    old = (archive.directory / "Packages").read_text().splitlines()
    lines = [line if one.startswith(f"{key}:") else one for one in old]
    packages = ("\n".join(lines) + "\n").encode()
    server["/d/./InRelease"] = Reply(signed(archive, {"Packages": packages}, {}))
    server["/d/./Packages"] = Reply(packages)
    before = outside(tmp_path)
    index = index_of(server, archive, tmp_path)
    with pytest.raises(GoldsmithError):
        index.download(STATIC, index.resolve(STATIC, ("tool",)))
    assert outside(tmp_path) == before


def test_a_file_of_the_pool_is_what_it_is_asked_for(server: Hostile, archive: Archive, tmp_path: Path) -> None:
    """A file by its hash alone, as benchmarks are fetched: other bytes are refused, and none are left."""
    index = index_of(server, archive, tmp_path)
    (tmp_path / "state").mkdir(exist_ok=True)
    server["/d/pool/x.deb"] = Reply(b"other")
    with pytest.raises(OutsideError, match=r"no archive has pool/x\.deb"):
        index.fetch(STATIC, "pool/x.deb", "a" * 64, tmp_path / "state/x.deb", FEED_BYTES)
    assert not (tmp_path / "state/x.deb").exists()


def test_a_file_of_the_pool_without_an_end_is_refused_at_the_limit(
    server: Hostile, archive: Archive, tmp_path: Path
) -> None:
    """Before its hash is compared, and before it fills the disk."""
    index = index_of(server, archive, tmp_path)
    (tmp_path / "state").mkdir(exist_ok=True)
    server["/d/pool/x.deb"] = Reply(endless(b"x" * MIB), claim=GIB)
    limit = Limit("feed.bytes", 8 * MIB)
    with pytest.raises(OutsideError, match=r"no archive has pool/x\.deb") as error:
        index.fetch(STATIC, "pool/x.deb", "a" * 64, tmp_path / "state/x.deb", limit)
    assert "exceeds 8388608 bytes (the limit feed.bytes)" in error.value.evidence
    assert sum(path.stat().st_size for path in (tmp_path / "state").rglob("*") if path.is_file()) < 32 * MIB
