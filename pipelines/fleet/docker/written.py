"""What a compose file or a Dockerfile says about containers, in the form in which the engine would show them. Pure.

Such a file may be a stranger's. Its YAML is read with neither types nor tags nor merges of the library's own: all
values are text, and what aliases make of a few lines is counted before it is walked.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardening.foundation.durations import duration
from hardening.foundation.errors import ContentError, nearest
from images.build.dockerfile import instructions
from pipelines.fleet.docker.container_spec import COMPOSE_PROJECT, COMPOSE_SERVICE, Json

MOST_VALUES = 50_000  # of a compose file with its aliases written out; a hundred services have some 5,000
NOTHING = ("", "~", "null")
SECOND = 10**9  # in nanoseconds, in which the engine counts
_VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>\w+)|\{(?P<name>\w++)(?::?-(?P<default>[^{}]*+))?[^{}]*+\})")
_PORT = re.compile(
    r"(?:(?P<ip>\[[^\]]*\]|\d+\.[\d.]+):)?(?:(?P<host>\d{0,5})(?:-\d+)?:)?"
    r"(?P<port>\d{1,5})(?:-\d+)?(?:/(?P<protocol>\w+))?",
    re.ASCII,
)
_SHELL = ["/bin/sh", "-c"]


# -- compose files: https://github.com/compose-spec/compose-spec/blob/main/spec.md -------------------------------------


def compose_services(text: str, file: Path) -> dict[str, Json]:
    """Each service of a compose file as a container that nothing started yet, by its name.

    Variables have their defaults, for nothing of this process belongs into a draft. Raises ContentError.
    """
    document = _merged(loaded(text, file))
    found = document.get("services")
    if not isinstance(found, dict) or not found:
        raise ContentError("it contains no services", file=file, key="services", hint=nearest("services", document))
    name = document.get("name")
    project = name if isinstance(name, str) and name else file.parent.name
    project = re.sub(r"[^a-z0-9_-]", "", project.lower()).lstrip("_-") or "project"
    return {service: _container(service, _merged(given), project, file) for service, given in found.items()}


def loaded(text: str, file: Path) -> Any:
    """The text's lists, tables and strings. Raises ContentError for no YAML, and for what grows by its aliases."""
    import yaml  # type: ignore[import-untyped]

    try:
        loader = yaml.BaseLoader(text)  # strings, lists and tables alone
        root = loader.get_single_node()
        if root and not _bounded(root):
            raise ContentError(f"holds more than {MOST_VALUES:,} values, aliases written out", file=file)
        return loader.construct_document(root) if root else None
    except RecursionError:
        raise ContentError("nested too deeply", file=file) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ContentError(f"not YAML: {' '.join(str(error).split())}", file=file) from None


def _bounded(root: Any) -> bool:
    """Whether a tree of nodes has a bearable number of them, each counted wherever it stands."""
    seen, waiting = 0, [root]
    while waiting and seen <= MOST_VALUES:
        seen += 1
        value = waiting.pop().value
        if isinstance(value, list):  # of nodes, or of pairs of a key and its value
            waiting += [part for one in value for part in (one if isinstance(one, tuple) else (one,))]
    return seen <= MOST_VALUES


def _merged(value: Any) -> Json:
    """A table with those that it merges (`<<: *other`); anything else is an empty one."""
    if not isinstance(value, dict):
        return {}
    merged = value.get("<<", ())
    under = [_merged(one) for one in (merged if isinstance(merged, list) else [merged])]
    found = {key: one for table in reversed(under) for key, one in table.items()}
    return {**found, **{key: one for key, one in value.items() if key != "<<"}}


def _container(service: str, given: Json, project: str, file: Path) -> Json:
    text = {key: _with_defaults(value) for key, value in given.items() if isinstance(value, str)}
    tables = {key: _table(value) for key, value in given.items()}
    labels = tables.get("labels", {}) | {COMPOSE_PROJECT: project, COMPOSE_SERVICE: service}
    exposed, ports = ([pair for one in _items(given.get(key)) if (pair := _port(one))] for key in ("expose", "ports"))
    mode = text.get("network_mode", f"{project}_default")
    return {
        "Id": "",
        "Name": f"/{text.get('container_name') or f'{project}-{service}-1'}",
        "Config": {
            "Image": text.get("image") or f"{project}-{service}",
            "User": text.get("user", ""),
            "Env": [f"{key}={value}" for key, value in tables.get("environment", {}).items()],
            "Entrypoint": _words(given.get("entrypoint")),
            "Cmd": _words(given.get("command")),
            "Labels": labels,
            "Healthcheck": _compose_check(_merged(given.get("healthcheck"))),
            "ExposedPorts": {port: {} for port, _ in (*exposed, *ports)},
            "StopTimeout": _seconds(text.get("stop_grace_period", "")),
            "StopSignal": text.get("stop_signal", ""),
            "WorkingDir": text.get("working_dir", ""),
            "MacAddress": text.get("mac_address", ""),
        },
        "HostConfig": {
            "NetworkMode": re.sub(r"^service:", "container:", mode),
            "PortBindings": {port: [{"HostPort": host}] for port, host in ports},
            "Tmpfs": {str(path).partition(":")[0]: "" for path in _items(given.get("tmpfs"))},
        },
        "Mounts": [found for one in _items(given.get("volumes")) if (found := _mount(one))],
        "NetworkSettings": {"Networks": _networks(given.get("networks"), mode)},
        "Build": _built(given.get("build"), file),
    }


def _with_defaults(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        return found["default"] if found["default"] is not None else found[0]

    return "" if text in NOTHING else _VARIABLE.sub(value, text)


def _items(value: Any) -> list[Any]:
    """A list's entries, text with the defaults of its variables; what stands where a list may is one entry."""
    if isinstance(value, str):
        value = [] if value in NOTHING else [value]
    return [_with_defaults(one) if isinstance(one, str) else one for one in (value if isinstance(value, list) else ())]


def _table(value: Any) -> dict[str, str]:
    """A table of text, written as one or as a list of `key=value`."""
    if isinstance(value, list):
        pairs = [one.partition("=")[::2] for one in value if isinstance(one, str)]
        return {key: _with_defaults(text) for key, text in pairs}
    return {key: _with_defaults(text) for key, text in _merged(value).items() if isinstance(text, str)}


def _words(value: Any) -> list[str] | None:
    """A command, written as a list or as one line."""
    if isinstance(value, str) and value not in NOTHING:
        return _split(_with_defaults(value))
    found = [one for one in _items(value) if isinstance(one, str)]
    return found or None


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quotation mark without its other
        return line.split()


def _compose_check(check: Json) -> Json:
    """A health check; empty where none is given."""
    test = check.get("test")
    if check.get("disable") == "true":
        return {"Test": ["NONE"]}
    words = ["CMD-SHELL", _with_defaults(test)] if isinstance(test, str) else [str(one) for one in _items(test)]
    times = {"Interval": "interval", "Timeout": "timeout", "StartPeriod": "start_period"}
    given = {key: _seconds(str(check.get(name, ""))) * SECOND for key, name in times.items()}
    return {"Test": words, **{key: value for key, value in given.items() if value}} if words else {}


def _seconds(text: str) -> int:
    """The seconds of a duration such as 1m30s; 0 where it is none."""
    try:
        return int(sum(duration(part).total_seconds() for part in re.findall(r"\d+[a-z]+", text)))
    except ValueError:
        return 0


def _port(one: Any) -> tuple[str, str] | None:
    """The container's port with its protocol, and the port of the host, empty where the engine chooses one."""
    if isinstance(one, dict):
        target, published = _text(one, "target"), _text(one, "published")
        return (
            (f"{target}/{_text(one, 'protocol') or 'tcp'}", published) if re.fullmatch(r"[0-9]{1,5}", target) else None
        )
    found = _PORT.fullmatch(one) if isinstance(one, str) else None
    return (f"{found['port']}/{found['protocol'] or 'tcp'}", found["host"] or "") if found else None


def _mount(one: Any) -> Json | None:
    """A volume or bind mount as `inspect` shows it."""
    if isinstance(one, dict):
        kind, source, read_only = _text(one, "type"), _text(one, "source"), _text(one, "read_only") == "true"
        target = _text(one, "target")
    elif isinstance(one, str):
        source, _, rest = one.rpartition(":") if one.count(":") == 1 else one.partition(":")
        target, _, options = rest.partition(":")
        kind, read_only = ("bind" if source.startswith((".", "/", "~")) else "volume"), "ro" in options.split(",")
    else:
        return None
    return {"Type": kind, "Name": source, "Source": source, "Destination": target, "RW": not read_only}


def _text(table: Json, key: str) -> str:
    return _with_defaults(value) if isinstance(value := table.get(key), str) else ""


def _networks(value: Any, mode: str) -> Json:
    tables = _merged(value) if isinstance(value, dict) else {str(one): {} for one in _items(value)}
    addresses = {name: _merged(one) for name, one in (tables or {mode: {}}).items()}
    return {
        name: {"Aliases": [], "IPAMConfig": {"IPv4Address": _text(one, "ipv4_address")}}
        for name, one in addresses.items()
    }


def _built(value: Any, file: Path) -> str:
    """The Dockerfile that a service is built from; empty where it is pulled."""
    table = _merged(value) or {"context": value}
    context = _text(table, "context")
    return str(file.parent / context / (_text(table, "dockerfile") or "Dockerfile")) if context else ""


# -- Dockerfiles: https://docs.docker.com/reference/dockerfile/ --------------------------------------------------------


def last_stage(text: str, file: Path) -> tuple[str, list[tuple[str, str]]]:
    """The image that the last stage of a Dockerfile stands on, by way of earlier ones, and the stage's instructions.

    Raises ContentError where nothing begins a stage.
    """
    stages: dict[str, str] = {}
    base, steps, variables = "", list[tuple[str, str]](), dict[str, str]()
    for word, rest in _without_documents(text):
        if word == "ARG" and not base:
            name, _, value = rest.partition("=")
            variables[name] = value.strip("\"'")
        elif word == "FROM":
            image, _, alias = re.sub(r"^(--\S+ )*", "", rest).partition(" ")
            image = _resolved(image, variables)
            base, steps = stages.get(image.lower(), image), []
            stages[re.sub(r"(?i)^as ", "", alias).lower()] = base
        else:
            steps.append((word, rest))
    if not base:
        raise ContentError("it contains no FROM: not a Dockerfile", file=file)
    return base, steps


def _without_documents(text: str) -> Iterator[tuple[str, str]]:
    """The instructions, without the lines of here-documents."""
    ending = ""
    for word, rest in instructions(text):
        line = f"{word} {rest}".strip()
        if ending:
            ending = "" if line.casefold() == ending.casefold() else ending
            continue
        begun = re.search(r"<<-?[\"']?(\w+)", rest) if word in ("RUN", "COPY", "ADD") else None
        ending = begun[1] if begun else ""
        yield word, rest


def _resolved(text: str, variables: Mapping[str, str]) -> str:
    """Text with the defaults of its ARGs; one without a default stays as it is written."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found["plain"] or found["name"] or "", "") or found["default"] or found[0]

    return _VARIABLE.sub(value, text)


def image_of(steps: list[tuple[str, str]]) -> Json:
    """What the instructions set, as `inspect` shows an image."""
    config: Json = {"Env": [], "Labels": {}, "ExposedPorts": {}, "Volumes": {}}
    one_line = {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}
    for word, rest in steps:
        match word:
            case "USER" | "WORKDIR" | "STOPSIGNAL":
                config[one_line[word]] = rest
            case "ENTRYPOINT" | "CMD":
                config[word.capitalize()] = _exec(rest)
            case "ENV" | "LABEL":
                found = _assigned(rest)
                config["Env"] += [f"{key}={value}" for key, value in found.items()] if word == "ENV" else []
                config["Labels"] |= found if word == "LABEL" else {}
            case "EXPOSE":
                config["ExposedPorts"] |= {one if "/" in one else f"{one}/tcp": {} for one in rest.split()}
            case "VOLUME":
                config["Volumes"] |= {path: {} for path in _listed(rest) or rest.split()}
            case "HEALTHCHECK":
                config["Healthcheck"] = _image_check(rest)
    return {"Id": "", "Config": config}


def _listed(rest: str) -> list[str]:
    """A JSON list of words; empty where the text is none."""
    try:
        found = json.loads(rest) if rest.startswith("[") else []
    except (ValueError, RecursionError):
        return []
    return [str(one) for one in found]


def _exec(rest: str) -> list[str]:
    return _listed(rest) or [*_SHELL, rest]


def _assigned(rest: str) -> dict[str, str]:
    """The pairs of ENV and LABEL: `key=value …`, or in the old form `key value`."""
    if "=" not in rest.partition(" ")[0]:
        key, _, value = rest.partition(" ")
        return {key: value}
    return {key: value for key, found, value in (word.partition("=") for word in _split(rest)) if found}


def _image_check(rest: str) -> Json:
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", rest.partition("CMD")[0]))
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod"}
    times = {names[flag]: _seconds(value) * SECOND for flag, value in flags.items() if flag in names}
    command = rest.partition("CMD")[2].strip()
    if not command:
        return {"Test": ["NONE"]}
    words = _listed(command)
    return {"Test": ["CMD", *words] if words else ["CMD-SHELL", command], **times}


def installed(steps: list[tuple[str, str]]) -> tuple[str, ...]:
    """The packages that apt is told to install, without versions."""
    found: dict[str, None] = {}
    for word, rest in steps:
        for words in re.findall(r"\bapt(?:-get)?\s+(?:-\S+\s+)*install\s+([^&|;]*)", rest) if word == "RUN" else ():
            names = (name.partition("=")[0] for name in words.split() if not name.startswith("-"))
            found |= dict.fromkeys(name for name in names if re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name))
    return tuple(found)


def unpacked_container(name: str, image: Json) -> Json:
    """The container that `docker run` with no more words would make of an image."""
    config = image["Config"]
    return {
        "Id": "",
        "Name": f"/{name}",
        "Config": {**config, "Image": name},
        "HostConfig": {"NetworkMode": "bridge"},
        "Mounts": [{"Type": "volume", "Name": "", "Destination": path, "RW": True} for path in config["Volumes"]],
        "NetworkSettings": {"Networks": {}},
    }
