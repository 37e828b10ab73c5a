"""The field names of OCI's documents, which programs read in more than one way. Pure."""

from __future__ import annotations

from typing import Any

from hardening.foundation.errors import MalformedError

ANOTHER = "the image was made to confuse what reads it, or by mistake: take another one"
# The fields of manifests, indexes and configurations. Programs in Go, so engines and registries, take `Layers` for
# `layers` as well, and of two the last: https://pkg.go.dev/encoding/json#Unmarshal
FIELDS = (
    *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"),
    *("digest", "size", "urls", "data", "platform", "architecture", "os", "os.version", "os.features", "variant"),
    *("created", "author", "rootfs", "type", "diff_ids", "history", "created_by", "comment", "empty_layer"),
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("ArgsEscaped", "OnBuild", "Shell"),
    *("Healthcheck", "Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"),
)
FOLDED = {name.casefold(): name for name in FIELDS}
NAMES_OF_OTHERS = ("annotations", "Labels", "ExposedPorts", "Volumes")


def require_one_reading(document: Any, what: str) -> None:
    """Raises MalformedError where a manifest, an index or a configuration writes a field in other letters than OCI.

    An engine would go by it and we would not, so that it could run what was never scanned here.
    """
    left = [document]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            if key := next((key for key in one if FOLDED.get(key.casefold(), key) != key), ""):
                why = f"it writes the field {FOLDED[key.casefold()]} as {key!r}, which not every program reads"
                raise MalformedError(f"{what} is malformed: {why}", hint=ANOTHER)
            left += [value for name, value in one.items() if name not in NAMES_OF_OTHERS]
