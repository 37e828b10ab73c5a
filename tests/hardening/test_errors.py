"""What becomes of an answer that one of our readers trips over: an error that names the line to look at."""

from __future__ import annotations

import re
from errno import ENOSPC, ENOTTY
from pathlib import Path

import pytest

from hardening.foundation.errors import MalformedError, as_ours, traced, understood
from hardening.foundation.settings import ROOT
from pipelines.fleet.docker.container_facts import processes_of


def test_an_answer_that_is_not_understood_names_the_line_of_ours() -> None:
    """By file and number, whoever called it: the message alone reaches pages and digests. The cause is kept."""
    with pytest.raises(MalformedError) as raised, understood("the engine"):
        processes_of({"Processes": [7]})
    found = re.fullmatch(
        r"the answer of the engine is not understood: (TypeError\(.*\)) at (pipelines/[a-z/_]+\.py):(\d+)",
        raised.value.message,
    )
    assert found, raised.value.message
    line = (ROOT / found[2]).read_text().splitlines()[int(found[3]) - 1]
    assert "map(str, row)" in line
    assert repr(raised.value.__cause__) == found[1]
    assert "report this line" in raised.value.hint


def test_an_error_of_others_code_has_no_line_and_a_long_one_is_cut() -> None:
    """What it quotes may be all that an answer holds."""
    assert traced(ValueError("x" * 9000)) == f"ValueError('{'x' * 288}…"
    with pytest.raises(ValueError, match="nope") as raised:
        Path.from_uri("nope") if hasattr(Path, "from_uri") else int("nope")
    assert " at " not in traced(raised.value)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(RuntimeError("can't start new thread"), 4, "allows no more"),
     (RuntimeError("a bug"), 1, "web failed because of a bug in Goldsmith: RuntimeError: a bug"),
     (OSError(ENOSPC, "full"), 4, "the disk is full"), (OSError(ENOTTY, "odd"), 4, "web failed: ")],
)  # fmt: skip
def test_what_the_machine_lacks_is_no_mistake_of_ours(error: Exception, code: int, said: str) -> None:
    """Nor is what it says that nobody foresaw."""
    told = as_ours("web", error)
    assert said in told.message
    assert told.exit_code == code
