"""Moves the pins of upstream images: what each tag names now, queried by HEAD, and which of it is old enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from hardening.catalog import judging_roots
from hardening.foundation.errors import GoldsmithError, MalformedError, UsageError
from hardening.foundation.settings import pretended
from images.artifact import Package
from images.context import Context
from images.packages import debian
from images.plan.cooldown import TagChoice, choose, until
from images.plan.holes import KnownHoles
from images.plan.upstream import Upstream
from images.registry.heads import Heads
from images.registry.references import split

Moved = Literal["pinned", "moved", "unchanged", "waits"]


@dataclass(frozen=True)
class TagState:
    """What a tag is pinned to, what it names now, and what may be pinned. `urgent`: the grave vulnerabilities that this
    fixes.
    """

    reference: str
    pinned: str
    choice: TagChoice
    urgent: tuple[str, ...] = ()


@dataclass(frozen=True)
class LockMove:
    """What happened to the pin of one upstream image.

    `digest` is what is pinned now, `newest` what the tag names; `waits_until` is when that may be taken, if it waits.
    """

    base: str
    action: Moved
    digest: str
    newest: str
    waits_until: datetime | None
    why: str


class TagWatch:
    """Queries what the tags of upstream bases name now. The ledger records when each digest was first seen.

    `may_pull`: where a registry tells no digest by HEAD, its manifest is fetched. `at_once`: a person will not wait, so
    that a registry is asked which wants to be left alone.
    """

    def __init__(
        self, context: Context, holes: KnownHoles | None = None, *, may_pull: bool = False, at_once: bool = False
    ) -> None:
        self.context, self.may_pull = context, may_pull
        self.upstream = Upstream(context.settings, context.store, context.now, context.definitions.values())
        self.heads = Heads(context.settings, context.now, at_once=at_once)
        self.holes = holes or KnownHoles(context)

    def look(self, reference: str) -> TagState:
        """What may be taken of a tag. Raises NotFoundError where it is gone, OutsideError where it cannot be asked."""
        context, pinned, newest = self.context, self.upstream.pinned(reference), self._newest(reference)
        sights = context.ledger.look_at_tag(
            reference, [newest], context.now, settled={pinned or newest}, keep=not pretended(context.settings)
        )
        cooldown = cooldown_of(context, reference)
        young = pinned and newest != pinned and until(sights.of(newest), cooldown, context.now)
        urgent = self._urgent(reference, newest) if young else ()
        choice = choose(sights, pinned, newest, cooldown, context.now, urgent)
        return TagState(reference, pinned, choice, urgent)

    def _newest(self, reference: str) -> str:
        try:
            return self.heads.digest(reference)
        except MalformedError:
            if not self.may_pull:
                raise
        return self.upstream.digest_of(reference)

    def _urgent(self, reference: str, newest: str) -> tuple[str, ...]:
        """The exploited or critical holes of what is pinned that the newest image closes, by versions of the archive.

        That one is fetched only where the pinned one has such a hole. None where either cannot be looked into: a fix
        that is not proved waits.
        """
        try:
            content = self.upstream.fetch(reference)
            return closed_by(self.context, self.upstream, self.holes, reference, content, newest, fresh=self.may_pull)
        except GoldsmithError as error:
            self.holes.missing[f"what {reference} {newest[:19]} closes"] = error.message
            return ()


def closed_by(
    context: Context, upstream: Upstream, holes: KnownHoles, reference: str, content: str, newest: str, *,
    fresh: bool = True,
) -> tuple[str, ...]:  # fmt: skip
    """The exploited or critical holes of an image in the store, `content`, that the digest `newest` of `reference`
    closes, by versions of the archive; `fresh`: of its newest index.

    The newest is fetched only where the old one has such a hole. Raises GoldsmithError where either cannot be looked
    into.
    """

    def packages(of: str) -> tuple[Package, ...]:
        return tuple(debian.installed(upstream.status(of)))

    bootstrap, old = upstream.bootstrap_of(content, reference), packages(content)
    there = {one.id for package in old for one in holes.open_in(bootstrap.suite, package)}
    if not holes.grave(there):
        return ()
    new = upstream.bring(f"{split(reference)[0]}@{newest}")
    if fresh:
        context.index.refresh(bootstrap)
    return holes.grave_closed_between(bootstrap, old, packages(new))


def cooldown_of(context: Context, reference: str) -> timedelta:
    """How long a tag's newest digest waits: the longest of what stands on it, since one pin is for all of them."""
    lifecycles = [
        one.definition.lifecycle for one in context.definitions.values() if one.definition.base.image == reference
    ]
    own = [context.settings.cooldown if one.cooldown is None else one.cooldown for one in lifecycles]
    return max(own, default=context.settings.cooldown)


def move_locks(
    context: Context, references: Iterable[str], *, now_because: str = ""
) -> tuple[dict[str, LockMove], Mapping[str, GoldsmithError]]:
    """Move the pin of each upstream image to the newest digest that is old enough; what became of it, and what failed.

    `now_because`: a person will not wait, and why; the audit keeps it. One that fails stops no other.
    """
    watch = TagWatch(context, may_pull=True, at_once=bool(now_because))
    moves, errors = dict[str, LockMove](), dict[str, GoldsmithError]()
    for reference in dict.fromkeys(references):
        try:
            moves[reference] = _move(watch, watch.look(reference), now_because)
        except GoldsmithError as error:
            errors[reference] = error
    return moves, errors


def nightly_upstreams(context: Context) -> tuple[str, ...]:
    """The upstream images that a night asks for: all. It moves their pins where the settings let it."""
    return tuple(sorted({one for each in context.definitions.values() if (one := each.definition.base.image)}))


def _move(watch: TagWatch, state: TagState, now_because: str) -> LockMove:
    """Move one pin as far as it may be. Raises UntrustedError where a rule says who signs it, and nobody did."""
    choice, reference, context = state.choice, state.reference, watch.context
    wanted = choice.newest if now_because and choice.newest != state.pinned else choice.digest
    if not wanted:
        action: Moved = "waits" if choice.until else "unchanged"
        return LockMove(reference, action, state.pinned, choice.newest, choice.until, choice.because)
    early = choice.until is not None and wanted == choice.newest
    why = f"without waiting: {now_because}" if early and now_because else choice.because
    watch.upstream.lock(reference, None if state.pinned else _root_for(context, reference), digest=wanted)
    told = f"{state.pinned or 'nothing'} → {wanted}: {why}"
    context.ledger.audit(context.now, context.actor, "lock", reference, told)
    waits = choice.until if wanted != choice.newest else None
    return LockMove(reference, "moved" if state.pinned else "pinned", wanted, choice.newest, waits, why)


def _root_for(context: Context, reference: str) -> Path | None:
    """The content root whose lock file pins a new reference: the first whose definitions stand on it, and which may
    judge if one of them may.
    """
    users = {one.folder.parents[2] for one in context.definitions.values() if one.definition.base.image == reference}
    return next((root for root in (*judging_roots(context.settings), *context.settings.roots) if root in users), None)


def require_reason(now: bool, reason: str) -> str:
    """The reason of a person who will not wait; empty where they do. Raises UsageError where it is missing."""
    if now and not reason.strip():
        raise UsageError(
            "--now takes what has not been seen for long, so the audit must say why", hint='--reason "why"'
        )
    return reason.strip() if now else ""
