"""Which services of a tree start at boot and stay: those are what systemd-analyze is asked about."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.scan.boot_state import services_of
from tests.support.scanning import make_machine

SYSTEM = "usr/lib/systemd/system"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which `stays.service` is enabled and stays, and `ends.service` is enabled and ends."""
    return make_machine(tmp_path).tree


def want(tree: Path, unit: str, by: str = "multi-user", text: str | None = "[Service]\n") -> None:
    """Let a target want `unit`, whose unit file has that text; None: it has no unit file."""
    wants = tree / SYSTEM / f"{by}.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / unit).symlink_to(f"../{unit}")
    if text is not None:
        (tree / SYSTEM / unit).write_text(text)


def test_what_is_enabled_and_stays_is_named(tree: Path) -> None:
    """By packages or by the image itself; what runs once and ends is not."""
    want(tree, "shipped.service")
    assert services_of(tree) == ("shipped.service", "stays.service")


def test_templates_the_initrd_and_what_nobody_wants_are_not_named(tree: Path) -> None:
    """Nor a unit that is wanted but not there, which systemd passes over too."""
    want(tree, "getty@tty1.service")
    want(tree, "early.service", by="initrd")
    want(tree, "absent.service", text=None)
    (tree / SYSTEM / "unwanted.service").write_text("[Service]\n")
    assert services_of(tree) == ("stays.service",)


def test_what_is_masked_does_not_start(tree: Path) -> None:
    """A link to /dev/null stands before the unit that a package brings."""
    (tree / "etc/systemd/system/stays.service").symlink_to("/dev/null")
    assert services_of(tree) == ()


def test_a_unit_of_the_image_stands_before_the_packages(tree: Path) -> None:
    """So does one that is a link inside the tree, absolute as on the machine."""
    (tree / "etc/systemd/system/stays.service").write_text("[Service]\nType=oneshot\n")
    (tree / "etc/systemd/system/ends.service").symlink_to(f"/{SYSTEM}/stays.service")
    assert services_of(tree) == ("ends.service",)


def test_what_a_service_is_in_the_end_counts(tree: Path) -> None:
    """Of two values the later one, and a drop-in over both; also where a target requires it."""
    want(tree, "again.service", text="[Service]\nType=oneshot\nType=exec\n")
    want(tree, "changed.service", text="[Service]\nType=oneshot\n")
    (tree / "etc/systemd/system/changed.service.d").mkdir()
    (tree / "etc/systemd/system/changed.service.d/50-stays.conf").write_text("[Service]\nType=simple\n")
    (tree / SYSTEM / "multi-user.target.requires").mkdir()
    (tree / SYSTEM / "multi-user.target.requires/needed.service").symlink_to("../needed.service")
    (tree / SYSTEM / "needed.service").write_text("[Service]\n")
    assert services_of(tree) == ("again.service", "changed.service", "needed.service", "stays.service")


def test_a_unit_is_never_read_from_the_host(tree: Path, tmp_path: Path) -> None:
    """A link that leads out of the tree is no unit file."""
    outside = tmp_path / "outside.service"
    outside.write_text("[Service]\n")
    want(tree, "outside.service", text=None)
    (tree / SYSTEM / "outside.service").symlink_to("../" * 30 + str(outside).lstrip("/"))
    assert services_of(tree) == ("stays.service",)
