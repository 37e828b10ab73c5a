"""Who must act on what a night could not do: one answer for its summary and for the report. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.contract import NightlyDuty, NightlyLine

WHO = {1: "Goldsmith's maintainers", 2: "the author of the content", 3: "the owner", 4: "the operator"}  # by exit code
OWNED = (2, 3)


def who(exit_code: int, owner: str = "") -> str:
    """Who must act on a failure with that exit code.

    The `owner` of the image or fleet, where one is known, mends its content, and what a policy refuses. What the
    outside or Goldsmith itself failed in is never the owner's.
    """
    return owner if owner and exit_code in OWNED else WHO[exit_code]


def duties(lines: Iterable[NightlyLine]) -> tuple[NightlyDuty, ...]:
    """Who must act, and on which lines of a night: by exit code, the highest first, which is the night's.

    Of images those alone that no other one stopped.
    """
    found: dict[int, list[str]] = {}
    for line in lines:
        if line.exit_code and not line.stopped_by:
            found.setdefault(line.exit_code, []).append(f"{line.kind} {line.name}".strip())
    return tuple(
        NightlyDuty(exit_code=code, who=who(code), parts=tuple(found[code])) for code in sorted(found, reverse=True)
    )
