"""Edge: tells owners that their application's base has a newer release, and requests a build on it.

Once for each application and base release: the ledger counts each try before it is made, so that a crash repeats it at
most, with the same key; a lease keeps other processes from making it meanwhile. A try that fails is repeated by the
next run, and after the last one a person is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, RefusedError
from hardening.foundation.process import NETWORK, run
from hardening.foundation.settings import Settings, rehearsing
from images.ledger import BaseUptake
from pipelines.contract import Line
from pipelines.fleet.applications import Application, behind
from pipelines.fleet.model import Rebuild
from pipelines.fleet.violations import Judged, named
from pipelines.rollout.exclusive import alone
from pipelines.rollout.notify import Message, notifier, post
from pipelines.rollout.session import FleetSession
from pipelines.rollout.state import Event

TOLD, REBUILD = "told", "rebuild"
MOST_TRIES = 5
ONCE_MORE = 1000
MARGIN = timedelta(minutes=2)  # more than telling takes, and what a try takes beyond its timeouts


class UptakeLine(Line):
    """`fleet.rebuild`: an application image whose golden base has a newer release, and what is done about it.

    `state`: untold, told (its owner builds it), due, asked, failing (it is tried again), failed (a person is needed).
    `detail`: why the last try, of asking or telling, failed.
    """

    fleet: str
    owner: str
    image: str
    base: str
    newest: str
    members: tuple[str, ...]
    state: str
    tries: int = 0
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether the last try failed."""
        return self.state in ("failing", "failed")

    @property
    def text(self) -> str:
        """It in a few words."""
        return f"{self.image} on {self.newest}: rebuild {self.state}" + (f" ({self.detail})" if self.detail else "")


def take_up(
    at: FleetSession, judged: Sequence[Judged], *, apply: bool, most_tries: int = MOST_TRIES
) -> tuple[UptakeLine, ...]:
    """The applications of the fleet that stand on an older base; with `apply`, tell and ask where that is to be done.

    `most_tries`: a person who has mended what failed asks for one more. What cannot be asked
    is a line. A rehearsal tells and asks nobody, and says so. Raises OutsideError where the ledger or registry fails.
    """
    tagged = None
    if at.fleet.replacement.tag and any(one.on_base for one in judged):
        with suppress(ContentError, RefusedError):  # who plans a rollout to it is told
            tagged = at.origins().target()
    found = behind(at.fleet, judged, tagged)
    if apply and found and rehearsing(at.context.settings):
        say(f"rehearsal, so no message is sent about {at.fleet.name}: {Event.REBUILD}, and no rebuild is requested")
        apply = False
    return tuple(_taken(at, one, most_tries if apply else 0) for one in found)


def _taken(at: FleetSession, one: Application, most_tries: int) -> UptakeLine:
    told = BaseUptake(TOLD, f"{one.fleet}/{one.image}", one.newest.content, one.fleet, at.now())
    asked = replace(told, kind=REBUILD)
    if most_tries:
        _tell(at, one, told, most_tries)
    if most_tries and at.fleet.rebuild:
        _ask(at, one, at.fleet.rebuild, asked, most_tries)
    known = _asked(at, one, asked) if at.fleet.rebuild else at.context.ledger.uptake(told)
    return UptakeLine(
        fleet=one.fleet, owner=one.owner, image=one.image, base=named(one.base), newest=named(one.newest),
        members=one.members, state=_state(at.fleet.rebuild, known), tries=known.tries if known else 0,
        detail=known.detail if known else "",
    )  # fmt: skip


def _state(rebuild: Rebuild | None, known: BaseUptake | None) -> str:
    if known is None:
        return "due" if rebuild else "untold"
    if known.done:
        return "asked" if rebuild else "told"
    if not rebuild:
        return "untold"
    return "failing" if known.tries < MOST_TRIES else "failed"


def _asked(at: FleetSession, one: Application, wanted: BaseUptake) -> BaseUptake | None:
    """What came of asking: for any fleet that runs the application where that was done, else for this one."""
    known = at.context.ledger.uptakes(REBUILD, wanted.base)
    anywhere = (other for other in known if other.done and other.subject == f"{other.fleet}/{one.image}")
    return next(anywhere, None) or at.context.ledger.uptake(wanted)


def _alone(at: FleetSession, what: str, wanted: BaseUptake, lasting: timedelta) -> AbstractContextManager[bool]:
    return alone(at.context.ledger, f"{wanted.kind} {what} {wanted.base}", at.context.actor, lasting)


def _tell(at: FleetSession, one: Application, wanted: BaseUptake, most_tries: int) -> None:
    """Tell people once: who is told by nobody, because no target is set or takes it, sees it in the line."""
    ledger, settings = at.context.ledger, at.context.settings
    if not (settings.notify.command or settings.notify.webhook_file):
        return
    with _alone(at, wanted.subject, wanted, MARGIN) as alone:
        if alone and (begun := ledger.begin_uptake(wanted, most_tries)):
            told = notifier(settings)(Message(Event.REBUILD, one.fleet, "", f"{one.owner}: {one.text}", at.now()))
            failure = "" if told else "no target of [notify] took the message"
            ledger.end_uptake(begun, failure, done=told)
            _audit(at, one, "tell of a newer base", one.text, failure)


def _ask(at: FleetSession, one: Application, rebuild: Rebuild, wanted: BaseUptake, most_tries: int) -> None:
    ledger = at.context.ledger
    with _alone(at, one.image, wanted, 4 * rebuild.timeout + MARGIN) as alone:
        if not alone or ((known := _asked(at, one, wanted)) and known.done):
            return
        if (begun := ledger.begin_uptake(wanted, most_tries)) is None:
            return
        failure = ""
        try:
            _trigger(at.context.settings, rebuild, one.message(at.now()))
        except GoldsmithError as error:
            failure = error.message  # without evidence: what a program prints may hold what nobody should read
        ledger.end_uptake(begun, failure, done=not failure)
        _audit(at, one, "ask for a rebuild", f"{one.text}; try {begun.tries}", failure)


def _audit(at: FleetSession, one: Application, action: str, said: str, failure: str) -> None:
    failed = f" failed: {failure}" if failure else ""
    at.context.ledger.audit(at.now(), at.context.actor, action, one.fleet, f"{said}{failed}")


def _trigger(settings: Settings, rebuild: Rebuild, message: str) -> None:
    seconds = rebuild.timeout.total_seconds()
    if rebuild.command:
        if (program := rebuild.command[0]) not in settings.rebuild_programs:
            raise RefusedError(f"rebuild.command: {program} is not one of the settings' rebuild_programs")
        run(rebuild.command, passes=NETWORK, stdin=message, timeout=seconds)
    elif rebuild.webhook_file:
        post(Path(rebuild.webhook_file), "rebuild.webhook_file", message, seconds)
