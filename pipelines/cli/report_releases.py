"""What the report says of each release: its dates, evidence, what changed in it, and what it closed. Edge: reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain

from hardening.findings import Outcome
from hardening.foundation.grouping import by_key
from images.artifact import Artifact, Release
from images.context import Context
from images.ledger import ClosedFix, Ledger
from images.release.lifecycle import status
from pipelines.cli.report_output import ReleaseReport

NEWEST = 6
"""Releases of one image that are told of in full."""


class ContentRecords:
    """What the ledger keeps of contents; each is read once."""

    def __init__(self, ledger: Ledger) -> None:
        self.scan, self.verdict, self.checks = cache(ledger.scan), cache(ledger.verdict), cache(ledger.checks)


def releases_of(
    context: Context, names: Iterable[str], running: Mapping[str, int], channels: Mapping[str, Mapping[str, str]],
    said: ContentRecords,
) -> tuple[ReleaseReport, ...]:  # fmt: skip
    """The newest releases of each image, the newest first. `running`: members by a release's digest; `channels`: by
    image, where each channel points; `said`: of their contents.
    """
    closed = by_key((fix.content, fix) for fix in context.ledger.closed_fixes())
    releases = by_key((release.name, release) for release in context.ledger.releases())
    lines = (
        _of_image(context, releases.get(name, ()), running, closed, channels.get(name, {}), said) for name in names
    )
    return tuple(chain.from_iterable(lines))


def _of_image(
    context: Context, releases: Sequence[Release], running: Mapping[str, int], closed: Mapping[str, list[ClosedFix]],
    channels: Mapping[str, str], said: ContentRecords,
) -> Iterator[ReleaseReport]:  # fmt: skip
    built = {one.content: context.ledger.artifact_over(one.content) for one in releases[: NEWEST + 1]}
    for number, release in enumerate(releases[:NEWEST]):
        before = next((one for one in releases[number + 1 :] if one.content != release.content), None)
        new, old = built[release.content], built.get(before.content) if before else None
        yield ReleaseReport(
            image=release.name, digest=release.digest, content=release.content, status=status(release, context.now),
            published_at=release.published_at, expires_at=release.expires_at,
            channels=tuple(sorted(channel for channel, digest in channels.items() if digest == release.digest)),
            members=running.get(release.digest, 0), packages=len(new.packages) if new else 0,
            changes=tuple(changed_packages(old, new)) if old and new else (),
            closed=tuple(f"{one.vulnerability} in {one.package}" for one in closed.get(release.content, ())),
            evidence=tuple(_evidence(context, said, release)),
        )  # fmt: skip


def changed_packages(old: Artifact, new: Artifact) -> Iterator[str]:
    """Which packages an artifact has otherwise than one before it, a line for each."""
    before = {(one.name, one.architecture): one.version for one in old.packages}
    after = {(one.name, one.architecture): one.version for one in new.packages}
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was != now:
            yield f"{key[0]} {was or 'not there'} → {now or 'gone'}"


def in_trial(context: Context, name: str, policy: str) -> bool:
    """Whether an image that `policy` judged was only tried: by neither its own one nor, where a floor holds for that,
    the one of nights.
    """
    settings, loaded = context.settings, context.definitions.get(name)
    usual = {settings.nightly.policy} if settings.judging.floor else set()
    return loaded is not None and policy not in {loaded.definition.policy, *usual}


def _evidence(context: Context, said: ContentRecords, release: Release) -> Iterator[str]:
    """A line for each thing that is known of a release."""
    content = release.content
    if verdict := said.verdict(content) or said.verdict(content, told=True):
        answer = "allowed" if verdict.allowed else "refused"
        trial = ""
        if in_trial(context, release.name, verdict.policy):
            trial = f"; a trial, its definition names {context.definitions[release.name].definition.policy}"
        yield f"{answer} by the policy {verdict.policy} on {verdict.judged_at:%Y-%m-%d %H:%M} UTC{trial}"
    if checks := said.checks(content):
        hold = sum(check.outcome is Outcome.PASS for check in checks)
        yield f"{hold} of {len(checks)} controls hold"
    if scan := said.scan(content):
        looked = [one.scanner for one in scan.reports if one.outcome in (Outcome.PASS, Outcome.FAIL)]
        sample = "; vulnerabilities by a sample" if any(one.sample for one in scan.reports) else ""
        yield f"{len(scan.findings)} finding(s) by {', '.join(looked) or 'no scanner'}{sample}"
    if release.base_name:
        yield f"stands on {release.base_name} {release.base_digest}"
    if release.revoked_at:
        yield f"revoked on {release.revoked_at:%Y-%m-%d %H:%M} UTC: {release.revoked_reason}"
