"""Values made by the hundred thousand."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import replace

import pytest

from hardening.findings import Reason
from hardening.foundation.bulk import MANY, no_collection
from hardening.model import Enforcement


def test_the_search_for_garbage_goes_on_after_the_block() -> None:
    """However it ends; one within another ends nothing, and who had it off keeps it off."""
    with no_collection():
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collection():
        {}["none"]
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_search_goes_on_after_blocks_of_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one ends while another begins: it is off as long as any is under way, and never for good."""
    other, asked = ExitStack(), gc.isenabled

    def ends_meanwhile() -> bool:
        was = asked()
        other.close()
        return was

    other.enter_context(no_collection())
    monkeypatch.setattr(gc, "isenabled", ends_meanwhile)
    with no_collection():
        other.close()
        assert not asked()
    assert asked()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("made", [1, 2 * MANY])
def test_what_was_left_in_the_block_is_found_by_a_full_search(made: int, frozen: bool) -> None:
    """Nothing is kept for ever that was made while Python did not look; what somebody has frozen before stays so."""

    class Knot:
        """Refers to itself."""

        def __init__(self) -> None:
            self.itself = self

    gc.collect()
    (gc.freeze if frozen else gc.unfreeze)()
    before = gc.get_freeze_count()
    try:
        with no_collection():
            for _ in range(made):
                Knot()
        after = gc.get_freeze_count()
        assert bool(after) == frozen
        assert after <= before  # what is frozen may go by itself meanwhile
        assert gc.collect() >= made
    finally:
        gc.freeze()  # as tests/conftest.py has it


def test_what_a_large_block_made_is_left_to_the_full_search() -> None:
    """The next small one would take a third of the block's own time; no count of what is frozen shows it."""
    gc.unfreeze()
    try:
        with no_collection():
            kept: list[list[int]] = [[] for _ in range(2 * MANY)]
            assert gc.get_count()[0] > len(kept)
        assert gc.get_count()[0] < MANY
    finally:
        gc.freeze()


def test_a_small_block_does_not_count_what_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """That looks at each thing, and a large process has a million."""
    asked: list[int] = []
    monkeypatch.setattr(gc, "get_freeze_count", lambda: asked.append(1))
    before: list[list[int]] = [[] for _ in range(2 * MANY)]
    with no_collection():
        assert gc.get_count()[0] > len(before)
    assert asked == []


def test_a_reason_is_a_value() -> None:
    """Equal and hashed by all that it says."""
    one = Reason("expired", "web/a", Enforcement.WARN, "what", "why", "todo")
    assert {one, replace(one)} == {one}
    assert replace(one, todo="other") not in {one}
