"""Run mutmut without mutants of prose, and print a row a module: `.venv/bin/python tests/mutation.py run [PATTERN]`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from mutmut.__main__ import cli
from mutmut.mutation import mutators
from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    import libcst

CAUGHT = ("killed", "timeout", "segfault")
DECIDING = {"images/aws/retire.py": ("decide_over", "_named", "_holding")}
"""Of modules that also act: the functions that count. The others ask AWS, and are tested by its emulator."""


def mutate_string(node: libcst.BaseString) -> Iterable[libcst.BaseString]:
    """Mutants of a string, unless it has a space: that is a message or a part of one."""
    return () if " " in getattr(node, "value", "") else mutators.operator_string(node)


def table() -> list[str]:
    """Rows in Markdown: module, mutants that were run, killed ones, percent."""
    rows = ["| module | mutants | killed | percent |", "|---|---|---|---|"]
    for path in sorted(walk_mutatable_files()):
        found = SourceFileMutationData(path=path)
        found.load()
        codes = [code for name, code in found.exit_code_by_key.items() if _decides(str(path), name)]
        count = Counter(status_by_exit_code[code] for code in codes if code is not None)
        killed = sum(count[status] for status in CAUGHT)
        percent = f"{killed / count.total():.1%}" if count else "not run"
        rows.append(f"| `{path}` | {count.total()} of {len(codes)} | {killed} | {percent} |")
    return rows


def _decides(path: str, mutant: str) -> bool:
    return path not in DECIDING or any(f".x_{function}__mutmut" in mutant for function in DECIDING[path])


if __name__ == "__main__":
    mutators.mutation_operators[:] = [  # type: ignore[index]
        (kind, mutate_string if operator is mutators.operator_string else operator)
        for kind, operator in mutators.mutation_operators
    ]
    cli(sys.argv[1:], standalone_mode=False)
    if sys.argv[1:2] in (["run"], []):
        sys.stdout.write("\n".join(table()) + "\n")
