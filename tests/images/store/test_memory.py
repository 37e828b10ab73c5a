"""Whether a build's temporary tree may live in memory, by numbers as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.store import files

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 4 GiB free; a container's limit can be put beside it."""
    (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:    {4 * GIB // 1024} kB\n")
    monkeypatch.setattr(files, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(files, "MEMORY_LIMITS", (tmp_path / "memory.max",))
    return tmp_path


def test_less_than_a_quarter_of_the_free_memory_fits(machine: Path) -> None:
    """So two builds side by side leave half of it alone."""
    assert files.fits_in_memory(GIB - 1)
    assert not files.fits_in_memory(GIB)


@pytest.mark.parametrize(("limit", "fits"), [("max\n", True), (f"{2 * GIB}\n", False), (f"{8 * GIB}\n", True)])
def test_a_containers_limit_counts_where_it_is_lower(machine: Path, limit: str, fits: bool) -> None:
    """What the machine has free is not ours where a limit says so."""
    (machine / "memory.max").write_text(limit)
    assert files.fits_in_memory(GIB // 2 + 1) is fits


def test_nothing_fits_into_memory_that_nobody_can_read(machine: Path) -> None:
    """Then the tree is built on files, which always works."""
    (machine / "meminfo").write_text("")
    assert not files.fits_in_memory(1)
