"""The stages of one image: build and verify, scan and gate, publish, promote. Edge.

Each finds by input digest, content digest and ledger what an earlier try of it has done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError, as_ours
from images.artifact import Release
from images.build.flow import build
from images.context import Context
from images.plan.build_plan import Action, with_ancestors
from images.release.flow import gate, judged, publish
from pipelines.cli.image import promote_one
from pipelines.cli.image_output import channels_of
from pipelines.contract import NightlyLine
from pipelines.nightly.model import (
    DaysLeft,
    ImageAnswer,
    ImageJob,
    NightPart,
    ended_with,
    image_failed,
)
from pipelines.nightly.summary import image_line
from pipelines.promotion import PromotionDecision, earlier, earlier_text, promotion


def built(context: Context, job: ImageJob) -> ImageAnswer:
    """Build the image, if its inputs changed. It fails where those of what it stands on changed since the plan."""
    began = time.monotonic()
    before = {name: _newest(context, name) for name in with_ancestors([job.name], context.parents)}
    outcomes = {outcome.name: outcome for outcome in build(context, [job.name])}
    own = outcomes[job.name]
    seconds = round(time.monotonic() - began, 1)
    if own.error:  # of what it stands on too, where that is not here: its own flow has ended well, and tells no failure
        because = (*own.reasons, own.error.message) if own.stopped_by else own.reasons
        return replace(
            image_failed(job, own.error), action=str(own.action), content=own.digest, reasons=because, seconds=seconds
        )
    below = {name: one for name, one in outcomes.items() if name != job.name and one.action is Action.BUILT}
    moved = [name for name, one in below.items() if one.digest != before[name]]  # else it was only not on this machine
    if moved:
        what = f"{job.name} is based on {', '.join(moved)}, whose inputs changed during this night"
        return image_failed(job, OutsideError(what, hint="the next nightly publishes both"))
    artifact = context.ledger.latest_artifact(job.name, context.settings.platform)
    tonight = own.action is Action.BUILT or bool(artifact and job.planned_at and artifact.built_at >= job.planned_at)
    reasons = own.reasons if own.action is Action.BUILT or not tonight else job.why
    return ImageAnswer(job.name, "unchanged", tonight, own.digest, None, reasons, seconds)


def _newest(context: Context, name: str) -> str:
    newest = context.ledger.latest_artifact(name, context.settings.platform)
    return newest.digest if newest else ""


def judged_again(context: Context, job: ImageJob, answer: ImageAnswer) -> ImageAnswer:
    """Scan the image and ask the gate; the ledger keeps both for the stages that follow."""

    def act() -> ImageAnswer:
        _have(context, job, answer)
        judged(context, job.name)
        return answer

    return _timed(job, answer, act)


def _have(context: Context, job: ImageJob, answer: ImageAnswer) -> None:
    """Build again what another machine built before it died: the same inputs give the same content."""
    if answer.content and not context.store.whole(answer.content):
        say(f"{job.name}: another machine built {answer.content[:19]}, which is not here: building it again")
        build(context, [job.name])


def published(context: Context, job: ImageJob, answer: ImageAnswer) -> ImageAnswer:
    """Publish the image, as far as it is not."""

    def act() -> ImageAnswer:
        _have(context, job, answer)
        artifact, judgement = judged(context, job.name)  # nothing is scanned again
        done = publish(context, artifact, judgement)
        published_tonight = done.release.published_at >= context.now.replace(microsecond=0)
        again = done.action == "unchanged" and published_tonight and answer.built
        action = "published" if again else done.action
        return replace(answer, action=action, content=artifact.digest, expires_at=done.release.expires_at)

    return _timed(job, answer, act)


def _timed(job: ImageJob, answer: ImageAnswer, act: Callable[[], ImageAnswer]) -> ImageAnswer:
    """What `act` answers; a failure is the image's own."""
    began = time.monotonic()
    try:
        done = act()
    except Exception as error:
        known = as_ours(job.name, error)
        failed = image_failed(job, known, built=answer.built, parts=answer.parts)
        done = replace(failed, seconds=answer.seconds)
    return replace(done, seconds=round(done.seconds + time.monotonic() - began, 1))


def promoted(context: Context, answer: ImageAnswer) -> ImageAnswer:
    """Move `stable` where the definition lets a night do so, and say the image's line."""
    done = answer
    if not answer.ended_badly and context.definitions[answer.name].definition.promote == "auto":
        done = replace(answer, parts=(*answer.parts, *_promotion(context, answer)))
    done = replace(done, left=days_left(context, answer.name))
    for line in (image_line(done), *(line for part in done.parts for line in part.lines)):
        told(line)
    return done


def days_left(context: Context, name: str) -> DaysLeft | None:
    """How long the stable release of an image is good for, by the ledger; None where it has none."""
    stable = channels_of(context, name)[1]
    return DaysLeft.of(stable, context.now) if stable and not stable.pruned_at else None


def _promotion(context: Context, answer: ImageAnswer) -> tuple[NightPart, ...]:
    """Move `stable` to what has soaked: the candidate, else, where that waits or is refused, an earlier one."""
    own = _part(context, answer, _to_candidate)
    stays = not own.promoted and any(line.status in ("soaks", "refused") for line in own.lines)
    return (own, _part(context, answer, _to_earlier)) if stays else (own,)


def _part(context: Context, answer: ImageAnswer, act: Callable[[Context, ImageAnswer], NightPart]) -> NightPart:
    try:
        return act(context, answer)
    except Exception as error:
        return ended_with("channel", answer.name, as_ours(answer.name, error))


def _to_candidate(context: Context, answer: ImageAnswer) -> NightPart:
    """Move `stable` to the candidate. A line where it waits or did not: else the image's own has told it all."""
    decided = promotion(context, answer.name)
    if decided.waits:
        return soaking(answer.name, decided)
    move = promote_one(context, answer.name, partial(_of_tonight, context, answer))
    if move.before == move.after and not _moved_tonight(context, answer.name):
        return NightPart()
    lines = (_channel_line(answer.name, "promoted", decided.why),) if decided.why else ()
    return NightPart(lines, promoted=answer.name)


def _to_earlier(context: Context, answer: ImageAnswer) -> NightPart:
    """Move `stable` to the newest earlier candidate that may be it, past those that are refused today."""
    for release in earlier(context, answer.name):
        try:
            promote_one(context, answer.name, partial(_of_tonight, context, answer), release)
            break
        except RefusedError as error:
            say(f"{answer.name}: the release of {release.published_at:%Y-%m-%d} is passed over: {error.message}")
    if not (moved := _moved_tonight(context, answer.name)):
        return NightPart()
    return NightPart((_channel_line(answer.name, "promoted", earlier_text(context, moved)),), promoted=answer.name)


def soaking(name: str, decided: PromotionDecision) -> NightPart:
    """The part of a channel that waits."""
    return NightPart((_channel_line(name, "soaks", decided.why),))


def _moved_tonight(context: Context, name: str) -> Release | None:
    """What `stable` was moved to by this step, or by an earlier try of it, which was killed."""
    stable = channels_of(context, name)[1]
    moves = context.ledger.moves(stable.repository, "stable") if stable else ()
    return stable if moves and moves[-1].at == context.now else None


def _channel_line(name: str, status: str, detail: str) -> NightlyLine:
    return NightlyLine(kind="channel", name=name, status=status, detail=detail, seconds=0.0)


def _of_tonight(context: Context, answer: ImageAnswer, release: Release) -> Verdict:
    """The gate's answer over the release's content: tonight's own, where that is what was judged."""
    policy, last = context.policy_of(answer.name), context.ledger.verdict(release.content, release.name)
    if last and answer.content == release.content and (last.policy, last.judged_at) == (policy, context.now):
        return last
    return gate(context, policy)(release)


def told(line: NightlyLine) -> NightlyLine:
    """The line, which whoever watches has been told at once."""
    say(f"{line.kind} {line.name}: {line.status} in {line.seconds:.0f} s")
    return line
