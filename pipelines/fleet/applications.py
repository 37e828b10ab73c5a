"""Which application images are built on a golden image that has a newer release. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hardening.foundation.hashing import digest_of
from images.artifact import Release
from pipelines.fleet.members import Provenance, ReplacementImage, repository
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import Judged, named, superseded


@dataclass(frozen=True)
class Application:
    """An application image that must be built again on `newest`: its newest build uses the older release `base`.

    `members`: those that run it, by name.
    """

    fleet: str
    owner: str
    image: str
    base: Release
    newest: Release
    members: tuple[str, ...]

    @property
    def key(self) -> str:
        """What a repeated message shows: the image, and the content of the base that it is to take."""
        return digest_of([self.image, self.newest.content])

    @property
    def text(self) -> str:
        """It in a sentence."""
        runs = f"{self.image}, which {len(self.members)} member(s) of {self.fleet} run, is based on {named(self.base)}"
        return f"{runs}; build it again on {named(self.newest)}"

    def message(self, now: datetime) -> str:
        """What the program or webhook gets that builds it again."""
        base = {"name": self.newest.name, "reference": f"{self.newest.repository}@{self.newest.digest}"}
        found = {
            "event": "rebuild", "key": self.key, "fleet": self.fleet, "owner": self.owner, "image": self.image,
            "base": base | {"was": f"{self.base.repository}@{self.base.digest}"}, "members": list(self.members),
            "text": self.text, "at": now.astimezone(UTC).isoformat(),
        }  # fmt: skip
        return json.dumps(found)


def behind(fleet: Fleet, judged: Iterable[Judged], tagged: ReplacementImage | None = None) -> tuple[Application, ...]:
    """The applications that members run and whose base has a newer release, each image once, by name.

    `tagged`: what `replacement.tag` points to; who runs an older build of it needs no other one where this stands on
    the newest base already.
    """
    members: dict[str, list[str]] = {}
    origins: dict[str, Provenance] = {}
    for one in judged:
        if one.on_base:
            image = repository(one.member.image)
            members.setdefault(image, []).append(one.member.name)
            origins[image] = _older(origins.get(image), one.origin)
    if tagged and tagged.golden and (image := repository(tagged.reference)) in origins:
        origins[image] = replace(origins[image], base=tagged.golden)
    return tuple(
        Application(fleet.name, fleet.owner, image, origin.base, origin.latest, tuple(sorted(members[image])))
        for image, origin in sorted(origins.items())
        if origin.base and origin.latest and superseded(origin, origin.base)[1]
    )


def _older(one: Provenance | None, other: Provenance) -> Provenance:
    """That of two builds of an image whose base was published first."""
    if one is None or one.base is None or other.base is None:
        return other
    return one if one.base.published_at <= other.base.published_at else other
