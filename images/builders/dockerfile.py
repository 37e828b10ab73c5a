"""The Dockerfile of an image on top of another: the steps we give to its template, and what we refuse in it. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection
from typing import Any

from images.model import Definition

MOUNT = "/run/goldsmith"
# Where the definition's files stand in the build context, rendered and under their own paths.
FILES = ".goldsmith-files"
CONTEXTS = ("debs", "overlay")  # what else a build is given by name
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
    elif definition.healthcheck.none_because:
        lines.append("HEALTHCHECK NONE")
    lines += [f"ENTRYPOINT {json.dumps(definition.entrypoint)}"] if definition.entrypoint else []
    lines += [f"CMD {json.dumps(definition.command)}"] if definition.command else []
    return "\n".join(lines)


def problem(text: str, given: dict[str, Any]) -> str:
    """What is wrong with a rendered Dockerfile; empty when nothing is."""
    if re.match(r"\s*(\{|(#.*\n|//.*\n|\s)*?(#|//)\s*(syntax|escape)\s*=)", text, re.IGNORECASE):
        return "a syntax or escape directive changes how the rest is read"
    found = instructions(text)
    [hardening] = instructions(given["harden"])
    if hardening not in found:
        return "the hardening step is missing: {{ harden }}"
    last = len(found) - 1 - found[::-1].index(hardening)
    if found[last + 1 :] not in ([], instructions(given["settings"])):
        return "something follows the hardening step, which must be the last"
    stages: list[tuple[str, ...]] = []
    for word, rest in found[:last]:
        planned = {given["base"], *CONTEXTS, *(name for stage in stages for name in stage)}
        if wrong := _refused(word, rest, given["base"]) or _from_elsewhere(word, rest, planned):
            return wrong
        stages += [_names(rest, len(stages))] if word == "FROM" else []
    start = max((number for number, (word, _) in enumerate(found[:last]) if word == "FROM"), default=0)
    if any(step not in found[start:last] for step in instructions(given["install"])):
        return "the planned packages are not installed: {{ install }}"
    return ""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile as BuildKit reads them: (word in capitals, the rest), continued lines joined."""
    plain = text.replace("\r\n", "\n").split("\n")
    lines = [line for line in plain if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(lines))
    parts = [line.split(maxsplit=1) for line in joined.split("\n") if line.strip()]
    return [(part[0].upper(), " ".join(part[1].split()) if part[1:] else "") for part in parts]


def _refused(word: str, rest: str, base: str) -> str:
    """Why an instruction may not stand in a definition's own steps; empty where it may."""
    if word in OWNED:
        return f"{word} belongs in image.toml"
    if word == "SHELL":
        return "SHELL would run Goldsmith's own steps otherwise than they are written"
    if word == "FROM" and rest.partition(" ")[0] != base:
        return f"FROM {rest} is not the planned base: {{{{ base }}}}"
    if word in {"RUN", "COPY", "ADD"} and re.search(r"(^|\s)\d*<<-?[^<\s]", rest):
        return (
            f"{word} with a here-document: write a file into the definition's folder and COPY it, or join lines by \\"
        )
    return _from_network(word, rest)


def _names(rest: str, number: int) -> tuple[str, ...]:
    """What later steps may call the stage that `FROM` begins: its number, and its name if it has one."""
    named = re.search(r"\sAS\s(\S+)$", rest, re.IGNORECASE)
    return (str(number), named[1].lower()) if named else (str(number),)


def _from_elsewhere(word: str, rest: str, planned: Collection[str]) -> str:
    """Why a step may not take files from where it does; empty where that was planned."""
    flags = re.match(r"(?:--\S+ ?)*", rest)
    if word not in {"RUN", "COPY", "ADD"} or not flags:
        return ""
    if re.search(r"[\"'\\]", flags[0]):
        return f"{word} with quotes in its flags: write them plainly"
    places = re.findall(r"(?:--|[=,])from=([^\s,]*)", flags[0], re.IGNORECASE)
    if place := next((place for place in places if place.lower() not in planned), ""):
        return f"{word} takes files from {place}, which is neither an earlier stage nor {{{{ base }}}}: nothing pins it"
    return ""


def _from_network(word: str, rest: str) -> str:
    """Why an instruction that asks for the network may not stand; empty where it does not ask."""
    network = re.match(r"(?:--\S+ )*?--network=(\S+)", rest) if word == "RUN" else None
    if network and network[1] != "none":
        return f"RUN --network={network[1]}: steps have no network, an image is made of what was planned"
    if word == "ADD" and re.search(r"\w+://|\w@[\w.-]+:", rest):
        return "ADD from the network: an image is made of what was planned"
    return ""
