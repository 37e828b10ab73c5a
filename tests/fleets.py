"""Values for tests of fleets: members, releases, judged members; and a strict fleet in memory with its own time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hardening.findings import Reason
from hardening.foundation.errors import OutsideError
from hardening.model import Enforcement
from images.artifact import Release
from pipelines.fleet.members import Key, Member, Origin, Read, Target
from pipelines.fleet.model import Fleet, Method
from pipelines.fleet.port import MemberFleet
from pipelines.violations import Judged

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fleet(**limits: Any) -> Fleet:
    """A fleet whose rollouts have these limits."""
    return Fleet.model_validate(
        {
            "name": "web",
            "title": "The web servers",
            "owner": "platform team",
            "kind": "docker",
            "selector": {"app": "web"},
            "replacement": limits.pop("replacement", {"definition": "nginx"}),
            "limits": limits,
        }
    )


def release(number: int = 1, *, name: str = "nginx", content: str = "", **more: Any) -> Release:
    """Release `number` of a definition, published that many days after NOW's day before last month."""
    published = NOW - timedelta(days=30) + timedelta(days=number)
    return replace(
        Release(
            name=name,
            repository=f"r.example/{name}",
            digest=f"sha256:{number:064x}",
            content=content or f"sha256:c{number:063x}",
            input_digest="",
            profile="p",
            policy="default",
            published_at=published,
            warn_at=published + timedelta(days=50),
            expires_at=published + timedelta(days=60),
        ),
        **more,
    )


def target(number: int = 9, **more: Any) -> Target:
    """A replacement: release `number`."""
    golden = release(number, **more)
    return Target(f"{golden.repository}@{golden.digest}", golden.digest, golden)


def member(name: str = "web-1", **more: Any) -> Member:
    """A member that runs release 1."""
    ours = Member(f"host/local/docker/{name}", name, f"id-{name}", "r.example/nginx:stable", (release().digest,))
    return replace(ours, **more)


def judged(name: str = "web-1", *rules: str, origin: Origin | None = None, **more: Any) -> Judged:
    """A member that violates `rules`."""
    reasons = tuple(reason(rule, f"web/{name}") for rule in rules)
    return Judged(member(name, **more), origin or Origin(release=release()), reasons)


def reason(rule: str, subject: str = "web/web-1", **more: Any) -> Reason:
    """An enforced reason that began yesterday."""
    since = NOW - timedelta(days=1)
    made = Reason(rule, subject, Enforcement.ENFORCE, f"it is {rule}", "because", "do", since=since, deadline=since)
    return replace(made, **more)


def keeps_its_word(port: MemberFleet, replacement: Target) -> None:
    """The contract of every MemberFleet of one member: a repeated effect is one effect, and all goes back."""
    one = port.describe()[0]
    key = Key("r1", one.id, one.name, one.handle, Method.SURGE)
    for _ in range(2):
        port.create(key, replacement, NOW)
    for _ in range(2):
        port.start(key)
        port.expose(key)
    assert [found.handle for found in port.describe()] == [one.handle], "one that is being prepared is no member"
    assert not port.swapped(key)
    for _ in range(2):
        port.retire(key, timedelta(seconds=1))
    for _ in range(2):
        port.swap(key)
    assert port.swapped(key)
    assert [found.id for found in port.describe()] == [one.id]
    assert not port.read_old(key).good
    for _ in range(2):
        port.revive(key)
    assert not port.swapped(key)
    for _ in range(2):
        port.discard(key)
    assert [found.handle for found in port.describe()] == [one.handle]
    assert not port.read(key).good
    assert port.log(key) == ""


@dataclass
class Time:
    """Time that passes only when somebody waits; `after` are things that happen at a moment."""

    at: datetime = NOW
    after: list[tuple[datetime, Callable[[], None]]] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def wait(self, span: timedelta) -> None:
        assert span > timedelta(0), "a wait of nothing would spin for ever"
        self.at += span
        due = [event for event in self.after if event[0] <= self.at]
        self.after = [event for event in self.after if event[0] > self.at]
        for _, happen in due:
            happen()


class Killed(BaseException):
    """The process is gone: nothing may be done after it, not even cleaning up."""


@dataclass
class Box:
    """One instance in the memory fleet."""

    handle: str
    name: str
    image: str
    running: bool = True
    found_by: frozenset[str] = frozenset()
    rollout: str = ""


class MemoryFleet:
    """A fleet in memory, strict: names are unique, ports are exclusive, and what is impossible on an engine fails.

    `ill` are images that are never healthy. `die_at` kills the process before or after the n-th effect.
    """

    def __init__(self, names: list[str], *, method: Method = Method.SURGE) -> None:
        self.method = method
        self.boxes = {f"id-{name}": Box(f"id-{name}", name, "old", found_by=frozenset({name, "web"})) for name in names}
        self.ill: set[str] = set()
        self.dark = False
        self.effects: list[str] = []
        self.die_at: tuple[int, str] | None = None
        self.dead = False
        self.least_serving = len(names)
        self.made = 0

    def serving(self) -> int:
        """How many instances can be found by a member's names and are healthy."""
        return len({box.name for box in self.boxes.values() if box.running and box.found_by and self._well(box)})

    def _well(self, box: Box) -> bool:
        return box.image not in self.ill

    def _effect(self, name: str, act: Callable[[], None]) -> None:
        if self.dark:
            raise OutsideError("the engine does not answer")
        number = len(self.effects)
        self._perhaps_die(number, "before")
        self.effects.append(name)
        act()
        self.least_serving = min(self.least_serving, self.serving())
        self._perhaps_die(number, "after")

    def _perhaps_die(self, number: int, moment: str) -> None:
        """Once dead, nothing is done any more: not even the cleaning up that the engine would do on its way out."""
        self.dead = self.dead or self.die_at == (number, moment)
        if self.dead:
            raise Killed

    def reborn(self, die_at: tuple[int, str] | None = None) -> None:
        """A new process, which may be killed in its turn after so many more effects."""
        self.dead = False
        self.die_at = die_at and (len(self.effects) + die_at[0], die_at[1])

    def describe(self) -> tuple[Member, ...]:
        if self.dark:
            raise OutsideError("the engine does not answer")
        boxes = [b for b in self.boxes.values() if b.running and not (b.rollout and b.name.endswith(f".{b.rollout}"))]
        return tuple(
            member(box.name, handle=box.handle, healthy=self._well(box), digests=(box.image,))
            for box in sorted(boxes, key=lambda box: box.name)
        )

    def prepare(self, target: Target) -> None:
        self._effect("prepare", lambda: None)

    def create(self, key: Key, target: Target, expiry: datetime) -> None:
        def act() -> None:
            if new := self._new(key):
                del self.boxes[new.handle]
            self._free(key.new_name)
            self.made += 1
            handle = f"new-{self.made}"
            found_by = self.boxes[key.old].found_by if key.method is Method.IN_PLACE else frozenset()
            self.boxes[handle] = Box(handle, key.new_name, target.digest, False, found_by, key.rollout)

        self._effect(f"create {key.name}", act)

    def start(self, key: Key) -> None:
        def act() -> None:
            new = self._new(key)
            assert new is not None
            assert not (key.method is Method.IN_PLACE and self.boxes[key.old].running), "the port is taken"
            new.running = True

        self._effect(f"start {key.name}", act)

    def read(self, key: Key) -> Read:
        return self._read(self._new(key))

    def read_old(self, key: Key) -> Read:
        return self._read(self.boxes.get(key.old))

    def _read(self, box: Box | None) -> Read:
        good = box is not None and box.running and self._well(box)
        return Read(good, "answers" if good else "does not answer")

    def expose(self, key: Key) -> None:
        def act() -> None:
            new = self._new(key)
            assert new is not None
            new.found_by = self.boxes[key.old].found_by

        self._effect(f"expose {key.name}", act)

    def retire(self, key: Key, drain: timedelta) -> None:
        self._effect(f"retire {key.name}", lambda: setattr(self.boxes[key.old], "running", False))

    def swap(self, key: Key) -> None:
        new = self._new(key)
        assert new is not None
        self._effect(f"step aside {key.name}", lambda: self._rename(self.boxes[key.old], key.old_name))
        self._effect(f"take over {key.name}", lambda: self._rename(new, key.name))

    def swapped(self, key: Key) -> bool:
        new, old = self._new(key), self.boxes.get(key.old)
        return bool(new and new.name == key.name and new.running and not (old and old.running))

    def remove_old(self, key: Key) -> None:
        self._effect(f"remove old {key.name}", lambda: self.boxes.pop(key.old, None) and None)

    def revive(self, key: Key) -> None:
        old, new = self.boxes.get(key.old), self._new(key)
        if old is None:
            raise OutsideError("the old one is gone")
        if new:
            self._effect("new gives the name back", lambda: self._rename(new, key.new_name))
            if key.method is Method.IN_PLACE:
                self._effect("new stops", lambda: setattr(new, "running", False))
        self._effect("old takes the name back", lambda: self._rename(old, key.name))
        self._effect("old starts", lambda: setattr(old, "running", True))

    def discard(self, key: Key) -> None:
        def act() -> None:
            if new := self._new(key):
                del self.boxes[new.handle]

        self._effect(f"discard {key.name}", act)

    def differences(self, key: Key) -> tuple[str, ...]:
        return ()

    def log(self, key: Key) -> str:
        return "last words" if self._new(key) else ""

    def _new(self, key: Key) -> Box | None:
        wanted = (key.name, key.new_name)
        return next((b for b in self.boxes.values() if b.rollout == key.rollout and b.name in wanted), None)

    def _free(self, name: str) -> None:
        assert name not in {box.name for box in self.boxes.values()}, f"the name {name} is taken"

    def _rename(self, box: Box, name: str) -> None:
        if box.name != name:
            self._free(name)
            box.name = name
