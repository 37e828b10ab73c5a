"""A lost ledger is filled again from where releases stand, which is the truth about what was published."""

from __future__ import annotations

from hardening.foundation.errors import GoldsmithError
from images.artifact import Release
from images.release.channels import read_in_moves
from images.release.store import ReleaseStore


def rebuild(to: ReleaseStore) -> tuple[tuple[Release, ...], tuple[GoldsmithError, ...]]:
    """Write into the ledger what a store knows: releases, revocations, channels, artifacts, judgements.

    Lines of what was never published (rollouts, audit, days of first sight) cannot come back. Run again, it changes
    nothing; returns the releases, and what could not be read: that stops no other image.
    """
    releases, errors = to.read_in()
    for repository in sorted({release.repository for release in releases}):
        read_in_moves(to, repository)
    to.note("rebuild", "ledger", f"{len(releases)} releases read from {to.place.rstrip('/')}")
    return releases, errors
