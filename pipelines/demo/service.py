"""The demo's service on Docker: a network, a proxy, and the web service that the fleet is. Edge to Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import OutsideError
from hardening.foundation.settings import Settings
from images.engine import engine, images_named
from images.registry.login import auth_config
from pipelines.demo.proxy import nginx_config
from pipelines.demo.stream import wait_for

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

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
    client = engine(docker_host)
    client.networks.create(NETWORK, driver="bridge", labels={LABEL: ""})
    for image in (web_image, proxy_image):
        client.images.pull(image, auth_config=auth_config(settings, image))
    _web(client, web_image)
    proxy = _proxy(client, proxy_image)
    published = proxy.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
    url = f"http://127.0.0.1:{published}/"
    if not wait_for(url):
        logs = proxy.logs(tail=20).decode(errors="replace")
        raise OutsideError("the demo's service does not answer", evidence=logs)
    return url


def _web(client: DockerClient, image: str) -> None:
    """The member of the fleet."""
    container = client.containers.create(image, name=WEB, labels={LABEL: "", "dev.goldsmith.fleet": "demo"}, **HARDENED)
    client.networks.get(NETWORK).connect(container, aliases=["web"])
    container.start()


def _proxy(client: DockerClient, image: str) -> Container:
    """The proxy; its configuration is an argument, so that nothing is mounted from this machine."""
    script = 'printf %s "$CONFIG" >/tmp/nginx.conf; exec nginx -e stderr -c /tmp/nginx.conf -g "daemon off;"'
    container = client.containers.create(
        image, ["-c", script], entrypoint=["sh"], name=PROXY, labels={LABEL: ""}, network=NETWORK,
        environment={"CONFIG": nginx_config("web", 8080)}, ports={"8080/tcp": ("127.0.0.1", 0)}, **HARDENED,
    )  # fmt: skip
    container.start()
    container.reload()
    return container


def clean(docker_host: str) -> None:
    """Remove every container and network of the demo, those of a killed one and of its rollouts too."""
    client = engine(docker_host)
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": LABEL}):
        network.remove()


def forget_images(docker_host: str, registry: str) -> None:
    """Remove the images that the demo's registry gave to the engine."""
    for image in images_named(docker_host, f"{registry}/*"):
        engine(docker_host).images.remove(image["Id"], force=True)
