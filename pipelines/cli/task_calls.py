"""Edge: calls a task once, or once for each of several names, and prints the failures of each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from hardening.foundation.errors import GoldsmithError, UsageError, machine_error
from hardening.foundation.text import visible

ONE_DOCUMENT = ("json", "output", "plan", "markdown", "watch")


def call_task(
    body: Callable[..., int | None], given: Mapping[str, Any], subject: str, together: bool, printed: Collection[str]
) -> int:
    """Call a task with what was given; the worst exit code. `printed`: its arguments that name a form to print.

    The names in `subject` are one call where they belong `together`, else one each: a name that fails has its error
    printed, and stops no other. Raises UsageError where several names would share one document, GoldsmithError where
    the only call fails.
    """
    names = str(given.get(subject, "")).split("\n")
    if together or len(names) == 1:
        return _call(body, {**given, subject: " ".join(names)} if subject in given else given)
    if flag := next((flag for flag in (*ONE_DOCUMENT, *printed) if given.get(flag)), ""):
        form = f" {given[flag]}" if flag in printed else ""
        raise UsageError(f"--{flag}{form} with {len(names)} names: {', '.join(names)}", hint="name one")
    codes = [0]
    for name in names:
        try:
            codes.append(_call(body, {**given, subject: name}))
        except GoldsmithError as error:
            sys.stderr.write(visible(f"{name}: {error}") + "\n")
            codes.append(error.exit_code)
    return max(codes)


def _call(body: Callable[..., int | None], given: Mapping[str, Any]) -> int:
    try:
        return body(**given) or 0
    except (OSError, RuntimeError) as error:
        if known := machine_error(error):
            raise known from None
        raise
