"""What an image's own configuration says is a stranger's text: a line of it never becomes two of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import SMALL_FILE
from images.build.config import image_config
from images.packages import debian
from images.packages.dpkg_tree import dpkg_status
from images.scan import trivy
from images.scan.flow import suite_of
from tests.images.build.test_builders import GOLDEN
from tests.support.building import definition

WRONG: tuple[dict[str, Any], ...] = (
    {"Env": ["A\nUSER nobody=1"]},
    {"Env": ["A=1\nUSER nobody"]},
    {"Env": ["A=\x1b[2J"]},
    {"Env": ["A=1\u2028USER nobody"]},
    {"Env": ["=1"]},
    {"Env": ["A B=1"]},
    {"Env": ["A"]},
    {"Env": [7]},
    {"Labels": {"a\nb": "c"}},
    {"Labels": {"a": "b\nc"}},
    {"User": "0\n"},
    {"WorkingDir": "/x\nUSER 0"},
    {"StopSignal": "TERM\n"},
    {"ExposedPorts": {"80\nUSER nobody": {}}},
)


@pytest.mark.parametrize("config", WRONG)
def test_no_line_of_a_configuration_becomes_two(config: dict[str, Any]) -> None:
    """Neither in what is built on it nor in the Dockerfile that a scanner judges it by."""
    base = {"config": config, "rootfs": {"diff_ids": []}}
    for use in (
        lambda: image_config(definition(GOLDEN), "linux/amd64", base, [], 0, ""),
        lambda: trivy.dockerfile(base),
    ):
        with pytest.raises(OutsideError, match=next(iter(config))):
            use()


def test_scripts_of_several_lines_and_odd_values_are_no_mistake() -> None:
    """What images hold in earnest: a shell script as the command, names with dots, `=` and quotes in values."""
    config = {"Env": ["PATH=/bin", "npm.x=a=b", 'Q="x"', "E="], "Cmd": ["sh", "-c", "true\ntrue"], "Labels": {"é": "ü"}}
    base = {"config": config, "rootfs": {"diff_ids": []}}
    assert image_config(definition(GOLDEN), "linux/amd64", base, [], 0, "")["config"]["Env"] == config["Env"]
    assert 'CMD ["sh", "-c", "true\\ntrue"]' in trivy.dockerfile(base)


@pytest.mark.parametrize("name", ["../../x", "a\x00b", "a/b", "trixie?x=1", "TRIXIE", "-x", "a b"])
def test_a_release_that_is_no_name_reaches_no_address(name: str, tmp_path: Path) -> None:
    """VERSION_CODENAME of a scanned image becomes part of addresses and file names of feeds."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(f"VERSION_CODENAME={name}\n")
    with pytest.raises(OutsideError, match="VERSION_CODENAME"):
        suite_of(tmp_path)
    (tmp_path / "etc/os-release").write_text('VERSION_CODENAME="trixie"\n')
    assert suite_of(tmp_path) == "trixie"
    (tmp_path / "etc/os-release").write_text("VERSION_CODENAME=\n")
    assert suite_of(tmp_path) == ""


def test_an_image_of_two_releases_is_judged_by_neither(tmp_path: Path) -> None:
    """Programs differ in which of the two files they read: its packages would be measured by another one's fixes."""
    for place, name in (("etc/os-release", "bookworm"), ("usr/lib/os-release", "trixie")):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(f"VERSION_CODENAME={name}\n")
    with pytest.raises(OutsideError, match="name two releases: bookworm, trixie"):
        suite_of(tmp_path)
    (tmp_path / "etc/os-release").write_text("VERSION_CODENAME=bookworm\nVERSION_CODENAME=trixie\n")
    assert suite_of(tmp_path) == "trixie"


def test_packages_of_an_image_without_dpkg_are_seen(tmp_path: Path) -> None:
    """Such images keep a file for each, without a state, beside dpkg's own; a link there leads nowhere outside."""
    folder = tmp_path / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for name in ("libc6", "tzdata"):
        (folder / name).write_text(f"Package: {name}\nVersion: 1.0\nArchitecture: all\nDescription: x\n")
    (folder / "libc6.md5sums").write_text("d41d8cd98f00b204e9800998ecf8427e  usr/lib/libc.so.6\n")
    (folder / "outside").symlink_to("/var/lib/dpkg/status")
    assert [package.name for package in debian.installed(dpkg_status(tmp_path))] == ["libc6", "tzdata"]
    dash = "Package: dash\nStatus: install ok unpacked\nVersion: 1\nArchitecture: all\n\n"
    (folder.parent / "status").write_text(dash)
    assert [package.name for package in debian.installed(dpkg_status(tmp_path))] == ["dash", "libc6", "tzdata"]
    (folder / "odd").write_text("Size: 1\n")
    with pytest.raises(OutsideError, match="a package's entry has no Package"):
        debian.installed(dpkg_status(tmp_path))
    (folder / "large").write_text("\n" * (SMALL_FILE.most // 2))
    for name in "ab":
        (folder / name).symlink_to("large")
    with pytest.raises(OutsideError, match=r"var/lib/dpkg/status\.d of the image"):
        dpkg_status(tmp_path)
