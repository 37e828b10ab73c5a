"""Channels: moving tags of a definition's repository, and the history that lets them move back.

`<channel>-previous` is kept beside each channel, so that the registry alone knows where a rollback would go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hardening.catalog import require_may_publish
from hardening.findings import Verdict
from hardening.foundation.errors import RefusedError, UsageError
from images import documents
from images.artifact import Release
from images.documents import Document
from images.ledger import Move
from images.publication import lifecycle
from images.publication.lifecycle import Status
from images.publication.published import CHANNELS, PREVIOUS, Publisher, release_at
from images.publication.referrers import attach, attached, latest, read


@dataclass(frozen=True)
class Change:
    """A channel that moved, or would: release digests before and after. `note` says what a person should know."""

    name: str
    channel: str
    before: str
    after: str
    applied: bool
    note: str = ""


def promote(to: Publisher, name: str, policy: str, *, apply: bool = True) -> Change:
    """Let `stable` point to what `candidate` points to.

    Raises RefusedError when that release is revoked, has expired, or its verdict refuses it, is missing, or is by
    another policy than `policy`: what was let through for a trial does not become `stable` by the way.
    """
    settings = to.registry.settings
    require_may_publish(settings.roots, settings.judging, policy)
    repository = to.registry.repository(name)
    chosen = release_at(to.registry, f"{repository}:candidate", to.prefix)
    _fit(to, chosen, policy)
    return _move(to, chosen, "stable", "promote", apply=apply)


def rollback(to: Publisher, name: str, *, channel: str = "stable", apply: bool = True) -> Change:
    """Let the channel point to the release that it pointed to before, never to a revoked one.

    Raises RefusedError when there is none.
    """
    earlier = _earlier(to, name, channel)
    if earlier is None:
        raise RefusedError(
            f"{name} has no earlier release that {channel} could go back to",
            hint="build and publish a good one, then ./goldsmith image.promote",
        )
    note = "this release has expired" if earlier.expires_at <= to.now else ""
    return replace(_back(to, earlier, channel, "rollback", apply=apply), note=note)


def revoke(to: Publisher, reference: str, reason: str, *, apply: bool = True) -> tuple[Change, ...]:
    """Take a release out of policy everywhere, and move the channels that point to it back where they can.

    What is wrong is inside the content, so every release over the same content goes with it.
    """
    if not reason.strip():
        raise UsageError("a revocation needs a reason", hint="--reason says why, to everyone who meets the image")
    release = release_at(to.registry, reference, to.prefix)
    known = {known.digest: known for known in to.ledger.releases_of_content(release.content)}
    of_content = {**known, release.digest: release}
    if apply:
        for one in of_content.values():
            if one.repository == release.repository and not one.pruned_at:
                _revoke_one(to, one, reason)
    return tuple(
        change
        for channel in CHANNELS
        if (change := _leave(to, release.name, release.repository, channel, set(of_content), apply=apply))
    )


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


def _fit(to: Publisher, release: Release, policy: str) -> None:
    """Raise RefusedError unless the release may become stable."""
    shown = f"{release.name} {release.digest[:19]}"
    state = lifecycle.status(release, to.now)
    if state is Status.REVOKED:
        raise RefusedError(f"{shown} was revoked: {release.revoked_reason}", hint="publish another one first")
    if state is Status.EXPIRED:
        hint = f"./goldsmith image.publish {release.name} re-dates it"
        raise RefusedError(f"{shown} expired on {release.expires_at:%Y-%m-%d}", hint=hint)
    found = latest(attached(to.registry, release.repository, release.digest), documents.VERDICT)
    if found is None:
        hint = f"./goldsmith image.publish {release.name} judges it"
        raise RefusedError(f"{shown} carries no verdict: it was never judged", hint=hint)
    verdict = documents.from_bytes(Verdict, read(to.registry, release.repository, found))
    if verdict.policy != policy:
        raise RefusedError(
            f"{shown} was judged by the policy {verdict.policy}, and the policy {policy} decides on stable",
            hint=f"./goldsmith image.publish {release.name} judges it by {policy}; if {verdict.policy} is meant: "
            f"./goldsmith image.promote {release.name} --policy {verdict.policy}",
        )
    if not verdict.allowed:
        reasons = "\n".join(reason.what for reason in verdict.refusals)
        raise RefusedError(f"{shown} is refused by policy {verdict.policy}", evidence=reasons)


def _earlier(to: Publisher, name: str, channel: str, without: frozenset[str] = frozenset()) -> Release | None:
    """The nearest release before the present one that still stands and is not revoked."""
    repository = to.registry.repository(name)
    now = to.registry.find(f"{repository}:{channel}")
    history = trail(to.ledger.moves(repository, channel))
    present = now.digest if now else ""
    before = history[: history.index(present)] if present in history else history
    for digest in reversed(before):
        if digest not in without and to.registry.find(f"{repository}@{digest}"):
            release = release_at(to.registry, f"{repository}@{digest}", to.prefix)
            if not release.revoked_at:
                return release
    return None


def _leave(to: Publisher, name: str, repository: str, channel: str, revoked: set[str], *, apply: bool) -> Change | None:
    """Move a channel off revoked releases; where there is nothing to go back to, say so and leave it."""
    found = to.registry.find(f"{repository}:{channel}")
    if not found or found.digest not in revoked:
        return None
    earlier = _earlier(to, name, channel, frozenset(revoked))
    if earlier:
        return _back(to, earlier, channel, "revoke", apply=apply)
    note = "no earlier release to go back to: it still points to the revoked one; publish a good one"
    return Change(name, channel, found.digest, found.digest, applied=False, note=note)


def _revoke_one(to: Publisher, release: Release, reason: str) -> None:
    """Attach the revocation, and today as the end of life that other tools read; then tell the ledger."""
    index = to.registry.find(f"{release.repository}@{release.digest}")
    if index is None:
        return
    said = {f"{to.prefix}revoked-at": lifecycle.timestamp(to.now), f"{to.prefix}revoked-reason": reason}
    if not latest(attached(to.registry, release.repository, release.digest), documents.REVOCATION):
        ended = Document(documents.LIFECYCLE, b"", {lifecycle.END_OF_LIFE: f"{to.now:%Y-%m-%d}"})
        revoked = Document(documents.REVOCATION, b"", said)
        attach(to.registry, release.repository, index.descriptor, (ended, revoked))
        to.note("revoke", f"{release.repository}@{release.digest}", reason)
    to.ledger.record_release(release_at(to.registry, f"{release.repository}@{release.digest}", to.prefix))
