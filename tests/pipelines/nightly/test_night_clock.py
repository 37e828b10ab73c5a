"""A clock that jumps between two nights is a warning: releases soak, end and are dated by it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf, nan
from pathlib import Path

import pytest

from hardening.foundation.limits import JSON_BYTES
from images.documents import from_json, to_json
from pipelines.nightly import clock
from pipelines.nightly.clock import BOOT, Reading, jump, jump_since_last
from pipelines.nightly.flow import flows
from pipelines.nightly.model import NIGHT, NightRecord
from pipelines.nightly.summary import lines_of, output
from tests.pipelines.nightly.test_night_flow import ORDER
from tests.simulation.memory import Memory
from tests.support.night_world import NightWorld
from tests.support.nights import ended

BEFORE = Reading("2026-12-01T02:00:00+00:00", "boot-1", 1000.0)
DAY = 86400


@pytest.mark.parametrize(
    ("shown", "boot", "up", "due"),
    [
        ("2026-12-02T02:00:00+00:00", "boot-1", 1000.0 + DAY, ""),
        ("2026-12-02T02:50:00+00:00", "boot-1", 1000.0 + DAY, ""),  # as far as two machines may differ
        ("2026-12-05T02:00:00+00:00", "boot-1", 1000.0 + DAY, "2026-12-02 02:00"),
        ("2026-11-30T02:00:00+00:00", "boot-1", 1000.0 + DAY, "2026-12-02 02:00"),
        ("2026-12-05T02:00:00+00:00", "boot-2", 60.0, ""),  # it may have been off for so long
        ("2026-11-30T02:00:00+00:00", "boot-2", 60.0, "2026-12-01 02:00"),
    ],
)
def test_a_clock_that_jumped_is_named_with_both_times(shown: str, boot: str, up: float, due: str) -> None:
    """Forward or back; the time that this boot lasted says how late it should be, a machine's sleep included."""
    said = jump(BEFORE, Reading(shown, boot, up))
    assert bool(said) == bool(due)
    assert not due or (f"it shows {shown[:10]} {shown[11:16]} UTC" in said and f"it is {due} UTC" in said)


def test_each_night_compares_its_clock_with_the_last_one(tmp_path: Path) -> None:
    """The first has none to compare with; a file that is not ours counts as none."""
    assert jump_since_last(tmp_path) == ""
    assert jump_since_last(tmp_path) == ""
    file = tmp_path / "clock.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "up": kept["up"] - 3 * DAY}))
    assert "this machine's clock jumped" in jump_since_last(tmp_path)
    assert jump_since_last(tmp_path) == ""
    for wrong in ("", "[]", '{"shown": 7}', json.dumps({**kept, "shown": "today"})):
        file.write_text(wrong)
        assert jump_since_last(tmp_path) == ""


@pytest.mark.parametrize(
    "text",
    [
        *(json.dumps({**vars(BEFORE), "boot": BOOT.read_text().strip(), "up": up}) for up in (1e300, inf, -inf, nan)),
        json.dumps({**vars(BEFORE), "shown": "9999-12-31T23:59:59+00:00", "boot": BOOT.read_text().strip(), "up": 0}),
        "[" * 100_000,
        '{"shown": "", "shown": ""}',
        "\udcff",
        " " * JSON_BYTES.most
        + json.dumps({**vars(BEFORE), "shown": "9000-01-01T00:00:00+00:00", "boot": "an old one"}),
    ],
    ids=["1e300", "inf", "-inf", "nan", "last day", "deep", "twice", "no text", "large"],
)
def test_a_damaged_reading_counts_as_none(text: str, tmp_path: Path) -> None:
    """It is replaced by the next one, and ends no night."""
    (tmp_path / "clock.json").write_text(text, errors="surrogateescape")
    assert jump_since_last(tmp_path) == ""
    assert datetime.now(UTC) - Reading(**json.loads((tmp_path / "clock.json").read_text())).at < timedelta(hours=1)


def test_a_system_whose_boots_have_no_id_ends_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether it was started again: only a clock that went back is seen."""
    monkeypatch.setattr(clock, "BOOT", tmp_path / "missing")
    assert jump_since_last(tmp_path) == ""
    kept = json.loads((tmp_path / "clock.json").read_text())
    (tmp_path / "clock.json").write_text(json.dumps({**kept, "up": kept["up"] + 3 * DAY}))
    assert jump_since_last(tmp_path) == ""
    ahead = datetime.now(UTC) + timedelta(days=3)
    (tmp_path / "clock.json").write_text(json.dumps({**kept, "shown": ahead.isoformat()}))
    assert "clock jumped" in jump_since_last(tmp_path)


def test_a_night_says_that_the_clock_jumped() -> None:
    """In a line of its own and in the sentence that people are sent; it does what it does without."""
    memory, world = Memory(), NightWorld()
    order = replace(ORDER, jump="the clock jumped: 3 days")
    memory.process("first", flows(world)).start(NIGHT, order.id, to_json(order))
    record = from_json(NightRecord, ended(memory, order.id))
    (line,) = (line for line in lines_of(record) if line.kind == "clock")
    assert (line.status, line.detail, line.exit_code) == ("jumped", "the clock jumped: 3 days", 0)
    assert "clock: the clock jumped: 3 days" in output(record).summary
    assert record.order == order
