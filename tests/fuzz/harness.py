"""Feeds mutated samples to readers of what comes from outside, and says which of them do harm: what ends by another
error than it declares, needs much time of the processor, or much memory. What a reader trips over, and `understood`
makes a declared error of, is no harm, but told with its place: it may be a mistake of ours.
"""

from __future__ import annotations

import atexit
import json
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from types import CodeType
from typing import Any

from hardening.foundation import errors
from hardening.foundation.errors import NOT_UNDERSTOOD, ContentError, OutsideError, RefusedError
from tests.fuzz.mutation import depth, mutated, smaller

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
OURS = tuple(str(ROOT / room) for room in ("hardening", "images", "pipelines"))
DECLARED = (ContentError, OutsideError, RefusedError)
CPU_SECONDS = 30  # of one input; all take milliseconds
MEMORY = 1 << 30  # bytes more than this process has already
POOL = 400  # inputs that reached something new, of one target
LARGEST, DEEPEST = 100_000, 50  # bytes of one of them, and lists and objects in each other
SMALLER_TRIES = 3_000


@cache
def folder() -> Path:
    """A directory of this process, for readers that take files; it goes with the process."""
    made = Path(mkdtemp(prefix="goldsmith-fuzz-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


class Form(StrEnum):
    """What an input is: a value as JSON has them, the text of one, any text, or bytes."""

    VALUE = "value"
    JSON = "json"
    TEXT = "text"
    BYTES = "bytes"


@dataclass(frozen=True)
class Target:
    """One reader: `read` takes an input, of which `samples` gives good ones; `raises`: what it says of bad ones."""

    name: str
    read: Callable[[Any], object]
    samples: Callable[[], Sequence[Any]]
    form: Form = Form.VALUE
    raises: tuple[type[BaseException], ...] = DECLARED

    @cached_property
    def seeds(self) -> list[Any]:
        """Good inputs."""
        return list(self.samples())

    def inputs(self, random: Random, pool: Sequence[Any]) -> Any:
        """A new input, made of what is in the pool; and what goes into the pool if it reaches something new."""
        made = mutated(random.choice(pool), pool, random)
        if self.form is not Form.JSON:
            return made, made
        text = json.dumps(made)
        return made, mutated(text, [text], random) if random.random() < 0.2 else text

    def sent(self, seed: Any) -> Any:
        """A seed as `read` takes it."""
        return json.dumps(seed) if self.form is Form.JSON else seed


class HungError(BaseException):
    """An input took more time of the processor than all others."""


@dataclass(frozen=True)
class Harm:
    """An input that does harm, and how: the kind of error and the place in our code, which tell two apart."""

    target: Target
    given: Any
    error: BaseException

    @property
    def where(self) -> str:
        """The innermost line of ours."""
        lines = [(frame.f_code.co_filename, at) for frame, at in traceback.walk_tb(self.error.__traceback__)]
        ours = [one for one in lines if one[0].startswith(OURS) and one[0] != errors.__file__] or lines
        return f"{type(self.error).__name__} at {Path(ours[-1][0]).name}:{ours[-1][1]}" if ours else "?"

    @property
    def told(self) -> str:
        """All of it."""
        return "".join(traceback.format_exception(self.error))


def found_of(target: Target, given: Any) -> tuple[Harm | None, list[Harm]]:
    """What the input does, as `harm_of`; and what a reader tripped over that became a declared error, or was one."""
    tripped = list[BaseException]()
    errors.watchers.append(tripped.append)
    try:
        harm = harm_of(target, given, tripped)
    finally:
        errors.watchers.remove(tripped.append)
    return harm, [Harm(target, given, one) for one in tripped]


def harm_of(target: Target, given: Any, tripped: list[BaseException] | None = None) -> Harm | None:
    """What the input does; None where it is read, or refused as declared."""
    with suppress(*target.raises):
        try:
            with _time_limited(), warnings.catch_warnings():
                warnings.simplefilter("error")
                target.read(given)
        except (Exception, HungError) as error:
            if isinstance(error, target.raises):
                if tripped is not None and isinstance(error, NOT_UNDERSTOOD):
                    tripped.append(error)
                return None
            return Harm(target, given, error)
    return None


def refused_or_read(*asks: Callable[[], object]) -> None:
    """Several questions to one input: that the first is refused says nothing of the others."""
    for ask in asks:
        with suppress(*DECLARED):
            ask()


@contextmanager
def _time_limited() -> Iterator[None]:
    """By the processor's time of this process, which does not depend on what else the machine does."""

    def late(*_: object) -> None:
        raise HungError(f"more than {CPU_SECONDS} s of the processor")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def memory_limited() -> Iterator[None]:
    """For this process: who takes more gets a MemoryError. What threads reserve and do not use is not counted."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    resource.setrlimit(resource.RLIMIT_DATA, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def smallest(harm: Harm) -> Harm:
    """The same harm by an input of which nothing can be left out."""
    tries = 0
    while True:
        for given in smaller(harm.given):
            tries += 1
            if tries > SMALLER_TRIES:
                return harm
            found, tripped = found_of(harm.target, given)
            if same := next((one for one in (found, *tripped) if one and one.where == harm.where), None):
                harm = same
                break
        else:
            return harm


# -- the corpus --------------------------------------------------------------------------------------------------------

MOMENT = "$moment"


def kept(target: Target) -> dict[str, Any]:
    """The inputs that did harm once, by the names of their files."""
    folder = CORPUS / target.name
    return {file.name: loaded(target, file.read_bytes()) for file in sorted(folder.glob("*"))}


def loaded(target: Target, data: bytes) -> Any:
    """An input as a file of the corpus keeps it."""
    if target.form is Form.BYTES:
        return data
    text = data.decode("utf-8", "surrogatepass")
    return loaded_moments(text) if target.form is Form.VALUE else text


def loaded_moments(text: str) -> Any:
    """JSON, in which an object of one key may stand for a moment."""
    return json.loads(text, object_hook=_moment)


def dumped(target: Target, given: Any) -> bytes:
    """What such a file holds."""
    if target.form is Form.BYTES:
        return bytes(given)
    text = given if isinstance(given, str) and target.form is not Form.VALUE else json.dumps(given, default=_as_moment)
    return str(text).encode("utf-8", "surrogatepass")


def _as_moment(value: datetime) -> dict[str, str]:
    return {MOMENT: value.isoformat()}


def _moment(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[MOMENT]) if value.keys() == {MOMENT} else value


# -- what an input reaches ---------------------------------------------------------------------------------------------


@dataclass
class Reached:
    """The lines of our code that inputs of one target have reached. A line costs nothing once it was reached."""

    lines: set[tuple[CodeType, int]] = field(default_factory=set)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For as long as the block lasts; before Python 3.12 nothing is seen."""
        if sys.version_info < (3, 12):
            yield
            return
        seen = sys.monitoring

        def line(code: CodeType, number: int) -> Any:
            if code.co_filename.startswith(OURS):
                self.lines.add((code, number))
            return seen.DISABLE

        seen.use_tool_id(seen.COVERAGE_ID, "goldsmith fuzz")
        seen.register_callback(seen.COVERAGE_ID, seen.events.LINE, line)
        seen.set_events(seen.COVERAGE_ID, seen.events.LINE)
        seen.restart_events()
        try:
            yield
        finally:
            seen.set_events(seen.COVERAGE_ID, 0)
            seen.free_tool_id(seen.COVERAGE_ID)


@dataclass
class Fuzzed:
    """One target over time: its pool, which grows by what reaches new lines, and the harms by their places; so is what
    a reader tripped over (`understood`), which counts as refused.
    """

    target: Target
    random: Random
    pool: list[Any] = field(default_factory=list)
    inputs: int = 0
    reached: Reached = field(default_factory=Reached)
    harms: dict[str, Harm] = field(default_factory=dict)
    understood: dict[str, Harm] = field(default_factory=dict)

    def go_on(self, inputs: int, *, watch: bool = True) -> list[Harm]:
        """Feed so many more; the new harms. Without `watch` the pool stays as it is."""
        self.pool = self.pool or [*self.target.seeds]
        found = list[Harm]()
        with self.reached.watching() if watch else nullcontext(), memory_limited():
            for _ in range(inputs):
                self.inputs += 1
                before = len(self.reached.lines)
                made, given = self.target.inputs(self.random, self.pool)
                harm, tripped = found_of(self.target, given)
                for one in tripped:
                    self.understood.setdefault(one.where, one)
                if harm and harm.where not in self.harms:
                    self.harms[harm.where] = harm
                    found.append(harm)
                if len(self.reached.lines) > before and not harm:
                    self._keep(made)
        return found

    def _keep(self, made: Any) -> None:
        if depth(made) > DEEPEST or len(dumped(self.target, made)) > LARGEST:
            return
        seeds = len(self.target.seeds)
        if len(self.pool) >= POOL:
            del self.pool[self.random.randrange(seeds, len(self.pool))]
        self.pool.append(made)
