"""What lets a release become stable: a verdict by today's policy and data, made on this machine."""

from __future__ import annotations

from hardening.catalog import load_policy
from hardening.findings import Verdict
from hardening.foundation.durations import shown
from hardening.foundation.errors import RefusedError
from images.artifact import Artifact, Release
from images.context import Context
from images.release.channels import Gate
from images.scan.judge import judge


def gate(context: Context, policy: str) -> Gate:
    """The gate's answer over a release's content by the policy of that name: today's, or one that still counts.

    What a registry says was judged, or what `image.rebuild` read there, is no answer. Raises RefusedError.
    """
    return lambda release: _today(context, release, policy)


def _today(context: Context, release: Release, policy: str) -> Verdict:
    """Judge the content again; where it is no longer on this machine, what was said here last, if not too long ago."""
    if artifact := _artifact(context, release):
        return judge(context, artifact, policy).verdict
    again = f"./goldsmith image.publish {release.name} judges it on this machine"
    told = f"{release.name} {release.digest[:19]}"
    last = context.ledger.verdict(release.content)
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


def _artifact(context: Context, release: Release) -> Artifact | None:
    """The artifact whose content the release is over, if it is here whole."""
    if release.name not in context.definitions or not context.store.whole(release.content):
        return None
    return next((one for one in context.ledger.artifacts(release.name) if one.digest == release.content), None)
