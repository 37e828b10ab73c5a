"""Edge: where members' images come from, by the ledger and the registry. No answer is an error, never "unknown"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from hardening.catalog import load_policies, load_policy
from hardening.evaluate import judge_image
from hardening.findings import Reason
from hardening.foundation.errors import ContentError
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from images.artifact import Release
from images.context import Context
from images.documents import REVOCATION
from images.publication.lifecycle import OCI, moment, parse_annotations
from images.publication.referrers import attached, latest
from images.publication.registry import Manifest, Registry
from pipelines.fleet.essence import repository
from pipelines.fleet.members import Member, Origin, Target, newest
from pipelines.fleet.model import Fleet

NOT_OF_THE_IMAGE = ("judges", "checks", "policy-review", "waiver-ended")


@dataclass
class Origins:
    """Answers for one judging of one fleet; asks the ledger first, then the registry, each thing once."""

    fleet: Fleet
    context: Context
    registry: Registry
    waivers: tuple[Waiver, ...]
    now: datetime
    _manifests: dict[str, Manifest | None] = field(default_factory=dict)

    def of(self, member: Member) -> Origin:
        """What is known of the image that `member` runs."""
        release = self._first(lambda digest: self._release(repository(member.image), digest), member.digests)
        base = None if release else self._base(member)
        golden = release or base
        if golden is None:
            return Origin()
        latest = self._channel(golden.name)
        because, since = self._refused(golden)
        return Origin(release, base, latest, self._left_at(golden, latest), because, since)

    def target(self) -> Target:
        """What the fleet's members become, pinned by digest. Raises ContentError where there is no such thing."""
        if tag := self.fleet.replacement.tag:
            found = self.registry.get(tag)
            image = Member("", "", "", tag, (found.digest,))
            golden = self._release(repository(tag), found.digest) or self._base(image)
            return self.again(Target(f"{repository(tag)}@{found.digest}", found.digest, golden))
        name = self.fleet.replacement.definition or ""
        release = self._channel(name)
        if release is None:
            channel = self.fleet.replacement.channel
            raise ContentError(
                f"{name} has no release in the channel {channel}",
                file=f"pipelines/fleets/{self.fleet.name}.toml",
                key="replacement",
                hint=f"first ./goldsmith image.publish {name}, then ./goldsmith image.promote {name}",
            )
        return self.again(Target(f"{release.repository}@{release.digest}", release.digest, release))

    def again(self, target: Target) -> Target:
        """The same pinned replacement, as it is judged now: whoever revoked it, on whichever machine."""
        if target.golden is None:
            return target
        known = self.context.ledger.release(target.golden.digest) or target.golden
        golden = self._revocation(self._dated(known) or known)
        running = load_policy(self.context.settings.roots, self.fleet.policy).running
        because = self._refused(golden)[0] if running.refused.enforcement is Enforcement.ENFORCE else ""
        return replace(target, golden=golden, refused_because=because)

    def _revocation(self, release: Release) -> Release:
        """The release with a revocation that only the registry knows of."""
        if release.revoked_at or not self._ours(release.repository):
            return release
        said = latest(attached(self.registry, release.repository, release.digest), REVOCATION)
        if said is None:
            return release
        prefix = self.context.settings.annotation_prefix
        reason = said.annotations.get(f"{prefix}revoked-reason", "")
        return replace(release, revoked_at=moment(said.annotations[f"{prefix}revoked-at"]), revoked_reason=reason)

    def _first(self, ask: Callable[[str], Release | None], digests: tuple[str, ...]) -> Release | None:
        return next((found for digest in digests if (found := ask(digest))), None)

    def _release(self, where: str, digest: str) -> Release | None:
        """The newest release over the content that `digest` means: a release's, or the content's own."""
        known = self.context.ledger.release(digest)
        if known is None and (over := self.context.ledger.releases_of_content(digest)):
            known = over[0]
        return self._dated(known or self._published(where, digest))

    def _dated(self, release: Release | None) -> Release | None:
        if release is None:
            return None
        return newest((release, *self.context.ledger.releases_of_content(release.content)))

    def _published(self, where: str, digest: str) -> Release | None:
        """The release as the registry tells it, where the ledger has no line of it."""
        found = self._manifest(where, digest)
        if found is None or not found.is_index or not found.data["manifests"]:
            return None
        try:
            return parse_annotations(
                found.annotations,
                self.context.settings.annotation_prefix,
                repository=where,
                digest=digest,
                content=found.data["manifests"][0]["digest"],
            )
        except ContentError:
            return None

    def _manifest(self, where: str, reference: str) -> Manifest | None:
        """A manifest of the registries that we deal with; others are not asked."""
        if not self._ours(where):
            return None
        address = f"{where}{'@' if ':' in reference else ':'}{reference}"
        if address not in self._manifests:
            self._manifests[address] = self.registry.find(address)
        return self._manifests[address]

    def _ours(self, where: str) -> bool:
        """Whether a repository is the configured registry's, or the one that the fleet's own tag is in."""
        tag = self.fleet.replacement.tag
        return where.startswith(f"{self.registry.address}/") or bool(tag and where == repository(tag))

    def _base(self, member: Member) -> Release | None:
        """The golden image that an application image says it stands on, or whose layers it begins with."""
        where = repository(member.image)
        named = self._first(lambda digest: self._named_base(where, digest), member.digests)
        return named or self._layered_base(member.layers)

    def _named_base(self, where: str, digest: str) -> Release | None:
        """By the annotation `base.digest` of the image's index or manifest."""
        found = self._manifest(where, digest)
        inner = found.data["manifests"][0]["digest"] if found and found.data.get("manifests") else ""
        for manifest in (found, self._manifest(where, inner) if inner else None):
            base = manifest.annotations.get(f"{OCI}base.digest", "") if manifest else ""
            name = manifest.annotations.get(f"{OCI}base.name", "") if manifest else ""
            if base and (release := self._release(repository(name) if name else where, base)):
                return release
        return None

    def _layered_base(self, layers: tuple[str, ...]) -> Release | None:
        """By its layers: the golden content with the most layers that the image begins with."""
        fits = [content for content, own in self._golden_layers.items() if own and layers[: len(own)] == own]
        best = max(fits, key=lambda content: len(self._golden_layers[content]), default=None)
        return newest(self.context.ledger.releases_of_content(best)) if best else None

    @cached_property
    def _golden_layers(self) -> dict[str, tuple[str, ...]]:
        """The unpacked layers of every golden content that is in the local store."""
        contents = {release.content for release in self.context.ledger.releases()}
        here = [content for content in sorted(contents) if self.context.store.has(content)]
        return {content: tuple(self.context.store.config(content)["rootfs"]["diff_ids"]) for content in here}

    def _channel(self, name: str) -> Release | None:
        """What the channel of a golden image points to. The registry is the truth about it."""
        where = self.registry.repository(name)
        found = self._manifest(where, self.fleet.replacement.channel)
        if found is None:
            return None
        return self.context.ledger.release(found.digest) or self._published(where, found.digest)

    def _left_at(self, golden: Release, latest: Release | None) -> datetime | None:
        """When the channel moved away from the content of `golden`; None where the ledger does not know."""
        if latest is None:
            return None
        since = None
        for move in reversed(self.context.ledger.moves(latest.repository, self.fleet.replacement.channel)):
            release = self.context.ledger.release(move.digest)
            if release and release.content == golden.content:
                break
            since = move.at
        return since

    def _refused(self, golden: Release) -> tuple[str, datetime | None]:
        """Why today's policy would not publish the golden image, by what was last found in it, and since when."""
        scan = self.context.ledger.scan(golden.content)
        if scan is None:
            return "", None
        policy = self._policy_of(golden)
        checks = self.context.ledger.checks(golden.content)
        verdict = judge_image(policy, golden.name, checks, scan.reports, scan.findings, self.waivers, self.now)
        reasons = [reason for reason in verdict.refusals if reason.rule not in NOT_OF_THE_IMAGE]
        began = [at for reason in reasons if (at := _began(reason))]
        return "; ".join(r.what for r in reasons), (min(began, default=golden.published_at) if reasons else None)

    def _policy_of(self, golden: Release) -> Policy:
        """The policy that the image was published by; the fleet's, where that one is no more."""
        known = load_policies(self.context.settings.roots)
        wanted = self.context.policy or golden.policy
        return known[wanted] if wanted in known else load_policy(self.context.settings.roots, self.fleet.policy)


def _began(reason: Reason) -> datetime | None:
    """When a reason began to refuse: at its deadline, where it has one."""
    return reason.deadline or reason.since
