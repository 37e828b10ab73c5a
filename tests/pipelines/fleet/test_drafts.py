"""Drafts: what is chosen, from what, and what a person is asked for; whatever is found, the files load."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.content import parse
from images.model import Definition
from pipelines.fleet.docker.drafts import (
    Unadopted,
    definition_draft,
    dockerfile_draft,
    fitting,
    fleet_draft,
    undrafted,
)
from pipelines.fleet.docker.written import image_of, installed, last_stage, unpacked_container
from pipelines.fleet.drafting import Draft, toml
from pipelines.fleet.members import managed_by
from pipelines.fleet.model import Fleet

IMAGE = {
    "Config": {"Env": ["PATH=/bin"], "Cmd": ["nginx"], "ExposedPorts": {"80/tcp": {}}, "Labels": {"made": "there"}}
}
NETWORK = {"Networks": {"shop": {"Aliases": ["www"], "IPAMConfig": None}}}
CHECK = {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 10**10}
COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "com.docker.compose.oneoff": "no"}


def container(
    name: str = "web-1", labels: dict[str, str] | None = None, host: dict[str, Any] | None = None, **config: Any
) -> dict[str, Any]:
    base: dict[str, Any] = {**IMAGE["Config"], "Image": "nginx:1.27", "Hostname": "x"}
    return {
        "Id": name * 4,
        "Name": f"/{name}",
        "Config": {**base, "Labels": {"made": "there", **(labels or {})}, **config},
        "HostConfig": {"NetworkMode": "shop", **(host or {})},
        "Mounts": [],
        "State": {"Status": "running"},
        "NetworkSettings": NETWORK,
    }


def found(*containers: dict[str, Any], **more: Any) -> Unadopted:
    given: dict[str, Any] = {"image": IMAGE, "runs": True, **more}
    return Unadopted("shop", "the container web-1", containers or (container(labels={"app": "shop"}),), **given)


def definition(name: str, **values: Any) -> Definition:
    needed = {"title": "x", "owner": "x", "kind": "container", "profile": "container-base", "base": {"golden": "none"}}
    return parse({**needed, **values}, Definition, "image.toml", name=name)


GOLDEN = definition("nginx-golden", ports=["80/tcp"], healthcheck={"command": ["/healthz"]}, smoke=["/smoke"])
KNOWN = {"nginx-golden": GOLDEN, "debian-base": definition("debian-base", base={"image": "debian:13"})}


def drafted(of: Unadopted, becomes: str = "nginx-golden", known: dict[str, Definition] = KNOWN) -> tuple[Fleet, Draft]:
    draft = fleet_draft(of, "ana", becomes, "As a test says.", known)
    return parse(tomllib.loads(draft.text), Fleet, "shop.toml", name="shop"), draft


def test_the_selector_is_a_label_that_nothing_else_carries() -> None:
    """Not one of the image, which the next image does not have."""
    other = container("db-1", labels={"app": "db", "tier": "front"})
    fleet, draft = drafted(found(container(labels={"app": "shop", "tier": "front"}), others=(other,)))
    assert (fleet.selector, draft.todo) == ({"app": "shop"}, [])
    other = container("db-1", labels={"app": "shop"})
    fleet, draft = drafted(found(container(labels={"app": "shop", "tier": "front"}), others=(other,)))
    assert (fleet.selector, draft.todo) == ({"tier": "front"}, [])


def test_containers_of_compose_are_selected_by_project_and_service() -> None:
    """Of several, by what all of them carry."""
    two = [container(f"web-{number}", {**COMPOSE, "n": str(number)}) for number in (1, 2)]
    fleet, draft = drafted(found(*two, others=(container("web-3", COMPOSE),)))
    assert fleet.selector == {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    assert draft.todo == ["the selector also finds web-3: members too, or labels that tell them apart"]


def test_a_container_without_a_label_is_told_how_to_get_one() -> None:
    """A running container gets none."""
    fleet, draft = drafted(found(container()))
    assert fleet.selector == {"app": "shop"}
    (todo,) = draft.todo
    assert "create it again with --label app=shop" in todo
    assert "# FILL IN: the container web-1 has no label" in draft.text


def test_health_is_the_containers_check_the_next_images_or_a_port() -> None:
    """In this order; a check of the old image alone says nothing of the next."""
    silent = {**KNOWN, "nginx-golden": definition("nginx-golden", ports=["80"])}
    nothing = {**KNOWN, "nginx-golden": definition("nginx-golden")}
    with_check = {"Config": {**IMAGE["Config"], "Healthcheck": CHECK}}
    cases: list[tuple[Unadopted, dict[str, Definition], str, int | None, str]] = [
        (found(container(labels={"a": "b"}, Healthcheck=CHECK)), silent, "docker", None, "which each rollout keeps"),
        (found(container(labels={"a": "b"}, Healthcheck=CHECK), image=with_check), KNOWN, "docker", None, "/healthz"),
        (found(container(labels={"a": "b"}, Healthcheck=CHECK), image=with_check), silent, "tcp", 80, "No health"),
        (found(), KNOWN, "docker", None, "nginx-golden has: /healthz"),
        (found(), silent, "tcp", 80, "80/tcp is the port exposed"),
        (found(container(labels={"a": "b"}, ExposedPorts={})), nothing, "docker", None, "FILL IN: it has neither"),
    ]
    for of, known, kind, port, said in cases:
        fleet, draft = drafted(of, known=known)
        assert (fleet.health.kind, fleet.health.port) == (kind, port)
        assert said in draft.text.replace("\n# ", " ")


def test_where_containers_differ_in_how_they_show_that_they_serve_that_is_told() -> None:
    """And the times are those of the slowest, whichever is the first."""
    labels, slow = {"app": "shop"}, {**CHECK, "StartPeriod": 600 * 10**9}
    one, two = container(labels=labels), container("web-2", labels, Healthcheck=slow, StopTimeout=300)
    for both in ((one, two), (two, one)):
        fleet, draft = drafted(found(*both))
        names = [container["Name"][1:] for container in both]
        assert draft.todo[0].startswith(f"health is drafted from {names[0]}, and {names[1]} has another health check")
        assert (fleet.limits.drain, fleet.limits.healthy_deadline >= timedelta(minutes=10)) == (
            timedelta(minutes=5),
            True,
        )
    fleet, draft = drafted(found(one, container("web-3", labels)))
    assert draft.todo == []


def test_a_published_port_that_the_next_image_does_not_serve_is_told_and_watched() -> None:
    """Its own check would be content while nobody reaches it."""
    other = {**KNOWN, "nginx-golden": GOLDEN.model_copy(update={"ports": ("8080/tcp",)})}
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8000"}]}}
    fleet, draft = drafted(found(container(labels={"a": "b"}, host=host)), known=other)
    assert (fleet.health.kind, fleet.health.port) == ("tcp", 80)
    assert draft.todo[0].startswith("it publishes 80/tcp of the container, and nginx-golden serves 8080/tcp")


def test_the_method_is_in_place_where_something_cannot_exist_twice() -> None:
    """With one at a time, or no rollout could begin; else it surges."""
    fleet, _ = drafted(found())
    assert fleet.limits.method == "surge"
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8000"}]}}
    fleet, draft = drafted(found(container(labels={"a": "b"}, host=host)))
    assert (fleet.limits.method, fleet.limits.max_unavailable) == ("in_place", 1)
    assert "# Old and new cannot run side by side: it publishes host port 8000 (80/tcp)." in draft.text


def test_times_that_are_longer_than_the_defaults_become_limits() -> None:
    """A stop timeout, and a check that begins late."""
    late = {**CHECK, "StartPeriod": 400 * 10**9}
    fleet, _ = drafted(found(container(labels={"a": "b"}, StopTimeout=90, Healthcheck=late)))
    assert fleet.limits.drain.total_seconds() == 90
    assert fleet.limits.healthy_deadline.total_seconds() > 430
    assert fleet.limits.progress_deadline > fleet.limits.healthy_deadline


def test_what_a_rollout_would_leave_alone_is_told_now() -> None:
    _, draft = drafted(found(container(labels={"a": "b"}, host={"AutoRemove": True})))
    assert draft.todo[0].startswith("web-1 will be skipped: it was started with --rm")


def test_the_replacement_is_a_definition_a_tag_or_asked_for() -> None:
    assert drafted(found(), "r.example/app:1")[0].replacement.tag == "r.example/app:1"
    fleet, draft = drafted(found(), "shop")
    assert fleet.replacement.definition == "shop"
    assert draft.todo == ["unknown definition: shop: write it, or name another in `replacement`"]


def test_an_image_fits_the_one_definition_that_is_called_like_it() -> None:
    """Two that begin so are a choice for a person; machines are none."""
    names = {
        name: definition(name) for name in ("nginx-unprivileged", "python-runtime", "debian-base", "debian-static")
    }
    of = {"docker.io/library/nginx:1.27": "nginx-unprivileged", "python@sha256:1": "python-runtime", "debian:13": "",
          "r.example/debian-base:1": "debian-base", "pyth": "", "": ""}  # fmt: skip
    assert {reference: fitting(reference, names) for reference in of} == of


def test_what_an_orchestrator_made_is_its_own() -> None:
    assert managed_by({"com.docker.swarm.service.name": "web"}) == "Docker Swarm"
    assert managed_by(COMPOSE) == ""


def loaded(draft: Draft) -> Definition:
    return parse(tomllib.loads(draft.text), Definition, "image.toml", name="shop")


def test_a_definition_stands_on_the_golden_image_of_the_same_program() -> None:
    """Which has user, program and check already; root becomes a number that is not."""
    made = loaded(definition_draft(found(), "ana", KNOWN))
    assert (made.base.golden, made.user, made.smoke, made.command) == ("nginx-golden", "65532:65532", ("/smoke",), ())


def test_a_definition_on_nothing_near_asks_for_what_no_image_says() -> None:
    """Packages, smoke and health check: without them no build begins."""
    config = {**IMAGE["Config"], "Entrypoint": ["/app"], "User": "1000", "Env": ["PATH=/bin", "MODE=fast", "B D=x"]}
    of = container(labels={"a": "b"}, Image="r.example/shop:1", User="1000")
    draft = definition_draft(found(of, image={"Config": config}), "ana", KNOWN)
    made = loaded(draft)
    assert (made.base.golden, made.user, made.entrypoint, made.command) == (
        "debian-base",
        "1000",
        ("/app",),
        ("nginx",),
    )
    assert (made.environment, made.ports, made.smoke) == ({"MODE": "fast"}, ("80/tcp",), ())
    assert [todo.partition(" ")[0] for todo in draft.todo] == ["packages", "smoke", "healthcheck:"]


DOCKERFILE = """FROM nginx
RUN apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*
COPY app /srv/app
RUN {{ evil }} {% endraw %}
RUN make -C /srv/app
USER app
HEALTHCHECK CMD curl -f localhost
CMD ["serve"]
"""


def test_a_dockerfile_becomes_packages_settings_and_steps() -> None:
    """Nothing of it is a template of ours."""
    base, steps = last_stage(DOCKERFILE, Path("Dockerfile"))
    image = image_of(steps)
    of = Unadopted(
        "shop", "the Dockerfile", (unpacked_container("shop", image),), image, runs=False, stands_on=base,
        steps=tuple(steps), packages=installed(steps),
    )  # fmt: skip
    made = loaded(definition_draft(of, "ana", KNOWN))
    assert (made.base.golden, made.packages, made.user) == ("nginx-golden", ("curl",), "65532:65532")
    assert (made.command, made.healthcheck.command) == (("serve",), ("sh", "-c", "curl -f localhost"))
    assert "{% raw %}COPY app /srv/app\nRUN make -C /srv/app{% endraw %}" in dockerfile_draft(of)
    assert ["endraw" in line for line in undrafted(of)] == [True], "only what would end the text is left to a person"
    fleet, draft = drafted(of)
    assert fleet.selector == {"app": "shop"}
    assert "start its containers with --label app=shop" in draft.text


def test_a_step_that_does_not_come_through_is_told() -> None:
    """What a here-document holds, what another stage made, and what would end the text that it stands in."""
    steps = [("RUN", "<<EOF"), ("COPY", "--from=build /app /app"), ("RUN", "echo '{% endraw %}'"), ("RUN", "make")]
    base = found()
    told = list(undrafted(replace(base, steps=tuple(steps))))
    assert [line.rpartition(": ")[2] for line in told] == [f"{word} {rest}" for word, rest in steps[:3]]


def test_what_a_container_was_given_as_its_check_stands_in_no_file() -> None:
    """It may hold a password."""
    check = {"Test": ["CMD", "mysqladmin", "-pverysecret", "ping"]}
    _, draft = drafted(found(container(labels={"a": "b"}, Healthcheck=check)), known=KNOWN)
    assert "verysecret" not in draft.text


ODD = st.text(max_size=12)


@given(st.dictionaries(ODD, ODD, max_size=3), ODD, ODD, st.lists(ODD, max_size=3))
def test_whatever_strangers_call_things_the_drafts_load(
    labels: dict[str, str], user: str, image: str, command: list[str]
) -> None:
    """Quotes, newlines, signs that turn text around: none of it leaves its string or its comment."""
    config = {
        **IMAGE["Config"],
        "Cmd": command,
        "User": user,
        "Env": [f"{key}={value}" for key, value in labels.items()],
    }
    of = found(container(labels=labels, Image=image or "x", User=user, Cmd=command), image={"Config": config})
    fleet, draft = drafted(of)
    assert set(fleet.selector.items()) <= {*labels.items(), ("app", "shop")}
    text = definition_draft(of, "ana", KNOWN).text
    assert tomllib.loads(text)["title"] == "The service shop"
    assert all(line.isprintable() for line in draft.text.splitlines() if line.startswith("#"))


@given(st.text())
def test_text_in_toml_is_the_same_text(text: str) -> None:
    assert tomllib.loads(f"a = {toml(text)}\nb = {toml({text: [text, 1]})}") == {"a": text, "b": {text: [text, 1]}}


WORDS = (
    "FROM x",
    "ENV",
    "EXPOSE",
    "CMD",
    "ENTRYPOINT",
    "HEALTHCHECK",
    "USER",
    "VOLUME",
    "LABEL",
    "RUN apt install",
    "COPY",
)


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.text(max_size=20)), max_size=6))
def test_whatever_stands_in_a_dockerfile_is_no_crash(lines: list[tuple[str, str]]) -> None:
    """Its drafts are TOML, whether or not a definition may say what it says."""
    text = "FROM nginx\n" + "\n".join(f"{word} {rest}" for word, rest in lines)
    base, steps = last_stage(text, Path("Dockerfile"))
    image = image_of(steps)
    of = Unadopted(
        "shop", "the Dockerfile", (unpacked_container("shop", image),), image, runs=False, stands_on=base,
        steps=tuple(steps), packages=installed(steps),
    )  # fmt: skip
    assert tomllib.loads(definition_draft(of, "ana", KNOWN).text)["kind"] == "container"
    assert drafted(of)[0].selector == {"app": "shop"}
    assert dockerfile_draft(of).count("endraw") in (0, 1)
