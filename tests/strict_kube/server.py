"""The API server: what it answers, how it patches, and what it refuses."""

from __future__ import annotations

import json
import re
import ssl
import threading
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_validate import ValidationError

from tests.strict_kube.controllers import Controllers, Json, serving, stamp
from tests.strict_kube.schemas import require_valid

NAMESPACE, TOKEN = "shop", "a.service-account.token"
STRATEGIC = "application/strategic-merge-patch+json"
ROUTE = re.compile(r"/(api/v1|apis/apps/v1)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?")
HOME = {"pods": "api/v1", "deployments": "apis/apps/v1", "statefulsets": "apis/apps/v1", "daemonsets": "apis/apps/v1",
        "replicasets": "apis/apps/v1"}  # fmt: skip
KINDS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
DEFAULTS: dict[str, Json] = {
    "Deployment": {"maxUnavailable": "25%", "maxSurge": "25%"},
    "StatefulSet": {"partition": 0},
    "DaemonSet": {"maxUnavailable": 1, "maxSurge": 0},
}
VERBS = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}
BEGAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Refusal(Exception):  # noqa: N818 - an answer, no failure of ours
    """An answer with a status that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass
class StrictKube:
    """One namespace of a cluster. `clock` moves its controllers whenever it is asked something.

    `denied` are verbs on kinds that the role lacks (`patch deployments`), `used` those that were asked for; `faults`
    are statuses that the next requests get instead of an answer, `lost` the number of patches whose answer nobody gets,
    `expires` of pages whose turn is over; `answer` is given to all who ask, whatever. `before_patch` happens right
    before one.
    """

    clock: Callable[[], datetime] = lambda: BEGAN
    now_at: datetime = BEGAN
    most: int = 500
    denied: set[str] = field(default_factory=set)
    faults: list[int] = field(default_factory=list)
    lost: int = 0
    expires: int = 0
    before_patch: Callable[[], None] = lambda: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    patches: list[Json] = field(default_factory=list)
    answer: bytes = b""
    address: str = ""

    def __post_init__(self) -> None:
        self._version = 100
        self.objects: dict[tuple[str, str], Json] = {}
        self.controllers = Controllers(self.objects, self._touch)
        self.lock = threading.RLock()
        self.now = self.now_at
        self.authority, self.certificate, self.key = certificates()

    # -- what a test does ----------------------------------------------------------------------------------------------

    def add(self, kind: str, name: str = "web", image: str = "r.example/web:1", **more: Any) -> Json:
        """Create an object whose pods run an image, and let it come up. `metadata` and `template` are merged in."""
        plural, template = f"{kind.lower()}s", more.pop("template", {})
        labels = {"app": "web", "part": name}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": image}]}}
        spec = {"selector": {"matchLabels": {"part": name}}, "template": merged(pod, template)}
        spec |= {"serviceName": name} if kind == "StatefulSet" else {}
        spec |= {"replicas": more.pop("replicas", 3)} if kind != "DaemonSet" else {}
        metadata = {"name": name, "namespace": NAMESPACE, "generation": 1, "uid": f"of {kind} {name}", "labels": {},
                    "creationTimestamp": stamp(self.now), **more.pop("metadata", {})}  # fmt: skip
        made = {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec | more, "status": {}}
        _validate({key: value for key, value in made.items() if key != "status"})
        self.objects[plural, name] = defaulted(made)
        self._touch(made)
        self.pass_time(30)
        return made

    def pod(self, name: str, image: str, **spec: Any) -> Json:
        """A pod that nothing keeps."""
        owners = spec.pop("owners", [])
        self.controllers.made += 1
        made = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "web", "image": image}], **spec},
                "metadata": {"name": name, "namespace": NAMESPACE, "uid": str(self.controllers.made),
                             "creationTimestamp": stamp(self.now), "labels": {"app": "web"}, "ownerReferences": owners},
                "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}],
                           "containerStatuses": []}}  # fmt: skip
        self.objects["pods", name] = made
        self._touch(made)
        self.pass_time(5)
        return made

    def pass_time(self, seconds: int) -> None:
        """Let the controllers work."""
        for _ in range(seconds):
            self.now += timedelta(seconds=1)
            self.controllers.second(self.now)

    def image(self, name: str = "web", kind: str = "deployments") -> str:
        """The image that an object names."""
        return str(self.objects[kind, name]["spec"]["template"]["spec"]["containers"][0]["image"])

    def running(self) -> set[str]:
        """The images of all pods."""
        pods = [one for (kind, _), one in self.objects.items() if kind == "pods"]
        return {one["spec"]["containers"][0]["image"] for one in pods}

    def serving(self, image: str) -> int:
        """How many pods of an image are ready."""
        pods = [one for (kind, _), one in self.objects.items() if kind == "pods"]
        return sum(one["spec"]["containers"][0]["image"] == image for one in serving(pods))

    def kubeconfig(self, folder: Path, **user: str) -> Path:
        """A kubeconfig that leads here."""
        file = folder / "kubeconfig"
        authority = b64encode(self.authority).decode()
        file.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "nowhere",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.address, "certificate-authority-data": authority}}],
            "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        }))  # fmt: skip
        return file

    # -- what it does --------------------------------------------------------------------------------------------------

    def _touch(self, one: Json) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)

    def respond(self, verb: str, path: str, headers: Any, body: bytes, *, known: bool) -> Json:
        """The answer of one request; `known`: by the client's certificate. Raises Refusal."""
        parts, asked = urlsplit(path), {key: one[-1] for key, one in parse_qs(urlsplit(path).query).items()}
        self.requests.append((verb, path))
        if not known and headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if self.faults:
            raise Refusal(self.faults.pop(0), "InternalError", "a fault")
        behind = int((self.clock() - self.now).total_seconds())
        self.pass_time(max(0, min(behind, 4000)))
        if not (route := ROUTE.fullmatch(parts.path)) or HOME.get(route[3]) != route[1] or route[2] != NAMESPACE:
            raise Refusal(404, "NotFound", f"the server could not find {parts.path}")
        kind, name = route[3], route[4]
        self._admit("list" if verb == "GET" and not name else VERBS[verb], kind)
        if not name:
            return self._list(kind, asked)
        if (kind, name) not in self.objects:
            raise Refusal(404, "NotFound", f'{kind} "{name}" not found')
        if verb == "GET":
            return shown(self.objects[kind, name])
        if verb == "DELETE":
            return self._delete(kind, name, json.loads(body or b"{}"))
        if headers.get("Content-Type") != STRATEGIC:
            raise Refusal(415, "UnsupportedMediaType", "not a patch that is known here")
        return self._patch(kind, name, json.loads(body), asked)

    def _admit(self, verb: str, kind: str) -> None:
        self.used.add(f"{verb} {kind}")
        if f"{verb} {kind}" in self.denied:
            said = f'{kind} is forbidden: User "goldsmith" cannot {verb} resource "{kind}"'
            raise Refusal(403, "Forbidden", said)

    def _list(self, kind: str, asked: dict[str, str]) -> Json:
        limit = min(int(asked.get("limit", self.most)), self.most)
        after = ""
        if token := asked.get("continue"):
            if self.expires:
                self.expires -= 1
                raise Refusal(410, "Expired", "The provided continue parameter is too old")
            after = urlsafe_b64decode(token).decode()
        selector = dict(pair.split("=") for pair in filter(None, asked.get("labelSelector", "").split(",")))
        names = sorted(
            name for (of, name), one in self.objects.items()
            if of == kind and selector.items() <= one["metadata"].get("labels", {}).items()
        )  # fmt: skip
        left = [name for name in names if name > after]
        page, more = left[:limit], left[limit:]
        going_on = {"continue": urlsafe_b64encode(page[-1].encode()).decode()} if more else {}
        items = [shown(self.objects[kind, name]) for name in page]
        return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1", **going_on}, "items": items}

    def _delete(self, kind: str, name: str, body: Json) -> Json:
        wanted = (body.get("preconditions") or {}).get("uid")
        if wanted and wanted != self.objects[kind, name]["metadata"]["uid"]:
            raise Refusal(409, "Conflict", "the UID in the precondition does not match")
        return shown(self.objects.pop((kind, name)))

    def _patch(self, kind: str, name: str, body: Json, asked: dict[str, str]) -> Json:
        self.before_patch()
        old = self.objects[kind, name]
        if (said := body.get("metadata", {}).get("resourceVersion")) and said != old["metadata"]["resourceVersion"]:
            what = f'Operation cannot be fulfilled on {kind} "{name}": the object has been modified'
            raise Refusal(409, "Conflict", what)
        new = defaulted(merged(old, body))
        if asked.get("fieldValidation") == "Strict":
            _validate({key: value for key, value in new.items() if key != "status"})
        rolling = new["spec"].get("strategy", {}).get("rollingUpdate", {})
        if {str(rolling.get(key, "1")) for key in ("maxSurge", "maxUnavailable")} == {"0"}:
            raise Refusal(422, "Invalid", "maxUnavailable may not be 0 when maxSurge is 0")
        if new["spec"] != old["spec"]:
            new["metadata"]["generation"] += 1
        fields = [one for one in old["metadata"].get("managedFields", []) if one["manager"] != asked["fieldManager"]]
        new["metadata"]["managedFields"] = [*fields, {"manager": asked["fieldManager"], "operation": "Update"}]
        self.objects[kind, name] = new
        self._touch(new)
        self.patches.append(body)
        if self.lost:
            self.lost -= 1
            raise ConnectionAbortedError
        return shown(new)


def shown(one: Json) -> Json:
    """An object as it is answered: without what only the controllers here remember."""
    answer = deepcopy(one)
    for key in ("templates", "seen", "since"):
        answer["status"].pop(key, None)
    return answer


def merged(old: Json, patch: Json) -> Json:
    """A strategic merge: tables are merged, containers by their names, null removes, anything else replaces."""
    made = deepcopy(old)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict):
            made[key] = merged(made.get(key) or {}, value)
        elif key == "containers":
            by_name = {one["name"]: one for one in made.get(key, [])}
            for one in value:
                by_name[one["name"]] = merged(by_name.get(one["name"], {}), one)
            made[key] = list(by_name.values())
        else:
            made[key] = value
    return made


def defaulted(made: Json) -> Json:
    """The object with what the API sets where nothing is said."""
    key = "strategy" if made["kind"] == "Deployment" else "updateStrategy"
    strategy = made["spec"].setdefault(key, {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        for name, value in DEFAULTS[made["kind"]].items():
            rolling.setdefault(name, value)
    return made


def _validate(made: Json) -> None:
    try:
        require_valid(made)
    except ValidationError as error:
        raise Refusal(422, "Invalid", f"{made['kind']} is invalid: {error.message}") from None


@cache
def certificates() -> tuple[bytes, bytes, bytes]:
    """An authority, a certificate of this address by it, and its key, as PEM; as bare as those of many clusters are."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = []
    for key, extension in zip(keys, (x509.BasicConstraints(ca=True, path_length=None), address), strict=True):
        subject = name if key is keys[0] else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=2)).add_extension(extension, critical=True)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made[0], made[1], keys[1].private_bytes(*form)


@contextmanager
def running(kube: StrictKube, folder: Path) -> Iterator[StrictKube]:
    """Let it answer for the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet for head and body: two would wait for each other

        def log_message(self, *_: Any) -> None:
            return

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with kube.lock:
                try:
                    known = bool(self.connection.getpeercert())
                    asked = self.command, self.path, self.headers, body
                    status, answer = 200, {} if kube.answer else kube.respond(*asked, known=known)
                except Refusal as no:
                    status, answer = no.status, {"kind": "Status", "message": no.message, "reason": no.reason}
                except ConnectionAbortedError:
                    self.close_connection = True
                    self.connection.close()
                    return
            data = kube.answer or json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_PATCH = do_DELETE = _do  # noqa: N815 - what http.server calls

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    pem = folder / "api.pem"
    pem.write_bytes(kube.certificate + kube.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(cadata=kube.authority.decode())
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    server.socket = context.wrap_socket(server.socket, server_side=True)
    kube.address = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield kube
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
