"""One result for each control of a machine: the worse of what its tree and the booted machine showed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hardening.findings import CheckResult, Outcome

# An answer is better than "not applicable", which is the lack of one; a real failure says most.
WORST_FIRST = (Outcome.FAIL, Outcome.ERROR, Outcome.NOT_EVALUATED, Outcome.PASS, Outcome.NOT_APPLICABLE)


def merge_live(static: Sequence[CheckResult], live: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """The results of the tree (`static`) with those of the booted machine (`live`): the worse wins, both are evidence.

    In the order of `static`; what only the machine could show follows.
    """
    seen = {result.control: result for result in live}
    known = {result.control for result in static}
    merged = [_worse(result, seen[result.control]) if result.control in seen else result for result in static]
    return (*merged, *(result for result in live if result.control not in known))


def _worse(static: CheckResult, live: CheckResult) -> CheckResult:
    """The worse of both; what decided stands first."""
    said = [("in the booted machine", live), ("on the tree", static)]
    said.sort(key=lambda one: WORST_FIRST.index(one[1].outcome))
    (_, worse), _ = said
    lines = (f"{where}: {result.outcome}: {result.evidence}" for where, result in said)
    return replace(worse, enforcement=static.enforcement, evidence="\n".join(lines))
