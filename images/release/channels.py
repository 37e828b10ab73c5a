"""Channels: names that move from release to release, and the history that lets them move back.

`<channel>-previous` is kept beside each channel, so that the store alone knows where a rollback would go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from hardening.catalog import require_may_publish
from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, MalformedError, OutsideError, RefusedError, UsageError
from images.artifact import Release
from images.ledger import Move
from images.release.closing import read_in_closed
from images.release.lifecycle import before, below, chosen_back, refuse_ended, refuse_judged, shown, worse
from images.release.revocations import revoked, with_children
from images.release.store import CHANNELS, PREVIOUS, ReleaseStore
from images.trust.channel_document import ChannelDocument, SignedChannel, UnreadChannelsError, unread

SIGNERS = 4
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
    does not become `stable` by the way.
    """
    require_may_publish(to.settings.roots, to.settings.judging, policy, to.now.date())
    chosen = to.revoked(_found(to, earlier) if earlier else to.meant(f"{name}:candidate"))
    require_name(chosen, name, f"what {to.repository(name)}:candidate {'pointed' if earlier else 'points'} to")
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
    with to.moving(repository):
        left = to.move(release, channel, back)
        recorded = _digests(to, repository, channel)[-1:] == [release.digest]
        if not recorded:
            to.ledger.record_move(Move(repository, channel, release.digest, to.now, reason))
    if not recorded:
        to.note(reason, f"{repository}:{channel}", f"{left or 'nothing'} → {release.digest}")
    return left


def first_document(to: ReleaseStore, repository: str, signed_as: str, *, recover: bool) -> ChannelDocument:
    """The first document of a repository, which is called `signed_as` in it: each channel as this ledger moved it last,
    if its tag agrees. To `recover` from a ledger that knows no move: as the tag says, if that release proves
    itself; a channel without either is left out.

    Raises UnreadChannelsError where nothing but tags tells of the channels.
    """
    channels, untold = dict[str, SignedChannel](), list[str]()
    for channel in CHANNELS:
        moves, tagged = _digests(to, repository, channel), to.tagged(repository, channel)
        last = next(reversed(moves), "")
        if last and tagged in ("", last):
            channels[channel] = SignedChannel(digest=last, previous=next(iter(before(moves, last)), ""))
        elif tagged and not last and recover and _proves(to, repository, tagged):
            channels[channel] = SignedChannel(digest=tagged)
        elif tagged:
            untold.append(f"{channel} points to {tagged[:19]}")
    if untold and not (channels or recover):
        raise unread(signed_as, f"{', '.join(untold)}, which neither a signed document nor this ledger says")
    made = ChannelDocument(repository=signed_as, issued=to.now, expires=to.now, channels=channels)
    return settled(to, repository, made)


def _proves(to: ReleaseStore, repository: str, digest: str) -> bool:
    """Whether a release proves itself to be one of its repository's definition; says what it lacks."""
    release = to.find(repository, digest)
    try:
        return release is not None and bool(_first_proven(to, repository.rpartition("/")[2], [release]))
    except (RefusedError, MalformedError) as error:
        say(f"{repository}@{digest} is passed over: {error.message}")
        return False


def settled(to: ReleaseStore, repository: str, document: ChannelDocument) -> ChannelDocument:
    """The document of a repository once all tags follow it, with every revocation that the ledger knows."""
    for one in to.ledger.releases(repository.rpartition("/")[2]):
        if one.revoked_at and one.repository == repository:
            document = document.revoking((one.content, one.digest), one.revoked_at, one.revoked_reason)
    return document.without_left()


def sign_all(stores: Iterable[ReleaseStore]) -> dict[str, GoldsmithError]:
    """Sign every channel again that the ledger ever moved; by repository, those that could not be signed."""
    failed = dict[str, GoldsmithError]()

    def sign(to: ReleaseStore, repository: str) -> None:
        try:
            to.sign(repository)
        except GoldsmithError as error:
            failed[repository] = error

    for to in stores:
        mine = sorted({repository for repository, _ in to.ledger.last_moves() if repository.startswith(to.place)})
        with ThreadPoolExecutor(SIGNERS) as pool:
            list(pool.map(partial(sign, to), mine))
    return failed


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
    ask = to.revocation  # which reads each document once
    return [revoked(to.ledger, release, ask) for release in found if release]


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
    try:
        found = to.pointed(repository, channel)
    except (UnreadChannelsError, OutsideError) as error:
        return ChannelMove(
            name, channel, "", "", applied=False, note=f"it stays as it is: {error.message}; {error.hint}"
        )
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
    unread_too = list[GoldsmithError]()
    for repository in sorted({release.repository for release in releases}):
        try:
            read_in_moves(to, repository, {release.digest for release in releases})
        except UnreadChannelsError as error:
            say(f"no channel of {repository} is read in: {error}")
            unread_too.append(error)
    read_in_closed(to, releases)
    to.note("rebuild", "ledger", f"{len(releases)} releases read from {to.place.rstrip('/')}")
    return releases, (*errors, *unread_too)
