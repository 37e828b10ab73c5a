"""The demo's service on Docker: a proxy that loses no request, the fleet behind it, and clients that count. Edge."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images.engine import OF_STATE, engine, images_named
from images.registry.login import auth_config

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

CONFIG = Path(__file__).with_name("nginx.conf")
LABEL = "dev.goldsmith.demo"
NETWORK = "goldsmith-demo"
PROXY, WEB = "goldsmith-demo-proxy", "goldsmith-demo-web"
HARDENED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": ""},  # noqa: S108 - inside the container
}


def start(docker_host: str, settings: Settings, proxy_image: str, web_image: str) -> str:
    """Start the service behind its proxy, both hardened; returns the address that answers.

    Raises OutsideError when it does not answer.
    """
    client, labels = engine(docker_host), {LABEL: "", OF_STATE: str(settings.state_dir)}
    client.networks.create(NETWORK, driver="bridge", labels=labels)
    for image in (web_image, proxy_image):
        client.images.pull(image, auth_config=auth_config(settings, image))
    web = client.containers.create(web_image, name=WEB, labels=labels | {"dev.goldsmith.fleet": "demo"}, **HARDENED)
    client.networks.get(NETWORK).connect(web, aliases=["web"])
    web.start()
    proxy = _proxy(client, proxy_image, labels)
    published = proxy.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
    url = f"http://127.0.0.1:{published}/"
    if not wait_for(url):
        logs = proxy.logs(tail=20).decode(errors="replace")
        raise OutsideError("the demo's service does not answer", evidence=logs)
    return url


def _proxy(client: DockerClient, image: str, labels: dict[str, str]) -> Container:
    """The proxy; its configuration is an argument, so that nothing is mounted from this machine."""
    script = 'printf %s "$CONFIG" >/tmp/nginx.conf; exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"'
    container = client.containers.create(
        image, ["-c", script], entrypoint=["sh"], name=PROXY, labels=labels, network=NETWORK,
        environment={"CONFIG": nginx_config("web", 8080)}, ports={"8080/tcp": ("127.0.0.1", 0)}, **HARDENED,
    )  # fmt: skip
    container.start()
    container.reload()
    return container


def labels_of(state: Path) -> list[str]:
    """What the demo with the state directory `state` is found by."""
    return [LABEL, f"{OF_STATE}={state}"]


def clean(docker_host: str, labels: Sequence[str] = (LABEL,)) -> None:
    """Remove every container and network of the demo, those of a killed one and of its rollouts too.

    Without the `labels_of` one state, those of all: an engine has room for one demo, since its names are fixed.
    """
    client = engine(docker_host)
    for container in client.containers.list(all=True, filters={"label": [*labels]}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": [*labels]}):
        network.remove()


def forget_images(docker_host: str, registry: str) -> None:
    """Remove the images that the demo's registry gave to the engine."""
    for image in images_named(docker_host, f"{registry}/*"):
        engine(docker_host).images.remove(image["Id"], force=True)


def nginx_config(name: str, port: int) -> str:
    """An nginx configuration that passes everything on to the network alias `name`, whose members serve `port`.

    What makes it lose no request while members are swapped, together with a surge:
    - the upstream is a variable, so that nginx asks Docker's DNS again (`valid=1s`) instead of once when it starts;
    - during `settle` (longer than that second) old and new both stand behind the name: no answer names only the old;
    - an address that no longer answers costs one second (`proxy_connect_timeout`), then the next address is asked; a
      request that was already sent is sent again only if that is harmless (nginx repeats no POST);
    - the old member is told to stop and has `drain` to end what it has begun.
    """
    return CONFIG.read_text().replace("@NAME@", name).replace("@PORT@", str(port))


PAUSE_SECONDS = 0.01
TIMEOUT_SECONDS = 5
CLIENTS = 2
STARTS_SECONDS = 30


@dataclass
class Stream:
    """What the requests got: answers by their text, and what went wrong."""

    url: str
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    @property
    def sent(self) -> int:
        """How many requests were made."""
        return self.answers.total() + len(self.failures)


@contextmanager
def steady(url: str) -> Iterator[Stream]:
    """Ask `url` again and again, from several clients, for as long as the block lasts."""
    stream, over = Stream(url), threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        asking = [pool.submit(_ask, stream, over) for _ in range(CLIENTS)]
        try:
            yield stream
        finally:
            over.set()
        for client in asking:
            client.result()  # one that has broken asked for nothing more, which is not "none lost"


def _ask(stream: Stream, over: threading.Event) -> None:
    """One client: a new connection for each request, as a stranger would."""
    while not over.is_set():
        start = time.monotonic()
        try:
            answer = requests.get(stream.url, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            stream.answers[answer.text.strip()] += 1
        except requests.RequestException as error:
            stream.failures.append(f"{type(error).__name__}: {error}")
        stream.slowest_seconds = max(stream.slowest_seconds, time.monotonic() - start)
        time.sleep(PAUSE_SECONDS)


def wait_for(url: str) -> bool:
    """Whether `url` answers within half a minute."""
    until = time.monotonic() + STARTS_SECONDS
    while time.monotonic() < until:
        with suppress(requests.RequestException):
            if requests.get(url, timeout=1).ok:
                return True
        time.sleep(0.2)
    return False
