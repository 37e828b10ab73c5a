"""Checks whether a night can work at all, before it queries, builds or changes anything. Edge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from hardening.catalog import load_policies, load_waivers, require_judging, require_may_publish
from hardening.foundation.errors import ContentError, nearest, raise_all
from hardening.foundation.process import which
from hardening.foundation.settings import DEBIAN, DOWNLOAD, NONE, ROOT, Feeds, Settings, place_of
from images.context import Context
from images.trust.keys import public_der
from pipelines.fleet.catalog import load_fleets

WORDS = (DEBIAN, DOWNLOAD, NONE)


def require_ready(context: Context) -> None:
    """Raise as `require_workable` does, and ContentError unless all waivers and fleets can be read: each of them may be
    the one that counts.
    """
    require_workable(context.settings, context.policy, context.now.date())
    load_waivers(context.settings.roots)
    load_fleets(context.settings.roots)


def require_workable(settings: Settings, policy: str, today: date) -> None:
    """Raise unless a night can work by these settings: what only its middle would find out costs a night.

    ContentError for all that is wrong with them, RefusedError for a policy of the night (`policy`, else that of
    `[nightly]`) that may publish nothing. What may be away for an hour, such as a registry, is not asked for: the night
    goes on without.
    """
    raise_all([*_policies(settings), *_files(settings), *_signing(settings), *_feeds(settings.feeds)])
    if by := policy or settings.nightly.policy:
        require_may_publish(settings.roots, settings.judging, by, today)


def _policies(settings: Settings) -> Iterator[ContentError]:
    try:
        require_judging(settings.roots, settings.judging)
    except ContentError as error:
        yield error
    known, name = load_policies(settings.roots), settings.nightly.policy
    if name and name not in known:
        yield _wrong(f"unknown policy: {name}", "nightly", "policy", hint=nearest(name, known))


def _files(settings: Settings) -> Iterator[ContentError]:
    packages = settings.packages
    files = {("registry", "ca_file"): settings.registry.ca_file, ("packages", "keyring"): packages.keyring}
    every = [*files.items(), *((("packages", "extra_sources"), file) for file in packages.extra_sources)]
    for key, file in every:
        if file and not _readable(ROOT / file):
            yield _wrong(f"this file cannot be read: {file}", *key)


def _readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def _signing(settings: Settings) -> Iterator[ContentError]:
    asked = settings.signing
    if not asked.command:
        return
    if not which(asked.command[0]):
        yield _wrong(f"no program is called {asked.command[0]}", "signing", "command")
    try:
        public_der(asked.public_key)
    except ContentError as error:
        yield error


def _feeds(feeds: Feeds) -> Iterator[ContentError]:
    """A word that means nothing. A directory by its path is left to the feed: its disk may come back."""
    for name, place in feeds.model_dump().items():
        if place and place not in WORDS and "/" not in place and ":" not in place and not (ROOT / place).exists():
            hint = f"{nearest(place, WORDS)}; docs/feeds.md"
            yield _wrong(f"neither a known word nor an address or a directory: {place}", "feeds", name, hint=hint)


def _wrong(message: str, *key: str, hint: str = "") -> ContentError:
    return ContentError(message, file=place_of(*key), key=".".join(key), hint=hint)
