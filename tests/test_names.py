"""Names: one meaning each, and the field's words instead of private ones."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hardening.foundation.settings import ROOT

PRODUCT = ("hardening", "images", "pipelines")
ROOM_PARTS = {"flow.py", "model.py", "port.py", "catalog.py", "lint.py", "errors.py"}
"""What many rooms have one of, under the same name: what it does in order, its data, its interface, its content."""
SIDES = [
    {
        "pipelines/fleet/docker",
        "pipelines/fleet/ec2",
        "pipelines/fleet/ecs",
        "pipelines/fleet/eks",
        "pipelines/fleet/kubernetes",
        "pipelines/fleet",
    },
    {"images/registry", "images/aws", "images/release", "images/ledger"},
]
"""Rooms with implementations of one port, which may share a name."""
PRIVATE = {
    "desk", "essence", "leavings", "ground", "carrying", "underway", "stance", "hand", "turns", "sealed", "acting",
    "proving", "fate", "witness", "promises", "estate", "trouble", "inbox", "papers", "rescan", "soundness",
}  # fmt: skip
"""Words of our own that a term of the field has replaced."""
PRIVATE_CLASSES = {"Origin", "Origins", "Work", "Way", "Part", "Place", "Target", "Leave", "Orders"}
"""The same, where the word itself is plain English."""


@cache
def modules() -> dict[str, ast.Module]:
    """The product's modules by their path."""
    files = (file for room in PRODUCT for file in (ROOT / room).rglob("*.py") if "files" not in file.parts)
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


def identifiers(tree: ast.Module) -> Iterator[str]:
    """All names in a module."""
    for node in ast.walk(tree):
        for attribute in ("name", "id", "attr", "arg"):
            if isinstance(name := getattr(node, attribute, None), str):
                yield name


def test_no_class_has_two_meanings() -> None:
    """A reader who searches for a class finds one."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    assert len(places) > 300
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_file_has_two_meanings() -> None:
    """But for the parts that rooms have in common, and for implementations of one port."""
    places: dict[str, list[Path]] = defaultdict(list)
    for path in map(Path, modules()):
        if path.name not in ROOM_PARTS | {"__init__.py"}:
            places[path.name].append(path.parent)
    shared = {name: {str(room) for room in rooms} for name, rooms in places.items() if len(rooms) > 1}
    assert {name: rooms for name, rooms in shared.items() if not any(rooms <= side for side in SIDES)} == {}


def test_no_private_word_is_left() -> None:
    """In the names of modules, classes, functions and variables."""
    found = defaultdict(set)
    for path, tree in modules().items():
        for name in (*identifiers(tree), Path(path).stem):
            if name in PRIVATE_CLASSES or PRIVATE & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}:
                found[path].add(name)
    assert dict(found) == {}
