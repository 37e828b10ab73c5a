"""What the controls' shell function of apt makes of an image's configuration, on the host that looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

pytestmark = pytest.mark.needs("apt-config")
FUNCTIONS = (ROOT / "hardening/functions/apt.sh").read_text()


def told(tree: Path, configuration: str) -> tuple[int, list[str]]:
    """The status and the lines of the function, for a tree with this configuration."""
    folder = tree / "etc/apt/apt.conf.d"
    folder.mkdir(parents=True)
    (folder / "50own").write_text(configuration)
    script = f'set -eu\ncd "$ROOT"\n{FUNCTIONS}\napt_settings'
    done = run(["sh", "-c", script], env={"ROOT": str(tree), "PATH": "/usr/bin:/bin"}, ok=range(2))
    return done.status, done.stdout.splitlines()


def test_settings_are_told_as_apt_reads_them(tmp_path: Path) -> None:
    """With nested keys, and without what is commented out."""
    status, lines = told(tmp_path, 'APT { Get { Assume-Yes "yes"; }; };\n// APT::Get::Simulate "1";\n')
    assert status == 0
    assert 'APT::Get::Assume-Yes "yes";' in lines
    assert not [line for line in lines if "Simulate" in line]


@pytest.mark.parametrize("more", ["", "#clear APT::Architectures;", 'Binary::apt-config::APT::Architectures "";'])
def test_no_program_that_an_image_names_is_started(tmp_path: Path, more: str) -> None:
    """Apt asks dpkg for architectures, and an image may call any program dpkg: it would run here, as root."""
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\necho > started\n")
    own.chmod(0o755)
    assert told(tmp_path, f'Dir::Bin::dpkg "./own";\n{more}\n') == (1, ["Dir::Bin::dpkg leads apt to ./own"])
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("include", ['#include "{}";', 'APT::Get::Assume-Yes "yes"; #include "{}";'])
def test_no_file_of_the_host_is_read(tmp_path: Path, include: str) -> None:
    """What is included by its whole path would be read on the host that looks."""
    outside = tmp_path / "outside"
    outside.write_text('APT::Get::Simulate "1";\n')
    refused = (1, ["/etc/apt/apt.conf.d/50own includes another file"])
    assert told(tmp_path / "tree", include.format(outside)) == refused
