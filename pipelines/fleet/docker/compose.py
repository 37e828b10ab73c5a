"""What Docker Compose reads from a container's labels: whose it is, and which image it was made from. Pure.

`docker compose up` makes a container anew whose image label is not the id of the image that the file names now, and
counts every container with a project's labels, stopped ones as well, as an instance of the service. Source: compose
2.26, pkg/compose/convergence.go (`mustRecreate`, `ensureService`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipelines.fleet.orphans import KEPT_LABELS

PREFIX = "com.docker.compose."
PROJECT, SERVICE, IMAGE = PREFIX + "project", PREFIX + "service", PREFIX + "image"
FILES = f"{PREFIX}project.config_files"
OF_ONE_CONTAINER = (IMAGE, f"{PREFIX}replace")
Labels = Mapping[str, str]


def of_image(labels: Labels, image: str) -> dict[str, str]:
    """The labels by which the project knows the image that a container is made from; none outside of a project."""
    return {IMAGE: image} if PROJECT in labels else {}


def apart(labels: Labels) -> dict[str, str]:
    """The labels of a container that leaves its project, and with them those that it had there."""
    theirs = {key: value for key, value in labels.items() if key.startswith(PREFIX)}
    rest = {key: value for key, value in labels.items() if key not in theirs}
    return {**rest, KEPT_LABELS: json.dumps(theirs, sort_keys=True)}


def together(labels: Labels) -> dict[str, str]:
    """What `apart` took apart."""
    rest = {key: value for key, value in labels.items() if key != KEPT_LABELS}
    return {**rest, **json.loads(labels.get(KEPT_LABELS, "{}"))}


def defined_in(labels: Labels) -> str:
    """The service that defines a container, as a person finds it; empty outside of a project."""
    if PROJECT not in labels:
        return ""
    where = f"in {labels[FILES]}" if labels.get(FILES) else f"of the compose project {labels[PROJECT]}"
    return f"the service {labels.get(SERVICE, '?')} {where}"
