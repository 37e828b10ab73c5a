"""What we read of files that others write is what their own programs read there: each of those is asked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from random import Random

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images.advisories import is_before
from images.artifact import Package
from images.packages import debian
from images.packages.dpkg_tree import dpkg_status, foreign_records, records

STATES = (
    "not-installed", "config-files", "half-installed", "unpacked", "half-configured", "triggers-awaited",
    "triggers-pending", "installed",
)  # fmt: skip


def entry(name: str, status: str, *more: str, field: str = "Status") -> str:
    """A package in a dpkg status; `more` are lines of it."""
    lines = ["Maintainer: Tests <tests@example.com>", "Description: x", *more]
    return "\n".join([f"Package: {name}", f"{field}: {status}", "Architecture: all", "Version: 1.0", *lines])


def has_files(folder: Path, status: str) -> list[str]:
    """The packages that dpkg itself takes for more than removed."""
    (folder / "info").mkdir(parents=True, exist_ok=True)
    (folder / "status").write_bytes(status.encode())
    argv = ["dpkg-query", f"--admindir={folder}", "-W", "-f", "${Package} ${db:Status-Status}\n"]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    told = (line.split(" ") for line in said.splitlines())
    return sorted(name for name, state in told if state not in ("not-installed", "config-files"))


@pytest.mark.needs("dpkg-query")
def test_what_has_files_by_dpkg_counts_as_installed(tmp_path: Path) -> None:
    """In every state, also where dpkg was ended in its middle: what was unpacked can be run. In whatever letters."""
    extra = {"triggers-awaited": ("Triggers-Awaited: libx",), "triggers-pending": ("Triggers-Pending: ldconfig",)}
    entries = [entry(state, f"install ok {state}", *extra.get(state, ())) for state in STATES]
    entries += [entry(f"gone-{state}", f"deinstall ok {state}", *extra.get(state, ())) for state in STATES]
    entries += [
        entry("held", "hold ok installed"), entry("letters", "Install OK Installed"),
        entry("spaces", "hold  ok installed "),
        entry("joined", "installokinstalled"), entry("again", "install reinstreq installed"),
        entry("field", "install ok installed", field="STATUS"),
    ]  # fmt: skip
    status = "\n\n".join(entries) + "\n"
    found = sorted(package.name for package in debian.installed(status))
    assert found == has_files(tmp_path, status)
    assert {"unpacked", "half-configured", "triggers-pending", "joined", "field", "letters"} < set(found)
    assert not {"gone-config-files", "not-installed"} & set(found)


@pytest.mark.needs("dpkg-query")
def test_a_carriage_return_hides_no_package(tmp_path: Path) -> None:
    """For dpkg it is a character like another one. Who takes it for the end of a line sees another package there."""
    other = entry("other", "install ok installed").replace("\n", "\r")
    status = entry("hidden", "install ok installed", f"X-Note: x\r\r{other}") + "\n"
    assert has_files(tmp_path / "var/lib/dpkg", status) == ["hidden"]
    with pytest.raises(OutsideError, match="control character"):
        debian.installed(dpkg_status(tmp_path))


@pytest.mark.needs("dpkg-query")
def test_what_dpkg_has_yet_to_write_into_its_status_counts(tmp_path: Path) -> None:
    """It keeps a file for each change, and reads them too: one that was ended leaves them there."""
    folder = tmp_path / "var/lib/dpkg"
    (folder / "updates").mkdir(parents=True)
    (folder / "updates/0000").write_text(f"{entry('late', 'install ok unpacked')}\n")
    assert has_files(folder, f"{entry('early', 'install ok installed')}\n") == ["early", "late"]
    assert [package.name for package in debian.installed(dpkg_status(tmp_path))] == ["early", "late"]


def like(version: str, by: Random) -> str:
    """A version with one character of another one in it, or one less."""
    at = by.randrange(1, len(version))
    return (
        version[:at] + by.choice(("", "~", "+", ".", "0", "1", "00", "a", "Z", "~~")) + version[at + by.randint(0, 1) :]
    )


@pytest.mark.needs("dpkg")
def test_versions_have_the_order_that_dpkg_gives_them() -> None:
    """With epochs, tildes, letters, and zeros in front."""
    by = Random(13)
    known = ("1:1.0-1", "0:2.9", "2.10+deb13u1-3", "3.5.4-1~deb13u2", "1.0~rc1-1+b2", "9a0b-c.1")
    versions = [like(by.choice(known), by) for _ in range(160)]
    pairs = [(one, like(one, by)) for one in versions]
    pairs = [pair for pair in pairs if all(re.fullmatch(debian.VERSION, one) and one[-1] != "-" for one in pair)]
    assert len(pairs) > 100
    script = "\n".join(
        f"dpkg --compare-versions {shlex.quote(one)} lt {shlex.quote(other)} && echo y || echo n"
        for one, other in pairs
    )  # fmt: skip
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert [is_before(one, other) for one, other in pairs] == [word == "y" for word in said]


RELEASES = (
    "VERSION_CODENAME=trixie", 'VERSION_CODENAME="trixie"', "VERSION_CODENAME='trixie'", 'VERSION_CODENAME=tri"xie"',
    "VERSION_CODENAME=bookworm\nVERSION_CODENAME=trixie", "VERSION_CODENAME=trixie # bookworm",
    "#VERSION_CODENAME=bookworm\nVERSION_CODENAME=trixie",
    "VERSION_CODENAME=trixie\nNAME='x\u2028VERSION_CODENAME=sid'",
    "NAME='VERSION_CODENAME=sid'", "VERSION_CODENAME=", "VERSION_CODENAME=tri\\xie", "XVERSION_CODENAME=sid",
    "version_codename=sid", "  VERSION_CODENAME=trixie", "VERSION_CODENAME=trixie  ",
    "VERSION_CODENAME=trixie#sid", "VERSION_CODENAME=#sid", "VERSION_CODENAME=''#sid", "VERSION_CODENAME='trixie' #sid",
    "NAME='a\nVERSION_CODENAME=sid\n'", 'NAME="a\\"\nVERSION_CODENAME=sid"\n', "NAME=a\\\nVERSION_CODENAME=sid",
    "VERSION_CODENAME=tri\\\nxie", 'VERSION_CODENAME="tri\\\nxie"', 'VERSION_CODENAME="t\\r\\\\i\\$"',
    "VERSION_CODENAME=trixie\n# it's\nNAME='x'", "NAME=\\'\nVERSION_CODENAME=trixie\nID='x'",
    "NAME='a\nVERSION_CODENAME=sid\n' y", "NAME=x\\\nVERSION_CODENAME=sid y", "NAME=x y#'\nVERSION_CODENAME=sid\n'",
    "NAME=x y # it's\nVERSION_CODENAME=trixie", "NAME=\\ #'\nVERSION_CODENAME=sid\n' y",
)  # fmt: skip


@pytest.mark.parametrize("text", RELEASES)
def test_an_os_release_names_the_release_that_a_shell_finds_there(text: str, tmp_path: Path) -> None:
    """A shell reads it, by os-release(5): of two the later one, with or without quotation marks."""
    (tmp_path / "os-release").write_text(f"{text}\n")
    script = f'. {shlex.quote(str(tmp_path / "os-release"))}; printf %s "$VERSION_CODENAME"'
    said = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, env={}).stdout
    assert debian.os_release(f"{text}\n").get("VERSION_CODENAME", "") == said


def test_a_long_value_of_an_os_release_costs_little() -> None:
    """Also one whose quotation mark is not closed, or of several words, which stays as it stands: each line of it would
    else be read as the begin of all that follows.
    """
    value, trixie, lines = "x" * 2_000_000, "\nVERSION_CODENAME=trixie\n", "x\\\nA=" * 50_000 + "x y"
    for told, read in ((f'"{value}"', value), (f'"{value}', f'"{value}'), (f"{value} y", f"{value} y"), (lines, lines)):
        assert debian.os_release(f"NAME={told}{trixie}") == {"NAME": read, "VERSION_CODENAME": "trixie"}


WORDS = ("", "yes", "No", "true", "FALSE", "with", "without", "on", "Off", "enable", "disable", "0", "1", "perhaps")


@pytest.mark.needs("apt-get")
def test_a_source_is_switched_off_by_the_words_that_apt_takes_for_it(tmp_path: Path) -> None:
    """Else updates of a host's own mirror would be missing without a word."""
    text = "\n".join(
        f"Types: deb\nURIs: file:/{number}\nSuites: trixie\nComponents: main\nSigned-By: /x\nEnabled: {word}\n"
        for number, word in enumerate(WORDS)
    )
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/all.sources").write_text(text)
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc "{tmp_path}"; Dir::State "{tmp_path}/state"; Dir::Cache "{tmp_path}/cache"; '
        'Dir::State::status "/dev/null";'
    )
    argv = ["apt-get", "update", "--print-uris"]
    env = {"APT_CONFIG": str(tmp_path / "apt.conf"), "LC_ALL": "C", "PATH": os.environ["PATH"]}
    said = subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout
    by_apt = sorted(re.findall(r"'(\S+)/dists/trixie/InRelease'", said))
    assert sorted(uri for source in debian.sources_of(text) for uri in source.uris) == by_apt
    assert len(by_apt) > len(WORDS) / 2


@pytest.mark.needs("root", "dpkg", "dpkg-deb")
@pytest.mark.parametrize(("multi_arch", "owner"), [("no", "shop"), ("same", "shop:amd64")])
def test_the_checksums_that_dpkg_makes_of_a_package_without_any_are_known(
    tmp_path: Path, multi_arch: str, owner: str
) -> None:
    """Of all files but symbolic links, whatever they are called; other checksums are another package's."""
    made, tree = tmp_path / "made", tmp_path / "tree"
    for file in ("DEBIAN/control", "etc/shop.conf", "usr/bin/shop", "usr/share/a b"):
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        (made / file).write_text(f"{file}\n")
    (made / "DEBIAN/control").write_text(
        "Package: shop\nVersion: 1\nArchitecture: amd64\nMaintainer: Tests <tests@example.com>\nDescription: x\n"
        f"Multi-Arch: {multi_arch}\n"
    )
    (made / "DEBIAN/conffiles").write_text("/etc/shop.conf\n")
    (made / "usr/bin/link").symlink_to("shop")
    (made / "usr/bin/hard").hardlink_to(made / "usr/bin/shop")
    run(["dpkg-deb", "--root-owner-group", "--build", str(made), str(tmp_path / "shop.deb")])
    for folder in ("info", "updates"):
        (tree / "var/lib/dpkg" / folder).mkdir(parents=True)
    for file, text in (("status", ""), ("available", ""), ("info/format", "1\n")):
        (tree / "var/lib/dpkg" / file).write_text(text)
    base, debs = records(tree), {Package("shop", "1", "amd64", ""): tmp_path / "shop.deb"}
    run(["dpkg", f"--root={tree}", "--force-depends", "--force-architecture", "-i", str(tmp_path / "shop.deb")])
    sums = tree / f"var/lib/dpkg/info/{owner}.md5sums"
    assert len(sums.read_text().splitlines()) == 4
    assert foreign_records(tree, base, debs, tmp_path) == []
    sums.write_text(sums.read_text().replace("usr/bin/shop", "usr/bin/other"))
    assert foreign_records(tree, base, debs, tmp_path) == [f"/var/lib/dpkg/info/{owner}.md5sums"]
