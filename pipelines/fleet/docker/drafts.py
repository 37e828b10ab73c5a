"""Drafts a fleet's file and a definition from a service that was made without Goldsmith. Pure.

Each choice has a comment that says from what it was derived. What nothing says is marked FILL IN.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from hardening.foundation.durations import duration, shown
from hardening.foundation.text import UNSEEN, one_line
from images.model import Definition, Healthcheck
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import COMPOSE_PROJECT, COMPOSE_SERVICE, Json
from pipelines.fleet.drafting import USUAL_LABELS, Draft, lacking, slug, toml
from pipelines.fleet.members import repository
from pipelines.fleet.model import Limits

NONROOT = "65532:65532"
BASE = "debian-base"  # what a definition stands on where nothing nearer is there
NOBODYS = ("com.docker.", "org.opencontainers.", "org.label-schema.", "desktop.docker.", "maintainer")


@dataclass(frozen=True)
class Unadopted:
    """A service that a fleet is drafted for. `source` says where it was found, `notes` what that place leaves open.

    `containers` are as the engine shows them; where none of it runs, one stands for what a file says. `others` is
    everything else on the engine. `steps`: the instructions of its Dockerfile; `packages`: what these install.
    """

    name: str
    source: str
    containers: tuple[Json, ...]
    image: Json
    runs: bool
    others: tuple[Json, ...] = ()
    notes: tuple[str, ...] = ()
    stands_on: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def one(self) -> Json:
        """A container that stands for all."""
        return self.containers[0]

    @property
    def called(self) -> str:
        """The reference of the image."""
        return str(self.one["Config"]["Image"])


def fitting(reference: str, definitions: Mapping[str, Definition]) -> str:
    """The definition of containers that is called like an image, or begins so, where there is only one such."""
    wanted = slug(repository(reference).rpartition("/")[2])
    names = [name for name, one in definitions.items() if not one.is_machine]
    found = [name for name in names if name == wanted] or [name for name in names if name.startswith(f"{wanted}-")]
    return found[0] if wanted and len(found) == 1 else ""


def _lineage(definition: Definition | None, known: Mapping[str, Definition]) -> Iterator[Definition]:
    """A definition and what it stands on, one after the other."""
    passed = set[str]()
    while definition and definition.name not in passed:
        yield definition
        passed.add(definition.name)
        definition = known.get(definition.parent or "")


def _check_of(definition: Definition | None, known: Mapping[str, Definition]) -> tuple[str, ...]:
    """The health check that an image of the definition has; empty where it has none, or nothing is known."""
    checks: Iterable[Healthcheck] = (one.healthcheck for one in _lineage(definition, known))
    return next((check.command for check in checks if check.command or check.none_because), ())


def _ports_of(definition: Definition | None, known: Mapping[str, Definition]) -> list[str]:
    """The ports that an image of the definition exposes, with their protocols."""
    return [port if "/" in port else f"{port}/tcp" for one in _lineage(definition, known) for port in one.ports]


# -- the fleet's file --------------------------------------------------------------------------------------------------


def fleet_draft(
    found: Unadopted, owner: str, becomes: str, because: str, known: Mapping[str, Definition], *, follow: bool = False
) -> Draft:
    """The file of a fleet whose members become `becomes`, a definition or a tag, which was chosen `because`.

    `known`: the definitions that there are, with the one that was just drafted. `follow`: the tag is of others.
    """
    definition = known.get(becomes)
    draft = Draft(todo=list(found.notes))
    draft.begin_fleet(found.source, found.name, "docker", owner)
    _select(draft, found)
    draft.set_replacement(becomes, because, definition, lacks=lacking(becomes, definition), follow=follow)
    _ask_health(draft, found, definition, known)
    _limit(draft, found)
    for one in found.containers if found.runs else ():
        if why := container_spec.cannot_roll(one, [*found.containers, *found.others]):
            draft.todo.append(f"{container_spec.name(one)} will be skipped: {why}")
    return draft


def _select(draft: Draft, found: Unadopted) -> None:
    """The labels that all of its containers carry, and, where that can be had, nothing else on the engine."""
    carried = [container_spec.own_labels(one, found.image.get("Config") or {}) for one in found.containers]
    labels = {
        key: value
        for key, value in carried[0].items()
        if all(one.get(key) == value for one in carried) and not UNSEEN.search(key + value)
    }
    if {COMPOSE_PROJECT, COMPOSE_SERVICE} <= labels.keys():
        chosen = {key: labels[key] for key in (COMPOSE_PROJECT, COMPOSE_SERVICE)}
        draft.set("selector", chosen, "Docker Compose sets these labels on each container of the service.")
    elif chosen := _telling(labels, found.others):
        draft.set("selector", chosen, f"What each of its containers has, by {found.source}.")
    else:
        draft.ask(
            f"{found.source} has no label to select it by, and a running container gets none: create it again with "
            f"--label app={found.name}, everything else as it was"
            if found.runs
            else f"nothing is labelled yet: start its containers with --label app={found.name}"
        )
        draft.set("selector", {"app": found.name})
        return
    if also := [container_spec.name(one) for one in found.others if _carries(one, chosen)]:
        draft.todo.append(f"the selector also finds {', '.join(also)}: members too, or labels that tell them apart")


def _telling(labels: Mapping[str, str], others: Sequence[Json]) -> Json:
    """The label that only this service carries, a usual one first; else all that somebody gave it."""
    given = {key: value for key, value in labels.items() if not key.startswith(NOBODYS)}
    order = sorted(given, key=lambda key: (key not in USUAL_LABELS, key))
    alone = (key for key in order if not any(_carries(one, {key: given[key]}) for one in others))
    return next(({key: given[key]} for key in alone), given)


def _carries(container: Json, labels: Mapping[str, str]) -> bool:
    return labels.items() <= container_spec.labels_of(container).items()


def _ask_health(draft: Draft, found: Unadopted, definition: Definition | None, known: Mapping[str, Definition]) -> None:
    """How a member shows that it serves: its health check, the next image's, a port; else it is asked."""
    config, after = found.one["Config"], _check_of(definition, known)
    test, published = shows = _shows(found.one)
    given = "Healthcheck" in container_spec.explicit(found.one, found.image)
    own, new = _in_words(test), _in_words(["CMD", *after])
    serves = _ports_of(definition, known)
    if others := [container_spec.name(one) for one in found.containers if _shows(one) != shows]:
        draft.todo.append(
            f"health is drafted from {container_spec.name(found.one)}, and {', '.join(others)} has another health "
            "check or publishes other ports: see that it fits each, or adopt them as fleets of their own"
        )
    if definition and serves and (lost := [port for port in published if port not in serves]):
        draft.set(
            "health", {"kind": "tcp", "port": _number(lost[0])}, f"{lost[0]} is published: what does not serve it may "
            f"not take its place. {definition.name} serves {', '.join(serves)}."
        )  # fmt: skip
        draft.todo.append(
            f"it publishes {', '.join(lost)} of the container, and {definition.name} serves {', '.join(serves)}: let a "
            f"definition of yours serve {lost[0]}, or publish the other port"
        )
        return
    if test[0] != "NONE" and (given or after or definition is None):
        why = "The health check that the container was given, which each rollout keeps"  # it may hold a password
        why = why if given else f"Its image's check: {own}"
        follows = f". In {definition.name} it is: {new}" if after and definition and not given else ""
        draft.set("health", {"kind": "docker"}, f"{why}{follows}")
        return
    if after and definition:
        draft.set("health", {"kind": "docker"}, f"It has no health check of its own; {definition.name} has: {new}")
        return
    exposed = _tcp(config.get("ExposedPorts"))
    ports = [port for port in [*published, *exposed] if not serves or port in serves]
    if port := next(iter([*ports, *_tcp(serves)]), ""):
        how = "published" if port in published else "exposed"
        draft.set("health", {"kind": "tcp", "port": _number(port)}, f"No health check; {port} is the port {how}.")
        return
    draft.ask(
        'it has neither health check nor port: health = { kind = "exec", command = ["…"] } with a command that ends '
        "with 0 while it serves, or a health check in the definition"
    )


def _shows(container: Json) -> tuple[list[str], list[str]]:
    """By what a container shows that it serves: its health check, and the ports of it that are published."""
    test = (container["Config"].get("Healthcheck") or {}).get("Test") or ["NONE"]
    return test, _tcp(container["HostConfig"].get("PortBindings"))


def _tcp(ports: Iterable[str] | None) -> list[str]:
    """The TCP ports among them, the lowest first."""
    return sorted((port for port in ports or () if re.fullmatch(r"[0-9]{1,5}/tcp", port)), key=_number)


def _number(port: str) -> int:
    return int(port.partition("/")[0])


def _in_words(test: Sequence[str]) -> str:
    return " ".join(test[1:])


def _limit(draft: Draft, found: Unadopted) -> None:
    """The way of replacing, by what cannot exist twice; and the times that its own are longer than."""
    forced = dict.fromkeys(why for one in found.containers for why in container_spec.forced_in_place(one, ()))
    draft.set_method("; ".join(forced), "swapped")
    configs, defaults = [one["Config"] for one in found.containers], Limits()
    if (stop := timedelta(seconds=max(one.get("StopTimeout") or 0 for one in configs))) > defaults.drain:
        draft.set("drain", shown(stop), "Its own stop timeout.")
    checks = [one.get("Healthcheck") or {} for one in configs]
    wait = max(sum(one.get(key) or 0 for key in ("StartPeriod", "Interval", "Timeout")) for one in checks) // 10**9
    needed = timedelta(seconds=wait) + defaults.min_healthy_time
    if needed >= defaults.healthy_deadline:
        draft.set("healthy_deadline", shown(2 * needed), "Its health check takes long to say how it is.")
        draft.set("progress_deadline", shown(4 * needed + duration("30m")), "Longer than healthy_deadline.")


# -- the definition ----------------------------------------------------------------------------------------------------


def definition_draft(found: Unadopted, owner: str, known: Mapping[str, Definition]) -> Draft:
    """An image.toml for what the service runs, on the golden image that is nearest to what it stands on now."""
    config = found.image.get("Config") or {}
    stands_on = found.stands_on or found.called
    near = fitting(stands_on, known)
    draft = Draft()
    draft.say(f"Drafted by ./goldsmith adopt from {found.source}. Change what is not right.")
    draft.set("title", f"The service {found.name}")
    draft.set("owner", owner, "Who ran adopt. Put the team that answers for the image.")
    draft.set("kind", "container")
    draft.set("profile", "container-base", "The hardening of images with a shell.")
    _ask_packages(draft, found, near)
    _set_user(draft, found)
    _set_program(draft, found, config, None if found.steps else known.get(near))
    draft.table("base")
    draft.say(
        f"It stands on {stands_on}; {near or BASE} is {'called so' if near else 'the base with a package manager'}."
    )
    draft.set("golden", near or BASE)
    _set_check(draft, found, _check_of(known.get(near), known))
    return draft


def _ask_packages(draft: Draft, found: Unadopted, near: str) -> None:
    if found.packages:
        draft.set("packages", found.packages, "What apt-get installs in the Dockerfile; versions are planned.")
    elif not near:
        program = _in_words(["", *(_program(found.image.get("Config") or {}))]) or "the program"
        draft.ask(f'packages = ["…"], the Debian packages that bring {one_line(program)}')


def _program(config: Json) -> list[str]:
    return [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]


def _set_user(draft: Draft, found: Unadopted) -> None:
    user = str(found.one["Config"].get("User") or "")
    if re.fullmatch(r"[1-9][0-9]*(:[0-9]+)?", user):
        draft.set("user", user, "As it runs now.")
        return
    before = f"It runs as {user or 'root'}" if user or found.image else "It is not known as which user it runs"
    draft.set(
        "user", NONROOT, f"{before}; golden images run as a number that is not root, and so must what they write."
    )


def _set_program(draft: Draft, found: Unadopted, config: Json, same: Definition | None) -> None:
    """What it runs, listens on and needs. `same`: the base serves the same, with its own program."""
    writable = {*(found.one["HostConfig"].get("Tmpfs") or {}), *(same.tmpfs if same else ())}
    if writable:
        draft.set("tmpfs", sorted(writable), "What must be writable on a read-only root.")
    if same and same.smoke:
        draft.set("smoke", same.smoke, f"That of {same.name}, whose program this is, with its port and stop signal.")
        return
    program = next(iter(_program(config)), "program")
    draft.ask(f'smoke = [{toml(program)}, "--version"], or another command that ends with 0 on a read-only root')
    ports = [port for port in config.get("ExposedPorts") or {} if re.fullmatch(r"[0-9]{1,5}/(tcp|udp)", port)]
    settings = [
        ("entrypoint", config.get("Entrypoint")), ("command", config.get("Cmd")), ("workdir", config.get("WorkingDir")),
        ("stop_signal", config.get("StopSignal")), ("ports", sorted(ports, key=_number)),
        ("environment", _environment(config)),
    ]  # fmt: skip
    for number, (key, value) in enumerate([(key, value) for key, value in settings if value]):
        draft.set(key, value, "" if number else "What its image sets; no password stays here.")


def _environment(config: Json) -> dict[str, str]:
    pairs = (entry.partition("=")[::2] for entry in config.get("Env") or [])
    return {
        key: value
        for key, value in pairs
        if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) and key != "PATH" and value == one_line(value)
    }


def _set_check(draft: Draft, found: Unadopted, base: Sequence[str]) -> None:
    """The image's health check, or the `base`'s: a Dockerfile's own counts more, that of another image less."""
    draft.table("healthcheck")
    check = (found.image.get("Config") or {}).get("Healthcheck") or {}
    kind, *words = check.get("Test") or ["NONE"]
    if base and not (found.steps and words):
        draft.say(f"The base's: {' '.join(base)}. The image had {' '.join(words) or 'none'}.")
    elif words:
        draft.set("command", ["sh", "-c", *words] if kind == "CMD-SHELL" else words, "As the image has it.")
        for key, name in (("interval", "Interval"), ("timeout", "Timeout")):
            if seconds := (check.get(name) or 0) // 10**9:
                draft.set(key, f"{seconds}s")
    else:
        draft.ask('healthcheck: command = ["…"] that ends with 0 while it serves, or none_because = "…"')


def dockerfile_draft(found: Unadopted) -> str:
    """The steps of a Dockerfile that image.toml does not say: files and commands. Empty where there are none."""
    wanted = [
        f"{word} {rest}"
        for word, rest in found.steps
        if word in ("ADD", "ARG", "COPY", "RUN", "WORKDIR") and not (word == "RUN" and _only_packages(rest))
    ]
    if not any(line.startswith(("ADD", "COPY", "RUN")) for line in wanted):
        return ""
    body = "\n".join(line for line in wanted if "endraw" not in line)
    return (
        "{# Steps run as root and without network. COPY takes files of this folder: put them here. #}\n"
        f'{{% extends "Dockerfile.j2" %}}\n{{% block steps %}}\n{{% raw %}}{body}{{% endraw %}}\n{{% endblock %}}\n'
    )


def undrafted(found: Unadopted) -> Iterator[str]:
    """What a person has to do about steps that do not come through as they are."""
    for word, rest in found.steps:
        if word == "RUN" and "<<" in rest:
            yield f"write out the here-document of its step: {word} {rest}"
        if word == "COPY" and rest.startswith("--from"):
            yield f"bring by other means what it takes from another stage or image: {word} {rest}"
        if "endraw" in rest:
            yield f"put its step into Dockerfile.j2 yourself, where it ends the text: {word} {rest}"


def _only_packages(line: str) -> bool:
    """Whether a command does no more than to install packages, and to tidy up after that."""
    parts = [part.strip() for part in re.split(r"&&|;", line)]
    return all(re.match(r"(set -\w+|apt(-get)? |rm -rf /var/lib/apt)", part) for part in parts if part)
