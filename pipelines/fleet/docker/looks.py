"""Edge: the engine's list of the containers that rollouts made, shared by all who look at the same moment."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from pipelines.fleet.docker.given import Json
from pipelines.fleet.leavings import MEMBER, ROLLOUT
from pipelines.fleet.members import Key

MOMENT = 1.0  # seconds


class Looks:
    """Members that are replaced side by side are looked at in one call; what this process changes is seen at once."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._lock = Lock()
        self._listed: list[Json] = []
        self._until = 0.0

    def forget(self) -> None:
        """Something was changed: look anew."""
        with self._lock:
            self._until = 0.0

    def new(self, key: Key) -> Json | None:
        """The new container of a step, as the engine lists it; the old one is never the new one."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._listed = self._api.containers(all=True, filters={"label": [ROLLOUT, MEMBER]})
                self._until = time.monotonic() + MOMENT
            listed = self._listed
        wanted = (key.rollout, key.member)
        return next((one for one in listed if _made_for(one) == wanted and one["Id"] != key.old), None)


def _made_for(listed: Json) -> tuple[str, str]:
    return listed["Labels"].get(ROLLOUT, ""), listed["Labels"].get(MEMBER, "")


def as_inspected(listed: Json) -> Json:
    """What a health probe asks of a running container."""
    return {**listed, "State": {"Status": listed["State"]}}
