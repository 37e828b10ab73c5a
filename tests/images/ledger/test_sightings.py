"""What the ledger keeps of others' images and packages: when each was first seen."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from images.ledger import Ledger
from images.plan.cooldown import SOURCE, TAG, Sight
from tests.support.publishing import NOW

DAY = timedelta(days=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def test_a_first_sight_stays_and_a_look_is_remembered(ledger: Ledger) -> None:
    """Of each tag by itself."""
    ledger.look_at_tag("a:1", ["one"], NOW, settled=["one"])
    ledger.look_at_tag("a:1", ["two"], NOW + DAY)
    found = ledger.look_at_tag("a:1", ["two"], NOW + 2 * DAY)
    assert found == ledger.sights(TAG, "a:1")
    assert (found.of("one"), found.of("two")) == (Sight("one", None, NOW), Sight("two", NOW + DAY, NOW + 2 * DAY))
    assert (found.looked, found.newest) == (NOW + 2 * DAY, "two")
    assert ledger.sights(TAG, "b:1").looked is None


def test_what_a_source_no_longer_has_waits_anew_when_it_comes_back(ledger: Ledger) -> None:
    """It was withdrawn for a reason."""
    offered = [f"package-{number}" for number in range(1500)]
    for day, there in enumerate(([], offered, offered[1:], offered), -1):
        at = NOW + day * DAY
        found = ledger.look_at_index("s", dict.fromkeys(there, at), at)
    assert (found.of(offered[0]), found.of(offered[1])) == (
        Sight(offered[0], NOW + 2 * DAY, NOW + 2 * DAY), Sight(offered[1], NOW, NOW + 2 * DAY)
    )  # fmt: skip
    kept = ledger.sights(SOURCE, "s")
    assert (len(kept.seen), kept.dated) == (len(offered), NOW + 2 * DAY)


def test_a_look_that_is_only_pretended_writes_nothing(ledger: Ledger) -> None:
    """Its answer counts for that look alone."""
    assert ledger.look_at_tag("a:1", ["one"], NOW, keep=False).of("one")
    assert ledger.sights(TAG, "a:1").seen == ()


def test_of_two_that_look_at_once_the_first_sight_stands(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one reads it."""
    own, others = ledger._write, Ledger.open(ledger._engine.url.render_as_string())

    def beaten(*given: object, **more: bool) -> None:
        monkeypatch.setattr(ledger, "_write", own)
        others.look_at_tag("a:1", ["one"], NOW)
        raise IntegrityError("", None, ValueError())

    monkeypatch.setattr(ledger, "_write", beaten)
    assert ledger.look_at_tag("a:1", ["one"], NOW + timedelta(seconds=5)).of("one") == Sight(
        "one", NOW, NOW + timedelta(seconds=5)
    )
