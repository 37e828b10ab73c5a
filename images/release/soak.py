"""The soak: how long a release is `candidate` before a nightly run moves `stable` to it, and what does not wait."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import takewhile

from hardening.catalog import load_policy
from hardening.findings import Finding, FindingKind
from hardening.foundation.errors import GoldsmithError
from hardening.model import Severity
from images.artifact import Release
from images.context import Context
from images.release.flow import artifact_of
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


def urgent_fixes(context: Context, stable: Release, candidate: Release) -> tuple[str, ...]:
    """The exploited or critical vulnerabilities that `stable` has, by today's data, and `candidate` no longer.

    None where the candidate cannot be scanned today: an older scan misses what was found since.
    """
    after = _today(context, candidate)
    if after is None:
        return ()
    last = context.ledger.scan(stable.content)
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
