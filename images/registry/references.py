"""References: the host, repository and tag that they name, and which are asked by plain HTTP. Pure."""

from __future__ import annotations

import re

from hardening.foundation.addresses import HUB, HUB_HOST, canonical_registry, is_loopback
from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import DIGEST
from hardening.foundation.settings import Settings

REPOSITORY = re.compile(r"[\w.\[\]:-]+(/[a-z0-9]+([._-]+[a-z0-9]+)*)*", re.ASCII)
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)


def split(reference: str) -> tuple[str, str]:
    """A reference as its repository and its tag or digest; the second is empty where there is none."""
    if "@" in reference:
        repository, _, wanted = reference.partition("@")
        return repository, wanted
    head, slash, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    return f"{head}{slash}{name}", tag


def require_reference(text: str) -> None:
    """Raises ContentError, which shows no password, for what is neither the name of an image nor a reference."""
    repository, wanted = split(text)
    form = re.compile(DIGEST) if "@" in text else TAG
    if not REPOSITORY.fullmatch(repository) or (wanted and not form.fullmatch(wanted)):
        login, _, rest = text.rpartition("@")
        shown = f"…@{rest}" if ":" in login and not re.match(DIGEST, rest) else text
        hint = "write NAME, NAME:TAG, HOST/PATH:TAG or HOST/PATH@sha256:DIGEST: tag or digest, not both, and no login"
        raise ContentError(f"{shown[:200]!r} is neither the name of an image nor a reference", hint=hint)


def place_of(reference: str) -> tuple[str, str, str]:
    """Host, repository and tag (or digest) of a reference, as Docker reads it: without a host it is Docker Hub's."""
    repository, wanted = split(reference)
    first, _, rest = repository.partition("/")
    host, name = (first, rest) if has_host(repository) else (HUB, repository)
    if canonical_registry(host) == HUB:
        return HUB_HOST, name if "/" in name else f"library/{name}", wanted or "latest"
    return host, name, wanted or "latest"


def has_host(repository: str) -> bool:
    """Whether it begins with a registry's address, as Docker tells that from the first part of a path."""
    first, slash, _ = repository.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def qualified(reference: str) -> str:
    """A reference with the host and path that Docker reads into it: `nginx:1` is `docker.io/library/nginx:1`."""
    tagged = reference.partition("@")[0]
    host, name, _ = place_of(tagged)
    return f"{canonical_registry(host)}/{name}{reference.removeprefix(split(tagged)[0])}"


def one_repository(one: str, other: str) -> bool:
    """Whether two references are of one repository, as Docker reads them."""
    places = [place_of(reference.partition("@")[0]) for reference in (one, other)]
    return len({(canonical_registry(host), name) for host, name, _ in places}) == 1


def speaks_plain_http(settings: Settings, reference: str) -> bool:
    """Whether plain HTTP is spoken: on loopback, and where the settings say so with the configured registry."""
    asked = settings.registry
    return is_loopback(reference) or (asked.insecure and host_of(reference) == host_of(asked.address))


def host_of(reference: str) -> str:
    """The host, with its port, of an address or reference."""
    return reference.partition("/")[0]
