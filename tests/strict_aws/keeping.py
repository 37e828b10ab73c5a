"""What was made in the emulator of this process, kept for others to begin with: a copy takes milliseconds."""

from __future__ import annotations

import threading
from copy import deepcopy
from typing import Any

from tests.strict_aws import direct
from tests.strict_aws.client import StrictAws
from tests.strict_aws.world import World

MADE = ("accounts", "blocks", "images", "journal", "snapshots", "tokens")
"""What of a `World` requests make that only create images, keys and networks."""
Made = tuple[dict[str, dict[str, dict[str, Any]]], dict[str, Any]]


class Kept:
    """What the emulator behind `aws` holds now: moto's part, and ours. Nothing may be under way there."""

    def __init__(self, aws: StrictAws) -> None:
        from moto.core.base_backend import BackendDict

        world = _world(aws)
        assert world is not None, "an emulator of another process keeps nothing"
        assert [world.timeline._due, world.timeline.watchers] == [[], []], "something is under way"
        moto = {each.service_name: {name: dict(of) for name, of in each.items()} for each in BackendDict._instances}
        self._made = _copied((moto, {name: getattr(world, name) for name in MADE}))
        self._at = world.now()

    def restore(self, aws: StrictAws) -> None:
        """Let an emulator that is `untouched` hold that, at the moment at which it was kept."""
        from moto.backends import get_backend

        world = _world(aws)
        assert world is not None
        moto, made = _copied(self._made)
        for service, accounts in moto.items():
            for account, backends in accounts.items():
                dict.update(get_backend(service)[account], backends)
        world.blocks.close()
        for name, value in made.items():
            setattr(world, name, value)
        world.clock.advance((self._at - world.now()).total_seconds())


def untouched(aws: StrictAws) -> bool:
    """Whether it is an emulator of this process that nobody has asked for anything, and that allows all of it."""
    world = _world(aws)
    return world is not None and not world.journal.since(0) and not world.faults.rules and world.policies is None


def _world(aws: StrictAws) -> World | None:
    front = direct.front_at(aws.url)
    return None if front is None else front.world


def _copied(made: Made) -> Made:
    """A copy in which everything refers to what is copied with it. Raises TypeError for what has no copy."""
    from moto.ssm.models import ParameterDict

    ParameterDict.__deepcopy__ = _parameters
    blocks, journal = made[1]["blocks"], made[1]["journal"]
    return deepcopy(made, {id(blocks): blocks.copied(), id(journal._lock): threading.Lock()})


def _parameters(given: Any, memo: dict[int, Any]) -> Any:
    """A copy of moto's dictionary of parameters, whose class says nothing of how to make one."""
    copy = memo[id(given)] = type(given)(given.account_id, given.region_name)
    copy.update(deepcopy(dict(given), memo))
    vars(copy).update(vars(given))
    return copy
