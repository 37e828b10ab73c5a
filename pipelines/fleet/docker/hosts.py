"""Edge: the containers on the hosts that a fleet names. Each host is read separately; a member stays on its host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Concatenate, ParamSpec, Self, TypeVar

from hardening.foundation.asking import Once, ask_each
from hardening.foundation.errors import GoldsmithError, OutsideError, understood
from hardening.runtime import Observed
from pipelines.fleet.docker.inventory import container_name, together
from pipelines.fleet.docker.members import DockerFleet
from pipelines.fleet.docker.observing import observe
from pipelines.fleet.members import Changes, Key, Member, ReplacementImage, Seen, Unread, require_read
from pipelines.fleet.model import Fleet

Answer = TypeVar("Answer")
Given = ParamSpec("Given")
Open = Callable[[str, str], DockerFleet]


def _there(
    step: Callable[Concatenate[DockerFleet, Key, Given], Answer],
) -> Callable[Concatenate[HostsFleet, Key, Given], Answer]:
    """A step of a member on the host that it runs on, by the name that its container has there."""

    def on_its_host(fleet: HostsFleet, key: Key, /, *args: Given.args, **named: Given.kwargs) -> Answer:
        return step(fleet.host(key.member), replace(key, name=container_name(key.name)), *args, **named)

    return on_its_host


class HostsFleet:
    """The members of `fleet` on all hosts that it names. Close it, or use it as a context.

    `open_host` opens one by its address and label, when it is first needed, and again where that failed. Who asks all
    of them waits `within` for each. Raises OutsideError where a host that is needed cannot be read.
    """

    rehearses = True

    def __init__(self, fleet: Fleet, open_host: Open, within: timedelta) -> None:
        self.fleet = fleet
        self._within = within
        self._opened: dict[str, DockerFleet] = {}
        addresses = fleet.docker.addresses
        self._hosts = {one.label: Once(partial(self._open, open_host, one.text, one.label)) for one in addresses}

    def _open(self, open_host: Open, address: str, label: str) -> DockerFleet:
        self._opened[label] = open_host(address, label)
        return self._opened[label]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for host in tuple(self._opened.values()):
            host.api.close()

    def _ask(self, questions: Mapping[str, Callable[[DockerFleet], Answer]]) -> dict[str, Answer | GoldsmithError]:
        """What each host answers, all side by side, or why it does not."""

        def asked(label: str) -> Answer:
            with understood(label):
                return questions[label](self._hosts[label]())

        return ask_each({label: partial(asked, label) for label in questions}, self._within)

    def seen(self, _group: str = "") -> Seen:
        """The members of the hosts that can be read, and which cannot."""
        found, unread, known = list[Member](), list[Unread](), dict[str, str]()
        for label, one in self._ask(dict.fromkeys(self._hosts, DockerFleet.describe)).items():
            if isinstance(one, GoldsmithError):
                unread.append(Unread(label, one.message))
            elif twice := next((known[member.handle] for member in one if member.handle in known), ""):
                unread.append(Unread(label, f"it has the very containers of {twice}: docker.hosts names a host twice"))
            else:
                known |= dict.fromkeys((member.handle for member in one), label)
                found += one
        return Seen(tuple(found), tuple(unread))

    def describe(self) -> tuple[Member, ...]:
        """Every member that runs now. Raises OutsideError, which names the hosts, where not all can be read."""
        seen = self.seen()
        require_read(seen.unread, "host")
        return seen.members

    def observe(self, members: Sequence[Member]) -> dict[str, Observed]:
        """How members run, by their ids; those of a host that does not answer are unread."""
        by = {label: [one for one in members if self._label(one.id) == label] for label in self._hosts}
        answers = self._ask({label: partial(observe, members=some) for label, some in by.items() if some})
        found = dict[str, Observed]()
        for label, answer in answers.items():
            if isinstance(answer, GoldsmithError):
                found |= {one.id: Observed("container", None, unread=answer.message) for one in by[label]}
            else:
                found |= answer
        return found

    def _label(self, member: str) -> str:
        """What the host of a member is called, by its id; the only one is not in it."""
        return next(iter(self._hosts)) if len(self._hosts) == 1 else member.partition("/")[0]

    def host(self, member: str) -> DockerFleet:
        """The host of a member, by its id."""
        label = self._label(member)
        if label not in self._hosts:
            known = ", ".join(self._hosts)
            raise OutsideError(
                f"the fleet {self.fleet.name} names no host {label}: {known}", hint="see its docker.hosts"
            )
        return self._hosts[label]()

    def find(self, member: str) -> Member | None:
        """The member with this id, if it runs now or should."""
        return self.host(member).find(member)

    def changes(self, member: Member, target: ReplacementImage) -> Changes:
        """What the replacement changes in a member beside its files."""
        return self.host(member.id).changes(member, target)

    def prepare(self, target: ReplacementImage, member: str = "") -> None:
        """Pull the replacement on every host, or on the member's own."""
        labels = [self._label(member)] if member else [*self._hosts]
        together([partial(self._prepare, label, target) for label in labels])

    def _prepare(self, label: str, target: ReplacementImage) -> None:
        self.host(label).prepare(target)

    create = _there(DockerFleet.create)
    start = _there(DockerFleet.start)
    read = _there(DockerFleet.read)
    read_old = _there(DockerFleet.read_old)
    expose = _there(DockerFleet.expose)
    retire = _there(DockerFleet.retire)
    swap = _there(DockerFleet.swap)
    remove_old = _there(DockerFleet.remove_old)
    revive = _there(DockerFleet.revive)
    discard = _there(DockerFleet.discard)
    differences = _there(DockerFleet.differences)
    downtime = _there(DockerFleet.downtime)
    log = _there(DockerFleet.log)
