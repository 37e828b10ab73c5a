"""Output for people: progress and logs on standard error, results on standard output. Plain without a terminal.

Whatever is printed may hold text of strangers. It is never read as Rich's markup or emoji codes, and what a terminal
would obey is made visible, for everything that goes through these consoles.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from hardening.foundation.text import hanging, one_line, visible

if TYPE_CHECKING:  # commands that print JSON do without
    from rich.console import Console
    from rich.table import Table

LEAST_WIDTH = 8
"""What a column of a table must have to be read, in characters."""
GAP = 2
"""How far Rich sets columns apart."""
COPIED = re.compile(r"^(?=.{,160}$)(?:\S*/\S*/\S+|\S*sha256:\S+)$", re.MULTILINE)
"""A path, reference or digest that is all of a cell, or of a line of it."""
PADDING = re.compile(r" +((?:\x1b\[0m)?)$", re.MULTILINE)


Cell = str | Sequence[str]
"""What stands in a cell: one line of text, or several lines."""


@cache
def careful() -> type[Console]:
    """A kind of console that takes text as text. Rich makes every string, cells and titles too, by `render_str`."""
    from rich.console import Console
    from rich.text import Text

    class Careful(Console):
        """Shows text without markup and emoji codes, and makes invisible characters visible."""

        def __init__(self, **options: Any) -> None:
            super().__init__(highlight=False, markup=False, emoji=False, **options)

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    return Careful


@cache
def err() -> Console:
    """The console for progress and logs: standard error; in CI and in pipes without colours and movement."""
    return careful()(stderr=True, soft_wrap=True, no_color=not sys.stderr.isatty() or None)


@cache
def out() -> Console:
    """The console for results: standard output, 80 columns wide where it is not a terminal."""
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "80"))
    return careful()(width=width, no_color=not sys.stdout.isatty() or None)


Listener = Callable[[str], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""Who else hears what is said, in this thread and in those that `process.threads` and `timing` start for it."""


_said_at = [0.0]


def last_said() -> float:
    """When the last line of progress was printed, as time.monotonic() counts."""
    return _said_at[0]


def say(text: str) -> None:
    """One line of progress; where it has more lines, they are indented."""
    err().print(hanging(text))
    _said_at[0] = time.monotonic()
    if (told := listener.get()) is not None:
        told(text)


@contextmanager
def heard_by(told: Listener) -> Iterator[None]:
    """Give `told` all that is said in the block."""
    before = listener.set(told)
    try:
        yield
    finally:
        listener.reset(before)


def print_json(value: Any) -> None:
    """`value` (JSON types or pydantic/dataclass dumps) on standard output, for other programs."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def print_text(text: str | Iterable[str]) -> None:
    """`text`, or lines, on standard output, folded at words; what an indented line goes on with hangs two columns
    further in.
    """
    for line in text.split("\n") if isinstance(text, str) else map(one_line, text):
        indent = " " * (len(line) - len(line.lstrip()))
        further = f"{indent}  " if indent else ""
        folded = textwrap.fill(
            visible(line), out().width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
        )
        out().print(folded, soft_wrap=True)


def print_rule(text: str) -> None:
    """A line across standard output that begins with `text`."""
    from rich.text import Text

    out().rule(Text(one_line(text), style="bold"), align="left")


def print_table(
    columns: list[str], rows: Sequence[Sequence[Cell]], *, empty: str = "nothing to show", **how: Any
) -> None:
    """Print the table of the rows as `table_of` makes it, in pipes one line a row; without rows, `empty` is said."""
    if not rows:
        say(empty)
    elif sys.stdout.isatty() or "COLUMNS" in os.environ:
        with out().capture() as drawn:
            out().print(table_of(columns, rows, **how), crop=False)
        out().file.write(PADDING.sub(r"\1", drawn.get()))
    else:
        out().print(_one_line_a_row([columns, *rows], how.get("title", "")), soft_wrap=True)


def _one_line_a_row(rows: Sequence[Sequence[Cell]], title: str) -> str:
    from rich.cells import cell_len

    cells = [[visible(one_line(cell if isinstance(cell, str) else "; ".join(cell))) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) + GAP for column in zip(*cells, strict=True)]
    padded = ([cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join([*([one_line(title)] if title else []), *("".join(row).rstrip() for row in padded)])


def table_of(
    columns: list[str], rows: Sequence[Sequence[Cell]], *, title: str = "", whole: Sequence[str] = ()
) -> Table:
    """A table that fits 80 columns: long cells fold, none is cut. Those of the columns `whole` do not fold, the first
    named before the others, as long as enough room is left for what stands beside them. Paths and digests that
    stand alone, for people to copy, never fold.
    """
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(title=one_line(title) or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    cells = [[_cell(cell) for cell in row] for row in rows]
    headings = [one_line(column) for column in columns]
    unfolded = _unfolded(headings, cells, whole, out().width)
    for at, column in enumerate(headings):
        least = max((cell_len(one) for row in cells for one in COPIED.findall(row[at])), default=None)
        table.add_column(column, overflow="fold", no_wrap=column in unfolded, min_width=least)
    for row in cells:
        table.add_row(*row)
    return table


def _cell(cell: Cell) -> str:
    """The text of a cell. A newline within a line of it is not ours, and would forge another line."""
    return one_line(cell) if isinstance(cell, str) else "\n".join(map(one_line, cell))


def _unfolded(columns: list[str], rows: list[list[str]], whole: Sequence[str], width: int) -> set[str]:
    """Those of `whole` that can stand in one piece and leave `LEAST_WIDTH` to each other column."""
    from rich.cells import cell_len

    found: set[str] = set()
    left = width - GAP * (len(columns) - 1) - LEAST_WIDTH * len(columns)
    for column in whole:
        at = columns.index(column)
        left -= max(cell_len(cell) for cell in (column, *(row[at] for row in rows))) - LEAST_WIDTH
        if left < 0:
            break
        found.add(column)
    return found
