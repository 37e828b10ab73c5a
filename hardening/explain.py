"""Reasons as an application developer reads them: what, why it matters, what to do, how to get an exception. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hardening.findings import Reason
from hardening.foundation.text import one_line

NAMED = 6


def explain(reasons: Sequence[Reason]) -> str:
    """`reasons` as text. Those with one remedy stand together: holes that one newer package closes are one task."""
    groups: dict[tuple[str, str, str, str], list[Reason]] = {}
    for reason in reasons:
        groups.setdefault((reason.enforcement, reason.why, reason.todo, reason.waived_by), []).append(reason)
    blocks = [_block(group) for group in groups.values()]
    ask = next((reason for reason in reasons if reason.waiver and not reason.waived_by), None)
    if ask:
        blocks.append(f"if it cannot be done in time, for {ask.rule} {ask.waiver}")
    return "\n".join(blocks)


def _block(group: list[Reason]) -> str:
    first = group[0]
    lines = [f"{first.enforcement}: {one_line(first.what)}"]
    if group[1:]:
        rules = [reason.rule for reason in group[1:]]
        more = f" and {len(rules) - NAMED} more" if rules[NAMED:] else ""
        lines.append(f"  the same for: {one_line(', '.join(rules[:NAMED]))}{more}")
    lines += [f"  why: {one_line(first.why)}", f"  do:  {one_line(first.todo)}"]
    if first.waived_by:
        lines.append(f"  waived by {first.waived_by}")
    return "\n".join(lines)
