"""Edge: writes a plan to the file that somebody approves, and reads it back."""

from __future__ import annotations

from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, OutsideError
from pipelines.rollouts.sealed import Sealed, opened, written


def write_plan(sealed: Sealed, file: Path) -> None:
    """Write the plan. Raises OutsideError where the file cannot be written."""
    try:
        file.write_text(written(sealed), encoding="utf-8")
    except OSError as error:
        raise OutsideError(f"{file} cannot be written: {error.strerror}") from None
    until = f"{sealed.expires_at:%Y-%m-%d %H:%M} UTC"
    say(f"written: {file}, good until {until}")


def read_plan(file: Path) -> Sealed:
    """The plan in the file. Raises ContentError where it is none, RefusedError where it was changed."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        hint = "./goldsmith roll.plan FLEET --output FILE writes one"
        raise ContentError(f"cannot be read: {error.strerror}", file=file, hint=hint) from None
    except UnicodeDecodeError:
        raise ContentError("no rollout's plan", file=file) from None
    return opened(text, str(file))
