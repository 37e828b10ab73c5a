"""What the simulated loop remembers, in memory: what the real code asks of a ledger, and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from hardening.findings import BaseImage, CheckResult, Finding, FindingKind, Outcome, ScanReport
from hardening.model import Enforcement, Severity, Waiver
from hardening.policy import Policy
from images.artifact import Artifact, Release
from images.catalog import KeepRule, keep_rules
from images.ledger import Move, Trigger
from images.ledger.sightings import Sightings
from images.plan.cooldown import Sights
from pipelines.nightly.model import NightOrder
from tests.simulation.memory import EPOCH
from tests.simulation.outside import FeedData

LOOKED = CheckResult("files", "Files are as they must be", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "seen")


class LoopLedger(Sightings):
    """Artifacts, releases, channels, sights, triggers and nights. `data` is what the feeds gave last, and was kept."""

    def __init__(self) -> None:
        self.data = FeedData(float("-inf"))
        self.index: dict[str, int] = {}
        self.waivers: list[Waiver] = []
        self.built: dict[str, Artifact] = {}
        self.newest: dict[str, Artifact] = {}
        self.stands_on: dict[str, Artifact] = {}
        self.known: dict[str, Release] = {}
        self.begun: dict[str, Release] = {}
        self.nights: dict[str, NightOrder] = {}
        self.triggers: dict[str, Trigger] = {}
        self.running: Callable[[], dict[str, list[str]]] = dict
        self.fix_known: dict[tuple[str, str], datetime] = {}
        self._by_content: dict[str, Artifact] = {}
        self._sights: dict[tuple[str, str], Sights] = {}
        self._moves: defaultdict[tuple[str, str], list[Move]] = defaultdict(list)

    # -- what was built, and what is found in it ----------------------------------------------------------------------

    def keep(self, artifact: Artifact, parent: Artifact | None) -> None:
        """What was built."""
        self.built[artifact.input_digest] = self.newest[artifact.name] = artifact
        self._by_content[artifact.digest] = artifact
        if parent:
            self.stands_on[artifact.digest] = parent

    def content(self, digest: str) -> Artifact:
        """What has this content."""
        return self._by_content[digest]

    def bases_of(self, content: str, name: str = "") -> tuple[BaseImage, ...]:
        """What it stands on, the nearest first."""
        found, below = list[BaseImage](), self.stands_on.get(content)
        while below:
            found.append(BaseImage(below.name, frozenset((one.name, one.version) for one in below.packages)))
            below = self.stands_on.get(below.digest)
        return tuple(found)

    def checks(self, content: str, name: str = "") -> tuple[CheckResult, ...]:
        """One control has looked at everything."""
        return (LOOKED,)

    def scan(self, content: str, name: str = "") -> Any:
        """What a scanner finds by the data that was kept."""
        return self.scanned(content, self.data)

    def scanned(self, content: str, data: FeedData) -> Any:
        """What a scanner finds by some data."""
        artifact, advisories = self.content(content), data.advisories
        findings = []
        for one in artifact.packages:
            for told in advisories.concerning(one):
                hole = data.holes[told.id]
                since = self.fix_known.setdefault((told.id, one.name), seconds(data.at)) if told.fixed else None
                findings.append(
                    Finding(
                        FindingKind.VULNERABILITY, told.id, one.name, one.version, told.fixed, hole.severity,
                        (("simulated", hole.severity),), exploited=hole.exploited, fix_known_since=since,
                    )
                )  # fmt: skip
        date = seconds(data.at) if data.at >= 0 else None
        outcome = Outcome.FAIL if findings else Outcome.PASS
        report = ScanReport(
            "simulated", FindingKind.VULNERABILITY, outcome, len(artifact.packages), date, "feeds", "", tuple(findings)
        )
        return SimpleNamespace(reports=(report,), findings=tuple(findings))

    def latest_artifact(self, name: str, platform: str = "") -> Artifact | None:
        """What was built last of a definition."""
        return self.newest.get(name)

    # -- releases and channels ----------------------------------------------------------------------------------------

    def releases(self, name: str = "") -> tuple[Release, ...]:
        """All of a definition, or of all."""
        return tuple(one for one in self.known.values() if name in ("", one.name))

    def release(self, digest: str) -> Release | None:
        """The release, if it is known."""
        return self.known.get(digest)

    def releases_of_content(self, content: str) -> tuple[Release, ...]:
        """All over one content."""
        return tuple(one for one in self.known.values() if one.content == content)

    def pruned(self, release: Release, at: datetime) -> None:
        """It is there no more."""
        self.known[release.digest] = replace(release, pruned_at=at)

    def running_digests(self) -> dict[str, list[str]]:
        """What members run."""
        return self.running()

    def record_move(self, move: Move) -> None:
        """A channel moved."""
        self._moves[move.repository, move.channel].append(move)

    def last_move(self, repository: str, channel: str) -> Move | None:
        """The last move of a channel."""
        return next(reversed(self._moves[repository, channel]), None)

    def moves(self, repository: str, channel: str) -> tuple[Move, ...]:
        """All moves of a channel."""
        return tuple(self._moves[repository, channel])

    def all_moves(self) -> dict[tuple[str, str], list[Move]]:
        """All moves of every channel."""
        return dict(self._moves)

    # -- sights -------------------------------------------------------------------------------------------------------

    def sights(self, kind: str, subject: str) -> Sights:
        return self._sights.get((kind, subject), Sights())

    def _looked(self, kind: str, subject: str, looking: Callable[[Sights], Sights], *, keep: bool) -> Sights:
        self._sights[kind, subject] = looking(self.sights(kind, subject))
        return self._sights[kind, subject]

    # -- what started work --------------------------------------------------------------------------------------------

    def add_trigger(self, trigger_id: str, kind: str, at: datetime) -> bool:
        """Write down that work is to be done; False where that stands there."""
        new = trigger_id not in self.triggers
        self.triggers.setdefault(trigger_id, Trigger(trigger_id, kind, at))
        return new

    def waiting_triggers(self) -> tuple[Trigger, ...]:
        """Those whose work is not done."""
        return tuple(one for one in self.triggers.values() if one.done_at is None)

    def finish_triggers(self, ids: Iterable[str], at: datetime, outcome: str) -> None:
        """Their work is done."""
        for one in ids:
            self.triggers[one] = replace(self.triggers[one], done_at=at, outcome=outcome)

    def forget_triggers(self, before: datetime, after: datetime) -> None:
        """Remove what was done long ago, or on a day to come."""
        self.triggers = {
            key: one for key, one in self.triggers.items() if not one.done_at or before <= one.done_at <= after
        }


@dataclass(frozen=True)
class LoopContext:
    """What the real code asks of a context."""

    now: datetime
    ledger: LoopLedger
    definitions: dict[str, Any]
    parents: dict[str, str | None]
    policies: dict[str, Policy]
    settings: Any
    policy: str = ""
    unsound: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, KeepRule]:
        """What is kept of releases beyond need."""
        own = self.settings.retention
        return keep_rules(KeepRule(own.keep_last, own.keep_for), self.definitions)

    def policy_named(self, name: str) -> Policy:
        """The policy."""
        return self.policies[name]

    def policy_of(self, name: str) -> str:
        """Which one judges an image."""
        return "default"


def seconds(at: float) -> datetime:
    """The moment that is so many seconds after the beginning."""
    return EPOCH + timedelta(seconds=at)
