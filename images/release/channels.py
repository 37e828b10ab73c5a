"""Channels: moving tags of a definition's repository, and the history that lets them move back.

`<channel>-previous` is kept beside each channel, so that the registry alone knows where a rollback would go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from hardening.catalog import require_may_publish
from hardening.findings import Verdict
from hardening.foundation.errors import RefusedError, UsageError
from images import documents
from images.artifact import Release
from images.documents import Document
from images.ledger import Move
from images.registry.referrers import attach, attached, latest, read
from images.release import lifecycle
from images.release.lifecycle import Status
from images.release.published import CHANNELS, PREVIOUS, Publisher, release_at
from images.release.revocations import with_children

Gate = Callable[[Release], Verdict]
"""What judges a release's content by today's policy and data. Raises RefusedError where it cannot."""


@dataclass(frozen=True)
class Change:
    """A channel that moved, or would: release digests before and after. `note` says what a person should know."""

    name: str
    channel: str
    before: str
    after: str
    applied: bool
    note: str = ""


def promote(to: Publisher, name: str, policy: str, gate: Gate, *, apply: bool = True) -> Change:
    """Let `stable` point to what `candidate` points to.

    Raises RefusedError when that release is revoked, has expired, `gate` refuses it today, or the verdict that it
    carries refuses it, is missing, or is by another policy than `policy`: what was let through for a trial does not
    become `stable` by the way.
    """
    settings = to.registry.settings
    require_may_publish(settings.roots, settings.judging, policy)
    repository = to.registry.repository(name)
    chosen = to.revoked(release_at(to.registry, f"{repository}:candidate", to.prefix))
    if chosen.name != name:
        raise RefusedError(
            f"what {repository}:candidate points to calls itself {chosen.name}",
            hint=f"who can write to that repository? ./goldsmith image.publish {name} publishes a right one",
        )
    refuse_ended(chosen, to.now)
    _refuse_carried(to, chosen, policy)
    refuse_judged(chosen, gate(chosen), policy)
    return _move(to, chosen, "stable", "promote", apply=apply)


def rollback(to: Publisher, name: str, *, channel: str = "stable", reason: str = "", apply: bool = True) -> Change:
    """Let the channel point to the release that it pointed to before; a revoked one only where there is no other.

    Raises RefusedError when there is none, or it is expired or revoked and no `reason` says why it is better.
    """
    chosen = chosen_back(_earlier(to, name, channel), name, channel, to.now, reason)
    if apply and reason:
        to.note("rollback", f"{chosen.repository}:{channel}", reason)
    note = worse(chosen, to.now)
    return replace(_back(to, chosen, channel, "rollback", apply=apply), note=note and f"this release {note}")


def chosen_back(earlier: Sequence[Release], name: str, channel: str, now: datetime, reason: str) -> Release:
    """Which of the earlier releases, the nearest first, a rollback goes to. Raises RefusedError."""
    standing = [release for release in earlier if not release.revoked_at]
    chosen = next(iter([*standing, *earlier]), None)
    if chosen is None:
        raise RefusedError(
            f"{name} has no earlier release that {channel} could go back to",
            hint="build and publish a good one, then ./goldsmith image.promote",
        )
    if (why := worse(chosen, now)) and not reason.strip():
        raise RefusedError(
            f"{channel} of {name} would go back to {chosen.digest[:19]}, which {why}",
            hint=f'if it is better than what {channel} names now: ./goldsmith image.rollback {name} --reason "why"; '
            "else build and publish a good one",
        )
    return chosen


def worse(release: Release, now: datetime) -> str:
    """Why a release is nothing to go back to without a reason; empty where it is."""
    if release.revoked_at:
        return f"was revoked: {release.revoked_reason}"
    return f"expired on {release.expires_at:%Y-%m-%d}" if release.expires_at <= now else ""


def revoke(to: Publisher, reference: str, reason: str, *, apply: bool = True) -> tuple[Change, ...]:
    """Take a release out of policy everywhere, and move the channels that point to it back where they can.

    What is wrong is inside the content, so every release over the same content goes with it, and every one that is
    built on it.
    """
    if not reason.strip():
        raise UsageError("a revocation needs a reason", hint="--reason says why, to everyone who meets the image")
    release = release_at(to.registry, reference, to.prefix)
    over = {release.digest: release, **{one.digest: one for one in to.ledger.releases_of_content(release.content)}}
    ours = f"{to.registry.address}/"
    every = [one for one in with_children(to.ledger, over).values() if one.repository.startswith(ours)]
    for one in every if apply else ():
        if not one.pruned_at:
            same = one.content == release.content
            _revoke_one(to, one, reason if same else f"its base {release.name} was revoked: {reason}")
    left = sorted({(one.name, one.repository) for one in every}, key=lambda pair: (pair[0] != release.name, pair))
    gone = {digest for one in every for digest in (one.digest, one.content)}
    changes = (_leave(to, *where, channel, gone, apply=apply) for where in left for channel in CHANNELS)
    return tuple(change for change in changes if change)


def point(to: Publisher, repository: str, channel: str, digest: str, reason: str, back: str = "") -> str:
    """Move a channel's tag; returns where it pointed. Done again, it changes nothing.

    `back` is where a rollback would go from there; by default to where the channel pointed until now.
    """
    found = to.registry.find(f"{repository}:{channel}")
    before = found.digest if found else ""
    if before != digest:
        if back or before:
            to.registry.tag(repository, back or before, f"{channel}{PREVIOUS}")
        to.registry.tag(repository, digest, channel)
    moves = to.ledger.moves(repository, channel)
    if not moves or moves[-1].digest != digest:
        to.ledger.record_move(Move(repository, channel, digest, to.now, reason))
        to.note(reason, f"{repository}:{channel}", f"{before or 'nothing'} → {digest}")
    return before


def trail(moves: Sequence[Move]) -> tuple[str, ...]:
    """Where a channel came from, the present end last: going back to a release forgets what came after it."""
    stack: list[str] = []
    for move in moves:
        if move.digest in stack:
            del stack[stack.index(move.digest) :]
        stack.append(move.digest)
    return tuple(stack)


def _move(to: Publisher, chosen: Release, channel: str, reason: str, back: str = "", *, apply: bool) -> Change:
    found = to.registry.find(f"{chosen.repository}:{channel}")
    before = found.digest if found else ""
    if apply:
        point(to, chosen.repository, channel, chosen.digest, reason, back)
    note = "" if before != chosen.digest else "already there"
    return Change(chosen.name, channel, before, chosen.digest, applied=apply, note=note)


def _back(to: Publisher, earlier: Release, channel: str, reason: str, *, apply: bool) -> Change:
    """Move a channel back; what it left is forgotten, so that the next rollback goes further back and not forth."""
    history = trail(to.ledger.moves(earlier.repository, channel))
    below = history[: history.index(earlier.digest)] if earlier.digest in history else ()
    return _move(to, earlier, channel, reason, below[-1] if below else earlier.digest, apply=apply)


def refuse_ended(release: Release, now: datetime) -> None:
    """Raise RefusedError where a release is revoked or has expired."""
    shown = f"{release.name} {release.digest[:19]}"
    state = lifecycle.status(release, now)
    if state is Status.REVOKED:
        raise RefusedError(f"{shown} was revoked: {release.revoked_reason}", hint="publish another one first")
    if state is Status.EXPIRED:
        hint = f"./goldsmith image.publish {release.name} re-dates it"
        raise RefusedError(f"{shown} expired on {release.expires_at:%Y-%m-%d}", hint=hint)


def _refuse_carried(to: Publisher, release: Release, policy: str) -> None:
    """Raise RefusedError unless the verdict that a release carries lets it through, and is about it.

    It proves nothing, for whoever may push could have written it; but who says no, says no.
    """
    found = latest(attached(to.registry, release.repository, release.digest), documents.VERDICT)
    if found is None:
        hint = f"./goldsmith image.publish {release.name} judges it"
        raise RefusedError(f"{release.name} {release.digest[:19]} carries no verdict: it was never judged", hint=hint)
    refuse_judged(release, documents.from_bytes(Verdict, read(to.registry, release.repository, found)), policy)


def refuse_judged(release: Release, verdict: Verdict, policy: str) -> None:
    """Raise RefusedError unless a verdict is about this release, by this policy, and lets it through."""
    shown = f"{release.name} {release.digest[:19]}"
    if verdict.subject != release.name or verdict.content not in ("", release.content):
        raise RefusedError(
            f"{shown}: its verdict is about {verdict.subject} {verdict.content[:19]}".rstrip(),
            hint=f"./goldsmith image.publish {release.name} judges it; who attached that one?",
        )
    if verdict.policy != policy:
        raise RefusedError(
            f"{shown} was judged by the policy {verdict.policy}, and the policy {policy} decides on stable",
            hint=f"./goldsmith image.publish {release.name} judges it by {policy}; if {verdict.policy} is meant: "
            f"./goldsmith image.promote {release.name} --policy {verdict.policy}",
        )
    if not verdict.allowed:
        reasons = "\n".join(reason.what for reason in verdict.refusals)
        raise RefusedError(f"{shown} is refused by policy {verdict.policy}", evidence=reasons)


def _earlier(to: Publisher, name: str, channel: str, without: Collection[str] = ()) -> list[Release]:
    """The releases before the present one that are still there, the nearest first, revoked where anything says so."""
    repository = to.registry.repository(name)
    now = to.registry.find(f"{repository}:{channel}")
    history = trail(to.ledger.moves(repository, channel))
    present = now.digest if now else ""
    before = history[: history.index(present)] if present in history else history
    there = [one for one in reversed(before) if one not in without and to.registry.find(f"{repository}@{one}")]
    return [to.revoked(release_at(to.registry, f"{repository}@{one}", to.prefix)) for one in there]


def _leave(to: Publisher, name: str, repository: str, channel: str, revoked: set[str], *, apply: bool) -> Change | None:
    """Move a channel off revoked releases; where there is nothing to go back to, say so and leave it."""
    found = to.registry.find(f"{repository}:{channel}")
    if not found or revoked.isdisjoint((found.digest, found.content(to.registry.settings.platform))):
        return None
    earlier = next((one for one in _earlier(to, name, channel, revoked) if not one.revoked_at), None)
    if earlier:
        return _back(to, earlier, channel, "revoke", apply=apply)
    note = "no earlier release to go back to: it still points to the revoked one; publish a good one"
    return Change(name, channel, found.digest, found.digest, applied=False, note=note)


def _revoke_one(to: Publisher, release: Release, reason: str) -> None:
    """Attach the revocation to release and content, and today as the end that other tools read; tell the ledger."""
    index = to.registry.find(f"{release.repository}@{release.digest}")
    if index is None:
        to.ledger.revoke(release.digest, reason, to.now)
        return
    said = {f"{to.prefix}revoked-at": lifecycle.timestamp(to.now), f"{to.prefix}revoked-reason": reason}
    revocation = Document(documents.REVOCATION, b"", said)
    ended = Document(documents.LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{to.now:%Y-%m-%d}"})
    content = to.registry.find(f"{release.repository}@{release.content}")
    both = {one.digest: one for one in (content, index) if one}  # the content first: it stops what is dated meanwhile
    for subject in both.values():
        if not latest(attached(to.registry, release.repository, subject.digest), documents.REVOCATION):
            more = (ended,) if subject.digest == release.digest else ()
            attach(to.registry, release.repository, subject.descriptor, (*more, revocation))
            to.note("revoke", f"{release.repository}@{subject.digest}", reason)
    to.ledger.record_release(release_at(to.registry, f"{release.repository}@{release.digest}", to.prefix))
