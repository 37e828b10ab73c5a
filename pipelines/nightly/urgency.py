"""What cannot wait for the night: exploited or critical vulnerabilities of our images that can be fixed now. Edge.

It is asked of the data as it is now and not of what changed since it was last told: a run that was killed after it had
told of a change asks again and finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from hardening.findings import FindingKind
from hardening.model import Severity
from images import feeds
from images.advisories import standing
from images.context import Context
from images.feeds import indexed
from images.ledger.artifacts import PackageList
from pipelines.cli.image_holders import holders_of


def urgent_fixes(context: Context, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By image, the exploited or critical vulnerabilities of what its channels point to, or was built last, that a
    newer package fixes. Raises OutsideError where the list of exploited ones is set and cannot be had.
    """
    wanted = set(names)
    holders = [one for one in holders_of(context) if one.kind == "release" and one.image in wanted]
    lists = context.ledger.package_lists(of={one.content for one in holders})
    exploited = feeds.exploited(context.settings, context.now).ids
    found: dict[str, set[str]] = {}
    for holder in holders:
        if holder.content in lists:
            found.setdefault(holder.image, set()).update(_of_content(context, holder.content, lists, exploited))
    return {name: tuple(sorted(ids)) for name, ids in sorted(found.items()) if ids}


def _of_content(
    context: Context, content: str, lists: dict[str, PackageList], exploited: frozenset[str]
) -> Iterable[str]:
    """The ids in one content: by its last scan, and by the tracker's newest data where an exploited one is fixed."""
    scan, held = context.ledger.scan(content), lists[content]
    holes = [one for one in (scan.findings if scan else ()) if one.kind is FindingKind.VULNERABILITY]
    grave = exploited | {one.id for one in holes if one.severity is Severity.CRITICAL or one.exploited}
    known = {one.id for one in holes if one.fixed and one.id in grave}
    if not held.suite:
        return known
    data = indexed.tracker(context.settings, held.suite, context.now)
    now = standing(held.comparable, indexed.advisories(data, held.suite, held.packages))
    return known | {vulnerability for (vulnerability, _), fixed in now.items() if fixed and vulnerability in grave}
