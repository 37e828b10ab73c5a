"""What a night says of releases that are over."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.foundation.settings import Settings
from images.artifact import Release
from images.context import Context
from pipelines.cli.image import prune_images
from pipelines.host import embedded_registry
from pipelines.nightly.stages import over

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_a_night_names_what_image_prune_removes_and_nothing_else(tmp_path: Path) -> None:
    """Of an image whose definition is gone it removes nothing in a registry: each night would name that for ever."""
    context = Context(Settings(state=tmp_path, kinds=("container",)), NOW, str, str)
    with closing(context.ledger) as ledger:
        places = (("debian-base", "r.example/x"), ("removed", "r.example/x"), ("removed-machine", "aws/1/x"))
        for number, (name, place) in enumerate(places):
            for age in (400, 500):
                at, digest = NOW - timedelta(days=age), f"sha256:{number}{age}".ljust(71, "0")
                release = Release(name, place, digest, digest, digest, "p", "default", at, at, at + timedelta(days=30))
                ledger.record_release(release)
        assert {one.subject.name for one in over(context)} == {"debian-base", "removed-machine"}


@pytest.mark.needs("docker-registry")
def test_what_a_fleet_that_is_gone_ran_a_year_ago_holds_nothing_back(tmp_path: Path) -> None:
    """Nobody looks at it, so nothing else would ever say that it runs that no more; a look alone forgets nothing."""
    settings = Settings(state=tmp_path, kinds=("container",))
    context = Context(settings, NOW, str, lambda: embedded_registry.registry_address(settings))
    with closing(context.ledger) as ledger:
        ledger.seen_fleet("gone", {"a": "sha256:r1"}, NOW - timedelta(days=366))
        try:
            prune_images(apply=False, context=context)
            assert ledger.running_digests()
            prune_images(apply=True, context=context)
        finally:
            embedded_registry.stop(settings)
        assert ledger.running_digests() == {}
