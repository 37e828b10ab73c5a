"""The soak: how long a release is `candidate` before a nightly run moves `stable` to it, and what does not wait."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby, takewhile

from hardening.catalog import load_policy
from hardening.findings import Finding, FindingKind
from hardening.foundation.errors import GoldsmithError
from hardening.model import Severity
from images.artifact import Release
from images.context import Context
from images.release.flow import artifact_of
from images.release.lifecycle import Status, before, status
from images.release.store import ReleaseStore
from images.scan.judge import scan_again

EARLIER = 24
"""By which part of the soak a night may begin earlier than the one before it, and still find the soak over."""


def soaked(since: datetime, soak: timedelta, now: datetime) -> bool:
    """Whether what is `candidate` since then has soaked."""
    return now - since >= soak - soak / EARLIER


def candidate_since(to: ReleaseStore, candidate: Release) -> datetime:
    """Since when `candidate` has pointed to this content without a break; new dates are no break."""
    moves = to.ledger.moves(candidate.repository, "candidate")
    same = {known.digest for known in to.ledger.releases_of_content(candidate.content)}
    run = list(takewhile(lambda move: move.digest in same, reversed(moves)))
    return run[-1].at if run else candidate.published_at


def ripe(
    earlier: Iterable[tuple[Release, datetime]],
    stable: Release | None,
    left: Collection[str],
    soak: timedelta,
    now: datetime,
) -> tuple[Release, ...]:
    """What `stable` may move to of `earlier` candidates, given newest first with since when each was one.

    What has soaked, still stands, and is newer than `stable`. `left` are the contents that `stable` names or has named:
    it may have been moved back from there, so that nothing before that is looked at.
    """
    newer = takewhile(lambda one: one[0].content not in left, earlier)
    return tuple(
        release
        for release, since in newer
        if soaked(since, soak, now)
        and status(release, now) in (Status.CURRENT, Status.WARN)
        and not release.pruned_at
        and (stable is None or release.published_at > stable.published_at)
    )


def ripe_earlier(to: ReleaseStore, candidate: Release, stable: Sequence[str], soak: timedelta) -> tuple[Release, ...]:
    """The same of what `candidate` pointed to before, by the ledger's moves.

    Going back to a content forgets what came after it. `stable` are the digests that `stable` points to.
    """
    repository = candidate.repository
    known = {one.digest: one for one in to.ledger.releases(candidate.name) if one.repository == repository}
    moved = [(known[one.digest], one.at) for one in to.ledger.moves(repository, "candidate") if one.digest in known]
    runs = dict[str, tuple[Release, datetime]]()
    for content, group in groupby(moved, lambda one: one[0].content):
        run = list(group)
        runs[content] = run[-1][0], run[0][1]
    earlier = before([release.content for release, _ in moved], candidate.content)
    named = (known[one.digest] for one in to.ledger.moves(repository, "stable") if one.digest in known)
    left = {*stable, *(release.content for release in named if not release.revoked_at)}
    present = known.get(stable[0]) or to.find(repository, stable[0]) if stable else None
    return ripe((runs[content] for content in earlier), present, left, soak, to.now)


def urgent_fixes(context: Context, stable: Release, candidate: Release) -> tuple[str, ...]:
    """The exploited or critical vulnerabilities that `stable` has, by today's data, and `candidate` no longer.

    None where the candidate cannot be scanned today: an older scan misses what was found since.
    """
    after = _today(context, candidate)
    if after is None:
        return ()
    last = context.ledger.scan(stable.content, stable.name)
    before = _today(context, stable) or (last.findings if last else ())
    return fixed(before, after)


def fixed(before: Iterable[Finding], after: Iterable[Finding]) -> tuple[str, ...]:
    """The exploited or critical vulnerabilities among `before` that are not among `after`."""
    left = {(finding.id, finding.package) for finding in after}
    grave = (
        finding
        for finding in before
        if finding.kind is FindingKind.VULNERABILITY and (finding.exploited or finding.severity is Severity.CRITICAL)
    )
    return tuple(sorted({finding.id for finding in grave if (finding.id, finding.package) not in left}))


def _today(context: Context, release: Release) -> tuple[Finding, ...] | None:
    """What is found in a release by today's data; None where it cannot be scanned here."""
    with suppress(GoldsmithError):
        if artifact := artifact_of(context, release):
            policy = load_policy(context.settings.roots, context.policy_of(release.name))
            return scan_again(context, artifact, policy).findings
    return None
