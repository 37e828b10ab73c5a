"""What becomes of an image, and what changed among its inputs, in the words that are printed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What became, or would become, of an image."""

    BUILD = "build"
    BUILT = "built"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Change:
    """One input that differs from the last artifact's; `kind` says which: package, control, definition and so on."""

    kind: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        if self.kind == "package" and not self.old:
            return f"package {self.name} {self.new} added"
        if self.kind == "package" and not self.new:
            return f"package {self.name} {self.old} removed"
        if self.kind == "package":
            return f"package {self.name} {self.old} → {self.new}"
        what = self.kind if self.kind == self.name else f"{self.kind} {self.name}"
        if self.kind in {"control", "check", "file", "hardening file"} and not (self.old and self.new):
            return f"{what} {'is new' if self.new else 'is gone'}"
        return f"{what} changed"
