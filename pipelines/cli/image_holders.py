"""The holders of a content by the ledger alone: releases that channels point to, last builds, and running members."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from hardening.foundation.content import find_content
from hardening.foundation.errors import ContentError
from hardening.foundation.grouping import by_key
from images.context import Context
from pipelines.cli.image_output import NOWHERE, all_channels

BUILT = "built"


@dataclass(frozen=True)
class ImageHolder:
    """A holder of a content: a release that channels point to, the last build, or a running member.

    `on_base`: the member's image only stands on that content, so its own packages are not known. `published_by`: the
    policy that a member's golden image was published by.
    """

    kind: Literal["release", "member"]
    name: str
    image: str
    digest: str
    content: str
    channels: tuple[str, ...] = ()
    since: datetime | None = None
    on_base: bool = False
    published_by: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """How it is called where nothing can be said of it: image:channel, or fleet/member."""
        return tuple(f"{self.name}:{channel}" for channel in self.channels) or (self.name,)


def holders_of(context: Context) -> Iterator[ImageHolder]:
    """The holders by channel and last build, of every definition; then the running members."""
    ledger, first, channels = context.ledger, dict[str, datetime](), all_channels(context)
    releases = {release.digest: release for release in ledger.releases()}
    for release in releases.values():  # the newest first
        first[release.content] = release.published_at
    for name in sorted({*context.definitions, *(release.name for release in releases.values())}):
        pointed = dict(zip(("candidate", "stable"), channels.get(name, NOWHERE), strict=True))
        shown = by_key((there.digest, channel) for channel, there in pointed.items() if there and not there.pruned_at)
        for digest, names in shown.items():
            content = releases[digest].content
            yield ImageHolder("release", name, name, digest, content, tuple(names), first[content])
        last = ledger.latest_artifact(name, context.settings.platform)
        if last and last.digest not in {releases[digest].content for digest in shown}:
            yield ImageHolder("release", name, name, last.digest, last.digest, (BUILT,), first.get(last.digest))
    twice = dict[str, ContentError]()  # the names suffice: a broken file is an error elsewhere
    fleets = {*find_content(context.settings.roots, "pipelines/fleets", "*.toml", twice), *twice}
    checks = {
        f"{fleet}/{line['name']}": line for fleet, check in ledger.fleet_checks().items() for line in check.members
    }
    for digest, members in ledger.running_digests().items():
        content = releases[digest].content if digest in releases else digest
        golden = next((release for release in releases.values() if release.content == content), None)
        image, policy = (golden.name, golden.policy) if golden else ("", "")
        for member in (one for one in members if one.partition("/")[0] in fleets):
            on_base = _on_base(checks.get(member), content)
            yield ImageHolder("member", member, image, digest, content, (), first.get(content), on_base, policy)


def _on_base(line: Mapping[str, Any] | None, content: str) -> bool:
    """Whether a member's own packages are unknown, by what its last check kept of it."""
    if line is None:
        return False
    if line["runs"] != content or line.get("on_base") is None:  # of another time, or of an earlier version
        return bool(line["golden"])
    return bool(line["on_base"])
