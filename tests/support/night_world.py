"""A world for the flow of a night: a small catalog, a registry, fleets and people, each act known by its key.

An act that is asked for again after a crash finds what it did, as the real stages find it by digests and by the ledger;
what is in `done` twice was done twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hardening.findings import Reason
from hardening.foundation.errors import GoldsmithError, OutsideError
from hardening.gate import GateError
from hardening.model import Enforcement
from pipelines.contract import NightlyLine
from pipelines.nightly.model import (
    DaysLeft,
    FeedNews,
    ImageAnswer,
    ImageJob,
    NightOrder,
    NightPart,
    NightPlan,
    NightRecord,
    image_failed,
)
from pipelines.nightly.port import NightStages

HOLE = Reason("CVE-1", "broken", Enforcement.ENFORCE, "CVE-1 in zlib", "holes are read", "rebuild")
TREES = {"base": {"web": {"app": {}}, "broken": {"broken-child": {"broken-grandchild": {}}}, "tool": {}}, "lonely": {}}
IMAGES = ("base", "web", "app", "broken", "tool", "lonely")
"""Those that something is done for; what stands on a broken one is left alone."""


def line(kind: str, name: str, status: str, detail: str = "") -> NightlyLine:
    """A line of a part that took no time."""
    return NightlyLine(kind=kind, name=name, status=status, detail=detail, seconds=0.0)


@dataclass
class NightWorld(NightStages):
    """The stages. `done`: every act in order; `down`: the stages that fail, such as `index trixie`; `urgents`."""

    done: list[str] = field(default_factory=list)
    down: dict[str, GoldsmithError] = field(default_factory=dict)
    urgents: tuple[str, ...] = ()
    messages: list[str] = field(default_factory=list)
    refused: tuple[str, ...] = ("broken",)
    vain: dict[str, bool] = field(default_factory=dict)

    def _act(self, key: str) -> None:
        if error := self.down.get(key):
            raise error
        if key not in self.done:
            self.done.append(key)

    def _part(self, kind: str, name: str, status: str) -> NightPart:
        self._act(f"{kind} {name}")
        return NightPart((line(kind, name, status),))

    def suites(self, order: NightOrder) -> tuple[str, ...]:
        """One."""
        return ("trixie",)

    def index(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the mirror."""
        return self._part("index", suite, "refreshed")

    def feeds(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the feeds."""
        return self._part("feeds", suite, "refreshed")

    def feed_changes(self, order: NightOrder) -> NightPart:
        """Tell what changed."""
        return self._part("feeds", "changes", "unchanged")

    def urgent(self, order: NightOrder) -> FeedNews:
        """As the test says."""
        return FeedNews(self._part("feeds", "urgent", "changed"), self.urgents)

    def untried(self, order: NightOrder, found: FeedNews) -> tuple[str, ...]:
        """Those that were not, or of which the world failed."""
        return tuple(name for name in found.urgent if self.vain.get(name, True))

    def in_vain(self, record: NightRecord, found: FeedNews) -> bool:
        """What failed is told once."""
        fails, news = record.exit_code == OutsideError.exit_code, set(found.urgent) - self.vain.keys()
        self.vain |= dict.fromkeys(found.urgent, fails)
        return bool(news and record.errors)

    def upstreams(self, order: NightOrder) -> tuple[str, ...]:
        """One."""
        return ("debian:13",)

    def lock(self, order: NightOrder, reference: str) -> NightPart:
        """Move its pin."""
        return self._part("lock", reference, "moved")

    def plan(self, order: NightOrder, urgent: tuple[str, ...]) -> NightPlan:
        """All have work, but for one."""
        self._act("plan")
        trees = {"tool": {}} if urgent else TREES
        return NightPlan((ImageAnswer("still", "unchanged"),), tuple(self._tree(order, *one) for one in trees.items()))

    def _tree(self, order: NightOrder, name: str, below: object) -> ImageJob:
        children = below if isinstance(below, dict) else {}
        left = DaysLeft(3, near=True) if name.startswith("broken") else None
        trees = tuple(self._tree(order, *one) for one in children.items())
        return ImageJob(order, name, ("new",), left=left, children=trees)

    def _image(self, verb: str, job: ImageJob, answer: ImageAnswer) -> ImageAnswer:
        try:
            self._act(f"{verb} {job.name}")
        except GoldsmithError as error:
            return image_failed(job, error)
        return answer

    def build(self, job: ImageJob) -> ImageAnswer:
        """Build it, on what is published."""
        return self._image("build", job, ImageAnswer(job.name, "unchanged", built=True, content=job.name))

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """The gate refuses what is broken."""
        if job.name in self.refused:
            return image_failed(job, GateError(f"{job.name} is refused", (HOLE,), hint="mend it"))
        return self._image("judge", job, built)

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """Push it."""
        published = ImageAnswer(job.name, "published", built=True, expires_at=job.night.started_at)
        return self._image("publish", job, published) if judged.built else judged

    def promote(self, job: ImageJob, published: ImageAnswer) -> ImageAnswer:
        """Move stable."""
        if published.ended_badly:
            return published
        self._act(f"promote {job.name}")
        return ImageAnswer(
            job.name, published.action, built=True, expires_at=published.expires_at,
            parts=(NightPart(promoted=job.name),),
        )  # fmt: skip

    def prune(self, order: NightOrder) -> NightPart:
        """Name what is over."""
        return self._part("prune", "releases", "due")

    def fleets(self, order: NightOrder, images: tuple[str, ...]) -> tuple[str, ...]:
        """Two, or the one that an urgent image concerns."""
        return ("tools",) if images else ("tools", "webs")

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """Roll it."""
        return self._part("fleet", name, "rolled")

    def waivers(self, order: NightOrder) -> NightPart:
        """None ends."""
        return NightPart()

    def report(self, record: NightRecord) -> NightPart:
        """Write it."""
        self._act(f"report {record.order.id}")
        return NightPart(detail="report.html")

    def notify(self, record: NightRecord) -> NightPart:
        """Send it: nobody can be asked whether it has come."""
        self.messages.append(record.order.id)
        return NightPart()

    def digest(self, order: NightOrder) -> NightPart:
        """What was told is known, so it is told once."""
        return self._part("digest", "channels", "sent")


DOWN = OutsideError("it does not answer", hint="is it up?")
