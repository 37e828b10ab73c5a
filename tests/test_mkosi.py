"""The second builder: an mkosi configuration becomes a machine that is hardened, booted and judged like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError
from images.machines import blocks
from images.machines.raw import digests_of
from tests.building import definition as parsed
from tests.loop import Goldsmith, definition
from tests.servers import NO_ENGINE

TEXT = """
title = "Of a test"
owner = "tests"
kind = "machine"
profile = "m-small"
policy = "demo"
files = [{ source = "greeting", path = "/etc/greeting" }]

[base]
bootstrap = { family = "debian", suite = "trixie" }

[machine]
builder = "mkosi"
command_line = ["panic=30"]
"""
CONFIGURATION = """
[Distribution]
Distribution=debian
Release=trixie

[Content]
Bootable=yes
Bootloader=uki
Packages=
    dbus
    linux-image-cloud-amd64
    systemd
    systemd-boot-efi
    systemd-sysv
    udev
"""
PROFILE = 'title = "T"\nowner = "tests"\ncontrols = [{ control = "root-locked" }, { control = "sticky-tmp" }]\n'


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mkosi", "qemu-system-x86_64")
def test_an_mkosi_configuration_becomes_a_machine_that_is_booted_and_judged(tmp_path: Path) -> None:
    """What mkosi installs, with our files, controls and kernel parameters on top, read from the disk that it made."""
    root = definition(tmp_path / "content", "m-mkosi", TEXT, **{"mkosi.conf": CONFIGURATION, "greeting": "hello\n"})
    profiles = root / "hardening/profiles"
    profiles.mkdir(parents=True)
    (profiles / "m-small.toml").write_text(PROFILE)
    state = tmp_path / "state"
    house = Goldsmith(state, NO_ENGINE).with_(root)
    answer = house("image.build", "m-mkosi", "--json")
    assert answer.code == 0, answer.err
    artifact = house.ledger.latest_artifact("m-mkosi", "linux/amd64")
    assert artifact
    assert {"systemd", "linux-image-cloud-amd64"} <= {package.name for package in artifact.packages}
    checks = {check.control: check.outcome for check in house.ledger.checks(artifact.digest)}
    assert {checks[name] for name in ("root-locked", "boot-completed", "boot-failed-units", "boot-second")} == {"pass"}
    tree = state / "trees" / artifact.digest.removeprefix("sha256:") / "tree"
    assert (tree / "etc/greeting").read_text() == "hello\n"
    config = house.store.config(artifact.digest)
    assert "panic=30" in config["command_line"]
    assert blocks.linear(digests_of(house.store.disk(config["disk"]["linear"]))) == config["disk"]["linear"]
    assert house.leftovers() == []


@pytest.mark.parametrize("more", ['packages = ["nginx"]\n', ""])
def test_what_mkosi_installs_is_said_in_one_place(more: str) -> None:
    """Packages of image.toml would be silently ignored, and so would a golden base."""
    base = '{ bootstrap = { family = "debian", suite = "trixie" } }' if more else '{ golden = "debian-server" }'
    with pytest.raises(ContentError, match=r"machine: mkosi.conf says what is installed"):
        parsed(f'{more}base = {base}\nmachine = {{ builder = "mkosi" }}', kind="machine")


def test_an_mkosi_definition_without_configuration_is_refused(tmp_path: Path) -> None:
    """Before anything is fetched, and naming the file that is missing."""
    root = definition(tmp_path / "content", "m-mkosi", TEXT.replace("m-small", "machine-base"), greeting="hello\n")
    answer = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root)("image.build", "m-mkosi", "--json")
    assert answer.code == 2
    assert "m-mkosi/mkosi.conf: no such file" in answer.err
