"""Nights on the engine in memory: the same flows and stages, without a workflow database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from images.context import Context
from images.documents import from_json, to_json
from pipelines.nightly.flow import flows
from pipelines.nightly.model import IMAGE, ImageAnswer, ImageJob, NightOrder
from pipelines.nightly.stages import WorldStages
from tests.simulation.memory import Memory

YEAR = 400 * 24 * 3600.0


def order_of(context: Context, **more: Any) -> NightOrder:
    """A night at the moment of a context."""
    return NightOrder("night-1", context.now, policy=context.policy, **more)


def ended(memory: Memory, flow_id: str) -> Any:
    """What the flow answered, once it has ended."""
    memory.run(YEAR)
    row = memory.rows[flow_id]
    assert row.ended, f"{flow_id} is not over"
    if row.error:
        raise row.error
    return row.result


def images_of_a_night(context: Context, names: Iterable[str]) -> list[ImageAnswer]:
    """What becomes of images that a night has work for, each by itself."""
    memory, answers = Memory(), []
    process = memory.process("night", flows(WorldStages(context)))
    for name in names:
        job = ImageJob(order_of(context), name)
        process.start(IMAGE, f"night-1/image/{name}", to_json(job))
        answers.append(from_json(ImageAnswer, ended(memory, f"night-1/image/{name}")))
    return answers
