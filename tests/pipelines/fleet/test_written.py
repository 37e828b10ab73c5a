"""What a compose file or a Dockerfile says, also where a stranger wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError
from pipelines.fleet.docker.container_spec import forced_in_place
from pipelines.fleet.docker.written import compose_services, image_of, installed, last_stage

COMPOSE = Path("/srv/Shop.1/compose.yaml")
DOCKERFILE = Path("/srv/shop/Dockerfile")
FULL = """
x-common: &common
  restart: unless-stopped
  labels: { tier: front, color: "$$blue" }
services:
  web:
    <<: *common
    image: "nginx:${TAG:-1.27}"
    user: 1000:1000
    command: nginx -g 'daemon off;'
    ports: ["127.0.0.1:8080:80", "22:22", "53:53/udp", "9000", { target: 443, published: 8443 }]
    volumes: [data:/srv/data, ./site:/srv/site:ro, { type: volume, source: logs, target: /logs, read_only: true }]
    environment: [MODE=fast, EMPTY=]
    stop_grace_period: 1m30s
    healthcheck: { test: curl -f http://localhost/, interval: 10s, start_period: 2m }
    networks: { default: { ipv4_address: 10.0.0.9 } }
  job:
    build: { context: job, dockerfile: Containerfile }
    healthcheck: { disable: true }
"""


def services(text: str) -> dict[str, Any]:
    return compose_services(text, COMPOSE)


def test_a_service_is_shown_as_the_engine_would_show_its_container() -> None:
    """Ports are text, so that 22:22 is no number of base 60; variables have their defaults."""
    web = services(FULL)["web"]
    assert web["Name"] == "/shop1-web-1"
    config = web["Config"]
    assert (config["Image"], config["User"], config["Cmd"]) == (
        "nginx:1.27",
        "1000:1000",
        ["nginx", "-g", "daemon off;"],
    )
    assert config["Labels"] == {
        "tier": "front",
        "color": "$blue",
        "com.docker.compose.project": "shop1",
        "com.docker.compose.service": "web",
    }
    assert config["Env"] == ["MODE=fast", "EMPTY="]
    assert (config["StopTimeout"], config["Healthcheck"]["StartPeriod"]) == (90, 120 * 10**9)
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "curl -f http://localhost/"]
    assert list(config["ExposedPorts"]) == ["80/tcp", "22/tcp", "53/udp", "9000/tcp", "443/tcp"]
    assert forced_in_place(web, ()) == (
        "it publishes host port 8080 (80/tcp)",
        "it publishes host port 22 (22/tcp)",
        "it publishes host port 53 (53/udp)",
        "it publishes host port 8443 (443/tcp)",
        "it has the static address 10.0.0.9 in network default",
        "it writes to data at /srv/data (see limits.shared_mounts)",
    )


def test_what_compose_builds_names_its_dockerfile() -> None:
    """And a check that is switched off is none."""
    job = services(FULL)["job"]
    assert job["Build"] == "/srv/Shop.1/job/Containerfile"
    assert job["Config"]["Healthcheck"] == {"Test": ["NONE"]}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("services: {}", "no services"),
        ("web: {image: nginx}", "no services"),
        ("- a", "no services"),
        ("", "no services"),
        ("a: [", "not YAML"),
        ("services: &a { web: *a }", "not YAML|more than"),
        ("!!python/object/apply:os.system ['true']", "no services"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("services: \x00", "not YAML"),
    ],
)
def test_what_is_no_compose_file_is_an_error_that_names_it(text: str, match: str) -> None:
    with pytest.raises(ContentError, match=match) as refused:
        services(text)
    assert str(COMPOSE) in str(refused.value)


def test_a_bomb_of_aliases_is_counted_before_it_is_walked() -> None:
    """A kilobyte that means a billion values, as plain aliases and by way of merges."""
    for between in ("", "<<: "):
        lines = ["a0: &a0 {x: y}"]
        lines += [f"a{n}: &a{n} {{{between or 'k: '}[{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10)]
        with pytest.raises(ContentError, match="more than 50,000 values"):
            services("\n".join([*lines, "services: {web: *a9}"]))


@pytest.mark.parametrize("value", ["[]", "{}", "~", "text", "[[1], {a: b}]", "{a: [b]}", "'${X'", "[1:2:3:4:5]"])
def test_whatever_stands_under_a_key_is_no_crash(value: str) -> None:
    """Values of the wrong kind say nothing."""
    keys = (
        "image", "command", "entrypoint", "ports", "expose", "volumes", "labels", "environment", "healthcheck", "build",
        "networks", "network_mode", "tmpfs", "user", "stop_grace_period", "container_name",
    )  # fmt: skip
    found = services(f"services:\n  web: {{{', '.join(f'{key}: {value}' for key in keys)}}}\n  db: {value}")
    assert set(found) == {"web", "db"}
    for one in found.values():
        forced_in_place(one, ())


STAGES = """
ARG PYTHON=3.12
FROM golang:1.24 AS builder
RUN go build
FROM --platform=linux/amd64 python:${PYTHON}-slim AS runtime
FROM runtime
RUN apt-get update && apt-get install -y --no-install-recommends libpq5 curl=7.* && rm -rf /var/lib/apt/lists/*
RUN <<EOF
FROM nothing
EOF
ENV MODE=fast "QUOTED=a b"
ENV OLD way
EXPOSE 8000 9000/udp
VOLUME /data
USER app
HEALTHCHECK --interval=30s --start-period=1m CMD ["curl", "-f", "http://localhost:8000"]
ENTRYPOINT ["python"]
CMD python app.py
"""


def test_the_last_stage_of_a_dockerfile_is_what_runs() -> None:
    """It stands on what an earlier stage of that name stands on."""
    base, steps = last_stage(STAGES, DOCKERFILE)
    assert base == "python:3.12-slim"
    assert installed(steps) == ("libpq5", "curl")
    config = image_of(steps)["Config"]
    assert config["Env"] == ["MODE=fast", "QUOTED=a b", "OLD=way"]
    assert (config["User"], list(config["ExposedPorts"])) == ("app", ["8000/tcp", "9000/udp"])
    assert (config["Entrypoint"], config["Cmd"]) == (["python"], ["/bin/sh", "-c", "python app.py"])
    assert config["Healthcheck"] == {
        "Test": ["CMD", "curl", "-f", "http://localhost:8000"],
        "Interval": 30 * 10**9,
        "StartPeriod": 60 * 10**9,
    }


def test_a_file_without_a_stage_is_no_dockerfile() -> None:
    with pytest.raises(ContentError, match="not a Dockerfile"):
        last_stage("RUN true", DOCKERFILE)
