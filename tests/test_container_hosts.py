"""docs/container-hosts.md: the table of the CIS Docker Benchmark is whole, and what it says holds each item does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from hardening.catalog import load_controls
from hardening.foundation.settings import ROOT
from hardening.policy import RunningRules

CONTROLS = load_controls([ROOT])
OF_CONTAINERS = sorted(name for name in CONTROLS if name.startswith("contain"))
# How many recommendations each section of version 1.8 has.
SECTIONS = {"1.1": 18, "1.2": 2, "2": 19, "3": 24, "4": 12, "5": 32, "6": 2, "7": 9}
SWARM = "7."  # all of it is off


def rows() -> Iterator[tuple[list[str], str]]:
    """The numbers of each row, and by what they are held."""
    text = (ROOT / "docs/container-hosts.md").read_text().partition("## CIS Docker Benchmark")[2]
    for numbers, by in re.findall(r"^\| ([0-9.\u2013]+) \| ([^|]+) \|", text, re.MULTILINE):
        first, _, last = numbers.partition("\u2013")
        section, _, begin = first.rpartition(".")
        end = int((last or first).rpartition(".")[2])
        yield [f"{section}.{number}" for number in range(int(begin), end + 1)], by


def held(word: str) -> dict[str, set[str]]:
    """By number, the names after a word such as `control`."""
    named: dict[str, set[str]] = {}
    for numbers, by in rows():
        names = [name for part in re.findall(rf"{word} ((?:`[a-z_-]+`(?:, )?)+)", by) for name in part.split(", ")]
        for number in numbers:
            named.setdefault(number, set()).update(name.strip("`") for name in names if name)
    return named


def test_every_recommendation_stands_there_once() -> None:
    """None is forgotten, and none is told twice."""
    found = Counter(number for numbers, _ in rows() for number in numbers)
    wanted = [f"{section}.{number}" for section, most in SECTIONS.items() for number in range(1, most + 1)]
    assert found == Counter(wanted)


def test_each_rule_and_control_that_holds_one_exists() -> None:
    """By the names that policies and profiles have."""
    assert {name for names in held("rule").values() for name in names} <= {*RunningRules.model_fields}
    assert {name for names in held("control").values() for name in names} <= {*CONTROLS}


@pytest.mark.parametrize("control", OF_CONTAINERS)
def test_the_controls_of_containers_name_the_numbers_that_the_table_gives_them(control: str) -> None:
    """Both ways: the table and the control's references are one truth."""
    told = {number for number, names in held("control").items() if control in names and not number.startswith(SWARM)}
    assert told == {*CONTROLS[control].control.references["cis-docker"]}


def test_a_host_that_fails_one_is_told_what_to_do() -> None:
    """Each of the controls of containers has steps for a host that runs already."""
    assert [name for name in OF_CONTAINERS if not CONTROLS[name].control.on_hosts] == []
