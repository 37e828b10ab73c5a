"""Releases in a registry: dated indexes with documents attached, and channels that are tags."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from hardening.findings import Outcome, Reason, Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, MalformedError, nearest
from hardening.foundation.hashing import DIGEST
from hardening.foundation.settings import Settings
from images.artifact import Release
from images.catalog import KeepRule
from images.ledger import Ledger
from images.registry.answers import NotFoundError
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import Manifest, RegistryClient
from images.registry.publication import RegistryPublication
from images.registry.references import split
from images.registry.release_trust import proved
from images.registry.releases import (
    READERS,
    attach_end,
    channels_of,
    is_of_machine,
    reference_of,
    release_at,
    release_of,
    releases_in,
    remove,
)
from images.release.attested import (
    ShownAttestation,
    attested_verdict,
    proof_or_why,
    read_in_proven,
    shown_attestations,
)
from images.release.channels import first_document, settled
from images.release.lifecycle import dated_tag
from images.release.retention import REMOVE, RetirementDecision, plan
from images.release.revocations import Ask, revoked, revoked_by, said_by_ledger
from images.release.store import CHANNELS, PREVIOUS, Publication, ReleaseStore, Retirement, ShownRelease, as_shown
from images.store.oci import Store
from images.trust.channel_document import ChannelDocument, UnreadChannelsError, require_tag
from images.trust.evidence import Evidence, evidence_of

Decision = RetirementDecision[Release]


class ShownImage(ShownRelease):
    """A release as the registry knows it. `verdict` is `allowed`, `refused`, or `unknown`, as is all that it says of
    itself, where `untrusted` says why none of it is believed. `channels_unread`: why
    no channel and no revocation is known.
    """

    channels: tuple[str, ...]
    channels_unread: str = ""
    tag: str
    verdict: str
    judged_at: datetime | None
    reasons: tuple[Reason, ...]
    findings: dict[str, int]
    findings_count: int
    scanners: dict[str, Outcome]
    checks: dict[str, int]
    packages_count: int
    size_bytes: int
    untrusted: str
    attestations: tuple[ShownAttestation, ...]


@dataclass(frozen=True)
class RegistryStore(ReleaseStore):
    """The releases of container images.

    `names` are all definitions': a release that is not looked at cannot hold its base, nor be found by its digest.
    `rules` say what is kept of each beyond need.
    """

    registry: RegistryClient
    ledger: Ledger
    store: Store
    now: datetime
    actor: str
    names: Sequence[str] = ()
    rules: Mapping[str, KeepRule] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The settings of this machine."""
        return self.registry.settings

    @property
    def place(self) -> str:
        """The registry's address."""
        return self.registry.repository("")

    @property
    def documents(self) -> ChannelDocuments:
        """The signed documents of our channels."""
        return ChannelDocuments(self.registry, self.ledger, self.now)

    @property
    def revocation(self) -> Ask:
        """The revocations in these documents."""
        return self.documents.revocation()

    def pointed(self, repository: str, channel: str) -> tuple[str, ...]:
        """The digests of the index that a channel names, and of its content."""
        name = channel.removesuffix(PREVIOUS)
        if name == channel:
            return self._digests(self.documents.manifest(repository, channel))
        document = self.documents.read(repository)
        back = document.channels[name].previous if document and name in document.channels else ""
        return self._digests(self.registry.find(f"{repository}@{back}") if back else None)

    def pointing(self, repository: str, channels: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The same of several channels, by one reading of their document."""
        found = self.documents.manifests(repository, *channels)
        return {channel: self._digests(one) for channel, one in found.items()}

    def _digests(self, index: Manifest | None) -> tuple[str, ...]:
        return (index.digest, index.content(self.settings.platform)) if index else ()

    def tagged(self, repository: str, channel: str) -> str:
        """The digest that a tag names."""
        found = self.registry.find(f"{repository}:{channel}")
        return found.digest if found else ""

    def find(self, repository: str, digest: str) -> Release | None:
        """A release as its index tells of it."""
        found = self.registry.find(f"{repository}@{digest}")
        return release_of(self.registry, repository, found) if found else None

    def meant(self, ref: str) -> Release:
        """The release at a reference as a person types it, or the one that has a digest."""
        reference = self._located(ref) if ref.startswith("sha256:") else reference_of(self.registry, ref, self.names)
        repository, wanted = split(reference)
        if wanted in CHANNELS and repository.startswith(self.place):
            manifest = self.documents.required(repository, wanted)
        else:
            manifest = self.registry.get(reference)
        if is_of_machine(manifest):
            name = repository.rpartition("/")[2]
            hint = f"name it as AWS knows it: {name}:candidate, {name}:stable or {name}:DATE-DIGEST6"
            raise ContentError(f"{reference} is the evidence of a machine's release, which is at AWS", hint=hint)
        return release_of(self.registry, repository, manifest)

    def evidence(self, release: Release, policy: str = "") -> Verdict:
        """The verdict that a trusted key signed. Raises UntrustedError, and RefusedError where there is none.

        The policy that the release itself names is not asked: whoever pushes writes that.
        """
        policies = ("", policy) if policy else ("",)
        return attested_verdict(release, proved(self.registry, release, self.now, *policies))

    def moving(self, repository: str) -> AbstractContextManager[None]:
        """Let no other process of this installation move the channels of a repository meanwhile."""
        return self.documents.moving(repository)

    def move(self, release: Release, channel: str, back: str) -> str:
        """Sign the document that says so, then move the tags, the channel's last."""
        repository = release.repository
        before, after = self.documents.write(
            repository, lambda one: one.moved(channel, release.digest, back), self._first(repository)
        )
        self._lead(after, (channel,))
        left = before.channels.get(channel)
        return left.digest if left else ""

    def sign(self, repository: str, *, recover: bool = False) -> tuple[str, ...]:
        """Tags first: the document that is signed then accepts nothing that they have left. A night leaves what was
        signed within half a day.
        """
        documents, first = self.documents, self._first(repository, recover=recover)
        if not recover and documents.is_recent(repository, lambda one: self.registry.named_by(f"{repository}:{one}")):
            return ()
        with self.moving(repository):
            base = documents.base(repository, first, recover=recover)
            if documents.is_unpublished(base):
                return ("nothing is published",)
            self._lead(base, CHANNELS)
            _, after = documents.write(repository, lambda one: settled(self, repository, one), first, recover=recover)
            if after.channels != base.without_left().channels:  # another installation moved one meanwhile
                self._lead(after, CHANNELS)
        return after.lines

    def _first(self, repository: str, *, recover: bool = False) -> Callable[[], ChannelDocument]:
        return lambda: first_document(self, repository, repository, recover=recover)

    def _lead(self, document: ChannelDocument, channels: Collection[str]) -> None:
        """Let the tags of channels name what the document says; where one would go back to is written first."""
        repository = document.repository
        for name, channel in ((one, document.channels[one]) for one in channels if one in document.channels):
            tagged = self.tagged(repository, name)
            if tagged == channel.digest:
                continue
            if tagged not in ("", channel.left):
                self.note("sign", f"{repository}:{name}", f"its tag named {tagged}, which nobody signed")
            for tag, digest in ((f"{name}{PREVIOUS}", channel.previous), (name, channel.digest)):
                with suppress(NotFoundError):  # it was removed since
                    if digest:
                        self.registry.tag(repository, digest, tag)

    def mark_revoked(self, release: Release, reason: str) -> None:
        """Sign that release and content are revoked, and attach that day as the end that other tools read."""
        if release.pruned_at:
            return
        repository, digests = release.repository, (release.content, release.digest)
        with self.moving(repository):
            before, after = self.documents.write(
                repository, lambda one: one.revoking(digests, self.now, reason), self._first(repository)
            )
        if set(digests) - before.revoked.keys():
            self.note("revoke", f"{repository}@{release.digest}", reason)
        said = after.revoked[release.digest]  # which keeps its day where it was revoked before
        if index := self.registry.find(f"{repository}@{release.digest}"):
            attach_end(self.registry, repository, index, said.at)
        self.ledger.record_release(replace(release, revoked_at=said.at, revoked_reason=said.reason))

    def publication(self) -> Publication:
        """What pushes a release."""
        return RegistryPublication(self.registry, self.ledger, self.store)

    def retire(self, *, apply: bool) -> list[Retirement]:
        """Decide over every release, and with `apply` remove what may go."""
        decisions = self.prune(apply=apply)
        return [Retirement.of(one.subject.name, one.subject.digest, one, apply=apply) for one in decisions]

    def prune(self, *, apply: bool) -> tuple[Decision, ...]:
        """The decisions over the releases of `names`; what else the ledger ever knew is looked at, and stays."""
        every = sorted({*self.names, *(release.name for release in self.ledger.releases())})
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda name: releases_in(self.registry, name), every)
            releases = [said_by_ledger(self.ledger, release) for each in found for release in each]
            tags = list(pool.map(lambda name: channels_of(self.registry, self.repository(name)), every))
        decisions = plan(releases, self.ledger.running_digests(), _pointing(tags, releases), self.now, self.rules)
        mine = tuple(decision for decision in decisions if decision.subject.name in self.names)
        if apply:
            kept = (decision.subject for decision in decisions if decision.action is not REMOVE)
            self._remove(mine, {(release.repository, release.content) for release in kept})
        return mine

    def _remove(self, decisions: Sequence[Decision], needed: set[tuple[str, str]]) -> None:
        """Remove what is to go; `needed` are the contents, by repository, that a release which stays is over."""
        for release, why in ((one.subject, one.why) for one in decisions if one.action is REMOVE):
            remove(self.registry, release, with_content=(release.repository, release.content) not in needed)
            if self.ledger.release(release.digest) is None:
                self.ledger.record_release(release)
            self.ledger.mark_pruned(release.digest, self.now)
            self.note("prune", f"{release.repository}@{release.digest}", why)

    def read_in(self) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
        """Read each definition's releases, and of each what a trusted key signed."""
        found, errors = list[Release](), list[GoldsmithError]()
        for name in self.names:
            try:
                ask = self.revocation
                releases = [revoked_by(ask, release) for release in releases_in(self.registry, name)]
            except (MalformedError, UnreadChannelsError) as error:
                say(f"{name} is passed over: {error.message}")
                errors.append(error)
                continue
            oldest_first, prove = reversed(releases), partial(proved, self.registry, now=self.now)
            proven, failed = read_in_proven(self.ledger, self.store, oldest_first, prove)
            found += proven
            errors += failed
        return tuple(found), tuple(errors)

    def show(self, ref: str) -> ShownImage:
        """What the registry says of `ref`: a definition's name, `name:tag`, `name@digest`, or a full reference.

        Raises NotFoundError with the nearest tags, or names; ContentError when it is no release of ours.
        """
        reference = reference_of(self.registry, ref, self.names)
        release, unread, documents = release_at(self.registry, reference), "", self.documents
        repository = release.repository
        tags = {channel: self.tagged(repository, channel) for channel in CHANNELS}  # they move last
        try:
            document = documents.read(repository)
            release = revoked(self.ledger, release, documents.revocation({repository: document}))
            channels = _channels_of(release.digest, document, tags, self.now) if document else ()
        except UnreadChannelsError as error:
            channels, unread = (), f"{error.message}; {error.hint}"
        proof, untrusted = proof_or_why(lambda: proved(self.registry, release, self.now))
        found = evidence_of(proof.said)
        return ShownImage(
            **as_shown(release, reference, self.now),
            channels=channels,
            channels_unread=unread,
            tag=dated_tag(release),
            untrusted=untrusted,
            attestations=shown_attestations(proof),
            **_judged(found),
            **_built(found),
        )

    def _located(self, digest: str) -> str:
        """The full reference of a release known only by its digest. Raises ContentError where there is none."""
        if not re.fullmatch(DIGEST, digest):
            hint = "sha256: and 64 hexadecimal digits, as ./goldsmith image.show prints it"
            raise ContentError(f"{digest} is not a digest", hint=hint)
        if known := self.ledger.release(digest):
            return f"{known.repository}@{digest}"
        for name in self.names:
            if self.registry.find(f"{self.repository(name)}@{digest}"):
                return f"{self.repository(name)}@{digest}"
        known_digests = [release.digest for release in self.ledger.releases()]
        raise ContentError(f"no release has the digest {digest}", hint=nearest(digest, known_digests[:20]))


def _pointing(tags: Sequence[dict[str, str]], releases: Sequence[Release]) -> dict[str, list[str]]:
    """Digest → the tags that hold it. A revoked release is nothing to go back to, so `-previous` does not hold it."""
    revoked = {release.digest for release in releases if release.revoked_at}
    found: dict[str, list[str]] = {}
    for tag, digest in (pair for each in tags for pair in each.items()):
        if not (tag.endswith(PREVIOUS) and digest in revoked):
            found.setdefault(digest, []).append(tag)
    return found


def _channels_of(digest: str, document: ChannelDocument, tags: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    """The channels that a digest is in, or would be in after a rollback. Raises UnreadChannelsError where a tag differs
    from the document.
    """
    channels = list[str]()
    for name, tagged in tags.items():
        require_tag(document, name, tagged, now)
        if state := document.channels.get(name):
            states = {name: state.digest, f"{name}{PREVIOUS}": state.previous}
            channels += [channel for channel, pointed in states.items() if pointed == digest]
    return tuple(channels)


def _judged(found: Evidence) -> dict[str, Any]:
    verdict, scan = found.verdict, found.scan
    findings = scan.findings if scan else ()
    return {
        "verdict": ("allowed" if verdict.allowed else "refused") if verdict else "unknown",
        "judged_at": verdict.judged_at if verdict else None,
        "reasons": verdict.reasons if verdict else (),
        "findings": dict(Counter(finding.severity.value for finding in findings)),
        "findings_count": len(findings),
        "scanners": {report.scanner: report.outcome for report in (scan.reports if scan else ())},
        "checks": dict(Counter(check.outcome.value for check in found.checks)),
    }


def _built(found: Evidence) -> dict[str, Any]:
    artifact = found.artifact
    components = (found.sbom or {}).get("components", ())
    purls = [one.get("purl") for one in components if isinstance(one, dict)] if isinstance(components, list) else []
    listed = sum(1 for purl in purls if str(purl).startswith("pkg:deb/"))
    return {
        "packages_count": len(artifact.packages) if artifact else listed,
        "size_bytes": artifact.size_bytes if artifact else 0,
    }
