"""How golden images stand today, wherever they run: their date, what their channel left, what the policy refuses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from hardening.foundation.errors import ContentError
from hardening.gate import judge_image
from hardening.model import Enforcement, Waiver
from hardening.policy import Policy
from images.artifact import Release
from images.context import Context
from pipelines.fleet.members import Provenance, newest
from pipelines.fleet.model import Fleet

NOT_OF_THE_IMAGE = ("judges", "checks", "policy-review", "policy-window", "waiver-ended")


@dataclass(frozen=True)
class GoldenStatus:
    """Answers for one judging of one fleet, from the ledger and the present policies; who reads where members' images
    come from adds what a registry or a cloud tells.
    """

    fleet: Fleet
    context: Context
    waivers: tuple[Waiver, ...]
    now: datetime

    def dated(self, release: Release | None) -> Release | None:
        """The newest release over the same content: it gives the content's date."""
        if release is None:
            return None
        return newest((release, *self.context.ledger.releases_of_content(release.content)))

    def forbidden(self, golden: Release) -> str:
        """Why a golden image must not become a member; empty where the policy does not enforce it."""
        running = self.context.policy_named(self.fleet.policy).running
        return self.refused(golden)[0] if running.refused.enforcement is Enforcement.ENFORCE else ""

    def left_at(self, golden: Release, latest: Release | None) -> datetime | None:
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

    def refused(self, golden: Release) -> tuple[str, datetime | None]:
        """Why today's policy would not publish the golden image, by what was last found in it, and since when."""
        scan = self.context.ledger.scan(golden.content)
        if scan is None:
            return "", None
        policy = self._policy_of(golden)
        checks = self.context.ledger.checks(golden.content)
        bases = self.context.ledger.bases_of(golden.content)
        verdict = judge_image(policy, golden.name, checks, scan.reports, scan.findings, self.waivers, self.now, bases)
        reasons = [reason for reason in verdict.refusals if reason.rule not in NOT_OF_THE_IMAGE]
        began = [at for reason in reasons if (at := reason.deadline or reason.since)]  # a deadline is when it refuses
        return "; ".join(r.what for r in reasons), (min(began, default=golden.published_at) if reasons else None)

    def provenance(self, release: Release | None, base: Release | None, latest: Release | None) -> Provenance:
        """Where an image comes from, with what is known of its golden image by now; `latest`: its channel's."""
        if (golden := release or base) is None:
            return Provenance()
        because, since = self.refused(golden)
        return Provenance(release, base, latest, self.left_at(golden, latest), because, since)

    def required(self, release: Release | None) -> Release:
        """What the fleet's channel points to. Raises ContentError where that is nothing."""
        if release is not None:
            return release
        name, channel = self.fleet.replacement.definition, self.fleet.replacement.channel
        what, file = f"{name} has no release in the channel {channel}", f"pipelines/fleets/{self.fleet.name}.toml"
        hint = f"first ./goldsmith image.publish {name}, then ./goldsmith image.promote {name}"
        raise ContentError(what, file=file, key="replacement", hint=hint)

    def _policy_of(self, golden: Release) -> Policy:
        """The policy that the image was published by; the fleet's, where that one is no more."""
        known = self.context.policies
        wanted = self.context.policy or golden.policy
        return known[wanted] if wanted in known else self.context.policy_named(self.fleet.policy)
