"""The flows that workers share, by name: the one place that lists what a worker can execute."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from images.context import Context
from images.documents import from_json
from pipelines.durable.port import Flow, Json, WorkflowEngine
from pipelines.nightly.flow import flows
from pipelines.nightly.model import FLEET, IMAGE, FleetJob, ImageAnswer, ImageJob, NightOrder, NightPart
from pipelines.nightly.stages import WorldStages


def shared_flows(context: Callable[[], Context]) -> Mapping[str, Flow]:
    """What a worker executes. `context` opens a new context: settings and content as they are then."""
    nights = _Nights(context)

    async def image(engine: WorkflowEngine, argument: Json) -> Json:
        return await flows(nights.stages(from_json(ImageJob, argument).night))[IMAGE](engine, argument)

    async def fleet(engine: WorkflowEngine, argument: Json) -> Json:
        return await flows(nights.stages(from_json(FleetJob, argument).night))[FLEET](engine, argument)

    return {IMAGE: image, FLEET: fleet}


@dataclass
class WorkerStages(WorldStages):
    """The stages of a night on a machine that did not begin it: index and feeds are asked here too, once a night.

    Without that a worker would plan by yesterday's index, and find nothing to do.
    """

    _ready: threading.Lock = field(default_factory=threading.Lock)
    _asked: bool = False

    def build(self, job: ImageJob) -> ImageAnswer:
        """Ask what the night asked, then build."""
        return self._with(self._ask_once(job.night), super().build(job))

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """As `build`: the worker that built it may be another one."""
        return self._with(self._ask_once(job.night), super().judge(job, built))

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """As `judge`."""
        return self._with(self._ask_once(job.night), super().publish(job, judged))

    def _ask_once(self, night: NightOrder) -> tuple[NightPart, ...]:
        """What failed, by this machine's name: the last index and the last data serve, as in the night itself."""
        with self._ready:
            asked = [] if self._asked else self.suites(night)
            parts = [ask(night, suite) for suite in asked for ask in (self.index, self.feeds)]
            self._asked = True
        return tuple(_here(part) for part in parts if part.failure)

    @staticmethod
    def _with(parts: tuple[NightPart, ...], answer: ImageAnswer) -> ImageAnswer:
        return replace(answer, parts=(*parts, *answer.parts))


def _here(part: NightPart) -> NightPart:
    """A part of the night, as this machine did it."""
    lines = (line.model_copy(update={"name": f"{line.name} on {socket.gethostname()}"}) for line in part.lines)
    return replace(part, lines=tuple(lines))


class _Nights:
    """The stages of the last night that a worker worked for."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._guard = threading.Lock()
        self._of: tuple[str, WorkerStages] | None = None

    def stages(self, night: NightOrder) -> WorkerStages:
        """Those of a night; of a new one from content as it is now."""
        with self._guard:
            if self._of is None or self._of[0] != night.id:
                self._of = (night.id, WorkerStages(self._context()))
            return self._of[1]
