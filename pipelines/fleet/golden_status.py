"""The status of golden images, wherever they run: their date, what their channel left, what the policy refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from hardening.catalog import judging_roots, load_profile, required_profile
from hardening.evaluation import REPRODUCED_EVALUATED, UNCOVERED
from hardening.findings import CheckResult, Reason, Verdict
from hardening.foundation.content import find_content
from hardening.foundation.errors import ContentError, RefusedError
from hardening.gate import enforced_as, judge_image
from hardening.model import LENIENT_FIRST, Enforcement, Waiver
from hardening.policy import Policy
from hardening.running import SHOWN
from images.artifact import Release
from images.catalog import load_definition
from images.context import Context
from images.release.channels import require_name
from images.release.revocations import revoked
from pipelines.fleet.catalog import require_replacement
from pipelines.fleet.members import Member, Provenance, newest
from pipelines.fleet.model import Fleet

NOT_OF_THE_IMAGE = ("judges", REPRODUCED_EVALUATED, "checks", "policy-review", "policy-window", "waiver-ended")


@dataclass(frozen=True)
class GoldenStatus:
    """Answers for one judging of one fleet, from the ledger and the present policies; the reader of members' provenance
    adds answers of a registry or a cloud.
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

    def unasked(self, member: Member) -> Provenance:  # noqa: ARG002 - who reads a registry knows more
        """What is known of a member's image without asking anybody."""
        return Provenance()

    def pointed(self, name: str) -> Release | None:  # noqa: ARG002 - who reads a channel
        """The release that the channel of a golden image names."""
        return None

    def told(self, golden: Release) -> Release:
        """The golden image, revoked where anything says so of it."""
        return revoked(self.context.ledger, golden)

    def channel(self, name: str, where: str) -> Release | None:
        """The release that the channel of a golden image points to, whose releases are `where`.

        Raises UnreadChannelsError where no signed document of today says so, and RefusedError where that is another
        definition's release.
        """
        if found := self.pointed(name):
            require_name(found, name, f"what {where}:{self.fleet.replacement.channel} points to")
        return found

    def forbidden(self, golden: Release) -> str:
        """Why a golden image must not become a member; empty where the policy does not enforce it."""
        rule = self.context.policy_named(self.fleet.policy).running.refused.on(self.now.date())
        return self.refused(golden)[0] if rule.enforcement is Enforcement.ENFORCE else ""

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
        """Why today's policy would not publish the golden image, by what was last found in it, a line for each reason;
        and since when.
        """
        reasons = self._refusals(golden)
        began = [at for reason in reasons if (at := reason.deadline or reason.since)]  # a deadline is when it refuses
        return "\n".join(r.what for r in reasons), (min(began, default=golden.published_at) if reasons else None)

    def _refusals(self, golden: Release) -> list[Reason]:
        verdict = self._verdict(golden)
        found = verdict.refusals if verdict else ()
        return [one for one in found if one.rule not in NOT_OF_THE_IMAGE and not one.rule.startswith(UNCOVERED)]

    def _held_against(self, golden: Release) -> set[str]:
        return {one.rule for one in (*self._refusals(golden), *self.lacking(golden))}

    def lacking(self, golden: Release) -> tuple[Reason, ...]:
        """The fixes that are known and not in it, the first due first: those for which today's policy still gives time,
        and those that it only warns of, or records, which it never refuses.
        """
        verdict = self._verdict(golden)
        found = verdict.reasons if verdict else ()
        waits = (one for one in found if one.since and one.deadline and not one.waived_by and not self._refuses(one))
        return tuple(sorted(waits, key=lambda one: (one.deadline, one.rule)))

    def _refuses(self, reason: Reason) -> bool:
        """Whether a fix's time is over, and the image is refused for it."""
        over = reason.deadline is not None and reason.deadline <= self.now
        return over and reason.enforcement is Enforcement.ENFORCE

    def _verdict(self, golden: Release) -> Verdict | None:
        """What today's policy says of the image by what was last found in it; None where it was never scanned."""
        key = golden.content, golden.name, golden.policy
        if key not in self._verdicts:
            self._verdicts[key] = self._judged(golden)
        return self._verdicts[key]

    def _judged(self, golden: Release) -> Verdict | None:
        scan = self.context.ledger.scan(golden.content, golden.name)
        if scan is None:
            return None
        bases, checks = self.context.ledger.bases_of(golden.content, golden.name), self._checks(golden)
        policy = self._policy_of(golden)
        return judge_image(policy, golden.name, checks, scan.reports, scan.findings, self.waivers, self.now, bases)

    @cached_property
    def _verdicts(self) -> dict[tuple[str, str, str], Verdict | None]:
        """By content and release, for many members run one image."""
        return {}

    def by_channel(self, release: Release | None, base: Release | None, where: str) -> Provenance:
        """What is known of a golden image, the member's own or its `base`, and of its channel. One that cannot be
        believed costs its members, which nothing then replaces, and no others.
        """
        latest, why = None, ""
        try:
            release, base = release and self.told(release), base and self.told(base)
            latest = self.channel(golden.name, where) if (golden := release or base) else None
        except RefusedError as error:
            why = f"{error.message}; {error.hint}"
        known = self.provenance(release, base, latest)
        return replace(known, unread=why) if why else known

    def provenance(self, release: Release | None, base: Release | None, latest: Release | None) -> Provenance:
        """Where an image comes from, with what is known of its golden image by now; `latest`: its channel's."""
        if (golden := release or base) is None:
            return Provenance()
        key = release, base, latest
        if key not in self._origins:  # many members run one image
            (because, since), lacking = self.refused(golden), self.lacking(golden)
            first = min((one.since for one in lacking if one.since), default=None)
            more = f"; and {len(lacking) - SHOWN} more" if lacking[SHOWN:] else ""
            told = "; ".join(one.what for one in lacking[:SHOWN]) + more
            until = lacking[0].deadline if lacking else None
            left = self.left_at(golden, latest)
            against = self._held_against(golden)
            too = latest is not None and bool(against) and against <= self._held_against(latest)
            self._origins[key] = Provenance(
                release, base, latest, left, because, since, told, first, until, latest_too=too
            )
        return self._origins[key]

    @cached_property
    def _origins(self) -> dict[tuple[Release | None, Release | None, Release | None], Provenance]:
        return {}

    def required(self, release: Release | None) -> Release:
        """What the fleet's channel points to. Raises ContentError where that is nothing, or of no definition."""
        if release is not None:
            return release
        name, channel = self.fleet.replacement.definition, self.fleet.replacement.channel
        what, file = f"{name} has no release in the channel {channel}", f"pipelines/fleets/{self.fleet.name}.toml"
        require_replacement(self.fleet, file, find_content(self.context.settings.roots, "images/definitions", "*/"))
        hint = f"first ./goldsmith image.publish {name}, then ./goldsmith image.promote {name}"
        raise ContentError(what, file=file, key="replacement", hint=hint)

    def _checks(self, golden: Release) -> tuple[CheckResult, ...]:
        """What the controls said of the image, each as the profile of its definition asks for it today; where there is
        no sound one, as it was asked for when it was checked.
        """
        checks = self.context.ledger.checks(golden.content, golden.name)
        policy = self._policy_of(golden)
        if (golden.name, policy.name) not in self._asked:
            self._asked[golden.name, policy.name] = self._asked_of(golden.name, policy)
        asked = self._asked[golden.name, policy.name]
        return checks if asked is None else enforced_as(checks, asked)

    @cached_property
    def _asked(self) -> dict[tuple[str, str], dict[str, Enforcement] | None]:
        """By definition and policy, the enforcement of their profiles' controls; many members run one image."""
        return {}

    def _asked_of(self, name: str, policy: Policy) -> dict[str, Enforcement] | None:
        settings, today = self.context.settings, self.now.date()
        folder = find_content(settings.roots, "images/definitions", "*/").get(name)
        try:
            if folder is None:
                return None
            definition = load_definition(name, folder).definition
            own = load_profile(settings.roots, definition.profile)
            required = required_profile(judging_roots(settings), policy, definition.required_as)
        except ContentError:
            return None
        entries = [*own.controls, *(required.controls if required else ())]
        asked = [(entry.control, entry.enforced(today)) for entry in entries]
        return dict(sorted(asked, key=lambda one: LENIENT_FIRST.index(one[1])))  # of two, the stricter one counts

    def _policy_of(self, golden: Release) -> Policy:
        """The policy that the image was published by; the fleet's, where that one is no more."""
        known = self.context.policies
        wanted = self.context.policy or golden.policy
        return known[wanted] if wanted in known else self.context.policy_named(self.fleet.policy)
