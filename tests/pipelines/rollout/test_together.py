"""Members that hang are asked side by side: each question here ends when all of them have begun."""

from __future__ import annotations

from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError
from pipelines.fleet.docker.inventory import AT_ONCE, together
from pipelines.fleet.members import Key, Read
from pipelines.fleet.model import Method
from pipelines.rollout.baking import HealthLook, _watch
from pipelines.rollout.state import one_by_one


def test_members_that_bake_are_looked_at_side_by_side() -> None:
    """The answers are those of the members, in whatever order they come."""
    begun = Barrier(AT_ONCE, timeout=600)

    def read(key: Key) -> Read:
        begun.wait()
        return Read(good=False, text=key.name)

    names = [f"web-{number}" for number in range(AT_ONCE)]
    said = SimpleNamespace(orders=lambda _rollout: SimpleNamespace(desired_state="go", canary_approvals=0))
    world = SimpleNamespace(fleet=SimpleNamespace(read=read), journal=said, together=together)
    rolling: Any = SimpleNamespace(world=world, order=SimpleNamespace(rollout="r1"))
    keys = {name: Key("r1", name, name, "old", Method.SURGE) for name in names}
    what: Any = SimpleNamespace(judged=False, whole=None)
    seen = _watch(rolling, keys, what)
    assert seen.reads == {name: HealthLook(False, name) for name in names}
    assert seen.orders.desired_state == "go"


@pytest.mark.parametrize("ask", [together, one_by_one])
def test_a_question_that_fails_fails_them_all(ask: Any) -> None:
    """Whoever asks sees what went wrong."""

    def fails() -> int:
        raise OutsideError("no engine")

    assert ask([lambda: 1, lambda: 2]) == [1, 2]
    with pytest.raises(OutsideError, match="no engine"):
        ask([lambda: 1, fails])
