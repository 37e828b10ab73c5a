"""What a publication makes at AWS: a snapshot, an image over it in each region, dates, shares, a signed statement."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from hardening.findings import Verdict
from hardening.foundation.console import say
from images.artifact import Artifact, Release
from images.aws import tags
from images.aws.amis import (
    deprecate,
    ensure_copied,
    ensure_registered,
    image_name,
    named,
    orphans,
    remove_image,
    remove_snapshot,
)
from images.aws.cloud import Cloud, machine_of
from images.aws.model import Ami, Machine
from images.aws.sharing import note_on_keys, share
from images.aws.snapshots import drop_pending, ensure_snapshot
from images.aws.statement import keep, parameter, prove, public_key, sign, statement, statement_name
from images.ledger import Made
from images.ledger.cloud_resources import GONE, STANDING

COPIES_AT_ONCE = 20  # EC2's limit of snapshot copies under way to one region


def images_for(cloud: Cloud, chosen: Release, artifact: Artifact, verdict: Verdict) -> list[Ami]:
    """The release's images in every region under a signed statement; each step finds itself done."""
    machine = machine_of(cloud.store, cloud.settings, artifact)
    snapshot = ensure_snapshot(cloud, machine, chosen.digest)
    home = ensure_registered(cloud, chosen, machine, cloud.home, snapshot)
    amis = [home, *_copies(cloud, chosen, machine, home)]
    for ami in amis:
        share(cloud, ami)
        deprecate(cloud, ami, chosen.expires_at)
    note_on_keys(cloud)
    _state(cloud, chosen, machine, amis, artifact, verdict)
    return amis


def _copies(cloud: Cloud, chosen: Release, machine: Machine, home: Ami) -> list[Ami]:
    """The release's images in the other regions, made side by side; one that fails stops no other."""
    with ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        others = [region for region in cloud.aws.all_regions if region != home.region]
        copying = [pool.submit(ensure_copied, cloud, chosen, machine, region, home) for region in others]
    return [copied.result() for copied in copying]


def _state(
    cloud: Cloud, chosen: Release, machine: Machine, amis: Sequence[Ami], artifact: Artifact, verdict: Verdict
) -> None:
    """See that a signed statement binds the images; one that stands and holds is kept."""
    name, key = statement_name(cloud, image_name(cloud, chosen)), public_key(cloud)
    shown = [_shown_after(cloud, ami, chosen, machine) for ami in amis]
    kept = parameter(cloud, cloud.home, name)
    if not kept or not all(prove(kept, key, ami, cloud.prefix).holds for ami in shown):
        said = statement(chosen, machine, amis, artifact, verdict, cloud.prefix)
        kept = sign(cloud, said)
        keep(cloud, name, kept)
    cloud.ledger.record_made(
        Made(cloud.aws.account, cloud.home, "statement", name, chosen.name, chosen.content, chosen.digest, cloud.now,
             name, STANDING, {"envelope": kept})
    )  # fmt: skip


def _shown_after(cloud: Cloud, ami: Ami, chosen: Release, machine: Machine) -> Ami:
    """The image with the tags that it has by now."""
    return replace(ami, tags={**ami.tags, **tags.of_image(chosen, machine.linear, cloud.prefix, chosen.published_at)})


def keep_for_good(cloud: Cloud, ami: Ami) -> None:
    """Take away the tag that lets the reaper have what a killed run leaves."""
    key = f"{cloud.prefix}{tags.REAP_AFTER}"
    cloud.client("ec2", ami.region).call("DeleteTags", Resources=[ami.id, *ami.snapshots], Tags=[{"Key": key}])


def put_away(cloud: Cloud, begun: Release, draft: Release) -> None:
    """Remove what a publication that is not worth going on with has made, unless it got as far as a release."""
    say(f"{begun.name}: putting away what a run on {begun.published_at:%Y-%m-%d} left unfinished")
    cloud.ledger.end_publication(begun)  # first: the content of one that is under way is no orphan
    if cloud.ledger.release(begun.digest) is None:
        for region in cloud.aws.all_regions:
            found = named(cloud, region, image_name(cloud, begun))
            if found and (cloud.made(region=region, kind="image", token=found.name)):
                remove_image(cloud, found)
        for line in cloud.made(kind="image", release=begun.digest):
            cloud.mark(line, state=GONE)
    if begun.content != draft.content:
        drop_pending(cloud, begun.content)
        for region, snapshot, name in orphans(cloud):
            if name == begun.name:
                remove_snapshot(cloud, region, snapshot)
