"""The registry's edge, for real: bytes unchanged, documents attached once, one clear error for each failure."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hardening.foundation.addresses import is_loopback
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.settings import Registry as RegistrySettings
from hardening.foundation.settings import Settings
from images.documents import Document
from images.registry.answers import NotFoundError
from images.registry.client import RegistryClient
from images.registry.http import RegistryHttp
from images.registry.references import split
from images.registry.referrers import SETTLE_SECONDS, _write_index, attach, attached, detach_all, latest
from images.store.oci import Store
from tests.support.publishing import built, running_registry, settings_in, stored

pytestmark = pytest.mark.needs("docker-registry", "skopeo")
BCRYPT_OF_SECRET = "$2b$04$PaJrfjezkXusR5MbaLWCBO6wj4R5vdyZNs48/FblUqT4MPMXOYMa."
NAME = "org.opencontainers.image.ref.name"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryClient]:
    """A registry that holds one image, tagged `one` and `two`."""
    with running_registry(tmp_path / "registry") as address:
        registry = RegistryClient(address, settings_in(tmp_path / "state"), own=True)
        for tag in ("one", "two"):
            _push(registry, tmp_path, tag)
        yield registry


def _push(registry: RegistryClient, folder: Path, tag: str) -> str:
    store = Store(folder / "state" / "store")
    image = built(store, text=tag)
    layout = store.layout_for(image.digest, folder / tag, {NAME: "x"})
    registry.push(layout, "x", f"{registry.repository('web')}:{tag}")
    return image.digest


def test_what_is_pushed_is_found_with_its_bytes_unchanged(registry: RegistryClient, tmp_path: Path) -> None:
    """The digest that the store knows is the digest that the registry serves, by tag and by digest."""
    digest = built(Store(tmp_path / "state" / "store"), text="one").digest
    repository = registry.repository("web")
    assert registry.get(f"{repository}:one").digest == digest
    assert registry.get(f"{repository}@{digest}").descriptor.size > 0
    assert registry.tags(repository) == ("one", "two")


def test_manifests_of_our_own_registry_need_no_process(
    registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever proxy the environment names: it is no way to this machine. What that does not get, skopeo asks for."""
    repository = registry.repository("web")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with monkeypatch.context() as without:
        without.setattr(registry, "_skopeo", None)
        assert registry.get(f"{repository}:one").digest
        assert registry.find(f"{repository}:none") is None
        with pytest.raises(TypeError):
            registry.find(f"127.0.0.1:1/web@{built(Store(tmp_path / 'store')).digest}")
    http = RegistryHttp(settings_in(tmp_path / "other"))
    http._failure(registry.address, "it is down")
    monkeypatch.setattr(registry, "_http", http)
    assert registry.get(f"{repository}:one").digest


@pytest.mark.parametrize("tag", ["one?x", "one#x", "../x", "a b"])
def test_what_is_no_tag_is_not_asked_for(registry: RegistryClient, tag: str) -> None:
    """As an address would read it."""
    with pytest.raises(OutsideError, match=r"is not a tag|is not the name"):
        registry.find(f"{registry.repository('web')}:{tag}")


def test_another_registry_is_not_asked_past_its_mirrors(registry: RegistryClient) -> None:
    """Which skopeo's configuration names."""
    other = RegistryClient(registry.address, registry.settings)
    other._http = None  # type: ignore[assignment]
    assert other.get(f"{registry.repository('web')}:one")


def test_what_is_not_there_is_named_with_the_nearest(registry: RegistryClient) -> None:
    """An unknown tag and an unknown repository are wrong content, found without waiting."""
    assert registry.find(f"{registry.repository('web')}:none") is None
    with pytest.raises(NotFoundError, match="did you mean one"):
        registry.get(f"{registry.repository('web')}:onne")
    another = RegistryClient(registry.address, registry.settings)
    for client, todo in (
        (registry, "image.publish NAME"),
        (another, f"`docker login {registry.address.split('/')[0]}`"),
    ):
        with pytest.raises(NotFoundError, match="nothing is published") as error:
            client.get(f"{registry.repository('nowhere')}:one")
        assert todo in error.value.hint
    assert registry.tags(registry.repository("nowhere")) == ()


def test_documents_are_attached_once_and_read_back(registry: RegistryClient) -> None:
    """Attaching again changes nothing; what others attached stays; the newest of a type is found by its annotations."""
    repository = registry.repository("web")
    subject = registry.get(f"{repository}:one").descriptor
    first = attach(registry, repository, subject, [Document("a/x", b"1", {"k": "1"}), Document("a/y", b"", {"e": "1"})])
    again = attach(registry, repository, subject, [Document("a/x", b"9", {"k": "1"})])
    more = attach(registry, repository, subject, [Document("a/x", b"2", {"k": "2"})])
    assert first == again == more[:2]
    assert attached(registry, repository, subject.digest) == more
    newest, older = latest(more, "a/x"), latest(more, "a/x", k="1")
    assert newest is not None
    assert older is not None
    held = [registry.get(f"{repository}@{one.digest}").image.layers[0].digest for one in (newest, older)]
    assert held == [digest(b"2"), digest(b"1")]
    assert latest(more, "a/z") is None
    manifest = registry.get(f"{repository}@{newest.digest}").data
    assert manifest["subject"] == {"digest": subject.digest, "mediaType": subject.media_type, "size": subject.size}
    assert manifest["artifactType"] == "a/x"


def test_many_writers_lose_nothing(registry: RegistryClient) -> None:
    """The tag schema loses lines when two write at once; the lock and the reading back do not let it."""
    repository = registry.repository("web")
    subject = registry.get(f"{repository}:one").descriptor
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: attach(registry, repository, subject, [Document(f"a/{n}", b"x")]), range(6)))
    found = {referrer.artifact_type for referrer in attached(registry, repository, subject.digest)}
    assert found == {f"a/{n}" for n in range(6)}


def test_a_writer_elsewhere_that_overwrites_the_list_takes_nothing_away(
    registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had read the list before we wrote it; we wait for its writing, and list what was taken away again."""
    shared = registry.settings.model_copy(update={"registry": RegistrySettings(address=registry.address)})
    ours, theirs = (
        RegistryClient(registry.address, shared, own=True),
        RegistryClient(registry.address, settings_in(tmp_path / "elsewhere"), own=True),
    )
    repository = ours.repository("web")
    subject = ours.get(f"{repository}:one").descriptor
    before = attach(theirs, repository, subject, [Document("a/old", b"1")])
    theirs_to_write = attach(theirs, repository, subject, [Document("a/theirs", b"1")])
    store = Store(tmp_path / "elsewhere" / "store")
    _write_index(theirs, repository, subject.digest, store, before, with_documents=False)  # theirs is still under way
    waits: list[float] = []

    def they_write_late(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            _write_index(theirs, repository, subject.digest, store, theirs_to_write, with_documents=False)

    monkeypatch.setattr("images.registry.referrers.sleep", they_write_late)
    attach(ours, repository, subject, [Document("a/ours", b"1")])
    listed = [line.artifact_type for line in attached(theirs, repository, subject.digest)]
    assert listed == ["a/old", "a/theirs", "a/ours"]
    assert waits == [SETTLE_SECONDS] * 2


def test_detaching_leaves_the_subject_and_nothing_else(registry: RegistryClient, tmp_path: Path) -> None:
    """Every attached manifest and the index that listed them go; doing it twice is no error."""
    repository = registry.repository("web")
    before = stored(tmp_path / "registry")
    subject = registry.get(f"{repository}:one").descriptor
    attach(registry, repository, subject, [Document("a/x", b"1"), Document("a/y", b"2")])
    for _ in range(2):
        detach_all(registry, repository, subject.digest)
    assert stored(tmp_path / "registry") == before


def test_what_is_gone_can_be_deleted_again(registry: RegistryClient) -> None:
    """A removal that was interrupted can be done again."""
    repository = registry.repository("web")
    digest = registry.get(f"{repository}:one").digest
    for _ in range(2):
        registry.delete(repository, digest)
        assert registry.find(f"{repository}@{digest}") is None


def test_a_registry_that_is_down_is_the_outside_worlds_failure(tmp_path: Path) -> None:
    """Nothing listens there: said once, with what to look at."""
    registry = RegistryClient("127.0.0.1:1", settings_in(tmp_path))
    with pytest.raises(OutsideError, match=r"cannot be reached.*\n.*connection refused"):
        registry.find("127.0.0.1:1/web:one")


def _tell(registry: RegistryClient, *more: Callable[[], object]) -> list[str]:
    """What each way to ask says of a failure, none of which may be "there is nothing"."""
    repository, told = registry.repository("web"), []
    for ask in (
        *more,
        lambda: registry.tags(repository),
        lambda: registry.delete(repository, f"sha256:{0:064x}"),
    ):
        with pytest.raises(OutsideError) as error:
            ask()
        told.append(str(error.value))
    return told


@pytest.mark.parametrize("pings", [True, False], ids=["a proxy that answers the ping", "a website"])
def test_a_page_that_is_not_found_is_no_empty_registry(tmp_path: Path, pings: bool) -> None:
    """A wrong address or a broken proxy answers 404 to everything; "nothing is published" would be an invention."""
    with website(pings=pings) as address:
        registry = RegistryClient(address, settings_in(tmp_path), own=True)
        told = _tell(registry, lambda: registry.find(f"{registry.repository('web')}:one"))
    assert all("not in a registry's words" in text and "registry.address" in text for text in told), told


def test_a_credential_helper_that_is_missing_is_no_empty_registry(
    registry: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is `not found` is the helper's program, and the way out is named. A manifest that needs no login is read."""
    login = tmp_path / "auth.json"
    login.write_text(json.dumps({"credHelpers": {registry.address: "nope"}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(login))
    told = _tell(registry)
    assert registry.find(f"{registry.repository('web')}:one")
    assert all("docker-credential-nope" in text and f"docker login {registry.address}" in text for text in told), told


@contextmanager
def website(*, pings: bool) -> Iterator[str]:
    """A server that is no registry: a page of HTML and 404 for all but perhaps the ping; its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if pings and self.path == "/v2/" else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>404 not found</html>")

        do_DELETE = do_GET  # noqa: N815 - the name is the standard library's

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_registry_with_a_private_authority_and_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Untrusted, then trusted but not logged in, then in: by `registry.ca_file` and the login that a tool keeps."""
    certificate, key = _certificate(tmp_path)
    users, login = tmp_path / "users", tmp_path / "auth.json"
    users.write_text(f"ann:{BCRYPT_OF_SECRET}\n")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(login))
    tls = f", tls: {{certificate: {certificate}, key: {key}}}"
    auth = f"\nauth: {{htpasswd: {{realm: x, path: {users}}}}}"
    with running_registry(tmp_path / "r", tls=tls, more=auth) as address:
        with pytest.raises(OutsideError, match="cannot be trusted"):
            _strict(address, settings_in(tmp_path / "s")).find(f"{address}/web:one")
        trusting = _strict(address, settings_in(tmp_path / "s", registry={"ca_file": certificate}))
        with pytest.raises(OutsideError, match=r"(?s)does not allow.*docker login"):
            trusting.find(f"{address}/web:one")
        login.write_text(json.dumps({"auths": {address: {"auth": base64.b64encode(b"ann:secret").decode()}}}))
        assert trusting.find(f"{address}/web:one") is None
        assert _push(trusting, tmp_path, "one") == trusting.get(f"{address}/web:one").digest


def test_a_certificate_authority_that_cannot_be_read_names_the_setting(tmp_path: Path) -> None:
    """The mistake is in goldsmith.toml, so the error says where."""
    registry = RegistryClient("r.example", settings_in(tmp_path, registry={"ca_file": tmp_path / "none.pem"}))
    with pytest.raises(ContentError, match=r"registry\.ca_file"):
        registry.tags("r.example/web")


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:5000/golden", True), ("localhost", True), ("[::1]:5000", True), ("127.example.com", False),
     ("registry.example.com", False), ("10.0.0.1:5000", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_only_loopback_speaks_plain_http(address: str, loopback: bool) -> None:
    """Everything else must show a certificate."""
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("reference", "parts"),
    [("r:5000/a/web:one", ("r:5000/a/web", "one")), ("r:5000/web", ("r:5000/web", "")), ("web", ("web", "")),
     ("r/web@sha256:ab", ("r/web", "sha256:ab")), ("web:one", ("web", "one"))],
)  # fmt: skip
def test_a_reference_splits_at_its_tag_or_digest(reference: str, parts: tuple[str, str]) -> None:
    """A port is not a tag."""
    assert split(reference) == parts


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    return certificate, key


def _strict(address: str, settings: Settings) -> RegistryClient:
    """A registry on loopback that is treated like one elsewhere."""
    registry = RegistryClient(address, settings, own=True)
    registry._plain = lambda _reference: False  # type: ignore[method-assign]
    return registry
