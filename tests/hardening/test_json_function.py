"""What the controls' shell function `json` makes of JSON: the same as Python, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

FUNCTIONS = (ROOT / "hardening/functions/json.sh").read_text()
SAMPLE: dict[str, Any] = {
    "hosts": ["fd://", "tcp://0.0.0.0:2376"],
    "log-opts": {"max-file": "5", "max-size": "10m", "tag": "{{.Name}}: [a, b]"},
    "default-ulimits": {"core": {"Name": "core", "Hard": 0, "Soft": -1.5}},
    "runtimes": {},
    "dns": [],
    "nested": [[None, {"a": True}], {"b": False}],
}


def told(file: Path) -> tuple[int, list[str]]:
    """The exit status and the lines of the function."""
    done = run(["sh", "-c", f'set -eu\n{FUNCTIONS}\njson "$1"', "sh", str(file)], ok=(0, 1))
    assert done.stderr == ""
    return done.status, done.stdout.splitlines()


def flat(value: Any, path: str = "") -> Iterator[str]:
    """Its lines by Python."""
    items = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
    if not items:
        yield f"{path} {json.dumps(value)}"
    for key, one in items:
        yield from flat(one, f"{path}/{key}" if path else str(key))


def paths(lines: Iterable[str]) -> list[str]:
    """Of each line."""
    return [line.partition(" ")[0] for line in lines]


@pytest.mark.parametrize("indent", [None, 2])
def test_each_value_has_a_line_with_its_whole_path(tmp_path: Path, indent: int | None) -> None:
    """Whatever brackets and commas its texts hold."""
    file = tmp_path / "x.json"
    file.write_text(json.dumps(SAMPLE, indent=indent))
    assert told(file) == (0, [*flat(SAMPLE)])
    file.write_text(" {}\n")
    assert told(file) == (0, [" {}"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it ends too early"),
        ("[1]", "not an object of JSON"),
        ('{"a": 1', "it ends too early"),
        ('{"a": 1} {"a": 2}', "something follows its end"),
        ('{"a": 1, "a": 2}', "a is set twice"),
        ('{"a": 1, "A": 2}', "A is set twice"),
        ('{"a": {"b": 1}, "a": {"c": 1}}', "a is set twice"),
        ('{"x": {"a": 1, "a": 2}}', "x/a is set twice"),
        ('{"ho\\u0073ts": 1}', r"an escape (\), which may hide a key, in line 1"),
        ('{"a": "\\u0022"}', r"an escape (\), which may hide a key, in line 1"),
        ('{"a/b": 1}', "not JSON in line 1: not a key"),
        ('{"a b": 1}', "not JSON in line 1: not a key"),
        ("{a: 1}", "not JSON in line 1"),
        ('{"a": 1,}', "not JSON in line 1: not a key"),
        ('{"a" 1}', "not JSON in line 1: 1 after a key"),
        ('{"a": [1,]}', "not JSON in line 1: ] where a value belongs"),
        ('{"a": [1 2]}', "not JSON in line 1: 2 where , or ] belongs"),
        ('{"a": 01}', "not JSON in line 1: 1 where , or } belongs"),
        ('{"a": "x\ny"}', "not JSON in line 1"),
        ("{\n'a': 'hunter2'}", "not JSON in line 2"),
        ('{"a":\n"b" "hunter2"}', "not JSON in line 2: a text where , or } belongs"),
        ('{"a": 1,\n\n"hunter2", 2}', "not JSON in line 3: , after a key"),
        ('{"a":\n"hunter2\\u0041"}', r"an escape (\), which may hide a key, in line 2"),
        ('{"a": "\u00e4"}', "a character is not ASCII"),
        ('{"a": "\x00"}', "a character is not ASCII"),
        ("\ufeff{}", "a character is not ASCII"),
        ('{"a": ' + "[" * 30 + "]" * 30 + "}", "it is deeper than 20 levels"),
        ('{"a": "' + "x" * 65536 + '"}', "it is larger than 64 KiB"),
    ],
)
def test_what_may_be_read_in_two_ways_is_not_read(tmp_path: Path, text: str, why: str) -> None:
    """One line says why, and no value is told."""
    file = tmp_path / "x.json"
    file.write_text(text)
    assert told(file) == (1, [why])


def test_what_is_read_is_what_python_reads(tmp_path: Path) -> None:
    """Of texts that are nearly right: the same values, or none."""
    random, good, file = Random(1), json.dumps(SAMPLE), tmp_path / "x.json"
    read = 0
    for _ in range(150):
        at, length = random.randrange(len(good)), random.choice((0, 0, 1, 2))
        text = good[:at] + random.choice(["", *'{}[],:"1ax ', '"hosts": 1,']) + good[at + length :]
        file.write_text(text)
        status, lines = told(file)
        if status == 0:
            read += 1
            assert paths(lines) == paths(flat(json.loads(text)))
    assert 10 < read < 150
