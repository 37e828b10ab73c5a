"""What a person gave a container beyond what its image sets by default, field by field as the engine merges them. Pure.

A value that equals the image's own default is left to the next image's default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.fleet.docker import compose
from pipelines.fleet.leavings import EXPIRY, KEPT, KEPT_LABELS, MEMBER, ROLLOUT

Json = dict[str, Any]
CONFIG_KEYS = (
    "User",
    "WorkingDir",
    "StopSignal",
    "StopTimeout",
    "Domainname",
    "Tty",
    "OpenStdin",
    "StdinOnce",
)
# Labels that say what one container is, not what a person wants of it: the next container gets its own.
OF_ONE_CONTAINER = (ROLLOUT, MEMBER, EXPIRY, KEPT, KEPT_LABELS, *compose.OF_ONE_CONTAINER)


def explicit(container: Json, image: Json) -> Json:
    """The configuration keys that differ from the image's defaults; the health check with the fields that do."""
    defaults = image.get("Config") or {}
    config = container["Config"]
    found = _changed(config, defaults, CONFIG_KEYS)
    check, own = config.get("Healthcheck") or {}, defaults.get("Healthcheck") or {}
    changed = _changed(check, own, check)
    return {**found, "Healthcheck": changed} if changed else found


def _changed(values: Json, defaults: Json, keys: Iterable[str]) -> Json:
    return {key: values[key] for key in keys if values.get(key) and values[key] != defaults.get(key)}


def env(container: Json, defaults: Json) -> list[str]:
    """The environment that was given beyond the image's."""
    known = set(defaults.get("Env") or [])
    return [entry for entry in container["Config"].get("Env") or [] if entry not in known]


def own_labels(container: Json, defaults: Json) -> dict[str, str]:
    """The labels that were given beyond the image's, without those of earlier rollouts."""
    known = defaults.get("Labels") or {}
    labels: dict[str, str] = container["Config"].get("Labels") or {}
    return {key: value for key, value in labels.items() if known.get(key) != value and key not in OF_ONE_CONTAINER}


def command(container: Json, defaults: Json) -> Json:
    """Entrypoint and command where they were given. An entrypoint of one's own drops the image's command with it."""
    config = container["Config"]
    if config.get("Entrypoint") != defaults.get("Entrypoint"):
        return {"Entrypoint": config.get("Entrypoint") or [""], "Cmd": config.get("Cmd")}
    return {"Cmd": config["Cmd"]} if config.get("Cmd") and config["Cmd"] != defaults.get("Cmd") else {}


def subtract(given: Mapping[str, Any] | None, defaults: Mapping[str, Any] | None) -> Json:
    """The entries that the defaults do not have."""
    return {key: value for key, value in (given or {}).items() if key not in (defaults or {})}
