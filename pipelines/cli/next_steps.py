"""Who has to do what next, so that a fix comes further."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from hardening.findings import Verdict
from hardening.foundation.grouping import by_key
from hardening.gate import brought_by, until_offered
from images.context import Context
from pipelines.fleet.model import Fleet
from pipelines.patch_times import Patch, Waits


class NextSteps:
    """The next steps of `patches`: an image that brings a fix in comes before those on it."""

    def __init__(self, context: Context, fleets: Mapping[str, Fleet], patches: Iterable[Patch]) -> None:
        self._context, self._fleets = context, fleets
        unpublished = (one.fix for one in patches if one.waits is Waits.PUBLICATION)
        self._having = by_key(((fix.vulnerability, fix.package), fix.image) for fix in unpublished)
        self._verdict = cache(self._last_verdict)

    def after(self, one: Patch) -> tuple[str, str]:
        """Who acts, and what to do; empty where it is closed."""
        context, image, fleet = self._context, one.fix.image, self._fleets.get(one.name)
        key = one.fix.vulnerability, one.fix.package
        root = brought_by(image, self._having.get(key, ()), context.parents)
        loaded = context.definitions.get(root if one.waits is Waits.PUBLICATION else image)
        owner = loaded.definition.owner if loaded else "-"
        fleet_owner = fleet.owner if fleet else "-"
        match one.waits:
            case Waits.PUBLICATION:
                more = "" if root == image else f", then ./goldsmith image.publish {image}"
                return owner, until_offered(self._verdict(root), *key) or f"./goldsmith image.publish {root}{more}"
            case Waits.PROMOTION:
                return owner, f"./goldsmith image.promote {image}"
            case Waits.ROLLOUT:
                tag = fleet.replacement.tag if fleet else None
                first = f"build {tag} on the newest {image}, then " if tag else ""
                return fleet_owner, f"{first}./goldsmith roll.start {one.name}"
            case Waits.UNKNOWN:
                return fleet_owner, f"./goldsmith fleet.check {one.name}"
            case Waits.NOTHING:
                return "", ""

    def _last_verdict(self, image: str) -> Verdict | None:
        """The verdict on the newest build: it says whether the mirror has what a fix needs."""
        ledger = self._context.ledger
        artifact = ledger.latest_artifact(image, self._context.settings.platform)
        return ledger.verdict(artifact.digest, image) if artifact else None
