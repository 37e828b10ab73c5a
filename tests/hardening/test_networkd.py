"""Which interfaces systemd-networkd would manage, as the controls' own functions read it out of a tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

pytestmark = pytest.mark.needs("systemd-analyze")

FUNCTIONS = (ROOT / "hardening/functions/networkd.sh").read_text()
VETH, BRIDGE = "veth1a2b3c4", "docker0"


def network(match: str, link: str = "") -> str:
    """A network file."""
    return f"[Match]\n{match}\n[Link]\n{link}\n[Network]\nDHCP=yes\n"


def managed(tree: Path, files: dict[str, str]) -> set[str]:
    """Those of a container's interface and its bridge that networkd would manage."""
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    script = f"set -eu\n{FUNCTIONS}\nmanaged {VETH}/ether/veth {BRIDGE}/bridge/bridge"
    done = run(["sh", "-c", script], env={"ROOT": str(tree)})
    assert done.stderr == ""
    return {line.split()[-1] for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ("Type=ether", {VETH}),
        ("Type=ether\nKind=!*", set()),
        ("Type=ether\nName=en* eth*", set()),
        ("Name=en*\nName=veth*", {VETH}),
        ("Name=??th*", {VETH}),
        ("Name=!veth* docker0", set()),
        ("Name=e*", set()),
        ('Name="docker0"', set()),
        ("Kind=!veth !bridge", {BRIDGE}),
        ("Kind=!veth\nKind=!bridge", set()),
        ("# Name=en*\n; x\nName = docker0", {BRIDGE}),
        ("Name=en* \\\n  veth*", {VETH}),
        ("Driver=bridge", {BRIDGE}),
        ("Path=*", set()),
        ("Path=!pci-*", {VETH, BRIDGE}),
        ("MACAddress=00:11:22:33:44:55", set()),
        ("SSID=office", set()),
        ("Host=!web", {VETH, BRIDGE}),
        ("Host=web\nKind=!*", set()),
    ],
)
def test_a_network_file_is_read_as_networkd_reads_it(tmp_path: Path, match: str, found: set[str]) -> None:
    """Each line was tried with networkd 257 on a veth in a bridge, whose Type is what udev says of one."""
    assert managed(tmp_path, {"etc/systemd/network/lan.network": network(match)}) == found


def test_the_first_file_that_matches_counts(tmp_path: Path) -> None:
    """By name, whichever folder it is in; one that leaves what it matches alone hides the later ones."""
    late = {"etc/systemd/network/80-all.network": network("Name=*")}
    left = network("Name=veth*", "Unmanaged=yes")
    assert managed(tmp_path / "a", late | {"usr/lib/systemd/network/10-left.network": left}) == {BRIDGE}
    assert managed(tmp_path / "b", late | {"usr/lib/systemd/network/90-left.network": left}) == {VETH, BRIDGE}


def test_what_may_not_hold_everywhere_hides_no_later_file(tmp_path: Path) -> None:
    """A file for some machines, or one that networkd may ignore, leaves nothing alone for sure."""
    late = {"etc/systemd/network/80-all.network": network("Name=*")}
    for number, match in enumerate(("Host=web\nName=*", "Property=ID_BUS=pci", "")):
        early = {"etc/systemd/network/10-left.network": network(match, "Unmanaged=yes")}
        assert managed(tmp_path / str(number), late | early) == {VETH, BRIDGE}


def test_a_masked_file_is_none(tmp_path: Path) -> None:
    """By a link to /dev/null or by an empty file of the same name in /etc."""
    package = {"usr/lib/systemd/network/80-all.network": network("Name=*")}
    assert managed(tmp_path / "a", package | {"etc/systemd/network/80-all.network": ""}) == set()
    assert managed(tmp_path / "b", package) == {VETH, BRIDGE}
    (tmp_path / "b/etc/systemd/network").mkdir(parents=True)
    (tmp_path / "b/etc/systemd/network/80-all.network").symlink_to("/dev/null")
    assert managed(tmp_path / "b", package) == set()
