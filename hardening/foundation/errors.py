"""The one error tree. Each family maps to one exit code, which other programs rely on.

GoldsmithError
├── UsageError       1  the command line was wrong, or an invariant of ours broke
├── ContentError     2  a definition, control, profile, policy, waiver, fleet or setting is wrong
├── RefusedError     3  a policy, gate or limit says no
└── OutsideError     4  the world failed: mirror, registry, Docker, disk, a tool
    ├── LateError       a command did not finish in its time
    ├── SilentError     nothing answers at an address: it concerns all that would be asked there
    └── MalformedError  an answer is not what its format says: it concerns one image, and no other
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from traceback import format_exception
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")


class GoldsmithError(Exception):
    """A failure with what a person needs: the message, the evidence, and a hint at what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", evidence: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.evidence = evidence

    def __str__(self) -> str:
        parts = [self.message.replace("\n", "\n  ")]  # what is indented cannot be taken for a line of its own
        if self.evidence:
            parts.append("\n".join(f"  | {line}" for line in self.evidence.splitlines()))
        if self.hint:
            parts.append(f"  hint: {self.hint}")
        return "\n".join(parts)


class UsageError(GoldsmithError):
    """The command line was wrong, or something that must never happen did."""

    exit_code = 1


class ContentError(GoldsmithError):
    """Content is wrong: names the file and the key path inside it."""

    exit_code = 2

    def __init__(
        self, message: str, *, file: Path | str = "", key: str = "", hint: str = "", evidence: str = ""
    ) -> None:
        where = ": ".join(str(part) for part in (file, key) if part)
        super().__init__(f"{where}: {message}" if where else message, hint=hint, evidence=evidence)
        self.file = file
        self.key = key


class RefusedError(GoldsmithError):
    """A policy, a gate or a limit refuses. The message says why, the hint says what would change the answer."""

    exit_code = 3


class OutsideError(GoldsmithError):
    """Something outside failed: a command, the mirror, the registry, Docker, the disk."""

    exit_code = 4


class LateError(OutsideError):
    """A command, which was killed, or something else did not finish in its time."""


class SilentError(OutsideError):
    """There is no connection to an address. It concerns every request there."""


class MalformedError(OutsideError):
    """An answer from outside does not have its format. It concerns only the image that was asked for."""


NOT_UNDERSTOOD = (LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
"""What reading an answer raises that is of another kind, or of tomorrow."""


CODE = Path(__file__).parents[2]
OURS = tuple(f"{CODE}/{package}/" for package in ("hardening", "images", "pipelines"))
SHOWN = 300  # characters of an error that may quote what it could not read
watchers = list[Callable[[BaseException], object]]()
"""Are told of each error that `traced` tells: what a reader did not expect, though it is declared from then on."""


def traced(error: BaseException) -> str:
    """An error with the innermost line of our own code that raised it, as `KeyError('Id') at images/aws/client.py:90`.

    What a person copies from the screen then finds the line, be it the answer or our code that is wrong.
    """
    for tell in watchers:
        tell(error)
    said, at = f"{error!r}", error.__traceback__
    said, ours = said if len(said) <= SHOWN else f"{said[:SHOWN]}…", ""
    while at:
        file = at.tb_frame.f_code.co_filename
        if file.startswith(OURS) and file != __file__:
            ours = f" at {file.removeprefix(f'{CODE}/')}:{at.tb_lineno}"
        at = at.tb_next
    return f"{said}{ours}"


@contextmanager
def understood(who: str) -> Iterator[None]:
    """Raise MalformedError where an answer of `who` that is read meanwhile is not what its format says: its cause and
    the line of ours that raised it are told, since it may be our code that is wrong.
    """
    try:
        yield
    except NOT_UNDERSTOOD as error:
        hint = "report this line if the answer is in order: then Goldsmith reads it wrongly"
        raise MalformedError(f"the answer of {who} is not understood: {traced(error)}", hint=hint) from error


ROOM_HINT = "free some space (./goldsmith image.prune helps), or move `state` in goldsmith.toml to a larger disk"
NO_THREAD = "can't start new thread"  # Python's words, which are all that tells this RuntimeError from others
EXHAUSTED = (errno.EAGAIN, errno.ENOMEM)
FULL = (errno.ENOSPC, errno.EDQUOT)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def machine_error(error: OSError | RuntimeError) -> OutsideError | None:
    """What a failed call means, if it is this machine that failed: a disk that is full, a path that cannot be used, or
    threads and processes of which it, or our container, allows no more.
    """
    if isinstance(error, RuntimeError):
        exhausted = str(error) == NO_THREAD
    else:
        exhausted = error.errno in EXHAUSTED and not error.filename
    if exhausted:
        hint = "raise the limit of processes or of memory (`ulimit -u`, --pids-limit of the container), or end others"
        return OutsideError(f"{error}: this machine, or our container, allows no more", hint=hint)
    if isinstance(error, RuntimeError):
        return None
    where = f"{error.filename or ''}"
    if error.errno in FULL:
        return OutsideError(f"the disk{where and f' that holds {where}'} is full", evidence=str(error), hint=ROOM_HINT)
    if error.errno in UNUSABLE and where:
        hint = "is it another user's, or on a read-only disk? `state` in goldsmith.toml can name another directory"
        return OutsideError(f"{where} cannot be used: {error.strerror}", hint=hint)
    return None


def as_ours(name: str, error: Exception) -> GoldsmithError:
    """`error`, which ended the work on `name`, as a GoldsmithError: the outside world's failure, or a bug of ours
    with its traceback's last lines.
    """
    if isinstance(error, GoldsmithError):
        return error
    if isinstance(error, (OSError, RuntimeError)) and (known := machine_error(error)):
        return known
    evidence = "".join(format_exception(error)[-3:])
    if isinstance(error, OSError):
        return OutsideError(f"{name} failed: {error}", evidence=evidence)
    said = f"{name} failed because of a bug in Goldsmith: {type(error).__name__}: {error}"
    return UsageError(said, evidence=evidence, hint="report this with the lines above; it ended nothing else")


class Problems:
    """Collects everything that is wrong with content, each problem once, where a flow would stop at the first."""

    def __init__(self) -> None:
        self._found: dict[str, ContentError] = {}

    @property
    def found(self) -> tuple[ContentError, ...]:
        """What was wrong, in the order in which it was met."""
        return tuple(self._found.values())

    def of(self, step: Callable[Given, Result], *args: Given.args, **named: Given.kwargs) -> Result | None:
        """What `step` returns; None where it raised a ContentError, which is kept."""
        try:
            return step(*args, **named)
        except ContentError as error:
            self._found.setdefault(str(error), error)
            return None


def raise_all(found: Iterable[ContentError]) -> None:
    """Raise the first of `found`, with the others as its evidence; nothing where there is none."""
    every = [*found]
    if not every:
        return
    first, *others = every
    told = [
        error.message.removeprefix(f"{first.file}: ") + (f" ({error.hint})" if error.hint else "") for error in others
    ]
    first.evidence = "\n".join([*first.evidence.splitlines(), *told])
    raise first


LISTED = 100  # names in a hint: all controls, and not all time zones


def closest(name: str, known: Iterable[str]) -> list[str]:
    """What `name` may have meant, the nearest first; empty where none is near."""
    return get_close_matches(name, sorted(known), n=3, cutoff=0.5)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names what `name` may have meant: the nearest known names, or the known ones when none is near."""
    names = sorted(known)
    if close := closest(name, names):
        return f"did you mean {' or '.join(close)}?"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"known: {', '.join(names[:LISTED])}{more}" if names else "none is defined"
