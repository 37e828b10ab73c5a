"""A short part of the fuzzing, the same in each run; and that it would find what it looks for."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from hardening.foundation import errors
from hardening.foundation.errors import OutsideError, understood
from pipelines.fleet.docker.container_facts import processes_of
from tests.fuzz import harness
from tests.fuzz.harness import (
    CORPUS,
    Form,
    Fuzzed,
    Target,
    dumped,
    found_of,
    harm_of,
    kept,
    loaded,
    memory_limited,
    smallest,
)
from tests.fuzz.targets import TARGETS
from tests.pipelines.fleet.test_runtime_facts import top

INPUTS = 40
NAMES = [one.name for one in TARGETS]


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_what_comes_from_outside_is_read_or_refused(target: Target, pytestconfig: pytest.Config) -> None:
    """Good samples are read, what did harm once does none, and what is nearly right ends in no other error than it
    declares, within the limits of time and memory.
    """
    for seed in target.seeds:
        target.read(target.sent(seed))
    for name, given in kept(target).items():
        harm = harm_of(target, given)
        assert harm is None, f"{name}: {harm.told}"
    inputs = INPUTS // 4 if pytestconfig.getoption("--fast") else INPUTS
    harms = Fuzzed(target, Random(target.name)).go_on(inputs, watch=False)
    assert not harms, "\n".join(f"{one.where} of {dumped(target, one.given)[:2000]!r}\n{one.told}" for one in harms)


def test_every_kept_input_belongs_to_a_target() -> None:
    """A renamed target would lose them in silence."""
    assert len(NAMES) == len({*NAMES}) > 80
    assert {one.name for one in CORPUS.iterdir()} <= {*NAMES}


def _careless(said: Any) -> object:
    if said["size"] == "large":
        raise OutsideError("which is declared")
    return [one["name"] for one in said["items"]]


SAMPLE = {"size": "small", "items": [{"name": "a"}, {"name": "b"}]}


def test_an_error_that_is_not_declared_is_found_and_made_small() -> None:
    """One line of a reader that trusts its input."""
    target = Target("x", _careless, lambda: [SAMPLE])
    assert harm_of(target, SAMPLE | {"size": "large"}) is None
    harms = Fuzzed(target, Random(1)).go_on(200)
    assert {type(one.error) for one in harms} >= {KeyError, TypeError}
    least = smallest(next(one for one in harms if isinstance(one.error, KeyError)))
    assert len(str(least.given)) < len(str(SAMPLE))


def test_what_a_reader_tripped_over_is_told_apart() -> None:
    """It is a declared error, and the line that raised it may be a mistake of ours; what is checked is not told."""

    def reads(said: Any) -> None:
        with suppress(OutsideError), understood("it"):
            processes_of(said["top"]) if said["top"] != 7 else _refuses()

    def _refuses() -> None:
        raise OutsideError("which was checked")

    target = Target("x", reads, lambda: [{"top": top("100 1 7 nginx")}])
    assert found_of(target, {"top": 7}) == (None, [])
    fuzzed = Fuzzed(target, Random(1))
    assert fuzzed.go_on(200) == []
    found = next(one for where, one in fuzzed.understood.items() if " at container_facts.py:" in where)
    least = smallest(found)
    assert least.where == found.where
    assert errors.watchers == []


def test_a_loop_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time of the processor."""
    monkeypatch.setattr(harness, "CPU_SECONDS", 0.2)

    def loops(text: str) -> None:
        while "a" in text:
            pass

    target = Target("x", loops, lambda: ["b"], Form.TEXT)
    assert harm_of(target, "b") is None
    found = harm_of(target, "a")
    assert found
    assert isinstance(found.error, harness.HungError)
    catastrophe = Target("x", lambda text: re.fullmatch(r"(a|a)*b", text), lambda: ["ab"], Form.TEXT)
    assert harm_of(catastrophe, "a" * 40)


def test_much_memory_is_found() -> None:
    """For a moment is enough."""
    target = Target("x", lambda text: len(text * 10**9), lambda: ["b"], Form.TEXT)
    with memory_limited():
        found = harm_of(target, "bb")
    assert found
    assert isinstance(found.error, MemoryError)


@pytest.mark.parametrize(
    ("form", "given"),
    [(Form.VALUE, {"a": ["\ud800", None, 1e999, 10**400]}), (Form.TEXT, "\ud800\x00"), (Form.BYTES, b"\xff\x00")],
)
def test_what_is_kept_comes_back(form: Form, given: Any) -> None:
    """To the last half of a character."""
    target = Target("x", str, lambda: [given], form)
    assert loaded(target, dumped(target, given)) == given


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
def test_who_reaches_more_is_mutated_further() -> None:
    """Lines of our own code that an input is the first to reach put it into the pool."""
    target = next(one for one in TARGETS if one.name == "versions")
    fuzzed = Fuzzed(target, Random(1))
    fuzzed.go_on(100)
    assert len(fuzzed.reached.lines) > 5
    assert len(fuzzed.pool) > len(target.seeds)
