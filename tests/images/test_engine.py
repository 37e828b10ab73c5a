"""The client of a Docker Engine where the engine is in the middle of something else."""

from __future__ import annotations

from typing import Any

import pytest
from docker.errors import NotFound

from hardening.foundation import retrying
from hardening.foundation.errors import OutsideError
from images import engine


class Missing:
    """An engine that misses one of its images as often as it is told to."""

    def __init__(self, misses: int) -> None:
        self.misses, self.asked, self.api = misses, list[dict[str, str]](), self

    def images(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """The list, or the engine's 404."""
        self.asked.append(filters)
        if len(self.asked) <= self.misses:
            raise NotFound("content digest sha256:0: not found")
        return [{"Id": "sha256:1"}]


def test_a_list_that_misses_an_image_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine refuses the whole list where one image of any name is removed meanwhile."""
    monkeypatch.setattr(engine, "engine", lambda _: missing)
    missing = Missing(1)
    assert engine.images_named("unix:///e", "*/trial/*") == [{"Id": "sha256:1"}]
    assert missing.asked == [{"reference": "*/trial/*"}] * 2


def test_an_engine_that_never_lists_its_images_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not asked for ever; with what it said."""
    monkeypatch.setattr(engine, "engine", lambda _: missing)
    missing = Missing(99)
    with pytest.raises(OutsideError, match="unix:///e could not list its images") as error:
        engine.images_named("unix:///e", "*/trial/*")
    assert "sha256:0" in error.value.evidence
    assert len(missing.asked) == retrying.ATTEMPTS
