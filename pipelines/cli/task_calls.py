"""Edge: the calls of a task, one for each of several names, and the failures of each."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hardening.foundation.errors import GoldsmithError, UsageError, machine_error
from hardening.foundation.text import visible

ONE_DOCUMENT = ("json", "output", "plan", "markdown", "watch")


def calls_of(
    given: Mapping[str, Any], subject: str, together: bool, printed: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arguments of each call of a task, with its name where there are several.

    The names in `subject` are one call where they belong `together`, else one each. `printed`: its arguments that name
    a form to print. Raises UsageError where several names would share one document.
    """
    names = str(given.get(subject, "")).split("\n")
    if together or len(names) == 1:
        yield "", {**given, subject: " ".join(names)} if subject in given else {**given}
        return
    if flag := next((flag for flag in (*ONE_DOCUMENT, *printed) if given.get(flag)), ""):
        form = f" {given[flag]}" if flag in printed else ""
        raise UsageError(f"--{flag}{form} with {len(names)} names: {', '.join(names)}", hint="name one")
    yield from ((name, {**given, subject: name}) for name in names)


@contextmanager
def failing(name: str, codes: list[int]) -> Iterator[None]:
    """Print the error of a call that has a `name`, and add its exit code to `codes`, so that it stops no other.

    Raises GoldsmithError where the only call fails.
    """
    try:
        yield
    except (GoldsmithError, OSError, RuntimeError) as error:
        known = error if isinstance(error, GoldsmithError) else machine_error(error)
        if not known:
            raise
        if not name:
            raise known from None
        sys.stderr.write(visible(f"{name}: {known}") + "\n")
        codes.append(known.exit_code)
