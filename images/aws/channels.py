"""Channels of machine images: one parameter per image, channel and region, moved last, and moved back.

`<channel>-previous` is kept beside each channel, as tags are in a registry: AWS alone knows where a rollback would go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from hardening.catalog import require_may_publish
from hardening.foundation.errors import ContentError, RefusedError, UsageError
from images.artifact import Release
from images.aws import requests, tags
from images.aws.amis import SOON, deprecate, image, put_tags
from images.aws.cloud import Cloud
from images.aws.model import Ami
from images.aws.statement import parameter, proof_of, public_key
from images.ledger import Move
from images.ledger.cloud_resources import STANDING
from images.release.channels import (
    Change,
    Gate,
    chosen_back,
    refuse_ended,
    refuse_judged,
    trail,
    worse,
)
from images.release.published import CHANNELS, PREVIOUS
from images.release.revocations import revoked, with_children


def channel_name(cloud: Cloud, name: str, channel: str) -> str:
    """The parameter of a channel."""
    return f"/{cloud.aws.name_prefix}/{name}/{channel}"


def at(cloud: Cloud, region: str, name: str, channel: str) -> Ami | None:
    """The image that a channel names in a region, if it is still there."""
    found = parameter(cloud, region, channel_name(cloud, name, channel))
    return image(cloud, region, found) if found else None


def release_at(cloud: Cloud, name: str, channel: str) -> Release:
    """The release that a channel names at home. Raises ContentError where there is none."""
    found = at(cloud, cloud.home, name, channel)
    if found is None or found.release is None:
        where = channel_name(cloud, name, channel)
        raise ContentError(f"nothing is published as {where} in {cloud.home}", hint=f"./goldsmith image.publish {name}")
    return found.release


def point(cloud: Cloud, release: Release, amis: Iterable[Ami], channel: str, reason: str, back: str = "") -> str:
    """Move a channel in every region to the release's images, home last; returns the release that it left.

    `back` is the release that a rollback would go to from there, by default the one it left. Done again, it changes
    nothing.
    """
    before = at(cloud, cloud.home, release.name, channel)
    left = before.release.digest if before and before.release else ""
    for ami in sorted(amis, key=lambda ami: ami.region == cloud.home):
        _point_in(cloud, release, ami, channel, back)
    moves = cloud.ledger.moves(release.repository, channel)
    if not moves or moves[-1].digest != release.digest:
        cloud.ledger.record_move(Move(release.repository, channel, release.digest, cloud.now, reason))
        cloud.note(reason, f"{release.repository}:{channel}", f"{left or 'nothing'} → {release.digest}")
    return left


def promote(cloud: Cloud, name: str, policy: str, gate: Gate) -> Change:
    """Let `stable` name what `candidate` names, in every region.

    Raises RefusedError when that release is revoked, has expired, was judged by another policy, `gate` refuses it
    today, or its signed statement does not hold.
    """
    require_may_publish(cloud.settings.roots, cloud.settings.judging, policy)
    chosen = revoked(cloud.ledger, release_at(cloud, name, "candidate"))
    _fit(cloud, chosen, policy)
    refuse_judged(chosen, gate(chosen), policy)
    return _move(cloud, chosen, "stable", "promote")


def rollback(cloud: Cloud, name: str, channel: str = "stable", *, reason: str = "") -> Change:
    """Let a channel name the release that it named before, in every region; a revoked one only where there is no other.

    Raises RefusedError when there is none, or it is expired or revoked and no `reason` says why it is better.
    """
    chosen = chosen_back(_earlier(cloud, name, channel), name, channel, cloud.now, reason)
    if reason:
        cloud.note("rollback", f"{chosen.repository}:{channel}", reason)
    note = worse(chosen, cloud.now)
    return replace(_back(cloud, chosen, channel, "rollback"), note=note and f"this release {note}")


def revoke(cloud: Cloud, digest: str, reason: str) -> tuple[Change, ...]:
    """Take a release, all over the same content and all built on it out of policy; channels leave them if they can."""
    if not reason.strip():
        raise UsageError("a revocation needs a reason", hint="--reason says why, to everyone who meets the image")
    release = cloud.ledger.release(digest)
    if release is None:
        raise ContentError(f"the ledger knows no release {digest}", hint="./goldsmith image.rebuild fills it from AWS")
    over = {one.digest: one for one in cloud.ledger.releases_of_content(release.content)}
    every = [one for one in with_children(cloud.ledger, over).values() if one.repository == cloud.repository(one.name)]
    for one in every:
        same = one.content == release.content
        _revoke_one(cloud, one, reason if same else f"its base {release.name} was revoked: {reason}")
    gone = {digest for one in every for digest in (one.digest, one.content)}
    names = sorted({one.name for one in every}, key=lambda name: (name != release.name, name))
    moved = (_leave(cloud, name, gone, channel) for name in names for channel in CHANNELS)
    return tuple(change for change in moved if change)


def images_of(cloud: Cloud, release: Release) -> list[Ami]:
    """The release's images in every region where the ledger knows one, as they are now."""
    lines = [line for line in cloud.made(kind="image", release=release.digest) if line.state == STANDING]
    found = [image(cloud, line.region, line.resource) for line in lines]
    return [ami for ami in found if ami]


def _point_in(cloud: Cloud, release: Release, ami: Ami, channel: str, back: str) -> None:
    """Move a channel in one region: where it came from is written first."""
    name = channel_name(cloud, release.name, channel)
    present = parameter(cloud, ami.region, name)
    if present == ami.id:
        return
    previous = _id_of(cloud, ami.region, release.repository, back) if back else present
    if previous and image(cloud, ami.region, previous):  # AWS stores no image's id that is gone
        _put(cloud, ami.region, f"{name}{PREVIOUS}", previous, f"where {channel} of {release.name} would go back to")
    _put(cloud, ami.region, name, ami.id, f"{release.name}, {channel}: {release.digest}")


def _put(cloud: Cloud, region: str, name: str, image_id: str, description: str) -> None:
    """Write a parameter, and see that it is there: the service checks an image's id only after it has answered."""
    asked = requests.put_parameter(name, image_id, description, image=True)
    cloud.client("ssm", region).call("PutParameter", **asked)
    cloud.clients.until(lambda: parameter(cloud, region, name) == image_id, f"the parameter {name} in {region}")


def _id_of(cloud: Cloud, region: str, repository: str, digest: str) -> str:
    lines = cloud.made(region=region, kind="image", release=digest)
    return next((line.resource for line in lines if cloud.repository(line.name) == repository), "")


def _move(cloud: Cloud, chosen: Release, channel: str, reason: str, back: str = "") -> Change:
    amis = images_of(cloud, chosen)
    if cloud.home not in {ami.region for ami in amis}:
        raise RefusedError(
            f"{chosen.name} {chosen.digest[:19]} has no image in {cloud.home}",
            hint="./goldsmith image.rebuild reads from AWS what there is",
        )
    before = point(cloud, chosen, amis, channel, reason, back)
    note = "already there" if before == chosen.digest else ""
    return Change(chosen.name, channel, before, chosen.digest, applied=True, note=note)


def _back(cloud: Cloud, earlier: Release, channel: str, reason: str) -> Change:
    """Move a channel back; what it left is forgotten, so that the next rollback goes further back and not forth."""
    history = trail(cloud.ledger.moves(earlier.repository, channel))
    below = history[: history.index(earlier.digest)] if earlier.digest in history else ()
    return _move(cloud, earlier, channel, reason, below[-1] if below else earlier.digest)


def _earlier(cloud: Cloud, name: str, channel: str, without: Collection[str] = ()) -> list[Release]:
    """The releases before the present one whose image still stands, the nearest first, each as it stands today."""
    repository = cloud.repository(name)
    present = at(cloud, cloud.home, name, channel)
    now = present.release.digest if present and present.release else ""
    history = trail(cloud.ledger.moves(repository, channel))
    before = history[: history.index(now)] if now in history else history
    known = (cloud.ledger.release(digest) for digest in reversed(before) if digest not in without)
    shown = (_shown(cloud, release) for release in known if release)
    return [revoked(cloud.ledger, release) for release in shown if release]


def _shown(cloud: Cloud, release: Release) -> Release | None:
    """The release as its image at home shows it, with a revocation that only tags tell of; None without an image."""
    usable = [ami for ami in images_of(cloud, release) if ami.region == cloud.home and ami.state == "available"]
    told = next((ami.release for ami in usable if ami.release), None)
    return replace(release, revoked_at=release.revoked_at or told.revoked_at,
                   revoked_reason=release.revoked_reason or told.revoked_reason) if told else None  # fmt: skip


def _leave(cloud: Cloud, name: str, gone: set[str], channel: str) -> Change | None:
    """Move a channel off revoked releases; where there is nothing to go back to, say so and leave it."""
    found = at(cloud, cloud.home, name, channel)
    if not found or not found.release or not gone & {found.release.digest, found.release.content}:
        return None
    if earlier := next((one for one in _earlier(cloud, name, channel, gone) if not one.revoked_at), None):
        return _back(cloud, earlier, channel, "revoke")
    note = "no earlier release to go back to: it still names the revoked one; publish a good one"
    return Change(name, channel, found.release.digest, found.release.digest, applied=False, note=note)


def _revoke_one(cloud: Cloud, release: Release, reason: str) -> None:
    """Tag the images in every region, deprecate them at once, and tell the ledger."""
    for ami in images_of(cloud, release):
        if ami.release and not ami.release.revoked_at:
            put_tags(cloud, ami.region, (ami.id,), tags.of_revocation(reason, cloud.prefix, cloud.now))
            deprecate(cloud, ami, cloud.now + SOON)
    if not release.revoked_at:
        cloud.ledger.revoke(release.digest, reason, cloud.now)
        cloud.note("revoke", f"{release.repository}@{release.digest}", reason)


def _fit(cloud: Cloud, release: Release, policy: str) -> None:
    """Raise RefusedError unless the release may become stable."""
    refuse_ended(release, cloud.now)
    shown = f"{release.name} {release.digest[:19]}"
    publish = f"./goldsmith image.publish {release.name}"
    if release.policy != policy:
        raise RefusedError(
            f"{shown} was judged by the policy {release.policy}, and the policy {policy} decides on stable",
            hint=f"{publish} judges it by {policy}; or ./goldsmith image.promote {release.name} "
            f"--policy {release.policy}",
        )
    _proven(cloud, release, shown)


def _proven(cloud: Cloud, release: Release, shown: str) -> None:
    """Raise RefusedError unless the signed statement holds of the candidate's images and of the release's own.

    That a release was signed says that the gate let it through: nothing is made at AWS before.
    """
    key, candidate = public_key(cloud), at(cloud, cloud.home, release.name, "candidate")
    for ami in [*([candidate] if candidate else ()), *images_of(cloud, release)]:
        if not (proof := proof_of(cloud, ami, key)).holds:
            raise RefusedError(
                f"{shown}: what {ami.where} shows is not what was signed", evidence="\n".join(proof.problems),
                hint=f"./goldsmith image.revoke {release.digest} takes it out, if nobody can say why",
            )  # fmt: skip
