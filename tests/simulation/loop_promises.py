"""What the whole loop promises: at every effect, at the end of every night, and once a day over all that is open."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from hardening.findings import Reason
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.gate import GateError
from hardening.model import Severity
from images.artifact import Artifact, Release
from images.documents import from_json
from images.release.soak import EARLIER, fixed, soaked
from pipelines.contract import NightlyOutput
from pipelines.fleet.violations import Judged
from pipelines.nightly.model import NightOrder, NightRecord
from pipelines.nightly.summary import output
from tests.simulation.execution import Row
from tests.simulation.ledger import ViolationError
from tests.simulation.loop_stages import COOLDOWN, grave_closed, verdict
from tests.simulation.memory import EPOCH
from tests.simulation.outside import DAY, HOUR

if TYPE_CHECKING:
    from tests.simulation.loop import Loop

BEGINS_WITHIN = 8 * HOUR  # of its moment, or of the start of serve: behind an urgent one, and after deaths
ENDS_WITHIN = timedelta(hours=30)
PATIENCE = timedelta(days=2, hours=12)  # two nights
NIGHT_AT = 2 * HOUR
BAD = ("failed", "refused")
TURN = "its turn comes at"
LATE = "later than the deadline"
FIXES, DEADLINES, NIGHTS, SOAKED = (
    "every fix reaches every child", "every violation ends replaced, waived or explained", "no night is skipped",
    "what has soaked is promoted",
)  # fmt: skip


class Promises:
    """Watches everything, with a memory of its own of what was built, seen, begun and told."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.builds_of: Counter[str] = Counter()
        self.first_seen: dict[str, datetime] = {}
        self.tag = ""
        self.candidate_at: dict[str, dict[str, datetime]] = {}
        self.last_begun = 0.0
        self.failures = 0
        self.up_since = 0.0
        self.troubled_until = -1.0
        self.told: NightlyOutput | None = None
        self.refusals: list[tuple[str, Reason]] = []
        self.ends: Counter[str] = Counter()

    def troubled(self, until: float) -> None:
        """Something is wrong until then, or a gate has refused: a night may fail for it."""
        self.troubled_until = max(self.troubled_until, until)

    # -- at every effect ----------------------------------------------------------------------------------------------

    def builds(self, artifact: Artifact, parent: Artifact | None) -> None:
        """An image is built, on the newest of what it stands on, and once."""
        self.builds_of[artifact.input_digest] += 1
        if self.builds_of[artifact.input_digest] > 1:
            raise ViolationError("nothing is built twice", f"{artifact.name}: {artifact.input_digest[:19]}")
        below = self.loop.context.parents[artifact.name]
        if below and (parent is None or self.loop.ledger.newest[below] != parent):
            raise ViolationError("parents before children", f"{artifact.name} is built on what {below} was")

    def begins_early(self, name: str, below: str) -> None:
        """The build of an image begins while what it stands on has work."""
        raise ViolationError("parents before children", f"{name} is begun before {below} is done")

    def tag_seen(self, digest: str, at: datetime) -> None:
        """A night saw what the upstream tag names; what comes back starts over."""
        if digest != self.tag:
            self.tag, self.first_seen[digest] = digest, at

    def pins(self, pinned: str, digest: str, at: datetime) -> None:
        """The pin moves."""
        if pinned and at - self.first_seen[digest] < COOLDOWN and not grave_closed(self.loop, pinned, digest):
            raise ViolationError("the cooldown holds", f"{digest[:19]} is taken {at - self.first_seen[digest]} old")

    def moves(self, release: Release, channel: str, left: str) -> None:
        """A channel moves: forward, on a base that is published, and `stable` only where soak and gate let it."""
        known, before = self.loop.ledger.known, self.loop.ledger.known.get(left)
        if before and release.published_at < before.published_at:
            raise ViolationError("no channel goes back", f"{channel} of {release.name}")
        bases = [one for one in known.values() if one.content == release.base_digest and not one.pruned_at]
        if release.base_digest and not bases:
            raise ViolationError("parents before children", f"{release.name} is published on what is not")
        self.ends[channel] += 1
        if channel == "stable":
            self._promoted(release, before)
        else:
            self._is_candidate(release)

    def _is_candidate(self, release: Release) -> None:
        """A content that comes back starts over, and what came after it was taken back; new dates change nothing."""
        since = self.candidate_at.setdefault(release.name, {})
        if release.content != next(reversed(since), ""):
            after = list(since)[list(since).index(release.content) :] if release.content in since else []
            for content in after:
                del since[content]
            since[release.content] = release.published_at

    def _promoted(self, release: Release, before: Release | None) -> None:
        loop, data = self.loop, self.loop.outside.answered
        artifact = loop.ledger.content(release.content)
        moments = [order.started_at for order in loop.ledger.nights.values()]  # one of them does it
        if not any(verdict(loop, moment, artifact, data).allowed for moment in moments):
            reasons = verdict(loop, moments[0], artifact, data).refusals
            raise ViolationError("what the gate refuses is not promoted", f"{release.name}: {reasons[0].what}")
        soak = loop.context.definitions[release.name].definition.lifecycle.soak
        since = self.candidate_at[release.name].get(release.content, loop.memory.now())
        old_enough = loop.memory.now() - since >= soak - soak / EARLIER
        if before and before.content != release.content and not old_enough:
            had, has = (loop.ledger.scanned(one.content, data).findings for one in (before, release))
            if not fixed(had, has):
                raise ViolationError("what is promoted has soaked", release.name)

    def removes(self, release: Release) -> None:
        """A release is removed: nobody runs it, and nothing points to it."""
        running = any(box.digest == release.digest for one in self.loop.fleets.values() for box in one.boxes.values())
        if running or release.digest in self.loop.registry.channels.values():
            raise ViolationError("what is used is kept", f"{release.name} {release.digest[:19]}")

    def pruned(self) -> None:
        """What a channel names still has its base."""
        known = self.loop.ledger.known
        left = {one.content for one in known.values() if not one.pruned_at} | {""}
        for digest in self.loop.registry.channels.values():
            if known[digest].base_digest not in left:
                raise ViolationError("what is used is kept", f"the base of {known[digest].name}")

    # -- nights -------------------------------------------------------------------------------------------------------

    def begins(self, order: NightOrder) -> None:
        """A night begins."""
        self.failures = self.loop.outside.failures
        if not order.urgent:
            self.last_begun = self._time

    def stops(self, until: float) -> None:
        """Serve is dead until then; what it missed is made up for soon after."""
        self.up_since = max(self.up_since, until)
        self.troubled(until)
        self.loop.memory.at(until - self._time + BEGINS_WITHIN + 1, self._begun_in_time)

    def _begun_in_time(self) -> None:
        """The night of the last moment has begun, if there was time for it."""
        first = DAY / 2 + NIGHT_AT  # the clock begins at noon
        due = first + (self._time - first) // DAY * DAY
        if self._busy or self._time - max(due, self.up_since) < BEGINS_WITHIN:
            return
        if self.last_begun < due:
            raise ViolationError(NIGHTS, f"that of second {due:g} has not begun at {self._time:g}")

    def ended(self, order: NightOrder, row: Row) -> int:
        """A night is over: whether people were told, nothing was left out, and all that is new is in; its exit code."""
        if row.error:
            raise ViolationError("every night ends", f"{order.id} was ended by {row.error!r}")
        record = from_json(NightRecord, row.result)
        self._were_told(record)
        self.ends["urgent" if order.urgent else "night"] += 1
        if order.urgent and not record.exit_code and not record.in_vain:
            self._closed_what_is_grave(order)
        if not order.urgent:
            self.told = output(record)
            self._left_nothing_out(record)
            self._promoted_what_soaked(record)
        self._failed_for_a_cause(record)
        for image in record.images:
            error = image.failure.error if image.failure and not image.stopped_by else None
            if isinstance(error, GateError):
                self.refusals += [(image.name, one) for one in image.failure.reasons if one.rule.startswith("CVE")]
        return record.exit_code

    def _failed_for_a_cause(self, record: NightRecord) -> None:
        """Where nothing was wrong and nobody died, only what the gate refuses fails, and what is refused since `stable`
        stays, for that or for a soak; to say it is no excuse.
        """
        wrong = self._wrong_since(record)
        stays = any(isinstance(error, GateError) for error in record.errors) or any(
            line.status == "soaks" for part in record.parts for line in part.lines
        )
        failed = [error.message for error in record.errors if not (stays and isinstance(error, RefusedError))]
        if failed and not wrong:
            raise ViolationError("nothing fails by itself", "; ".join(failed))

    def _wrong_since(self, record: NightRecord) -> bool:
        """Whether anything was wrong, or anybody died, since a night began."""
        began = (record.order.started_at - EPOCH).total_seconds()
        return max(self.troubled_until, self.loop.registry.failed_at) >= began

    def _promoted_what_soaked(self, record: NightRecord) -> None:
        """After a night in which nothing was wrong, no candidate is newer than `stable` that had soaked for a night
        more and that the gate lets through, whatever was published since.
        """
        if self._wrong_since(record):
            return
        bad = {one.name for one in record.images if one.ended_badly or any(part.failure for part in one.parts)}
        for name in (one.name for one in record.images if one.name not in bad):
            stable = self.loop.ledger.known.get(self.loop.registry.channels.get((name, "stable"), ""))
            soak = self.loop.context.definitions[name].definition.lifecycle.soak + timedelta(days=1)
            for content, since in reversed(self.candidate_at[name].items()):
                if stable and stable.content == content:
                    break
                if soaked(since, soak, record.order.started_at) and self._may_be_stable(content, stable, record):
                    raise ViolationError(SOAKED, f"{name}: {content[:19]}, candidate since {since}")

    def _may_be_stable(self, content: str, stable: Release | None, record: NightRecord) -> bool:
        loop, now = self.loop, record.order.started_at
        standing = [
            one
            for one in loop.ledger.releases_of_content(content)
            if not one.pruned_at and now < one.expires_at and (not stable or one.published_at > stable.published_at)
        ]
        artifact = loop.ledger.content(content)
        return bool(standing) and verdict(loop, now, artifact, loop.outside.answered).allowed

    def _were_told(self, record: NightRecord) -> None:
        failures, self.failures = self.loop.outside.failures - self.failures, self.loop.outside.failures
        if failures and record.exit_code != OutsideError.exit_code:
            raise ViolationError("what could not be asked is said", f"{record.order.id} ended with {record.exit_code}")
        if record.order.urgent and record.idle:
            return  # what fails is told once, and again by the night
        messages = [one for one in self.loop.messages if one.id == record.order.id]
        if not messages:
            raise ViolationError("people are told", f"nothing of {record.order.id}: exit code {record.exit_code}")
        if messages[-1].exit_code != record.exit_code:
            raise ViolationError("people are told", f"{record.order.id} ended with {record.exit_code}")

    def _closed_what_is_grave(self, order: NightOrder) -> None:
        """After an urgent run that failed in nothing, no candidate has a grave hole whose fix the mirror had before."""
        loop, data, offered = self.loop, self.loop.outside.answered, self.loop.outside.before(order.started_at)
        for (name, channel), digest in loop.registry.channels.items():
            for one in loop.ledger.scanned(loop.ledger.known[digest].content, data).findings:
                grave = one.exploited or one.severity is Severity.CRITICAL
                mine = channel == "candidate" and one.package in loop.context.definitions[name].definition.packages
                if grave and mine and one.fixed in offered[one.package]:
                    raise ViolationError("what is urgent does not wait", f"{name}: {one.id} in {one.package}")

    def _left_nothing_out(self, record: NightRecord) -> None:
        """Every image has its line; one that is well has the newest packages, base, and candidate."""
        loop, answers = self.loop, {image.name: image for image in record.images}
        if any(one.kind == "image" and one.name == "all" for part in record.after for one in part.lines):
            return
        if left := set(loop.context.parents) - set(answers):
            raise ViolationError(FIXES, f"the night says nothing of {', '.join(sorted(left))}")
        for name in (one for one, answer in answers.items() if not answer.ended_badly):
            artifact, below = loop.ledger.newest[name], loop.context.parents[name]
            candidate = loop.ledger.known[loop.registry.channels[name, "candidate"]]
            if candidate.content != artifact.digest:
                raise ViolationError(FIXES, f"what was built of {name} is not published")
            if below and loop.ledger.stands_on[artifact.digest] != loop.ledger.newest[below]:
                raise ViolationError(FIXES, f"{name} does not stand on the newest {below}")

    # -- once a day ---------------------------------------------------------------------------------------------------

    def noon(self) -> None:
        """All that is open has time left, or was explained."""
        now = self.loop.memory.now()
        self._begun_in_time()
        for order in self.loop.ledger.nights.values():
            if now - order.started_at > ENDS_WITHIN and self._time - self.up_since > DAY:
                raise ViolationError("every night ends", f"{order.id} of {order.started_at}")
        if not self._busy and self._time - self.up_since > BEGINS_WITHIN and self.told:
            for name in self.loop.context.parents:
                self._fresh(name, now)
            for fleet in self.loop.fleets:
                self._in_policy(fleet, now)

    def _fresh(self, name: str, now: datetime) -> None:
        """Every package that is newer is in, `stable` follows, and has not expired; or the last night said why not."""
        loop, known = self.loop, self.loop.ledger.known
        if self._said("image", name, "all") or self._said("index", "trixie"):
            return
        definition = loop.context.definitions[name].definition
        candidate, stable = (known.get(loop.registry.channels.get((name, one), "")) for one in ("candidate", "stable"))
        if candidate is None:
            raise ViolationError(FIXES, f"{name} has no release")
        has = {one.name: one.version for one in loop.ledger.content(candidate.content).packages}
        for package in definition.packages:
            late = self._time - loop.outside.since[package] > PATIENCE.total_seconds()
            if late and has[package] != f"1.{loop.outside.offered[package]}-1":
                raise ViolationError(FIXES, f"{name} lacks the newest {package}, and nobody was told")
        if self._said("channel", name, bad=("soaks", *BAD)):
            return
        if stable is None:
            raise ViolationError(FIXES, f"stable of {name} names nothing")
        if (
            stable.content != candidate.content
            and now - self.candidate_at[name][candidate.content] > definition.lifecycle.soak + PATIENCE
        ):
            raise ViolationError(FIXES, f"stable of {name} does not follow, and nobody was told")
        if stable.expires_at <= now:
            raise ViolationError(DEADLINES, f"stable of {name} expired on {stable.expires_at}")

    def _in_policy(self, name: str, now: datetime) -> None:
        fleet = self.loop.fleets[name]
        if self._said("fleet", name, bad=("waits", *BAD)) or self._said("image", fleet.becomes, "all"):
            return
        detail = next((one.detail for one in self.told.lines if (one.kind, one.name) == ("fleet", name)), "")
        said = detail.partition("skipped: ")[2] + detail.partition(LATE)[1]
        if self._said("channel", fleet.becomes, bad=("soaks", *BAD)):
            return
        for one in fleet.judged(now):
            due = min([at for at in (one.deadline, self._refused(one, now)) if at], default=now)
            if now <= due:
                continue
            mine = [part for part in said.split("; ") if one.member.name in part.partition(":")[0].split(", ")]
            if LATE not in said and not any(TURN not in part for part in mine):
                how = f"{one.member.name}: {', '.join(sorted(one.rules))}, due at {due}; told: {detail}"
                raise ViolationError(DEADLINES, how)

    def _refused(self, one: Judged, now: datetime) -> datetime | None:
        """By when a member must be replaced since the gate refuses what it runs, by what feeds gave last."""
        artifact = self.loop.ledger.content(one.origin.golden.content)
        refusals = verdict(self.loop, now, artifact, self.loop.outside.answered).refusals
        began = [reason.deadline or reason.since for reason in refusals if reason.rule.startswith("CVE")]
        return min(began) + self.loop.context.policies["default"].running.refused.grace if began else None

    def _said(self, kind: str, *names: str, bad: tuple[str, ...] = BAD) -> bool:
        """Whether the last night said that something is not well."""
        return any(one.kind == kind and one.name in names and one.status in bad for one in self.told.lines)

    @property
    def _busy(self) -> bool:
        """Whether a night runs at this moment."""
        return bool(self.loop.ledger.nights)

    @property
    def _time(self) -> float:
        return self.loop.memory.time
