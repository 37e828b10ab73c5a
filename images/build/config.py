"""An image's configuration as a function of its definition and its base. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hardening.foundation.errors import NOT_UNDERSTOOD, OutsideError, traced
from hardening.foundation.hashing import canonical
from images.model import Definition, Healthcheck
from images.store.fields import ANOTHER

# A label may make a container a fleet's member or give it a network role: of a base, only these go over.
INHERITED_LABELS = tuple(f"org.opencontainers.image.{name}" for name in ("authors", "licenses", "vendor"))
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def image_config(
    definition: Definition, platform: str, base: dict[str, Any] | None, diff_ids: Sequence[str], epoch: int, step: str
) -> dict[str, Any]:
    """The OCI configuration: the base's, with what the definition says over it. No label carries a date.

    `diff_ids` are the new layers' uncompressed digests, `step` is what the history says of them. Raises OutsideError
    where the base's is malformed, or a line of it is none.
    """
    inherited: dict[str, Any] = base or {"config": {}, "rootfs": {"diff_ids": []}}
    require_lines(inherited, "the base")
    try:
        made = _over(inherited, definition, platform, diff_ids, epoch, step)
        canonical(made)
    except NOT_UNDERSTOOD as error:
        raise OutsideError(f"the base's configuration is malformed: {traced(error)}", hint=ANOTHER) from error
    return made


def _over(
    inherited: dict[str, Any], definition: Definition, platform: str, diff_ids: Sequence[str], epoch: int, step: str
) -> dict[str, Any]:
    created = stamp(epoch)
    history = [*inherited.get("history", []), *({"created": created, "created_by": step} for _ in diff_ids)]
    return {
        "architecture": platform.removeprefix("linux/"),
        "os": "linux",
        "created": created,
        "config": _runtime(definition, inherited.get("config") or {}),
        "rootfs": {"type": "layers", "diff_ids": [*inherited["rootfs"]["diff_ids"], *diff_ids]},
        "history": history,
    }


def _runtime(definition: Definition, base: dict[str, Any]) -> dict[str, Any]:
    """How a container of the image runs: what the definition leaves empty is the base's."""
    config = dict(base)
    config["Env"] = _environment(base.get("Env") or [f"PATH={PATH}"], definition.environment)
    if definition.entrypoint:
        config.pop("Cmd", None)
    labels = {key: text for key, text in (base.get("Labels") or {}).items() if key in INHERITED_LABELS}
    config.pop("Labels", None)
    ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in definition.ports}
    given = {
        "User": definition.user,
        "WorkingDir": definition.workdir,
        "Entrypoint": list(definition.entrypoint),
        "Cmd": list(definition.command),
        "ExposedPorts": {**(base.get("ExposedPorts") or {}), **ports},
        "StopSignal": definition.stop_signal,
        "Labels": {**labels, **definition.labels},
        "Healthcheck": _healthcheck(definition.healthcheck, base),
    }
    return {**config, **{key: value for key, value in given.items() if value}}


def _environment(base: list[str], own: dict[str, str]) -> list[str]:
    values = dict(item.partition("=")[::2] for item in base)
    return [f"{key}={value}" for key, value in {**values, **own}.items()]


def _healthcheck(check: Healthcheck, base: dict[str, Any]) -> dict[str, Any]:
    """In nanoseconds, as Docker has it; a base's check is switched off where the definition says why none fits."""
    if check.command:
        nano = 1_000_000_000
        return {
            "Test": ["CMD", *check.command],
            "Interval": int(check.interval.total_seconds() * nano),
            "Timeout": int(check.timeout.total_seconds() * nano),
            "Retries": check.retries,
        }
    return {"Test": ["NONE"]} if base.get("Healthcheck") and check.none_because else {}


def stamp(epoch: int) -> str:
    """Seconds since 1970 as RFC 3339."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(stamp: str) -> int:
    """RFC 3339 as whole seconds since 1970."""
    return int(datetime.fromisoformat(stamp).timestamp())


# Cmd, Entrypoint and the health check are not among them: scripts of several lines stand there by right.
LINES = ("User", "WorkingDir", "StopSignal")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def require_lines(image: Mapping[str, Any], whose: str) -> None:
    """Raises OutsideError where a value that is one line by its nature is not, a variable has no name, or all of it is
    of another form.
    """
    try:
        wrong = next((f"{key} {why}: {text!r}" for key, text in _lines(image) if (why := _wrong(key, text))), "")
    except (TypeError, AttributeError) as error:
        wrong = f"it is malformed: {error}"
    if wrong:
        raise OutsideError(f"{whose}: in its configuration, {wrong}"[:400], hint=ANOTHER)


def _wrong(key: str, text: Any) -> str:
    if not isinstance(text, str):
        return "is not text"
    if CONTROL.search(text):
        return "holds a control character"
    return "is no NAME=value" if key == "Env" and not re.match(r"[^=\s]+=", text) else ""


def _lines(image: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Key and text of everything in a configuration that is one line."""
    config = image.get("config") or {}
    yield from ((key, config.get(key) or "") for key in LINES)
    yield from ((key, text) for key in ("Env", "ExposedPorts", "Volumes") for text in config.get(key) or ())
    yield from (("Labels", text) for label in (config.get("Labels") or {}).items() for text in label)
