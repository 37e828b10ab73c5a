"""Channels: names that move from release to release, and the history that lets them move back.

`<channel>-previous` is kept beside each channel, so that the store alone knows where a rollback would go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from hardening.catalog import require_may_publish
from hardening.findings import Verdict
from hardening.foundation.errors import GoldsmithError, MalformedError, RefusedError, UsageError
from images.artifact import Release
from images.ledger import Ledger, Move
from images.release.closing import read_in_closed
from images.release.lifecycle import before, below, chosen_back, refuse_ended, refuse_judged, shown, worse
from images.release.revocations import with_children
from images.release.store import CHANNELS, PREVIOUS, ReleaseStore

Gate = Callable[[Release], Verdict]
"""What judges a release's content by today's policy and data. Raises RefusedError where it cannot."""


@dataclass(frozen=True)
class ChannelMove:
    """A channel that moved, or would: release digests before and after. `note` says what people should know."""

    name: str
    channel: str
    before: str
    after: str
    applied: bool
    note: str = ""


def promote(to: ReleaseStore, name: str, policy: str, gate: Gate, earlier: Release | None = None) -> ChannelMove:
    """Let `stable` point to what `candidate` points to, or to an `earlier` candidate.

    Raises RefusedError when that release is revoked, has expired, `gate` refuses it today, or what was attached to it
    at its publication refuses it, is missing, or is by another policy than `policy`: what was let through for a trial
    does not become `stable` by the way. So it does where the tag `candidate` was moved back by somebody else.
    """
    require_may_publish(to.settings.roots, to.settings.judging, policy, to.now.date())
    chosen = to.revoked(_found(to, earlier) if earlier else to.meant(f"{name}:candidate"), read=True)
    require_name(chosen, name, f"what {to.repository(name)}:candidate {'pointed' if earlier else 'points'} to")
    newer = None if earlier else passed_over(to.ledger, chosen.repository, "candidate", chosen, to.revoked)
    if newer:
        raise moved_back(f"{chosen.repository}:candidate", chosen, newer)
    refuse_ended(chosen, to.now, "stable stays where it is")
    refuse_judged(chosen, to.evidence(chosen, policy), policy)
    refuse_judged(chosen, gate(chosen), policy)
    return _move(to, chosen, "stable", "promote")


def rollback(to: ReleaseStore, name: str, *, channel: str = "stable", reason: str = "") -> ChannelMove:
    """Let the channel point to the release that it pointed to before; a revoked one only where there is no other.

    What proves nothing is passed over. Raises RefusedError when there is none left, or it is expired or revoked and no
    `reason` says why it is better.
    """
    repository = to.repository(name)
    present = next(iter(to.pointed(repository, channel)), "")
    earlier = sorted(_earlier(to, repository, channel, present), key=lambda one: one.revoked_at is not None)
    proven = _first_proven(to, name, earlier)
    chosen = chosen_back([proven] if proven else [], name, channel, to.now, reason)
    if reason:
        to.note("rollback", f"{repository}:{channel}", reason)
    moved, note = _back(to, chosen, channel, "rollback"), worse(chosen, to.now)
    return replace(moved, note="; ".join(filter(None, [note and f"this release {note}", to.unmoved(chosen)])))


def revoke(to: ReleaseStore, ref: str, reason: str) -> tuple[ChannelMove, ...]:
    """Take a release out of policy everywhere, and move the channels that point to it back where they can.

    What is wrong is inside the content, so every release over the same content goes with it, and every one that is
    built on it.
    """
    require_revocation_reason(reason)
    release = to.meant(ref)
    every = revoked_with(to, release)
    for one in every:
        same = one.content == release.content
        to.mark_revoked(one, reason if same else f"its base {release.name} was revoked: {reason}")
    left = sorted({(one.name, one.repository) for one in every}, key=lambda pair: (pair[0] != release.name, pair))
    gone = {digest for one in every for digest in (one.digest, one.content)}
    changes = (_leave(to, *where, channel, gone) for where in left for channel in CHANNELS)
    return tuple(change for change in changes if change)


def require_revocation_reason(reason: str) -> None:
    """Raise UsageError for a reason without a word, such as the `…` of an example."""
    if not any(map(str.isalnum, reason)):
        raise UsageError("a revocation needs a reason", hint="--reason says why, to everyone who meets the image")


def revoked_with(to: ReleaseStore, release: Release) -> list[Release]:
    """What a revocation of the release takes out of policy: it, all over the same content, and all built on these."""
    over = {release.digest: release, **{one.digest: one for one in to.ledger.releases_of_content(release.content)}}
    return [one for one in with_children(to.ledger, over).values() if one.repository.startswith(to.place)]


def point(to: ReleaseStore, release: Release, channel: str, reason: str, back: str = "") -> str:
    """Move a channel, and write that down; returns where it pointed. Done again, it changes nothing.

    `back` is where a rollback would go from there; by default to where the channel pointed until now.
    """
    repository = release.repository
    left = to.move(release, channel, back)
    if _digests(to, repository, channel)[-1:] != [release.digest]:
        to.ledger.record_move(Move(repository, channel, release.digest, to.now, reason))
        to.note(reason, f"{repository}:{channel}", f"{left or 'nothing'} → {release.digest}")
    return left


def passed_over(
    ledger: Ledger, repository: str, channel: str, found: Release, revoked: Callable[[Release], Release]
) -> Release | None:
    """The release that a channel was moved to last by the ledger, where it names `found`, which is not newer.

    Nothing signs a tag or a parameter: whoever may write it can move it back. None where nothing is known, as without
    any move, and where `revoked` says that the channel had to leave that release.
    """
    last = ledger.last_move(repository, channel)
    known = ledger.release(last.digest) if last and last.digest != found.digest else None
    if known is None or known.published_at < found.published_at or revoked(known).revoked_at:
        return None
    return known


def moved_back(channel: str, found: Release, newer: Release) -> RefusedError:
    """The error for a channel that somebody moved back to `found`, without the ledger that says `newer`."""
    stable = channel.endswith(":stable")
    on = f"./goldsmith image.{'promote' if stable else 'publish'} {found.name} moves it on again"
    back = f"; after that, ./goldsmith image.rollback {found.name} moves it back on purpose" if stable else ""
    return RefusedError(
        f"the channel {channel} was moved back to {_dated(found)}, which the ledger does not know: by it, the "
        f"channel was last moved to {_dated(newer)}",
        hint=f"find out who can write to it; {on}{back}",
    )


def _dated(release: Release) -> str:
    return f"{release.name} of {release.published_at:%Y-%m-%d} ({release.digest[:19]})"


def read_in_moves(to: ReleaseStore, repository: str, accepted: Collection[str]) -> None:
    """Into a lost ledger: each channel's last move and the one before it, so that a rollback knows where to go.

    Only of the digests that were `accepted`: what proves nothing is nothing to go back to.
    """
    for channel in CHANNELS:
        present = to.pointed(repository, channel)
        if not present or to.ledger.moves(repository, channel):
            continue
        previous = to.pointed(repository, f"{channel}{PREVIOUS}") or present
        for digest in (one for one in dict.fromkeys([previous[0], present[0]]) if one in accepted):
            to.ledger.record_move(Move(repository, channel, digest, to.now, "rebuild"))


def _found(to: ReleaseStore, release: Release) -> Release:
    """The release as its store shows it. Raises RefusedError where it is gone."""
    if found := to.find(release.repository, release.digest):
        return found
    raise RefusedError(f"{shown(release)} is gone; stable stays where it is")


def _digests(to: ReleaseStore, repository: str, channel: str) -> list[str]:
    return [move.digest for move in to.ledger.moves(repository, channel)]


def _move(to: ReleaseStore, chosen: Release, channel: str, reason: str, back: str = "") -> ChannelMove:
    left = point(to, chosen, channel, reason, back)
    notes = ["already there" if left == chosen.digest else "", to.unmoved(chosen)]
    return ChannelMove(chosen.name, channel, left, chosen.digest, applied=True, note="; ".join(filter(None, notes)))


def _back(to: ReleaseStore, earlier: Release, channel: str, reason: str) -> ChannelMove:
    """Move a channel back; what it left is forgotten, so that the next rollback goes further back and not forth."""
    back = below(_digests(to, earlier.repository, channel), earlier.digest)
    return _move(to, earlier, channel, reason, back)


def _earlier(
    to: ReleaseStore, repository: str, channel: str, present: str, without: Collection[str] = ()
) -> list[Release]:
    """The releases before the present one that are still there, the nearest first, revoked where anything says so."""
    digests = before(_digests(to, repository, channel), present)
    found = (to.find(repository, digest) for digest in digests if digest not in without)
    return [to.revoked(release, read=True) for release in found if release]


def _first_proven(to: ReleaseStore, name: str, releases: Iterable[Release]) -> Release | None:
    """The first release that proves itself to be one of `name`. Where none does, raises what the first one lacks."""
    failed: GoldsmithError | None = None
    for one in releases:
        try:
            require_name(one, name, one.digest[:19])
            to.evidence(one)
        except (RefusedError, MalformedError) as error:
            failed = failed or error
        else:
            return one
    if failed:
        raise failed
    return None


def require_name(release: Release, name: str, what: str) -> None:
    """Raise RefusedError where a release, which is `what`, is not one of the definition `name`."""
    if release.name != name:
        hint = f"who can write to that repository? ./goldsmith image.publish {name} publishes a right one"
        raise RefusedError(f"{what} calls itself {release.name}", hint=hint)


def _leave(to: ReleaseStore, name: str, repository: str, channel: str, gone: Collection[str]) -> ChannelMove | None:
    """Move a channel off revoked releases; where there is nothing to go back to, say so and leave it."""
    found = to.pointed(repository, channel)
    if set(found).isdisjoint(gone):
        return None
    earlier = (one for one in _earlier(to, repository, channel, found[0], gone) if not one.revoked_at)
    note = (
        "no earlier release to return to: it still points to the revoked one; fix it, then "
        f"./goldsmith image.publish {name}{f' and ./goldsmith image.promote {name}' if channel == 'stable' else ''}"
    )
    try:
        if chosen := _first_proven(to, name, earlier):
            return _back(to, chosen, channel, "revoke")
    except (RefusedError, MalformedError) as error:
        note = f"{note} ({error.message})"
    return ChannelMove(name, channel, found[0], found[0], applied=False, note=note)


def rebuild(to: ReleaseStore) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
    """Write into the ledger what a store knows: releases, revocations, channels, artifacts, judgements.

    Lines of what was never published (rollouts, audit, days of first sight) cannot come back. Run again, it changes
    nothing; returns the releases, and what could not be read: that stops no other image.
    """
    releases, errors = to.read_in()
    for repository in sorted({release.repository for release in releases}):
        read_in_moves(to, repository, {release.digest for release in releases})
    read_in_closed(to, releases)
    to.note("rebuild", "ledger", f"{len(releases)} releases read from {to.place.rstrip('/')}")
    return releases, errors
