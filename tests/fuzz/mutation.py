"""Inputs that are nearly right: samples of what comes from outside, changed in a few places. Pure: the same `Random`
and samples give the same input. JSON is changed by its structure, text by lines and words, bytes as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from random import Random
from typing import Any

DEEP, MANY, LONG = 100, 2_000, 50_000
LARGEST = 1_000_000  # characters that one change makes of a part
WORD = re.compile(r"\w+|[^\w\s]")
TEXTS = (
    "", " ", "x", "-", "0", "-1", "1e999", "9" * 5_000, "true", "null", "\n", "\x00", "\x1b[2J", "\u202e", "\ud800",
    "²", "é", "/", "..", "../../etc/passwd", "/dev/zero", "%s", "{0}", "{{7*7}}", "$HOME", "*", "?", "[", "(" * 50, "#",
    "sha256:" + "0" * 64, "sha256:zz", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "2026-02-30T00:00:00Z",
    "2026-01-01", "1:2:3:4:5:6:7", "a=b", "pkg:deb/debian/x@1", "pkg:", "http://[", "https://u:p@h/", "CVE-2026-1", ",",
    "[" * 3_000, '{"a":' * 3_000, "a" * LONG,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 1 << 31, 1 << 63, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), [], {},
    [None], [[]], {"": None}, [{}], ["x"], {"x": "x"},
)  # fmt: skip
BYTES = (b"", b"\x00", b"\xff\xfe", b"\x7f" * 9, b"\x80\x80", b"\xff" * 8, b"\n", b"PK\x05\x06", b"\x28\xb5\x2f\xfd")


def mutated(sample: Any, samples: Sequence[Any], random: Random) -> Any:
    """One of the samples, changed in one to four places, some with parts of the other `samples`."""
    change = {str: _text, bytes: _bytes}.get(type(samples[0]), _value)
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        sample = change(sample, random.choice(samples), random)
    return sample


# -- values ------------------------------------------------------------------------------------------------------------


def slim(value: Any, most: int = 3) -> Any:
    """A value with few of the items of each list: what a reader does with three of a thing it does with a hundred."""
    if isinstance(value, dict):
        return {key: slim(item, most) for key, item in value.items()}
    return [slim(item, most) for item in value[:most]] if isinstance(value, list) else value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a value: the list or object that it lies in, and its index or key there."""
    stack = [value]
    while stack:
        inner = stack.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            yield inner, key
            if isinstance(inner[key], dict | list):
                stack.append(inner[key])


def depth(value: Any) -> int:
    """How many lists and objects lie in each other."""
    level, levels = [value], 0
    while level := [one for one in level if isinstance(one, dict | list)]:
        levels += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return levels


def _value(sample: Any, other: Any, random: Random) -> Any:
    root = [deepcopy(sample)]
    inner, key = random.choice(list(places(root)))
    match random.randrange(9):
        case 0:
            del inner[key]
        case 1 | 2:
            inner[key] = deepcopy(random.choice(VALUES))
        case 3:
            inner[key] = random.choice(TEXTS)
        case 4:
            from_inner, from_key = random.choice(list(places([other])))
            inner[key] = deepcopy(from_inner[from_key])
        case 5:
            inner[key] = _wrapped(inner[key], random)
        case 6:
            inner[key] = _enlarged(inner[key], random)
        case 7:
            _twice(inner, key, random)
        case _:
            inner[key] = _tweaked(inner[key], random)
    return root[0] if root else None


def _wrapped(value: Any, random: Random) -> Any:
    for _ in range(random.choice((1, 1, 2, DEEP))):
        value = [value] if random.random() < 0.5 else {random.choice(("a", "name", "")): value}
    return value


def _enlarged(value: Any, random: Random) -> Any:
    many = max(1, min(random.choice((2, 2, 10, 10, MANY)), LARGEST // max(1, len(str(value)))))
    if isinstance(value, list) and value:
        return [deepcopy(one) for one in value[:3] for _ in range(many)]
    if isinstance(value, dict):
        return value | {f"x{number}": deepcopy(next(iter(value.values()), None)) for number in range(many)}
    return value * many if isinstance(value, str) else [value] * many


def _twice(inner: Any, key: Any, random: Random) -> None:
    again = deepcopy(inner[key])
    if isinstance(inner, list):
        inner.insert(random.randrange(len(inner) + 1), again)
    else:
        inner[random.choice((str(key).upper(), f"{key} ", f"x{key}", random.choice(TEXTS)))] = again


def _tweaked(value: Any, random: Random) -> Any:
    if isinstance(value, str):
        return _text(value, value, random)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value) if not isinstance(value, dict | list) else list(value)
    large = abs(value) > 1e100  # more would be none that the text of a number may have
    return -value if large else random.choice((-value, value + 1, value - 1, value * 10**6, str(value), float(value)))


# -- texts -------------------------------------------------------------------------------------------------------------


def _text(sample: str, other: str, random: Random) -> str:
    what = random.randrange(10)
    if what < 4 and "\n" in sample:
        return "\n".join(_lines(sample.split("\n"), other.split("\n"), random))
    if what < 7 and (words := list(WORD.finditer(sample))):
        word = random.choice(words)
        new = random.choice((*TEXTS, word[0] * 2, word[0].upper(), "", random.choice(words)[0]))
        return sample[: word.start()] + new + sample[word.end() :]
    at, end = sorted(random.randrange(len(sample) + 1) for _ in range(2))
    odd = chr(random.choice((0, 9, 13, 34, 39, 92, 127, 0x2028, 0xFEFF, 0x1F600)))
    ways = ("", sample[end:], sample[at:end] + sample[at:], odd + sample[at:], random.choice(TEXTS) + sample[at:])
    return sample[:at] + random.choice(ways)


def _lines(lines: list[str], others: list[str], random: Random) -> list[str]:
    at = random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            return lines[:at] + lines[at + 1 :]
        case 1:
            return lines[: at + 1] + lines[at:]
        case 2:
            return [*lines[:at], random.choice(others), *lines[at:]]
        case 3:
            return lines[:at] + [lines[at]] * min(MANY, LARGEST // max(1, len(lines[at]))) + lines[at:]
        case _:
            return [*lines[:at], "", *lines[at:]] if random.random() < 0.5 else lines[: at + 1]


# -- bytes -------------------------------------------------------------------------------------------------------------


def _bytes(sample: bytes, other: bytes, random: Random) -> bytes:
    at, end = sorted(random.randrange(len(sample) + 1) for _ in range(2))
    match random.randrange(7):
        case 0:
            return sample[:at]
        case 1:
            return sample[:at] + sample[end:]
        case 2:
            return sample[:at] + sample[at:end] * 3 + sample[end:]
        case 3:
            return sample[:at] + random.choice(BYTES) + sample[at:]
        case 4:
            return sample[:at] + other[at:]
        case _:
            changed = bytearray(sample)
            for _ in range(min(len(sample), random.choice((1, 1, 2, 8)))):
                changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
            return bytes(changed)


# -- smaller -----------------------------------------------------------------------------------------------------------


def smaller(sample: Any) -> Iterator[Any]:
    """The same with less in it, the smallest first: whoever looks for what of an input matters tries each."""
    if isinstance(sample, str | bytes):
        size = len(sample) // 2
        while size:
            yield from (sample[:at] + sample[at + size :] for at in range(0, len(sample), size))
            size //= 2
        return
    every = [*places(sample)]
    for number in range(len(every)):
        copy = deepcopy(sample)
        inner, key = [*places(copy)][number]
        kept = inner[key]
        del inner[key]
        yield copy
        if isinstance(kept, str | list) and len(kept) > 1 and isinstance(inner, dict):
            inner[key] = kept[: len(kept) // 2]
            yield copy
