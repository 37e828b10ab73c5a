"""The stages of a night as it acts through them: mirror, feeds, store, registry, fleets, ledger. Edge."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from hardening.catalog import load_waivers
from hardening.foundation.console import say
from hardening.foundation.errors import GoldsmithError, OutsideError, as_ours
from hardening.foundation.hashing import digest_of
from hardening.foundation.retrying import retrying
from hardening.waivers import ending_soon, refusing_since
from images import feeds
from images.artifact import Release
from images.context import Context
from images.feeds.indexed import CHECK_AFTER
from images.model import Bootstrap
from images.plan.locking import TagWatch, move_locks, nightly_upstreams
from images.release import retention
from images.release.channels import sign_all
from images.release.lifecycle import before, newest_first
from images.release.store import CHANNELS, PREVIOUS
from images.release.stores import AT_AWS, stores
from pipelines.cli.blast_radius import record_radius
from pipelines.cli.digest import ONE_TARGET, in_words, send_digests
from pipelines.cli.digest_text import DigestOutput
from pipelines.cli.feeds import OF_ALL, changes_told, failing, of_suite, update_feeds
from pipelines.cli.image import prune_images
from pipelines.cli.report import write_report
from pipelines.cli.waiving import ending_text, refused_now
from pipelines.contract import NightlyLine
from pipelines.durable.port import FencedError
from pipelines.fleet.catalog import load_fleets
from pipelines.host.capabilities import needs_of_fleet, shares
from pipelines.nightly.fleet_stage import bring_into_policy, in_turn, look_at
from pipelines.nightly.image_stages import built, judged_again, promoted, published, told
from pipelines.nightly.model import (
    NOTHING_URGENT,
    FeedNews,
    ImageAnswer,
    ImageJob,
    NightOrder,
    NightPart,
    NightPlan,
    NightRecord,
    ended_with,
    failed_too,
)
from pipelines.nightly.planning import bootstraps, may_roll, plan_night, selected
from pipelines.nightly.port import NightStages
from pipelines.nightly.summary import image_line, output, shortly
from pipelines.nightly.urgency import urgent_fixes
from pipelines.rollout.notify import Message, tell
from pipelines.rollout.rollout_store import fleet_of, without_file
from pipelines.rollout.state import Event
from pipelines.wiring import clock

Answer = TypeVar("Answer")
URGENT = "urgent"  # where the ledger keeps what was tried in vain


@dataclass
class WorldStages(NightStages):
    """The stages over this machine's settings and content. Each night has its own moment."""

    context: Context
    _of_nights: dict[str, Context] = field(default_factory=dict)

    def at(self, order: NightOrder) -> Context:
        """The context at the moment of a night; a definition that does not load ends only what stands on it."""
        if order.id not in self._of_nights:
            base = self.context
            if (base.policy, base.lenient) != (order.policy, True):
                base = replace(base, policy=order.policy, lenient=True)
            self._of_nights[order.id] = base.moved(order.started_at)
        return self._of_nights[order.id]

    def suites(self, order: NightOrder) -> tuple[str, ...]:
        """Of the images that the night is about."""
        return _alone(lambda: tuple(one.suite for one in self._bootstraps(order)))

    def _bootstraps(self, order: NightOrder) -> list[Bootstrap]:
        context = self.at(order)
        return bootstraps(context, selected(context, order)[0])

    def index(self, order: NightOrder, suite: str) -> NightPart:
        """Ask the mirror; the last index serves where it fails."""
        return part_of("index", suite, lambda: _index(self.at(order), self._bootstrap(order, suite)))

    def _bootstrap(self, order: NightOrder, suite: str) -> Bootstrap:
        return next(one for one in self._bootstraps(order) if one.suite == suite)

    def feeds(self, order: NightOrder, suite: str) -> NightPart:
        """Ask every feed now. One that fails is told, and its last good copy serves."""
        return with_failure("feeds", suite, lambda: _feeds(self.at(order), suite))

    def feed_changes(self, order: NightOrder) -> NightPart:
        """It is told once, so at once: a night may be killed before its report."""
        return with_failure("feeds", "changes", lambda: _feed_changes(self.at(order)))

    def urgent(self, order: NightOrder) -> FeedNews:
        """By the data that the feeds gave just now."""
        context, found = self.at(order), dict[str, tuple[str, ...]]()

        def ask() -> tuple[str, str]:
            found.update(urgent_fixes(context, selected(context, order)[0]))
            images = [f"{name} ({shortly(ids)})" for name, ids in found.items()]
            return "changed" if found else "unchanged", "; ".join(images) or NOTHING_URGENT

        part = part_of("feeds", "urgent", ask)
        return FeedNews(part, tuple(found), tuple(digest_of(list(ids)) for ids in found.values()))

    def untried(self, order: NightOrder, found: FeedNews) -> tuple[str, ...]:
        """By the ledger."""
        context = self.at(order)
        return tuple(
            name
            for name, tried in self._tries(order, found).items()
            if not context.ledger.sights(URGENT, name).of(tried)
        )

    def in_vain(self, record: NightRecord, found: FeedNews) -> bool:
        """What failed but by an image's own content is tried again, and told only once. A feed that failed is no
        reason for that: every run asks it again, whether it tries anything or not.
        """
        context, news = self.at(record.order), False
        images = tuple(replace(image, parts=_but_feeds(image.parts)) for image in record.images)
        others = replace(record, before=_but_feeds(record.before), images=images)
        fails = any(isinstance(error, OutsideError) for error in others.errors) or any(
            part.failure for part in others.parts
        )
        for name, tried in self._tries(record.order, found).items():
            version = f"{tried} failed" if fails else tried
            known = context.ledger.sights(URGENT, name).of(version)
            news = news or known is None or known.since == context.now
            context.ledger.remember(URGENT, name, [version], context.now, alone=True)
        return news and bool(record.errors)

    def _tries(self, order: NightOrder, found: FeedNews) -> dict[str, str]:
        """Each urgent image with what is tried for it: these fixes, by the indexes as they are now."""
        indexes = [self.at(order).index.state(bootstrap) for bootstrap in self._bootstraps(order)]
        return {name: digest_of([fixes, indexes]) for name, fixes in zip(found.urgent, found.fixes, strict=True)}

    def upstreams(self, order: NightOrder) -> tuple[str, ...]:
        """All."""
        return _alone(lambda: nightly_upstreams(self.at(order)))

    def lock(self, order: NightOrder, reference: str) -> NightPart:
        """The registry is asked by HEAD; a fix of what is exploited does not wait. Only `locks = "auto"` moves."""
        return part_of("lock", reference, lambda: _locked(self.at(order), reference))

    def plan(self, order: NightOrder, urgent: tuple[str, ...]) -> NightPlan:
        """What is done with already has its line at once."""
        plan = _alone(lambda: plan_night(self.at(order), order, urgent))
        for answer in plan.settled:
            if answer.action != "unchanged":
                told(image_line(answer))
        return plan

    def build(self, job: ImageJob) -> ImageAnswer:
        """Nothing enters the store before it is verified."""
        return _alone(lambda: built(self.at(job.night), job))

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """By the image's own policy, or the night's."""
        return _alone(lambda: judged_again(self.at(job.night), job, built))

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """The ledger knows what was begun."""
        return _alone(lambda: published(self.at(job.night), job, judged))

    def promote(self, job: ImageJob, published: ImageAnswer) -> ImageAnswer:
        """Where it has soaked, or cannot wait."""
        return _alone(lambda: promoted(self.at(job.night), published))

    def channels(self, order: NightOrder) -> NightPart:
        """Every channel that this ledger ever moved."""
        return with_failure("channel", "all", lambda: _signed(self.at(order)))

    def prune(self, order: NightOrder) -> NightPart:
        """By the ledger alone, unless it is to be done: then stores and fleets are asked."""
        return part_of("prune", "releases", lambda: _pruned(self.at(order)))

    def fleets(self, order: NightOrder, images: tuple[str, ...]) -> tuple[str, ...]:
        """Those first that may be rolled now."""
        fleets = _alone(lambda: load_fleets(self.at(order).settings.roots))
        chosen = {name: one for name, one in fleets.items() if not images or one.replacement.definition in images}
        return (*in_turn(chosen, clock()), *(() if images else without_file(self.at(order))))

    def fleet_needs(self, order: NightOrder, name: str) -> tuple[str, ...]:
        """By its file."""
        settings = self.at(order).settings
        return _alone(lambda: needs_of_fleet(fleet_of(self.at(order), name), settings)) if shares(settings) else ()

    def fleet(self, order: NightOrder, name: str) -> NightPart:
        """The rollout is found where an earlier process left it."""

        def act() -> tuple[str, str, GoldsmithError | None]:
            context = self.at(order)
            rolls = may_roll(context, order, fleet_of(context, name))
            if not rolls and not context.ledger.open_rollouts(name):
                return _not_rolled(order, *look_at(context, name))
            line = bring_into_policy(context, name, begins=rolls)
            answer = line.outcome, line.detail, line.refused
            return answer if rolls or line.rollout else _not_rolled(order, *answer)

        return with_failure("fleet", name, act)

    def waivers(self, order: NightOrder) -> NightPart:
        """Within 14 days, before their end or after it."""
        return _alone(lambda: ending(self.at(order)))

    def report(self, record: NightRecord) -> NightPart:
        """Under the night's own name: written again, it is the same file."""
        context, night = self.at(record.order), output(record)
        with suppress(GoldsmithError):  # the page then shows what was found before, with its date
            record_radius(context)
        path = _alone(lambda: str(write_report(context, night)))
        context.ledger.audit(
            record.ended_at,
            context.actor,
            "nightly",
            record.order.only,
            f"exit code {night.exit_code}: {night.summary}",
        )
        return NightPart(detail=path)

    def notify(self, record: NightRecord) -> NightPart:
        """What cannot be sent is a line, and stops nothing."""
        night = output(record)
        text = f"the night of {night.started_at:%Y-%m-%d %H:%M} UTC: {night.summary}; exit code {night.exit_code}"
        message = Message(Event.NIGHT, "", record.order.id, text, record.ended_at)
        _, failed = tell(self.at(record.order).settings, message)
        return ended_with("notify", "summary", failed[0]) if failed else NightPart()

    def digest(self, order: NightOrder) -> NightPart:
        """By the real clock, as fleets live by it. What an earlier process sends is waited for."""
        context = self.at(order)
        if not context.settings.digest.channels:
            return NightPart()
        return with_failure("digest", "channels", lambda: _digests(context.moved(clock())))


def looked_at(context: Context, order: NightOrder, name: str) -> tuple[str, str, GoldsmithError | None]:
    """Say what a night would do with a fleet, or that it does not roll it; and what is wrong with its members."""
    answer = look_at(context, name)
    rolls = may_roll(context, order, fleet_of(context, name))
    return answer if rolls else _not_rolled(order, *answer)


def _not_rolled(
    order: NightOrder, outcome: str, detail: str, refused: GoldsmithError | None
) -> tuple[str, str, GoldsmithError | None]:
    return outcome, f"{detail}; not rolled: --only {order.only} does not name what its members become", refused


def here(context: Context) -> str:
    """The machine and state directory that a night belongs to: only who holds the lock there may go on with it."""
    return f"{socket.gethostname()}:{context.settings.state_dir}"


def _alone(act: Callable[[], Answer], name: str = "a stage of the night") -> Answer:
    """What `act` answers; whatever it raises as an error of ours. Who stops us (Ctrl-C) ends its commands: then
    nothing of it counts, as if the process had died.
    """
    try:
        return act()
    except GoldsmithError:
        raise
    except Exception as error:
        raise as_ours(name, error) from error
    except KeyboardInterrupt:
        raise FencedError from None


def part_of(kind: str, name: str, act: Callable[[], tuple[str, str]]) -> NightPart:
    """One part as a line; its failure is a line too."""
    began = time.monotonic()
    try:
        status, detail = _alone(act, f"{kind} {name}")
    except GoldsmithError as error:
        part = ended_with(kind, name, error, round(time.monotonic() - began, 1))
    else:
        seconds = round(time.monotonic() - began, 1)
        line = NightlyLine(kind=kind, name=name, status=status, detail=detail, seconds=seconds)
        part = NightPart((line,) if status else ())
    for line in part.lines:
        told(line)
    return part


def with_failure(kind: str, name: str, act: Callable[[], tuple[str, str, GoldsmithError | None]]) -> NightPart:
    """One part as a line, and beside it what failed in it all the same."""
    failed = list[GoldsmithError]()

    def told_apart() -> tuple[str, str]:
        status, detail, failure = act()
        failed.extend([failure] if failure else [])
        return status, detail

    part = part_of(kind, name, told_apart)
    return failed_too(part, failed[0]) if failed else part


def _but_feeds(parts: tuple[NightPart, ...]) -> tuple[NightPart, ...]:
    return tuple(part for part in parts if not any(line.kind == "feeds" for line in part.lines))


def _locked(context: Context, reference: str) -> tuple[str, str]:
    if context.settings.locks != "auto":
        return _seen(context, reference)
    moves, errors = move_locks(context, [reference])
    if error := errors.get(reference):
        raise error
    move = moves[reference]
    if move.action == "unchanged":
        return "", ""
    until = f", until {move.waits_until:%Y-%m-%d %H:%M} UTC" if move.waits_until else ""
    return move.action, f"{move.newest if move.action == 'waits' else move.digest}: {move.why}{until}"


def _seen(context: Context, reference: str) -> tuple[str, str]:
    """Look at a tag, so that its wait begins; nothing moves, so that a registry that is down fails nothing."""
    try:
        state = TagWatch(context).look(reference)
    except GoldsmithError as error:
        return "unasked", error.message
    choice = state.choice
    if choice.newest == state.pinned:
        return "", ""
    if choice.digest:
        return "newer", f"{choice.digest}: {choice.because}; ./goldsmith image.lock takes it"
    return "waits", f"{choice.newest}: {choice.because}, until {choice.until:%Y-%m-%d %H:%M} UTC"


def _index(context: Context, bootstrap: Bootstrap) -> tuple[str, str]:
    before = context.index.state(bootstrap)
    context.index.refresh(bootstrap)
    changed = context.index.state(bootstrap) != before
    return ("refreshed", "packages changed") if changed else ("unchanged", "no package changed")


def _feeds(context: Context, suite: str) -> tuple[str, str, OutsideError | None]:
    data, missing = feeds.refresh(context.settings, suite, context.now)
    texts = [f"{name}: {feed.source}{f' ({feed.note})' if feed.note else ''}" for name, feed in sorted(data.items())]
    detail = "; ".join([*texts, *(f"{name}: none, {why}" for name, why in sorted(missing.items()))])
    failure = failing(context, of_suite(context, suite, data, missing))
    return "kept" if failure else "refreshed", detail, failure


def _feed_changes(context: Context) -> tuple[str, str, OutsideError | None]:
    found = update_feeds(context, CHECK_AFTER)
    status, detail = changes_told(found)
    if status == "changed":
        say(detail)
    return status, detail, failing(context, (line for line in found.feeds if line.name in OF_ALL))


def _digests(context: Context) -> tuple[str, str, OutsideError | None]:
    output, failures = retrying(lambda: _sent(context), within=2 * ONE_TARGET, attempts=None)
    failed = OutsideError(in_words(output)) if failures else None
    sent = any(one.outcome == "sent" for one in output.targets)
    return "failed" if failed else "sent" if sent else "nothing", in_words(output), failed


def _sent(context: Context) -> tuple[DigestOutput, list[GoldsmithError]]:
    """Raises OutsideError while another process sends one: if that is dead, it is to be sent by this one."""
    output, failures = send_digests(context)
    if any(one.outcome == "busy" for one in output.targets):
        raise OutsideError("another process sends digests", hint="./goldsmith digest --dry-run shows what is left")
    return output, failures


def _signed(context: Context) -> tuple[str, str, GoldsmithError | None]:
    failed = sign_all(stores(context))
    if not failed:
        return "", "", None
    return "failed", _named(sorted(failed)), next(iter(failed.values()))


def _pruned(context: Context) -> tuple[str, str]:
    """What is over. No line where nothing is."""
    if context.settings.nightly.prune:
        done = [line for line in prune_images(apply=True, context=context) if line.action not in ("keep", "warn")]
        return ("removed", _named(f"{line.name} {line.release[:19]}".strip() for line in done)) if done else ("", "")
    due = [one.subject for one in over(context)]
    hint = "./goldsmith image.prune shows them, and removes them with --apply"
    return ("due", f"{_named(f'{one.name} {one.digest[:19]}' for one in due)}: {hint}") if due else ("", "")


def over(context: Context) -> Sequence[retention.RetirementDecision[Release]]:
    """The releases that are over, by what the ledger knows of channels and members, and that `image.prune` removes: of
    containers not those whose definition is gone.
    """
    releases = newest_first(one for one in context.ledger.releases() if not one.pruned_at)
    pointing: dict[str, list[str]] = {}
    revoked = {release.digest for release in releases if release.revoked_at}
    known = context.ledger.all_moves()
    for place, name in {(release.repository, release.name) for release in releases}:
        for channel in CHANNELS:
            moves = [move.digest for move in known.get((place, channel), ())]
            for digest in moves[-1:]:
                pointing.setdefault(digest, []).append(f"{name}:{channel}")
            for digest in before(moves, moves[-1])[:1] if moves else ():
                if digest not in revoked:  # which is nothing to go back to
                    pointing.setdefault(digest, []).append(f"{name}:{channel}{PREVIOUS}")
    running = context.ledger.running_digests()
    decisions = retention.plan(releases, running, pointing, context.now, context.kept)

    def is_ours(release: Release) -> bool:
        return release.name in context.definitions or release.repository.startswith(AT_AWS)

    return [one for one in decisions if one.action is retention.REMOVE and is_ours(one.subject)]


def _named(names: Iterable[str]) -> str:
    found = list(names)
    return f"{len(found)}: {shortly(found)}"


def ending(context: Context) -> NightPart:
    """The waivers that end within 14 days, and those that ended so lately and what they covered refuses something."""
    waivers, today = load_waivers(context.settings.roots), context.now.date()
    refusing = refusing_since(waivers, refused_now(context), today)
    details = [("ends", waiver, ending_text(waiver)) for waiver in ending_soon(waivers, today)] + [
        ("ended", waiver, f"{ending_text(waiver, 'ended')}, which refuses {shortly(refusing[waiver.id], ', ')} now")
        for waiver in waivers
        if waiver.id in refusing
    ]
    lines = [
        NightlyLine(kind="waiver", name=waiver.id, status=status, detail=detail, seconds=0.0)
        for status, waiver, detail in details
    ]
    return NightPart(tuple(told(line) for line in lines))
