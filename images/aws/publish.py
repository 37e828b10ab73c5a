"""Publication of a machine image: one snapshot, an image over it in every region, dates, shares, a signed statement,
and the channel last.

The ledger is told first which release is about to be made, so that a run that was killed anywhere is taken up by the
next one: the same snapshot, the same images, nothing doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime

from hardening.catalog import require_may_publish
from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.hashing import digest_of
from hardening.foundation.locks import only_one
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
from images.aws.preflight import preflight, refuse_taken_names
from images.aws.release_store import AwsStore
from images.aws.sharing import note_on_keys, note_on_public_access, share
from images.aws.snapshots import drop_pending, ensure_snapshot
from images.aws.statement import keep, parameter, prove, public_key, sign, statement, statement_name
from images.ledger import Begun, Made
from images.ledger.cloud_resources import GONE, STANDING
from images.model import Definition
from images.release import lifecycle
from images.release.channels import point
from images.release.publish import TAKEN_UP_WITHIN, Published, refuse, refuse_revoked
from images.release.revocations import revoked
from images.scan.judge import Judgement

COPIES_AT_ONCE = 20  # EC2's limit of snapshot copies under way to one region


def publish_machine(
    cloud: Cloud, artifact: Artifact, definition: Definition, judgement: Judgement, *, redate: bool = False
) -> Published:
    """Publish an artifact to the candidate channel of every region; run again, it completes what is missing.

    A release over the same content whose dates still hold is kept, unless `redate` asks for new ones: then it gets new
    images over the snapshots that are there. Raises RefusedError as containers' publication does, and early for all
    that `preflight` asks.
    """
    require_may_publish(cloud.settings.roots, cloud.settings.judging, judgement.verdict.policy)
    refuse(cloud.now, definition, judgement)
    note_on_public_access(preflight(cloud))
    with only_one(cloud.settings.state_dir / f"aws-{definition.name}.lock", f"publishing {definition.name}"):
        return _publish(cloud, artifact, definition, judgement, redate=redate)


def _publish(
    cloud: Cloud, artifact: Artifact, definition: Definition, judgement: Judgement, *, redate: bool
) -> Published:
    machine = machine_of(cloud.store, cloud.settings, artifact)
    draft = _draft(cloud, artifact, machine, definition, judgement.verdict.policy)
    refuse_revoked(revoked(cloud.ledger, draft))
    begun = _take_up(cloud, draft, machine, definition)
    standing = None if begun or redate else _standing(cloud, draft, machine, definition)
    chosen = begun or standing or draft
    refuse_taken_names(cloud, chosen)
    earlier = [known for known in cloud.ledger.releases_of_content(chosen.content) if known.digest != chosen.digest]
    if chosen is draft:
        cloud.ledger.begin_publication(Begun(chosen))
    _complete(cloud, chosen, machine, artifact, judgement.verdict)
    return Published(chosen, "unchanged" if standing else "re-dated" if earlier else "published")


def _complete(cloud: Cloud, chosen: Release, machine: Machine, artifact: Artifact, verdict: Verdict) -> None:
    """Every step of a publication, in the order in which nothing visible is ever half done; each finds itself done."""
    snapshot = ensure_snapshot(cloud, machine, chosen.digest)
    home = ensure_registered(cloud, chosen, machine, cloud.home, snapshot)
    amis = [home, *_copies(cloud, chosen, machine, home)]
    for ami in amis:
        share(cloud, ami)
        deprecate(cloud, ami, chosen.expires_at)
    note_on_keys(cloud)
    _state(cloud, chosen, machine, amis, artifact, verdict)
    if cloud.ledger.release(chosen.digest) is None:
        cloud.ledger.record_release(chosen)
        cloud.note("publish", f"{chosen.repository}@{chosen.digest}", f"expires {chosen.expires_at:%Y-%m-%d}")
    point(AwsStore(cloud), chosen, "candidate", "publish")
    for ami in amis:
        _keep_for_good(cloud, ami)
    cloud.ledger.end_publication(chosen)


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


def _keep_for_good(cloud: Cloud, ami: Ami) -> None:
    """Take away the tag that lets the reaper have what a killed run leaves."""
    key = f"{cloud.prefix}{tags.REAP_AFTER}"
    cloud.client("ec2", ami.region).call("DeleteTags", Resources=[ami.id, *ami.snapshots], Tags=[{"Key": key}])


def _draft(cloud: Cloud, artifact: Artifact, machine: Machine, definition: Definition, policy: str) -> Release:
    """The release that would be made now; its digest is known before anything is made."""
    annotations = cloud.store.read_json(artifact.digest).get("annotations") or {}
    golden = definition.base.golden
    draft = Release(
        name=definition.name,
        repository=cloud.repository(definition.name),
        digest="",
        content=artifact.digest,
        input_digest=artifact.input_digest,
        profile=definition.profile,
        policy=policy,
        **asdict(lifecycle.dates(definition.lifecycle, cloud.now)),
        base_name=cloud.repository(golden) if golden else "",
        base_digest=annotations.get(f"{lifecycle.OCI}base.digest", ""),
    )
    return _named(cloud, draft, machine)


def _named(cloud: Cloud, draft: Release, machine: Machine) -> Release:
    """The draft under its digest: of all that it says, and of the disk."""
    said = [draft.repository, draft.content, machine.linear, lifecycle.annotations(draft, cloud.prefix)]
    return replace(draft, digest=digest_of(said))


def _on(cloud: Cloud, draft: Release, machine: Machine, definition: Definition, day: datetime) -> Release:
    """`draft` as if it had been published on `day`."""
    dates = lifecycle.dates(definition.lifecycle, day)
    return _named(cloud, replace(draft, **asdict(dates)), machine)


def _take_up(cloud: Cloud, draft: Release, machine: Machine, definition: Definition) -> Release | None:
    """The publication that a killed run began, if this run would make the same; what it began otherwise is put away."""
    taken = None
    for begun in cloud.ledger.open_publications(draft.repository):
        same = _on(cloud, draft, machine, definition, begun.release.published_at) == begun.release
        if same and cloud.now - begun.release.published_at < TAKEN_UP_WITHIN:
            taken = begun.release
        else:
            _put_away(cloud, begun.release, draft)
    return taken


def _put_away(cloud: Cloud, begun: Release, draft: Release) -> None:
    """Remove what a publication that is not worth going on with has made, unless it got as far as a release."""
    say(f"{begun.name}: putting away what a run on {begun.published_at:%Y-%m-%d} left unfinished")
    cloud.ledger.end_publication(begun)
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
    cloud.note("publish", f"{begun.repository}@{begun.digest}", "a publication that was cut short was put away")


def _standing(cloud: Cloud, draft: Release, machine: Machine, definition: Definition) -> Release | None:
    """A release that already says what `draft` would, but for its day, and whose end is not near."""
    for known in cloud.ledger.releases_of_content(draft.content):
        same = _on(cloud, draft, machine, definition, known.published_at) == replace(known, pruned_at=None)
        if same and not known.pruned_at and not lifecycle.near_expiry(known, cloud.now):
            return known
    return None
