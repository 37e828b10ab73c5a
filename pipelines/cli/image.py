"""What the image tasks call: from names to flows, and their lines and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from hardening.catalog import load_waivers, require_judging
from hardening.findings import BaseImage, CheckResult
from hardening.foundation.console import Cell, out, print_json, print_table, print_text, say
from hardening.foundation.content import find_content, select
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError
from hardening.foundation.process import interruptible
from hardening.foundation.text import listed
from hardening.model import Kind, Waiver
from hardening.running import UNREAD
from images.artifact import Release
from images.build.flow import build
from images.context import Context
from images.documents import to_json
from images.plan.build_plan import Action, Change, order, with_ancestors
from images.plan.locking import move_locks, require_reason
from images.plan.planner import Planner
from images.release import channels
from images.release.channels import ChannelMove, Gate, rebuild
from images.release.flow import gate, release_all
from images.release.store import ReleaseStore, ShownRelease
from images.release.stores import full_reference, store_meant, store_of, stores
from images.scan.judge import reverify, silent_judges
from images.scan.verify import refusals
from images.store.garbage import collect
from pipelines.cli.image_output import short
from pipelines.contract import Line, LockLine, PruneLine, ReleaseLine, VerifyLine
from pipelines.fleet.violations import Judged
from pipelines.host.provision import lacking_for_machines
from pipelines.wiring import image_context

Errors = Sequence[GoldsmithError | None]


class PlanLine(Line):
    """`image.plan`: what would happen to one image, and why; `waits`: newer versions in their cooldown, until when."""

    name: str
    platform: str
    action: Action
    why: tuple[str, ...]
    changes: tuple[Change, ...]
    input_digest: str
    waits: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """Why, and what waits out its cooldown, in a table."""
        return (*self.why, *self.waits)


def _brief(action: str, reasons: tuple[str, ...], stopped_by: str) -> tuple[str, ...]:
    """Reasons as a narrow cell can hold them: an error is told whole beside the table, and only once."""
    own = action in (Action.REFUSED, Action.FAILED) and not stopped_by
    return ("see its error, told beside this table",) if own else reasons


class BuildLine(Line):
    """`image.build`: the result for one image; `seconds` of wall time; `waived`: what a waiver allowed; `stopped_by`:
    the parent image that was refused or failed; `steps`: the seconds of each step of a build.
    """

    name: str
    action: Action
    digest: str
    input_digest: str
    reasons: tuple[str, ...]
    seconds: float
    waived: tuple[str, ...]
    stopped_by: str = ""
    steps: dict[str, float] = {}

    @property
    def because(self) -> tuple[str, ...]:
        """The reasons in a table; those of a refusal or failure of its own stand in full in its error."""
        return (*_brief(self.action, self.reasons, self.stopped_by), *self.waived)


class PublishLine(Line):
    """`image.publish`: `action` is published, re-dated, unchanged, refused or failed; `stopped_by` as for a build."""

    name: str
    action: str
    content: str
    release: str
    expires_at: datetime | None
    reasons: tuple[str, ...]
    seconds: float
    stopped_by: str = ""

    @property
    def because(self) -> str:
        """The first reason; those of a refusal or failure of its own stand in full in its error."""
        return next(iter(_brief(self.action, self.reasons, self.stopped_by)), "")


class SignedChannels(Line):
    """`image.sign-channels`: where the channels of an image point, how much is revoked, and until when that counts."""

    name: str
    says: tuple[str, ...]


class WhyOutput(Line):
    """`image.why`: which input changed since the last artifact."""

    name: str
    last_built_at: datetime | None
    last_digest: str
    would: Action
    changes: tuple[Change, ...]
    why: tuple[str, ...]


def plan_images(
    pattern: str, *, refresh: bool = False, context: Context | None = None
) -> tuple[list[PlanLine], Errors]:
    """What a build of `pattern` would do, parents included; `refresh` asks the mirror for its index first.

    What is wrong with one definition stops what stands on it and no other; it comes second, and is raised where one
    image alone was asked for. Raises ContentError where [judging] names a policy that is not there.
    """
    context = replace(context or image_context(looks=True), lenient=True)
    require_judging(context.settings.roots, context.settings.judging)
    chosen, planner = named(context, pattern), Planner(context)
    names = [name for name in chosen if name in context.definitions]
    if refresh:
        planner.refresh(names)
    say(f"reading the package index and planning {len(names)} image(s) and their parents")
    wanted = with_ancestors(names, context.parents)
    failed = planner.plan_each(name for name in order(context.parents) if name in wanted)
    wrong = [*(context.unsound[name] for name in chosen if name in context.unsound), *failed.values()]
    if len(chosen) == 1 and (error := next(filter(None, wrong), None)):
        raise error
    return [PlanLine.of(plan) for plan in planner.plans.values()], wrong


@interruptible()
def build_images(
    pattern: str, *, no_cache: bool, refresh: bool = False, policy: str = ""
) -> tuple[list[BuildLine], Errors]:
    """Build; one line for each image, and what went wrong. `refresh` asks the mirror for its index first.

    A machine is judged before it is kept: by its own policy, or by `policy`.
    """
    context = image_context(policy=policy)
    names = judgeable(context, named(context, pattern))
    if refresh:
        Planner(context).refresh(names)
    outcomes = build(context, names, no_cache=no_cache)
    return [BuildLine.of(outcome) for outcome in outcomes], [outcome.error for outcome in outcomes]


@interruptible()
def verify_images(pattern: str, *, control: str = "") -> tuple[list[VerifyLine], list[GoldsmithError]]:
    """Check the newest artifacts again; an image that cannot be checked, such as one never built, stops no other."""
    context = image_context()
    waivers, lines, errors = load_waivers(context.settings.roots), list[VerifyLine](), list[GoldsmithError]()
    for name in named(context, pattern):
        say(f"{name}: verifying")
        try:
            digest, checks = reverify(context, name, control)
        except GoldsmithError as error:
            errors.append(error)
            continue
        bases = context.ledger.bases_of(digest, name)
        lines.append(verify_line(name, digest, checks, waivers, context.now, bases))
    return lines, errors


def verify_line(
    name: str,
    digest: str,
    checks: tuple[CheckResult, ...],
    waivers: tuple[Waiver, ...],
    now: datetime,
    bases: Sequence[BaseImage] = (),
) -> VerifyLine:
    """What the checks of one image say; it passed where none that is enforced and unwaived failed."""
    refused = refusals(checks, name, waivers, now.date(), bases)
    return VerifyLine(name=name, digest=digest, passed=not refused, checks=checks)


def why_image(name: str, context: Context | None = None) -> WhyOutput:
    """Which inputs of `name` differ from its last artifact's."""
    context = context or image_context(looks=True)
    only = one_of(context, name)
    plan = next(p for p in Planner(context).plan_all([only]) if p.name == only)
    last = context.ledger.latest_artifact(only, plan.platform)
    built_at, digest = (last.built_at, last.digest) if last else (None, "")
    return WhyOutput.of(plan, last_built_at=built_at, last_digest=digest, would=plan.action)


PLAN_COLUMNS = {"image": "name", "action": "action", "why": "told"}
BUILD_COLUMNS = {"image": "name", "action": "action", "digest": "digest", "seconds": "seconds", "because": "because"}
PUBLISH_COLUMNS = {
    "image": "name", "action": "action", "release": "release", "expires": "expires_at", "because": "because",
}  # fmt: skip
CHANNEL_COLUMNS = {"image": "name", "channel": "channel", "before": "before", "after": "after", "note": "note"}
SIGNED_COLUMNS = {"image": "name", "signed": "says"}
LOCK_COLUMNS = {"image": "name", "base": "base", "action": "action", "digest": "digest", "because": "because"}
RELEASE_COLUMNS = {"image": "name", "release": "release", "content": "content", "expires": "expires_at"}
PRUNE_COLUMNS = {"image": "name", "release": "release", "action": "action", "because": "why"}


@interruptible()
def publish_images(pattern: str, policy: str = "") -> tuple[list[PublishLine], Errors]:
    """Build, judge and publish; one line for each image, and what went wrong."""
    context = image_context(policy=policy)
    outcomes = release_all(context, publishable(context, pattern))
    lines = [PublishLine.of(one, release=one.digest, seconds=one.built.seconds + one.seconds) for one in outcomes]
    return lines, [one.error for one in outcomes]


def promote_images(
    pattern: str, policy: str = "", context: Context | None = None
) -> tuple[list[ChannelMove], list[GoldsmithError]]:
    """Move `stable` to what `candidate` points to, judged again by the definition's own policy or the one named.

    One that cannot be moved stops no other: what moved, and what went wrong.
    """
    context = context or image_context(policy=policy)
    changes, errors = [], []
    for name in publishable(context, pattern):
        try:
            changes.append(promote_one(context, name))
        except GoldsmithError as error:
            errors.append(error)
    return changes, errors


def promote_one(
    context: Context, name: str, tonight: Gate | None = None, earlier: Release | None = None
) -> ChannelMove:
    """Move `stable` of one image to what `candidate` points to, or to an `earlier` candidate.

    `tonight` answers in the place of a gate of its own.
    """
    policy = context.policy_of(name)
    return channels.promote(store_of(context, name), name, policy, tonight or gate(context, policy), earlier)


def sign_channels(pattern: str) -> tuple[list[SignedChannels], list[GoldsmithError]]:
    """Sign the channels of images again by hand, and put their tags right; one that cannot be signed stops no other."""
    context = image_context()
    lines, errors = list[SignedChannels](), list[GoldsmithError]()
    for name in named(context, pattern):
        store = store_of(context, name)
        try:
            lines.append(SignedChannels(name=name, says=store.sign(store.repository(name), recover=True)))
        except GoldsmithError as error:
            errors.append(error)
    return lines, errors


def show_why(why: WhyOutput, *, as_json: bool) -> None:
    """Print what changed since the last artifact."""
    if as_json:
        print_json(to_json(why))
        return
    at = why.last_built_at
    last = f"last built {at:%Y-%m-%d %H:%M} UTC as {short(why.last_digest)}" if at else "never built"
    for text in (f"{why.name}: {last}", f"would now be: {why.would}"):
        out().print(text)
    rows = [[change.kind, change.name, short(change.old)[:40], short(change.new)[:40]] for change in why.changes]
    print_table(["input", "name", "old", "new"], rows) if rows else print_text(why.why)


def rollback_image(name: str, reason: str = "") -> list[ChannelMove]:
    """Move `stable` back to the release it pointed to before; `reason` lets it be an expired or revoked one."""
    context = image_context()
    only = one_of(context, name)
    return [channels.rollback(store_of(context, only), only, reason=reason)]


def revoke_release(ref: str, reason: str) -> list[ChannelMove]:
    """Take a release out of policy, with all over the same content and all built on it; `ref` as for `image.show`.

    Each is named before anything changes.
    """
    context = image_context()
    store, full = meant(context, ref)
    channels.require_revocation_reason(reason)
    release = store.meant(full)
    say(f"revoking {_dated(release)}: {reason}")
    for one in channels.revoked_with(store, release):
        if one.digest != release.digest:
            say(f"and {_dated(one)}, {'of the same content' if one.content == release.content else 'built on it'}")
    return list(channels.revoke(store, full, reason))


def _dated(release: Release) -> str:
    return f"{release.name} of {release.published_at:%Y-%m-%d} ({release.digest})"


def show_release(ref: str) -> ShownRelease:
    """Everything about a published image, from the registry or AWS alone."""
    store, full = meant(image_context(looks=True), ref)
    return store.show(full)


def meant(context: Context, ref: str) -> tuple[ReleaseStore, str]:
    """What a person typed: the store of that release, and the full reference to it."""
    full = full_reference(context.ledger, one_reference(context, ref), {*context.definitions, *context.unsound})
    return store_meant(context, full), full


def print_release(shown: ShownRelease, *, as_json: bool) -> None:
    """Print what is known of a release."""
    if as_json:
        print_json(to_json(shown))
        return
    rows = [[name.replace("_", " "), _text(value)] for name, value in shown if value not in (None, "", (), {})]
    print_table(["", shown.ref], rows)


def _text(value: object) -> Cell:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {number}" for key, number in value.items())
    if isinstance(value, tuple):
        return [str(getattr(item, "summary", getattr(item, "what", item))) for item in value]
    return str(value)


FLEETS = "pipelines/fleets", "*.toml"


def prune_images(*, apply: bool, context: Context | None = None) -> list[PruneLine]:
    """Plan, and with `apply` carry out, the removal of releases that are over.

    Every fleet is looked at first: what runs must not go. Raises OutsideError where one cannot be read.
    """
    context = context or image_context(looks=not apply)
    look_at_fleets(context)
    if apply:
        context.ledger.forget_fleets(find_content(context.settings.roots, *FLEETS), context.now)
    lines = [PruneLine.of(one) for store in stores(context) for one in store.retire(apply=apply)]
    for found in collect(context, apply=apply):
        if found.files:
            size = f"{len(found.files)} files, {found.size_bytes / 1e6:.0f} MB that no kept image needs"
            action = "removed" if apply else "remove"
            lines.append(PruneLine(name=found.what, release="", action=action, why=size))
    if any(line.action in {"remove", "disable", "deprecate"} for line in lines):
        say("nothing was done: --apply removes what is listed")
    return lines


def look_at_fleets(context: Context) -> None:
    """Let the ledger know what every fleet runs right now. Raises OutsideError: what is unread may be in use."""
    from pipelines.rollout.session import check, fleet_session

    for name, file in sorted(find_content(context.settings.roots, *FLEETS).items()):
        try:
            with fleet_session(name, context, now=lambda: context.now) as at:
                unread = _unread(check(at))
        except GoldsmithError as error:
            raise _cannot_read(name, file, str(error)) from error
        if unread:
            raise _cannot_read(name, file, unread)


def _cannot_read(fleet: str, file: Path, evidence: str) -> OutsideError:
    what = f"the fleet {fleet} cannot be read, so nothing is pruned: what it runs must stay"
    gone = f"or take what is gone for good out of {file}"
    hint = f"fix the access, {gone}; ./goldsmith fleet.check {fleet} shows each member"
    return OutsideError(what, evidence=evidence, hint=hint)


def _unread(judged: Iterable[Judged]) -> str:
    """Which members could not be read, a line for each reason; empty where all could."""
    from pipelines.rollout.plan import by_reason

    reasons = ((one.member.id, reason.what) for one in judged for reason in one.violations if reason.rule == UNREAD)
    return "\n".join(f"{listed(who)}: {why}" for why, who in by_reason(reasons).items())


def lock_upstreams(pattern: str, *, now: bool = False, reason: str = "") -> tuple[list[LockLine], Errors]:
    """Pin the upstream bases of the definitions that `pattern` means to the newest digest that is old enough.

    `now`: to what their tags name now, for a `reason` that the audit keeps.
    """
    because, context = require_reason(now, reason), image_context()
    chosen = [context.definitions[name].definition for name in select(pattern, context.definitions, "image")]
    bases = {one.name: one.base.image for one in chosen if one.base.image}
    moves, errors = move_locks(context, bases.values(), now_because=because)
    return [LockLine.of(moves[base], name=name) for name, base in bases.items() if base in moves], [*errors.values()]


def rebuild_ledger(context: Context | None = None) -> tuple[list[ReleaseLine], list[GoldsmithError]]:
    """Fill the ledger from the registry and AWS: the releases that were found there, and what could not be read."""
    context = context or image_context()
    lines, errors = list[ReleaseLine](), list[GoldsmithError]()
    for store in stores(context):
        releases, wrong = rebuild(store)
        errors += wrong
        lines += [ReleaseLine.of(release, release=release.digest) for release in releases]
    return lines, errors


def means_several(pattern: str) -> bool:
    """Whether a NAME argument is `all`, a glob, or several."""
    return pattern == "all" or " " in pattern or ("/" not in pattern and bool(re.search(r"[*?\[]", pattern)))


def subjects(context: Context, pattern: str) -> list[str]:
    """The definitions and references that are typed as NAME arguments. Raises ContentError with the nearest names."""
    known = {*context.definitions, *context.unsound}
    found = (named(context, one) if one in known or means_several(one) else [one] for one in pattern.split())
    return [*dict.fromkeys(name for names in found for name in names)]


def one_of(context: Context, name: str) -> str:
    """The one definition that an argument means. Raises ContentError, also where it means several."""
    chosen = select(name, context.definitions, "image")
    if len(chosen) > 1:
        raise ContentError(f"{name} means {len(chosen)} images: {', '.join(chosen)}", hint="name one of them")
    return chosen[0]


def one_reference(context: Context, ref: str) -> str:
    """The reference, or the one definition that a glob means. Raises ContentError where it means several."""
    return one_of(context, ref) if means_several(ref) else ref


def named(context: Context, pattern: str, *, quiet: bool = False) -> list[str]:
    """The definitions that a NAME argument means. Raises ContentError with the nearest names.

    A name means itself. `all` and globs mean what this machine is for (`kinds` in the settings) and can build: where
    it lacks what machine images need, those are left out, and it says so unless `quiet`.
    """
    chosen = select(pattern, {*context.definitions, *context.unsound}, "image")
    kinds = {name: _kind(context, name) for name in chosen if name not in pattern.split()}
    left_out = {name for name, kind in kinds.items() if kind and kind not in context.settings.kinds}
    machines = {name for name, kind in kinds.items() if kind is Kind.MACHINE} - left_out
    if machines and (lacking := lacking_for_machines()):
        if not quiet:
            say(f"left out: {', '.join(sorted(machines))}; this machine lacks {lacking} (./goldsmith setup --machines)")
        left_out |= machines
    if left_out == set(chosen):
        hint = "name one, or see `kinds` in goldsmith.toml, and ./goldsmith setup --machines"
        raise ContentError(f"{pattern} means only images that are left out here: {', '.join(chosen)}", hint=hint)
    return [name for name in chosen if name not in left_out]


def publishable(context: Context, pattern: str, *, quiet: bool = False) -> list[str]:
    """What a NAME argument means where images are published: as `named`, and machines only where AWS is set.

    A name means itself here too: publishing it then says what the settings lack.
    """
    chosen = named(context, pattern, quiet=quiet)
    machines = [name for name in chosen if name not in pattern.split() and _kind(context, name) is Kind.MACHINE]
    if context.settings.aws.region or not machines:
        return chosen
    if not quiet:
        why = "machine images are published to AWS, and aws.region is not set (docs/aws.md)"
        say(f"left out: {', '.join(machines)}; {why}")
    if machines == chosen:
        raise ContentError(f"{pattern} means only images that are left out here", key="aws.region", hint="docs/aws.md")
    return [name for name in chosen if name not in machines]


def judgeable(context: Context, names: list[str]) -> list[str]:
    """Without the machines that nobody here has the data to judge, where there are others to build; it says why."""
    machines = [name for name in names if _kind(context, name) is Kind.MACHINE]
    if machines == names:
        return names
    waiting = {name: why for name in machines if (why := _silence(context, name))}
    if waiting:
        why = next(iter(waiting.values()))
        say(
            f"left out: {', '.join(waiting)}; machines wait for data to judge them by ({why}); --policy demo builds "
            "them by the sample that ships"
        )
    return [name for name in names if name not in waiting]


def _silence(context: Context, name: str) -> str:
    """Why nobody here could judge a machine; empty where somebody can, or where its own build says what is wrong."""
    try:
        suite = Planner(context).bootstrap(context.definitions[name]).suite
        return silent_judges(context, name, suite)
    except GoldsmithError:
        return ""


def _kind(context: Context, name: str) -> Kind | None:
    loaded = context.definitions.get(name)
    return loaded.definition.kind if loaded else None
