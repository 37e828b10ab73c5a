"""The client of a Docker Engine where the engine is in the middle of something else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import NotFound

from hardening.foundation import retrying
from hardening.foundation.errors import OutsideError
from images import engine


@pytest.mark.parametrize(("misses", "attempts"), [(1, 2), (99, retrying.ATTEMPTS)])
def test_a_list_that_misses_an_image_is_asked_for_again(
    misses: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine refuses the whole list where one image of any name is removed meanwhile; not for ever."""
    asked: list[dict[str, str]] = []

    def images(filters: dict[str, str]) -> list[dict[str, Any]]:
        asked.append(filters)
        if len(asked) <= misses:
            raise NotFound("content digest sha256:0: not found")
        return [{"Id": "sha256:1"}]

    monkeypatch.setattr(engine, "engine", lambda _: SimpleNamespace(api=SimpleNamespace(images=images)))
    if attempts > misses:
        assert engine.images_named("unix:///e", "*/trial/*") == [{"Id": "sha256:1"}]
    else:
        with pytest.raises(OutsideError, match="unix:///e could not list its images") as error:
            engine.images_named("unix:///e", "*/trial/*")
        assert "sha256:0" in error.value.evidence
    assert asked == [{"reference": "*/trial/*"}] * attempts
