"""What `digest` and the night call: sends each target of [digest] what is new since its last digest. Edge.

What a target was told is written down once it has taken it. A process that dies between the two has it told again, and
never leaves it untold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from hardening.foundation.console import print_json, print_text, say
from hardening.foundation.errors import GoldsmithError, OutsideError, UsageError
from hardening.foundation.hashing import digest_of, hex_of
from hardening.foundation.settings import rehearsing
from hardening.foundation.telling import DigestSettings
from hardening.foundation.text import chat
from images.context import Context
from images.documents import from_json, to_json
from images.ledger import Rollout
from images.ledger.tables import AuditLine
from pipelines.cli.digest_points import (
    Automation,
    DigestStage,
    News,
    OpenPoints,
    OpenRollout,
    news_for,
    points_of,
)
from pipelines.cli.digest_text import (
    MOST_LINES,
    DigestOutput,
    TargetDigest,
    as_html,
    as_text,
    grouped,
    subject_of,
)
from pipelines.cli.image_output import finish
from pipelines.cli.latency import open_fixes, patch_latency
from pipelines.cli.rollout_output import FINISHED
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.judged_state import judged_state
from pipelines.fleet.model import Approval, Fleet
from pipelines.rollout.exclusive import alone
from pipelines.rollout.mail import WITHIN, Mail, send
from pipelines.rollout.notify import post
from pipelines.rollout.rollout_store import members_of
from pipelines.rollout.schedule import may_act
from pipelines.rollout.state import Order, RolloutState, doing

OPEN_FOR = "90d"
ONE_TARGET = timedelta(minutes=5)  # more than all tries of one delivery take
POST_SECONDS = 10.0
HINT = "docs/notifications.md shows how [digest] names who is told"
Failures = list[GoldsmithError]


@dataclass(frozen=True)
class DigestTarget:
    """One address of a channel, or its webhook: what was sent is known for each."""

    channel: str
    name: str
    owners: tuple[str, ...]
    deliver: Callable[[TargetDigest, str], None]

    @property
    def key(self) -> str:
        """What the ledger calls it."""
        return f"{self.channel} {self.name}"


def send_digests(context: Context, *, dry: bool = False) -> tuple[DigestOutput, Failures]:
    """Tell every target what is new to it; with `dry` show that, and write nothing. A target that fails stops no other.

    Raises ContentError where fleets cannot be read, and UsageError where the settings name no channel.
    """
    settings, now = context.settings.digest, context.now
    if not settings.channels:
        raise UsageError("no channel is set under [digest.channels]", hint=HINT)
    found, failures, targets = open_now(context), Failures(), list[TargetDigest]()
    for target in _targets(settings, now):
        if dry:
            targets.append(_news(context, target, found)[0])
            continue
        told, failure = _told(context, target, found)
        targets.append(told)
        failures += [failure] if failure else []
    return DigestOutput(at=now, dry_run=dry, targets=tuple(targets)), failures


def open_now(context: Context) -> OpenPoints:
    """What is open by content and ledger, and what Goldsmith does about it by itself; the world is not asked."""
    fixes = open_fixes(patch_latency(OPEN_FOR, context).patches)
    return points_of(fixes, judged_state(context), _automation(context))


def _automation(context: Context) -> Mapping[str, Automation]:
    fleets = load_fleets(context.settings.roots)
    rows = context.ledger.open_rollouts()
    return {
        name: Automation(_next(fleet, context.now), tuple(_rolling(context, row) for row in rows if row.fleet == name))
        for name, fleet in fleets.items()
    }


def _next(fleet: Fleet, now: datetime) -> str:
    """What becomes of members that a new instance mends, by the fleet's file alone: a plan may still leave some out."""
    if fleet.approval is Approval.REQUIRED:
        return f"it waits for an approval ({fleet.owner}: ./goldsmith roll.plan {fleet.name})"
    hold = may_act(fleet.limits, now)
    if hold is None:
        return "the next night plans its replacement"
    if hold.until is None:
        return f"a night plans its replacement, but the day is not known: {hold.why}"
    return f"the first night from {hold.until:%Y-%m-%d %H:%M} UTC on plans its replacement ({hold.why})"


def _rolling(context: Context, row: Rollout) -> OpenRollout:
    order, state = Order.read(row.order), from_json(RolloutState, row.state) if row.state else None
    left = {one.name for one in members_of(context.ledger, row.id, order) if one.phase not in FINISHED}
    waves = order.plan.parts
    does = doing(state.stage, state.wave, waves, "") if state else doing("begun", 0, waves, "")
    return OpenRollout(row.id, does, frozenset(left), everyone=bool(order.plan.groups))


# -- telling one target ------------------------------------------------------------------------------------------------


def _targets(settings: DigestSettings, now: datetime) -> Iterator[DigestTarget]:
    tries_within = WITHIN  # a server that is down is waited for once, not for each address

    def by_mail(address: str, told: TargetDigest, key: str) -> None:
        nonlocal tries_within
        try:
            send(settings.smtp, Mail(address, told.subject, as_text(told), as_html(told), key, now), tries_within)
        except OutsideError:
            tries_within = timedelta(0)
            raise
        tries_within = WITHIN

    for name, channel in sorted(settings.channels.items()):
        for address in channel.mail:
            yield DigestTarget(name, address, channel.owners, partial(by_mail, address))
        if channel.webhook_file:
            yield DigestTarget(name, "webhook", channel.owners, _by_webhook(name, channel.webhook_file, now))


def _by_webhook(name: str, file: Path, now: datetime) -> Callable[[TargetDigest, str], None]:
    def deliver(told: TargetDigest, key: str) -> None:
        message = {
            "event": "digest", "channel": name, "key": key, "text": chat(as_text(told)),
            "at": now.astimezone(UTC).isoformat(),
        }  # fmt: skip
        post(file, f"digest.channels.{name}.webhook_file", json.dumps(message), POST_SECONDS, safe=True)

    return deliver


def _news(
    context: Context, target: DigestTarget, found: OpenPoints
) -> tuple[TargetDigest, tuple[News, ...], tuple[str, ...]]:
    """What a target would be told; of which points; and what it no longer cares for."""
    known = context.ledger.told_points(target.key)
    news, others = news_for(target.key, target.owners, found, known, context.now, context.settings.digest)
    lines = grouped(news, context.now)
    told = tuple(one for _, same in lines[:MOST_LINES] for one in same)
    outcome: Literal["planned", "nothing"] = "planned" if told else "nothing"
    digest = TargetDigest(
        channel=target.channel, target=target.name, outcome=outcome,
        subject=subject_of(target.channel, told) if told else "", lines=tuple(line for line, _ in lines[:MOST_LINES]),
        left_out=len(news) - len(told),
    )  # fmt: skip
    return digest, told, others


def _told(context: Context, target: DigestTarget, found: OpenPoints) -> tuple[TargetDigest, GoldsmithError | None]:
    """Tell a target, and write down what it was told once it has taken it. A rehearsal writes that down alone."""
    with alone(context.ledger, f"digest to {target.key}", context.actor, ONE_TARGET) as ours:
        digest, told, others = _news(context, target, found)
        if not ours:
            return digest.model_copy(update={"outcome": "busy"}), None
        rehearsal = rehearsing(context.settings)
        if told and not rehearsal:
            try:
                target.deliver(digest, _key(context, target, told))
            except GoldsmithError as error:
                say(f"no digest to {target.key}: {error.message}")
                return digest.model_copy(update={"outcome": "failed", "detail": error.message}), error
        _keep(context, target, digest, told, others)
    done = "rehearsed" if rehearsal else "sent"
    return digest.model_copy(update={"outcome": done if told else "nothing"}), None


def _keep(
    context: Context, target: DigestTarget, digest: TargetDigest, told: tuple[News, ...], others: tuple[str, ...]
) -> None:
    kept = [one.kept for one in told if one.kept]
    over = [one.point.subject for one in told if one.stage is DigestStage.ENDED]
    audit = AuditLine(context.now, context.actor, "digest", target.key, digest.subject) if told else None
    if told or others:
        context.ledger.record_told(target.key, kept, [*over, *others], audit)


def _key(context: Context, target: DigestTarget, told: tuple[News, ...]) -> str:
    """The same for the same news after the same delivery before it: a message that comes twice, since we died right
    after it was taken, can be known by it; and no other has it.
    """
    before = [line.at.isoformat() for line in context.ledger.audit_lines(1, target.key)]
    said = [[one.stage, one.point.subject] for one in told]
    return hex_of(digest_of([target.key, before, said]))[:32]


# -- the command -------------------------------------------------------------------------------------------------------


def run_digest(context: Context, *, dry: bool, as_json: bool) -> int:
    """Send the digests, or show them; the exit code."""
    output, failures = send_digests(replace(context, lenient=True), dry=dry)
    if as_json:
        print_json(to_json(output))
    else:
        for one in output.targets:
            print_text(f"{one.channel} {one.target}: {one.outcome}")
            if one.lines:
                print_text("\n".join(f"  {line}" if line else "" for line in as_text(one).splitlines()))
    return finish(failures)


def in_words(output: DigestOutput) -> str:
    """A digest in a few words: how many targets came to what, and who failed."""
    outcomes = [one.outcome for one in output.targets]
    counts = ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
    failed = "; ".join(f"{one.channel} {one.target}: {one.detail}" for one in output.targets if one.detail)
    return f"{counts}{f'; {failed}' if failed else ''}"
