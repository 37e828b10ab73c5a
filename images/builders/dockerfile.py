"""The Dockerfile of an image on top of another: the steps we give to its template, and what we refuse in it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from images.model import Definition

MOUNT = "/run/goldsmith"
# Where the definition's files stand in the build context, rendered and under their own paths.
FILES = ".goldsmith-files"
OWNED = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "VOLUME")


def base_name(definition: Definition, digest: str) -> str:
    """The name that stands for the base in the Dockerfile."""
    name = definition.base.golden or re.sub(r".*/|[:@].*", "", definition.base.image or "base")
    return f"{name}:{digest.removeprefix('sha256:')[:12]}"


def values(definition: Definition, base_digest: str, packages: tuple[str, ...], epoch: int) -> dict[str, Any]:
    """What a Dockerfile.j2 may use. The three steps are complete instructions; `install` is empty without packages."""
    return {
        "base": base_name(definition, base_digest),
        "definition": definition,
        "packages": packages,
        "install": _install(definition, epoch) if packages else "",
        "files": _files(definition),
        "harden": _harden(epoch),
        "settings": _settings(definition),
    }


def _run(context: str, environment: str, script: str) -> str:
    mount = f"--mount=type=bind,from={context},target={MOUNT}/{context}"
    return f"RUN --network=none {mount} \\\n    {environment} sh {MOUNT}/{context}/{script}"


def _install(definition: Definition, epoch: int) -> str:
    names = " ".join(shlex.quote(name) for name in definition.packages)
    return _run("debs", f"SOURCE_DATE_EPOCH={epoch}", f"install.sh {names}")


def _harden(epoch: int) -> str:
    apply = _run("overlay", "ROOT=/", "apply.sh")
    return f"{apply} && \\\n    ROOT=/ EPOCH={epoch} sh {MOUNT}/overlay/clean.sh"


def _files(definition: Definition) -> str:
    return "\n".join(
        f"COPY --chown={file.owner} --chmod={file.mode} {json.dumps([FILES + file.path, file.path])}"
        for file in definition.files
    )


def _settings(definition: Definition) -> str:
    """The definition's say as instructions, for whoever reads or lints the Dockerfile."""
    lines = [f"ENV {key}={json.dumps(value)}" for key, value in definition.environment.items()]
    lines += [f"EXPOSE {port}" for port in definition.ports]
    lines += [f"WORKDIR {definition.workdir}"] if definition.workdir else []
    lines += [f"STOPSIGNAL {definition.stop_signal}"] if definition.stop_signal else []
    lines += [f"USER {definition.user}"] if definition.user else []
    if definition.healthcheck.command:
        lines.append(f"HEALTHCHECK CMD {json.dumps(definition.healthcheck.command)}")
    else:
        lines.append("HEALTHCHECK NONE")
    lines += [f"ENTRYPOINT {json.dumps(definition.entrypoint)}"] if definition.entrypoint else []
    lines += [f"CMD {json.dumps(definition.command)}"] if definition.command else []
    return "\n".join(lines)


def problem(text: str, given: dict[str, Any]) -> str:
    """What is wrong with a rendered Dockerfile; empty when nothing is."""
    head, found, tail = text.rpartition(given["harden"])
    if not found:
        return "the hardening step is missing: {{ harden }}"
    if tail.strip() not in {"", given["settings"]}:
        return "something follows the hardening step, which must be the last"
    if given["install"] and given["install"] not in head:
        return "the planned packages are not installed: {{ install }}"
    for line in head.splitlines():
        word = line.strip().split(" ")[0].upper()
        if word in OWNED:
            return f"{word} belongs in image.toml"
    return ""
