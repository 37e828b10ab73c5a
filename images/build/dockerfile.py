"""The Dockerfile of an image on top of another: the steps that we pass to its template, and those we refuse. Pure."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Collection
from typing import Any

from images.model import FILES, Definition

MOUNT = "/run/goldsmith"
CONTEXTS = ("debs", "overlay")  # what else a build is given by name
# The first line of what BuildKit reads. It looks for directives (`# syntax=`, which names another frontend to fetch and
# run, `# escape=`, `# check=`) in the lines before the first that is none, so that it finds none below this one.
HEADER = "# Rendered by Goldsmith: no directive counts below this line.\n"
DIRECTIVE = re.compile(r"\s*(#|//)\s*(syntax|escape|check)\s*=", re.IGNORECASE)
ALLOWED = ("ADD", "ARG", "COPY", "FROM", "RUN", "USER", "WORKDIR")
LAYERS = ("ADD", "COPY", "RUN", "WORKDIR")  # the instructions that make one each
MOUNTS = ("bind", "tmpfs")  # a cache would bring in what an earlier build left
OWNED = ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "VOLUME")
FORBIDDEN = {
    **{word: f"{word} belongs in image.toml" for word in OWNED},
    "SHELL": "SHELL would run Goldsmith's own steps otherwise than they are written",
}


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
        "install": install(definition, epoch) if packages else "",
        "files": _files(definition),
        "harden": _harden(epoch),
        "settings": _settings(definition),
    }


def _run(context: str, environment: str, script: str) -> str:
    mount = f"--mount=type=bind,from={context},target={MOUNT}/{context}"
    return f"RUN --network=none {mount} \\\n    {environment} sh {MOUNT}/{context}/{script}"


def install(definition: Definition, epoch: int) -> str:
    """The step that installs the planned packages."""
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
    check = definition.healthcheck
    said = [
        *(("ENV", f"{key}={json.dumps(value)}") for key, value in definition.environment.items()),
        *(("EXPOSE", port) for port in definition.ports),
        ("WORKDIR", definition.workdir),
        ("STOPSIGNAL", definition.stop_signal),
        ("USER", definition.user),
        ("HEALTHCHECK", f"CMD {json.dumps(check.command)}" if check.command else "NONE" if check.none_because else ""),
        ("ENTRYPOINT", definition.entrypoint and json.dumps(definition.entrypoint)),
        ("CMD", definition.command and json.dumps(definition.command)),
    ]
    return "\n".join(f"{word} {value}" for word, value in said if value)


def problem(text: str, given: dict[str, Any]) -> str:
    """What is wrong with a rendered Dockerfile; empty when nothing is."""
    if wrong := _unreadable(text):
        return wrong
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


def installs_first(text: str, step: str) -> bool:
    """Whether the lowest layer that a Dockerfile makes is that of `step`, which installs the planned packages."""
    found = instructions(text)
    start = max((number for number, (word, _) in enumerate(found) if word == "FROM"), default=0)
    return [one for one in found[start:] if one[0] in LAYERS][:1] == instructions(step)


def _unreadable(text: str) -> str:
    """Why we and BuildKit might read `text` differently; empty where nothing speaks for that."""
    plain = text.replace("\r\n", "\n")
    if strange := next((char for char in plain if char not in "\n\t" and not char.isprintable()), ""):
        return f"the invisible character {strange!r}: take it out"
    lines = plain.split("\n")
    begin = itertools.takewhile(lambda line: not line.strip() or line.lstrip().startswith(("#", "//")), lines)
    if plain.startswith("#!") or plain.lstrip().startswith("{") or any(map(DIRECTIVE.match, begin)):
        return "a directive (syntax, escape, check) changes how the rest is read"
    if any(re.search(r"\\\\[ \t]*$", line) for line in lines):
        return "a line ends in two backslashes: programs differ in whether the next one belongs to it"
    return ""


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile as BuildKit reads them: (word in capitals, the rest), continued lines joined."""
    plain = text.replace("\r\n", "\n").split("\n")
    lines = [line for line in plain if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\[ \t]*\n", "", "\n".join(lines))
    parts = [line.split(maxsplit=1) for line in joined.split("\n") if line.strip()]
    return [(part[0].upper(), " ".join(part[1].split()) if part[1:] else "") for part in parts]


def _refused(word: str, rest: str, base: str) -> str:
    """Why an instruction may not stand in a definition's own steps; empty where it may."""
    if word not in ALLOWED:
        return FORBIDDEN.get(word, f"{word} is none of the instructions that a step may be: {', '.join(ALLOWED)}")
    if word == "FROM" and rest.partition(" ")[0] != base:
        return f"FROM {rest} is not the planned base: {{{{ base }}}}"
    if word == "FROM" and (taken := {*CONTEXTS, base} & set(_names(rest, 0))):
        return f"FROM … AS {taken.pop()}: that is the name of a context of Goldsmith's own"
    if word in {"RUN", "COPY", "ADD"} and re.search(r"<<-?[^<\s]", rest):
        return (
            f"{word} with a here-document: write a file into the definition's folder and COPY it, or join lines by \\"
        )
    return _from_network(word, rest)


def _names(rest: str, number: int) -> tuple[str, ...]:
    """What later steps may call the stage that `FROM` begins: its number, and its name if it has one."""
    named = re.search(r"\sAS\s(\S+)$", rest, re.IGNORECASE)
    return (str(number), named[1].lower()) if named else (str(number),)


def _flags(rest: str) -> str:
    """The flags that an instruction begins with."""
    found = re.match(r"(?:--\S+ ?)*", rest)
    return found[0] if found else ""


def _from_elsewhere(word: str, rest: str, planned: Collection[str]) -> str:
    """Why a step may not take files from where it does; empty where that was planned."""
    flags = _flags(rest)
    if word not in {"RUN", "COPY", "ADD"} or not flags:
        return ""
    if re.search(r"[\"'\\]", flags):
        return f"{word} with quotes in its flags: write them plainly"
    places = re.findall(r"(?:--|[=,])from=([^\s,]*)", flags, re.IGNORECASE)
    if place := next((place for place in places if place.lower() not in planned), ""):
        return f"{word} takes files from {place}, which is neither an earlier stage nor {{{{ base }}}}: nothing pins it"
    return ""


def _from_network(word: str, rest: str) -> str:
    """Why an instruction may not stand that asks for the network or another thing that was not planned; else empty."""
    flags = _flags(rest)
    if word == "ADD":
        return _added(rest.removeprefix(flags))
    if word != "RUN":
        return ""
    if asked := [one for one in re.findall(r"--network=(\S*)", flags) if one != "none"]:
        return f"RUN --network={asked[0]}: steps have no network, an image is made of what was planned"
    kinds = re.findall(r"[=,]type=([^\s,]*)", flags, re.IGNORECASE)
    if kind := next((kind for kind in kinds if kind not in MOUNTS), ""):
        return f"RUN --mount=type={kind}: an image is made of what was planned; a mount is {' or '.join(MOUNTS)}"
    if flag := next((one for one in flags.split() if not one.startswith(("--mount=", "--network="))), ""):
        return f"RUN {flag}: a step has no flag but --mount and --network"
    return ""


def _added(words: str) -> str:
    """Why ADD may not take `words`: it fetches addresses, also those that variables, quotes and escapes make up."""
    try:
        listed = json.loads(words) if words.startswith("[") else words.split()
    except (ValueError, RecursionError):
        listed = words.split()
    for word in map(str, listed):
        if ":" in word or "@" in word:
            return "ADD from the network: an image is made of what was planned"
        if re.search(r"[$\\'\"`]", word):
            return f"ADD of {word}: write the path plainly, without variables, quotes and escapes"
    return ""
