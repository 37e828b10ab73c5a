"""References: the host, repository and tag that they name, and which are asked by plain HTTP. Pure."""

from __future__ import annotations

from hardening.foundation.addresses import is_loopback
from hardening.foundation.settings import Settings

HUB, HUB_HOST = "docker.io", "registry-1.docker.io"


def split(reference: str) -> tuple[str, str]:
    """A reference as its repository and its tag or digest; the second is empty where there is none."""
    if "@" in reference:
        repository, _, wanted = reference.partition("@")
        return repository, wanted
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def place_of(reference: str) -> tuple[str, str, str]:
    """Host, repository and tag (or digest) of a reference, as Docker reads it: without a host it is Docker Hub's."""
    repository, wanted = split(reference)
    first, slash, rest = repository.partition("/")
    host, name = (
        (first, rest) if slash and ("." in first or ":" in first or first == "localhost") else (HUB, repository)
    )
    if host == HUB:
        return HUB_HOST, name if "/" in name else f"library/{name}", wanted or "latest"
    return host, name, wanted or "latest"


def speaks_plain_http(settings: Settings, reference: str) -> bool:
    """Whether plain HTTP is spoken: on loopback, and where the settings say so with the configured registry."""
    asked = settings.registry
    return is_loopback(reference) or (asked.insecure and host_of(reference) == host_of(asked.address))


def host_of(reference: str) -> str:
    """The host, with its port, of an address or reference."""
    return reference.partition("/")[0]
