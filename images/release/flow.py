"""The release flow: build → scan → gate → publish, and re-date what nears its expiry without building."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache

from hardening.catalog import load_policy, require_may_publish
from hardening.findings import Verdict
from hardening.foundation.console import say
from hardening.foundation.durations import shown
from hardening.foundation.errors import GoldsmithError, RefusedError
from hardening.foundation.timing import collected, in_all, step
from images.artifact import Artifact, Release
from images.build.flow import BuildOutcome, build
from images.context import Context
from images.plan.build_plan import Action, order
from images.release.channels import Gate
from images.release.lifecycle import near_expiry
from images.release.publish import Published, release
from images.release.stores import store_of
from images.scan.judge import Judgement, judge, latest, refusal


@dataclass(frozen=True)
class ReleaseOutcome:
    """What happened to one image on its way to the registry.

    `action` is published, re-dated, unchanged, refused or failed; `built` what became of its build; `verdict` the
    gate's, where it was asked; `stopped_by` the image that it stands on and that failed or was refused.
    """

    name: str
    action: str
    built: BuildOutcome
    content: str = ""
    digest: str = ""
    expires_at: datetime | None = None
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    verdict: Verdict | None = field(default=None, repr=False)
    error: GoldsmithError | None = field(default=None, repr=False)
    stopped_by: str = ""


def release_all(context: Context, names: Iterable[str]) -> list[ReleaseOutcome]:
    """Bring `names`, and whatever they stand on, to the candidate channel as far as anything changed.

    A child is published only on a base that is; what is refused or failed stops its children and nothing else.
    """
    chosen = list(names)
    outcomes = blocked(context, chosen)
    possible = [name for name in chosen if name not in outcomes]
    built = {outcome.name: outcome for outcome in (build(context, possible) if possible else ())}
    for name in (known for known in order(context.parents) if known in built):
        start = time.monotonic()
        parent = outcomes.get(context.parents[name] or "")
        with collected(name) as steps:
            outcome = _one(context, built[name], parent)
        outcomes[name] = replace(outcome, seconds=round(time.monotonic() - start, 3))
        if outcome.action in {"published", "re-dated"}:
            say(f"{name}: {outcome.action} in {in_all(outcomes[name].seconds, steps)}")
    return list(outcomes.values())


def blocked(context: Context, names: Iterable[str]) -> dict[str, ReleaseOutcome]:
    """The outcomes of images that could not be published whatever was built, asked before anything is."""
    asked: dict[str, GoldsmithError | None] = {}
    settings, today = context.settings, context.now.date()
    require = cache(lambda policy: require_may_publish(settings.roots, settings.judging, policy, today))
    told = {name: _may_not_publish(context, name, asked, require) for name in names if name in context.definitions}
    return {name: _never_built(name, error) for name, error in told.items() if error}


def _may_not_publish(
    context: Context, name: str, asked: dict[str, GoldsmithError | None], require: Callable[[str], None]
) -> GoldsmithError | None:
    """Why the image may not be published, by policy or store; None where it may. Each place is `asked` only once."""
    try:
        require(context.policy_of(name))
        store = store_of(context, name)
    except GoldsmithError as error:
        return error
    if store.place not in asked:
        try:
            asked[store.place] = None
            store.publication()
        except GoldsmithError as error:
            asked[store.place] = error
    return asked[store.place]


def _never_built(name: str, error: GoldsmithError) -> ReleaseOutcome:
    action = Action.REFUSED if isinstance(error, RefusedError) else Action.FAILED
    return _stopped(BuildOutcome(name, action, reasons=(error.message,), error=error))


def _stopped(built: BuildOutcome) -> ReleaseOutcome:
    """The outcome of an image that ended with its build."""
    return ReleaseOutcome(
        built.name, built.action, built, built.digest, reasons=built.reasons, error=built.error,
        stopped_by=built.stopped_by,
    )  # fmt: skip


def _one(context: Context, built: BuildOutcome, parent: ReleaseOutcome | None) -> ReleaseOutcome:
    """Judge and publish one built image; every failure becomes its outcome."""
    if built.action in {Action.REFUSED, Action.FAILED}:
        return _stopped(built)
    if parent and parent.action in {"refused", "failed"}:
        because = (f"its base {parent.name} {'was not published' if parent.action == 'failed' else 'was refused'}",)
        return replace(_stopped(built), action="failed", reasons=because, error=parent.error, stopped_by=parent.name)
    try:
        return _publish(context, built)
    except GoldsmithError as error:
        action = "refused" if isinstance(error, RefusedError) else "failed"
        reasons = (error.message, *error.evidence.splitlines())
        return replace(_stopped(built), action=action, reasons=reasons, error=error)


def _publish(context: Context, built: BuildOutcome) -> ReleaseOutcome:
    """Scan, ask the gate, publish. Raises RefusedError when the gate says no: then nothing is pushed."""
    artifact, judgement = judged(context, built.name)
    published = publish(context, artifact, judgement)
    return ReleaseOutcome(
        built.name, published.action, built, artifact.digest, published.release.digest, published.release.expires_at,
        built.reasons, verdict=judgement.verdict,
    )  # fmt: skip


def judged(context: Context, name: str) -> tuple[Artifact, Judgement]:
    """The newest artifact of an image and the gate's verdict over it. Raises RefusedError where that says no.

    Done again, it scans only what newer data asks for.
    """
    artifact = latest(context, name)
    with step("scans"):
        judgement = judge(context, artifact, context.policy_of(name))
    if not judgement.verdict.allowed:
        raise refusal(judgement)
    return artifact, judgement


def publish(context: Context, artifact: Artifact, judgement: Judgement) -> Published:
    """Publish what the gate let through, or give the release over it new dates near its end."""
    name = artifact.name
    standing = next((r for r in context.ledger.releases_of_content(artifact.digest) if not r.pruned_at), None)
    redate = standing is not None and near_expiry(standing, context.now)
    say(f"{name}: {'re-dating' if redate else 'publishing'}")
    with step("push"):
        return release(
            store_of(context, name), artifact, context.definitions[name].definition, judgement, redate=redate
        )


def gate(context: Context, policy: str) -> Gate:
    """The gate's answer over a release's content by the policy of that name: today's, or one that still counts.

    What a registry says was judged, or what `image.rebuild` read there, is no answer. Raises RefusedError.
    """
    return lambda release: _today(context, release, policy)


def _today(context: Context, release: Release, policy: str) -> Verdict:
    """Judge the content again; where it is no longer on this machine, what was said here last, if not too long ago."""
    if artifact := artifact_of(context, release):
        return judge(context, artifact, policy).verdict
    again = f"./goldsmith image.publish {release.name} judges it on this machine"
    told = f"{release.name} {release.digest[:19]}"
    last = context.ledger.verdict(release.content, release.name)
    if last is None:
        raise RefusedError(f"{told} was never judged on this machine, and its content is not here", hint=again)
    most = load_policy(context.settings.roots, policy).image.judges.data_max_age
    if context.now - last.judged_at > most:
        raise RefusedError(
            f"{told} was last judged on {last.judged_at:%Y-%m-%d}, longer ago than the {shown(most)} of the policy "
            f"{policy} (image.judges.data_max_age), and its content is not here to be judged again",
            hint=again,
        )
    return last


def artifact_of(context: Context, release: Release) -> Artifact | None:
    """The artifact whose content the release is over, if it is here whole."""
    if release.name not in context.definitions or not context.store.whole(release.content):
        return None
    return next((one for one in context.ledger.artifacts(release.name) if one.digest == release.content), None)
