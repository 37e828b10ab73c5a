"""The inputs and results of a night and its images: plain values, which the workflow engine records as JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from hardening.findings import Reason
from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.gate import GateError
from images.artifact import Release
from pipelines.contract import NightlyLine
from pipelines.durable.port import decode, encode

NIGHT, BRANCH, IMAGE, FLEET = "night", "branch", "image", "fleet"  # the flows by name
OF_THE_NIGHT = (NIGHT, BRANCH, FLEET)  # its own process's, and no heir's, but for what needs something of a worker
NIGHT_LOCK = "locks/nightly.lock"  # in the state directory: one night at a time
GIVEN_UP_AFTER = timedelta(hours=12)  # a night that is older is not continued: the next one knows more
NOTHING_URGENT = "no exploited or critical vulnerability of these images can be fixed"
IN_VAIN = "the exploited or critical vulnerabilities of these images were tried in vain, and no package is newer since"
ENDED_BADLY = ("refused", "failed")


@dataclass(frozen=True)
class Failure:
    """A GoldsmithError as data. The engine's own record of one drops what the gate's reasons are kept in."""

    record: dict[str, Any]
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, error: GoldsmithError) -> Failure:
        """The error, with a gate's reasons."""
        return cls(json.loads(encode(error)), error.reasons if isinstance(error, GateError) else ())

    @property
    def error(self) -> GoldsmithError:
        """The error again, as its own class."""
        error: GoldsmithError = decode(json.dumps(self.record))
        if isinstance(error, GateError):
            error.reasons = self.reasons
        return error

    @property
    def action(self) -> str:
        """What a line says of an image or a channel that ended so."""
        return "refused" if isinstance(self.error, RefusedError) else "failed"


@dataclass(frozen=True)
class NightOrder:
    """One night: its id, the one moment that everything in it is dated by, and its images.

    `urgent`: only what newer feeds make exploitable or critical, and fixable. `policy` judges in the place of the
    definitions' own. `jump`: what is to be said of a clock that jumped.
    """

    id: str
    started_at: datetime
    only: str = "all"
    policy: str = ""
    urgent: bool = False
    jump: str = ""

    @property
    def warnings(self) -> tuple[NightPart, ...]:
        """A line that says how the clock jumped before the night; empty where it did not."""
        line = NightlyLine(kind="clock", name="machine", status="jumped", detail=self.jump, seconds=0.0)
        return (NightPart((line,)),) if self.jump else ()


@dataclass(frozen=True)
class NightPart:
    """The result of one part of the night: its lines, what went wrong, and the image that `stable` moved to."""

    lines: tuple[NightlyLine, ...] = ()
    failure: Failure | None = None
    promoted: str = ""
    detail: str = ""


@dataclass(frozen=True)
class FeedNews:
    """What newer feeds change: the part that tells it, and the images that an exploited or critical fix is out for,
    with a digest of these fixes for each.
    """

    part: NightPart = NightPart()
    urgent: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DaysLeft:
    """How long an image's stable release remains valid; `near`: less than its definition's `warn_before`."""

    days: int
    near: bool

    @classmethod
    def of(cls, release: Release, now: datetime) -> DaysLeft:
        """The days from `now` to the release's end; below 0 once it is over."""
        return cls((release.expires_at - now).days, now >= release.warn_at)

    @property
    def text(self) -> str:
        """The words for a line."""
        if self.days < 0:
            return "WARNING: its stable release has expired"
        days = "1 day" if self.days == 1 else f"{self.days} days"
        return f"{'WARNING: ' if self.near else ''}its stable release has {days} left"


@dataclass(frozen=True)
class ImageJob:
    """One image that has work, with those that stand on it: `why` it has, and by which clock of its machine that was
    found. `needs`: what a worker must have to do it; empty where nights are one machine's.
    """

    night: NightOrder
    name: str
    why: tuple[str, ...] = ()
    planned_at: datetime | None = None
    left: DaysLeft | None = None
    children: tuple[ImageJob, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class FleetJob:
    """One fleet to bring into policy."""

    night: NightOrder
    name: str


@dataclass(frozen=True)
class ImageAnswer:
    """What happened to one image on its way to `candidate`: published, re-dated, unchanged, refused or failed.

    `built` says whether it was built this night, and `reasons` why, or why it was refused or failed; `stopped_by` names
    the image that it stands on and that failed or was refused. `left`: how long its `stable` release is good for;
    None where it has none.
    """

    name: str
    action: str
    built: bool = False
    content: str = ""
    expires_at: datetime | None = None
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    failure: Failure | None = None
    stopped_by: str = ""
    left: DaysLeft | None = None
    parts: tuple[NightPart, ...] = ()

    @property
    def ended_badly(self) -> bool:
        """Whether nothing may stand on it."""
        return self.action in ENDED_BADLY


@dataclass(frozen=True)
class NightPlan:
    """Which images have work: as trees, each of which begins with one that stands on none that has. `settled` are all
    others: unchanged, unsound, or such that may not be published.
    """

    settled: tuple[ImageAnswer, ...] = ()
    trees: tuple[ImageJob, ...] = ()


@dataclass(frozen=True)
class NightRecord:
    """A whole night as its flow returns it: the parts `before` and `after` the images, and these.

    `nothing_urgent`: it ended at once, since no exploited or critical hole can be fixed; `in_vain`: or since that was
    tried in vain before, and the index is still the same.
    """

    order: NightOrder
    before: tuple[NightPart, ...]
    images: tuple[ImageAnswer, ...]
    after: tuple[NightPart, ...]
    ended_at: datetime
    nothing_urgent: bool = False
    in_vain: bool = False
    report: str = ""

    @property
    def parts(self) -> tuple[NightPart, ...]:
        """The night's own parts, and those of its images, in the order of the stages."""
        return (*self.before, *(part for image in self.images for part in image.parts), *self.after)

    @property
    def idle(self) -> bool:
        """Whether nothing was built, published, promoted or rolled."""
        images = any(image.built or image.action in ("published", "re-dated") for image in self.images)
        rolled = any(line.kind == "fleet" and line.status == "rolled" for part in self.after for line in part.lines)
        return not (images or rolled or any(part.promoted for part in self.parts))

    @property
    def errors(self) -> tuple[GoldsmithError, ...]:
        """All that went wrong, once each: what stopped an image is told by the one that it stands on."""
        images = [image.failure for image in self.images if not image.stopped_by]
        stages = [*(part.failure for part in self.before), *images, *self._later()]
        distinct = {json.dumps(failure.record, sort_keys=True): failure for failure in stages if failure}
        return tuple(failure.error for failure in distinct.values())

    def _later(self) -> tuple[Failure | None, ...]:
        return tuple(part.failure for part in self.parts[len(self.before) :])

    @property
    def exit_code(self) -> int:
        """Who must act: 2 whoever writes content, 3 whom a policy refused, 4 whoever runs what is outside."""
        return max((error.exit_code for error in self.errors), default=0)


# -- what went wrong, as parts and answers -----------------------------------------------------------------------------


def ended_with(kind: str, name: str, error: GoldsmithError, seconds: float = 0.0) -> NightPart:
    """The part that ended with an error."""
    failure = Failure.of(error)
    line = NightlyLine(kind=kind, name=name, status=failure.action, detail=error.message, seconds=seconds)
    return failed_too(NightPart((line,)), error)


def failed_too(part: NightPart, error: GoldsmithError) -> NightPart:
    """The part, in which something failed although its lines say more than that."""
    lines = (line.model_copy(update={"exit_code": error.exit_code}) for line in part.lines)
    return replace(part, lines=tuple(lines), failure=Failure.of(error))


def image_failed(job: ImageJob, error: GoldsmithError, **known: Any) -> ImageAnswer:
    """The answer of an image that ended with an error."""
    failure = Failure.of(error)
    reasons = (error.message, *error.evidence.splitlines())
    return ImageAnswer(job.name, failure.action, reasons=reasons, failure=failure, left=job.left, **known)


def stopped(jobs: Iterable[ImageJob], by: ImageAnswer) -> tuple[ImageAnswer, ...]:
    """The answers of images that nothing was done for, since the one that they stand on ended badly."""
    found = [(job, stopped_by(job.name, by, job.left)) for job in jobs]
    return tuple(answer for job, one in found for answer in (one, *stopped(job.children, one)))


def stopped_by(name: str, parent: ImageAnswer, left: DaysLeft | None = None) -> ImageAnswer:
    """The answer of an image whose base ended badly."""
    because = f"its base {parent.name} {'was refused' if parent.action == 'refused' else 'failed'}"
    return ImageAnswer(name, "failed", reasons=(because,), failure=parent.failure, stopped_by=parent.name, left=left)
