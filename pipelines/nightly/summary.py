"""A night's summary: a line for each part, one sentence for people, and all of it as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.foundation.text import one_line
from hardening.gate import GateError, by_remedy, explain_shared, shared
from pipelines.contract import NightlyLine, NightlyOutput
from pipelines.nightly.duties import duties
from pipelines.nightly.model import IN_VAIN, NOTHING_URGENT, ImageAnswer, NightRecord

UNKNOWN = "it is not known what is urgent"
CHANGES = 3  # named in a line; image.why names them all


def image_line(answer: ImageAnswer) -> NightlyLine:
    """What became of one image: whether it was built and why, and how long its release is good for."""
    line = partial(
        NightlyLine, kind="image", name=answer.name, status=answer.action, seconds=answer.seconds,
        days_left=answer.left.days if answer.left else None, stopped_by=answer.stopped_by,
        exit_code=answer.failure.error.exit_code if answer.failure else 0,
    )  # fmt: skip
    if answer.failure:
        left = [answer.left.text] if answer.left else []
        return line(detail="; ".join([shortly(_why(answer)), *left]))
    until = [f"expires {answer.expires_at:%Y-%m-%d}"] if answer.expires_at else []
    until += [answer.left.text] if answer.left and answer.left.near else []  # what is newer was not promoted
    done = f"built: {shortly(answer.reasons)}" if answer.built else "not built"
    return line(detail="; ".join([done, *until]))


def _why(answer: ImageAnswer) -> Sequence[str]:
    """Why an image was not released: of the gate's reasons, which are explained elsewhere, what each is about."""
    error = answer.failure.error if answer.failure else None
    if isinstance(error, GateError) and not answer.stopped_by:
        return [one_line(reasons[0].what) for reasons in by_remedy(error.reasons)]
    return answer.reasons


def shortly(reasons: Sequence[str], between: str = "; ") -> str:
    """The first reasons, and how many more there are."""
    more = f" and {len(reasons) - CHANGES} more" if reasons[CHANGES:] else ""
    return between.join(reasons[:CHANGES]) + more


def refused_together(failures: Iterable[GoldsmithError], parents: Mapping[str, str | None]) -> list[GoldsmithError]:
    """The failures, with the images that the gate refused as one: what many have from one base is told once."""
    found = list(failures)
    gates = [error for error in found if isinstance(error, GateError)]
    if len(gates) == 1 or not gates:
        return found
    reasons = explain_shared(shared((reason for error in gates for reason in error.reasons), parents))
    told = "\n".join([*(error.message for error in gates), reasons])
    together = RefusedError(f"{len(gates)} images are refused by their policies", evidence=told, hint=gates[0].hint)
    return [together, *(error for error in found if error not in gates)]


def summary(images: Sequence[ImageAnswer], lines: Sequence[NightlyLine]) -> str:
    """The night in one sentence."""
    counts = Counter(answer.action for answer in images)
    counts["built"] = sum(answer.built for answer in images)

    def told(*actions: str) -> list[str]:
        return [f"{counts[action]} {action}" for action in actions if counts[action]]

    done = told("built", "published", "re-dated") or ["nothing built, nothing published"]
    fleets = [f"{line.name} {line.status}" for line in lines if line.kind == "fleet"]
    left = told("unchanged", "refused", "failed")
    near = [f"{image.name} ({image.left.days} d)" for image in images if image.left and image.left.near]
    more = {
        "stable moved": [part.promoted for one in images for part in one.parts if part.promoted],
        "soaking": [line.name for line in lines if (line.kind, line.status) == ("channel", "soaks")],
        "stable near its end": near,
        "waivers that end": [line.name for line in lines if (line.kind, line.status) == ("waiver", "ends")],
        "clock": [line.detail for line in lines if line.kind == "clock"],
        "waivers that ended": [line.name for line in lines if (line.kind, line.status) == ("waiver", "ended")],
    }
    rest = "".join(f"; {what}: {', '.join(names)}" for what, names in more.items() if names)
    return f"{', '.join([*done, *left])}; fleets: {', '.join(fleets) or 'none'}{rest}"


def lines_of(record: NightRecord) -> tuple[NightlyLine, ...]:
    """A line for each part of the night, in the order of its stages."""
    images = [line for one in record.images for line in (image_line(one), *(x for p in one.parts for x in p.lines))]
    before, after = ([line for part in parts for line in part.lines] for parts in (record.before, record.after))
    return (*before, *images, *after)


def nothing_urgent(record: NightRecord) -> str:
    """Why an urgent night ended at once."""
    if any(line.name == "urgent" and line.exit_code for line in lines_of(record)):
        return UNKNOWN
    return f"nothing urgent: {IN_VAIN if record.in_vain else NOTHING_URGENT}"


def output(record: NightRecord, resumed: Sequence[str] = ()) -> NightlyOutput:
    """The night as programs read it. `resumed` are earlier nights that were carried to their end first."""
    lines, images = lines_of(record), record.images
    said = summary(images, lines)
    if record.nothing_urgent:
        said = nothing_urgent(record)
    must_act = duties(lines)
    if must_act:
        told = (f"{one.who} (exit code {one.exit_code}) on {shortly(one.parts, ', ')}" for one in must_act)
        said = f"{said}; must act: {'; '.join(told)}"
    return NightlyOutput(
        id=record.order.id, started_at=record.order.started_at, ended_at=record.ended_at,
        built=tuple(image.name for image in images if image.built and not image.failure),
        published=tuple(image.name for image in images if image.action in ("published", "re-dated")),
        promoted=tuple(part.promoted for one in images for part in one.parts if part.promoted),
        lines=lines, summary=said, exit_code=record.exit_code, report=record.report, resumed=tuple(resumed),
        policy=record.order.policy, must_act=must_act,
    )  # fmt: skip
