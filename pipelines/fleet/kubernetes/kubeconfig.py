"""Edge: reads one context of a kubeconfig, as untrusted input.

Whoever writes one can name programs to run, files to send and a server that is not verified. So programs (`exec`,
`auth-provider`), passwords, proxies and impersonation are refused, TLS is always verified, and the files that it names
must lie beside it. `current-context` is not read: the fleet file names the context.
"""

from __future__ import annotations

import binascii
import os
import re
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hardening.foundation.errors import ContentError, nearest
from hardening.foundation.limits import KUBECONFIG_BYTES, KUBECONFIG_FILE, Limit
from pipelines.fleet.docker.written import loaded
from pipelines.fleet.model import Kubernetes

Json = dict[str, Any]
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WAYS = "give it a service account's token (`token` or `tokenFile`), or a `kubectl proxy` on this machine as its server"
REFUSED = {
    "exec": "runs a program of its choice for credentials",
    "auth-provider": "asks a provider of its choice for credentials",
    "username": "logs in by a password",
    "password": "logs in by a password",
    "as": "acts as somebody else",
    "as-uid": "acts as somebody else",
    "as-groups": "acts as somebody else",
    "as-user-extra": "acts as somebody else",
    "proxy-url": "leads through a proxy of its choice",
}
USER = {"client-certificate", "client-certificate-data", "client-key", "client-key-data", "token", "tokenFile"}
CLUSTER = {
    "server", "certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name",
    "disable-compression",
}  # fmt: skip


@dataclass(frozen=True)
class ClusterAccess:
    """How a cluster is reached: `authority`, `certificate` and `key` are PEM; empty where there are none.

    `name` is the context as ids have it. `server_name` is the one in the server's certificate, where it is not that of
    its address.
    """

    name: str
    server: str
    authority: str = ""
    certificate: str = ""
    key: str = ""
    token: str = ""
    server_name: str = ""

    def __repr__(self) -> str:
        return f"ClusterAccess({self.name!r}, {self.server!r})"  # a traceback shows no secret


def access_of(place: Kubernetes) -> ClusterAccess:
    """How the cluster of a fleet is reached. Raises ContentError with file and key for what is wrong or refused."""
    file, wanted = _path(str(place.kubeconfig)), str(place.context)
    document = loaded(_read(file, KUBECONFIG_BYTES, file, ""), file)
    if not isinstance(document, dict):
        raise ContentError("is not a kubeconfig", file=file)
    context = _named(document, "contexts", "context", wanted, file)
    cluster_name, user_name = str(context.get("cluster") or ""), str(context.get("user") or "")
    where = f"clusters.{cluster_name}"
    cluster = _named(document, "clusters", "cluster", cluster_name, file)
    _refuse(cluster, CLUSTER, file, where)
    user = _named(document, "users", "user", user_name, file) if user_name else {}
    _refuse(user, USER, file, f"users.{user_name}")
    server = _server(str(cluster.get("server") or ""), file, where)
    if str(cluster.get("insecure-skip-tls-verify") or "false").lower() != "false":
        hint = "give it certificate-authority-data: whoever answers for the server could roll anything otherwise"
        raise ContentError("turns the verification of TLS off", file=file, key=f"{where}.insecure-skip-tls-verify",
                           hint=hint)  # fmt: skip
    key = f"users.{user_name}"
    return ClusterAccess(
        name=re.sub(r"[^A-Za-z0-9._:@-]", ":", wanted),
        server=server,
        authority=_pem(cluster, "certificate-authority", file, where),
        certificate=_pem(user, "client-certificate", file, key),
        key=_pem(user, "client-key", file, key),
        token=_token(user, file, key),
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def leads_to(place: Kubernetes, other: Kubernetes) -> bool:
    """Whether two fleets are in one namespace of one cluster, however they reach it. A cluster that cannot be reached
    from here cannot be rolled from here either.
    """
    if place.namespace != other.namespace or place.place == other.place:
        return place.place == other.place
    try:
        return access_of(place).server == access_of(other).server
    except ContentError:
        return False


def _path(named: str) -> Path:
    """The file; only a `$NAME` is looked up in the environment."""
    if not named.startswith("$"):
        return Path(named).expanduser()
    said = os.environ.get(named.removeprefix("$"), "")
    if not said or os.pathsep in said:
        why = "names several files" if said else "is not set"
        raise ContentError(f"the environment variable {named} {why}", key="kubernetes.kubeconfig", hint="name one file")
    return Path(said)


def _read(path: Path, limit: Limit, file: Path, key: str) -> str:
    """A file's text, at most as much as the limit accepts."""
    what = "the kubeconfig" if path == file else str(path)
    if path.exists() and not path.is_file():
        raise ContentError(f"{what} is not a file", file=file, key=key)  # opening a pipe would wait for its other end
    try:
        with path.open("rb") as stream:
            data = stream.read(limit.most + 1)
    except OSError as error:
        hint = "" if key else "`kubeconfig` under [kubernetes] of the fleet's file, or --kubeconfig, names it"
        raise ContentError(f"{what} cannot be read: {error.strerror}", file=file, key=key, hint=hint) from None
    if len(data) > limit.most:
        raise ContentError(f"{what} exceeds {limit}", file=file, key=key)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ContentError(f"{what} is not text", file=file, key=key) from None


def _named(document: Json, section: str, kind: str, name: str, file: Path) -> Json:
    """The entry of that name in a section. Raises ContentError for none, and for two."""
    listed = document.get(section)
    entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = [one.get(kind) for one in entries if one.get("name") == name]
    if len(found) != 1 or not isinstance(found[0], dict):
        why = f"{len(found)} entries are called {name}" if found[1:] else f"no {kind} is called {name}"
        raise ContentError(why, file=file, key=section, hint=nearest(name, [str(one.get("name")) for one in entries]))
    return found[0]


def _refuse(entry: Json, known: set[str], file: Path, where: str) -> None:
    """Raise ContentError for what an entry may not ask for, and for what is not known here."""
    for key in sorted(entry):
        if key in REFUSED:
            raise ContentError(f"{REFUSED[key]}, which is refused", file=file, key=f"{where}.{key}", hint=WAYS)
        if key not in known | {"extensions"}:
            raise ContentError("is not known here", file=file, key=f"{where}.{key}", hint=nearest(key, known))


def _server(address: str, file: Path, where: str) -> str:
    """The server's address: https, or http to this machine alone."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    secure = bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK))
    if not secure or "@" in parts.netloc or parts.query or parts.fragment:
        hint = "such as https://10.0.0.1:6443; http:// is for this machine itself"
        raise ContentError(f"{address} is not a server's address", file=file, key=f"{where}.server", hint=hint)
    return address.rstrip("/")


def _pem(entry: Json, name: str, file: Path, where: str) -> str:
    """A certificate or key, from the kubeconfig itself or from a file beside it."""
    if data := str(entry.get(f"{name}-data") or ""):
        key = f"{where}.{name}-data"
        try:
            return b64decode(data, validate=True).decode("ascii")
        except (binascii.Error, ValueError):
            raise ContentError("is not PEM in base64", file=file, key=key) from None
    named = str(entry.get(name) or "")
    return _beside(named, file, f"{where}.{name}") if named else ""


def _token(user: Json, file: Path, where: str) -> str:
    named = str(user.get("tokenFile") or "")
    token = str(user.get("token") or "") or (_beside(named, file, f"{where}.tokenFile").strip() if named else "")
    if token and not TOKEN.fullmatch(token):
        raise ContentError("is not a bearer token", file=file, key=f"{where}.token")
    return token


def _beside(named: str, file: Path, key: str) -> str:
    """The text of a file that the kubeconfig names: one beside it, or the pod's own service account's.

    Of any other file the text would be sent to a server that the same kubeconfig names.
    """
    try:
        path, homes = (file.parent / named).resolve(), (file.parent.resolve(), SERVICE_ACCOUNT)
    except (OSError, ValueError):
        raise ContentError(f"{named!r} is not a file", file=file, key=key) from None
    if not any(path.is_relative_to(home) for home in homes):
        raise ContentError(f"{named} does not lie beside the kubeconfig", file=file, key=key, hint="copy it there")
    return _read(path, KUBECONFIG_FILE, file, key)
