"""What people see: progress and logs on standard error, results on standard output. Plain where nobody watches."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

LEAST_WIDTH = 8
"""What a column of a table must have to be read, in characters."""
GAP = 2
"""How far Rich sets columns apart."""


@cache
def err() -> Console:
    """The console for progress and logs: standard error; in CI and in pipes without colours and movement."""
    return Console(stderr=True, highlight=False, soft_wrap=True, no_color=not sys.stderr.isatty() or None)


@cache
def out() -> Console:
    """The console for results: standard output, 80 columns wide where it is not a terminal."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "80"))
    return Console(highlight=False, width=width, no_color=not sys.stdout.isatty() or None)


def say(text: str) -> None:
    """One line of progress."""
    err().print(text, markup=False)


def print_json(value: Any) -> None:
    """`value` (JSON types or pydantic/dataclass dumps) on standard output, for other programs."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def print_text(text: str) -> None:
    """`text` on standard output, folded at words; what an indented line goes on with hangs two columns further in."""
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        hanging = f"{indent}  " if indent else ""
        folded = textwrap.fill(
            line, out().width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )
        out().print(folded, markup=False, soft_wrap=True)


def print_table(columns: list[str], rows: list[list[str]], *, title: str = "", whole: Sequence[str] = ()) -> None:
    """A table that fits 80 columns: long cells fold, none is cut. Those of the columns `whole` do not fold, the first
    named before the others, as long as enough room is left for what stands beside them.
    """
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    unfolded = _unfolded(columns, rows, whole, out().width)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in unfolded)
    for row in rows:
        table.add_row(*row)
    out().print(table, markup=False) if rows else say("nothing to show")


def _unfolded(columns: list[str], rows: list[list[str]], whole: Sequence[str], width: int) -> set[str]:
    """Those of `whole` that can stand in one piece and leave `LEAST_WIDTH` to each other column."""
    found: set[str] = set()
    left = width - GAP * (len(columns) - 1) - LEAST_WIDTH * len(columns)
    for column in whole:
        at = columns.index(column)
        left -= max(cell_len(cell) for cell in (column, *(row[at] for row in rows))) - LEAST_WIDTH
        if left < 0:
            break
        found.add(column)
    return found
