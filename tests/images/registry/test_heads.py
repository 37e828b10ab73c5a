"""HEAD of a tag: what it costs a registry, when it is left alone, and what a hostile one can make of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from requests import Response

from hardening.foundation import asking
from hardening.foundation.errors import LateError, MalformedError, OutsideError
from hardening.foundation.limits import Limit
from images.registry import http
from images.registry.answers import NotFoundError
from images.registry.heads import Heads, require_askable, rest_wanted, spent
from images.registry.http import RegistryHttp
from images.registry.references import place_of
from tests.support.publishing import NOW, settings_in

DIGEST = "sha256:" + "a" * 64
Answer = Callable[["Registry"], tuple[int, dict[str, str], bytes]]


class Registry(BaseHTTPRequestHandler):
    """Answers as the test says, and writes down what was asked."""

    answer: Answer
    asked: list[str]

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.answer()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A registry on loopback, and what it was asked."""
    handler = type("Handler", (Registry,), {"answer": answer, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", handler.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def found(**headers: str) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Docker-Content-Digest": DIGEST, **headers}, b""


def test_a_digest_is_asked_by_head_once(tmp_path: Path) -> None:
    """However many images stand on it."""
    with serving(lambda _: found()) as (address, asked):
        ask = Heads(settings_in(tmp_path), NOW)
        assert [ask.digest(f"{address}/debian:13") for _ in range(3)] == [DIGEST] * 3
    assert asked == ["HEAD /v2/debian/manifests/13"]


def test_a_registry_elsewhere_is_asked_by_the_proxy_and_authorities_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on this machine by neither; the authorities of the settings come before those of the environment."""
    settings = settings_in(tmp_path, registry={"address": "registry.example.com/golden", "insecure": True})
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/env/ca.pem")
    with serving(lambda _: found()) as (proxy, asked):
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://{proxy}")
        assert Heads(settings, NOW).digest("registry.example.com/golden/one:1") == DIGEST
    assert asked == ["HEAD http://registry.example.com/v2/golden/one/manifests/1"]
    asks = RegistryHttp(settings)
    assert (asks._authorities("registry.example.com"), asks._authorities("127.0.0.1:5000")) == ("/env/ca.pem", True)
    settings = settings_in(tmp_path, registry={"address": "registry.example.com", "ca_file": "/own/ca.pem"})
    assert RegistryHttp(settings)._authorities("registry.example.com") == "/own/ca.pem"


def test_references_are_read_as_docker_reads_them() -> None:
    """Without a host it is Docker Hub's, whose own images stand in library/."""
    assert place_of("debian:13") == ("registry-1.docker.io", "library/debian", "13")
    assert place_of("docker.io/bitnami/nginx") == ("registry-1.docker.io", "bitnami/nginx", "latest")
    assert place_of("localhost:5000/a/b:1") == ("localhost:5000", "a/b", "1")
    assert place_of(f"quay.io/a@{DIGEST}") == ("quay.io", "a", DIGEST)


HOSTS = (
    "debian:13", "index.docker.io/library/debian", "Registry-1.docker.io/library/debian", "A.b/c", "team/app",
    "localhost/a", "a.b/c", "a:1/b",
)  # fmt: skip


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("reference", HOSTS)
def test_a_reference_leads_to_the_registry_that_skopeo_asks(reference: str) -> None:
    """Through a proxy that is not there: it says which one it would have asked, and nothing is sent."""
    env = {**os.environ, **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1"), "NO_PROXY": ""}
    argv = ["skopeo", "inspect", f"docker://{reference}"]
    said = subprocess.run(argv, capture_output=True, text=True, env=env, check=False).stderr
    assert f"pinging container registry {place_of(reference)[0]}: ".lower() in said.lower()


def test_a_registry_that_was_asked_too_often_is_left_alone(tmp_path: Path) -> None:
    """For as long as it says, by the next process too; other registries are asked."""
    with (
        serving(lambda _: (429, {"Retry-After": "3600"}, b"")) as (busy, asked),
        serving(lambda _: found()) as (idle, _),
    ):
        ask = Heads(settings_in(tmp_path), NOW)
        for name in ("one", "two"):
            with pytest.raises(OutsideError, match=r"too often|asks not to be queried"):
                ask.digest(f"{busy}/{name}:1")
        with pytest.raises(OutsideError, match="asks not to be queried until 2026-11-25 13:00"):
            Heads(settings_in(tmp_path), NOW + timedelta(minutes=59)).digest(f"{busy}/one:1")
        assert len(asked) == 1
        assert ask.digest(f"{idle}/one:1") == DIGEST
        with pytest.raises(OutsideError, match="too often"):
            Heads(settings_in(tmp_path), NOW + timedelta(minutes=61)).digest(f"{busy}/one:1")
        assert len(asked) == 2


def test_the_last_of_a_budget_is_left_to_pulls(tmp_path: Path) -> None:
    """Whoever has nothing left is not asked for more."""
    with serving(lambda _: found(**{"RateLimit-Remaining": "0;w=21600"})) as (address, asked):
        ask = Heads(settings_in(tmp_path), NOW)
        assert ask.digest(f"{address}/one:1") == DIGEST
        with pytest.raises(OutsideError, match="asks not to be queried until 2026-11-25 18:00"):
            ask.digest(f"{address}/two:1")
    assert len(asked) == 1


def test_no_registry_is_left_alone_for_ever(tmp_path: Path) -> None:
    """Neither by what it says nor by a clock that was ahead."""
    with serving(lambda _: (429, {"Retry-After": "999999999"}, b"")) as (address, asked):
        for now in (NOW + timedelta(days=900), NOW, NOW + timedelta(hours=25)):
            with pytest.raises(OutsideError):
                Heads(settings_in(tmp_path), now).digest(f"{address}/one:1")
    assert len(asked) == 3


def test_what_headers_say_of_waiting() -> None:
    """Seconds, a date, the draft's one header or two; what is none of it says nothing."""
    assert rest_wanted({"Retry-After": "120"}, NOW) == timedelta(minutes=2)
    assert rest_wanted({"Retry-After": "Wed, 25 Nov 2026 12:05:00 GMT"}, NOW) == timedelta(minutes=5)
    assert rest_wanted({"Retry-After": "Wed, 25 Nov 2020 12:05:00 GMT"}, NOW) == timedelta(0)
    assert rest_wanted({"Retry-After": "soon"}, NOW) == rest_wanted({}, NOW) == timedelta(0)
    assert spent({"RateLimit": '"default";r=0;t=30'}) == timedelta(seconds=30)
    assert spent({"RateLimit-Remaining": "0", "RateLimit-Reset": "50"}) == timedelta(seconds=50)
    assert spent({"RateLimit-Remaining": "0"}) == timedelta(minutes=1)
    assert spent({"RateLimit-Remaining": "76;w=21600"}) == spent({"RateLimit": "x"}) == spent({}) == timedelta(0)


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((404, {}, b""), NotFoundError, "not in the registry any more"),
        ((403, {}, b""), OutsideError, "does not allow"),
        ((302, {"Location": "http://169.254.169.254/"}, b""), OutsideError, "answers 302"),
        ((200, {}, b""), MalformedError, "tells no digest"),
        ((200, {"Docker-Content-Digest": "sha256:../../x"}, b""), MalformedError, "tells no digest"),
        (
            (401, {"WWW-Authenticate": 'Bearer realm="http://evil.example.com/"'}, b""),
            OutsideError,
            "not a safe address",
        ),
        ((401, {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'}, b""), OutsideError, "not a safe address"),
    ],
)
def test_every_other_answer_is_one_clear_error(
    tmp_path: Path, answer: tuple[int, dict[str, str], bytes], error: type[Exception], told: str
) -> None:
    """No redirect is followed, and no digest believed that is none."""
    with serving(lambda _: answer) as (address, asked), pytest.raises(error, match=told):
        Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1")
    assert len(asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_registry_elsewhere_sends_no_login_to_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """Nor a question to any of its ports, in clear: https leads on to https alone."""
    asked = list[str]()

    def answering(_: RegistryHttp, method: str, address: str, *_args: object, **_more: object) -> Response:
        asked.append(f"{method} {address}")
        answer = Response()
        answer.raw = io.BytesIO()
        answer.status_code, answer.headers["WWW-Authenticate"] = 401, f'Bearer realm="http://{host}:8500/v1/agent"'
        return answer

    monkeypatch.setattr(RegistryHttp, "_request", answering)
    with pytest.raises(OutsideError, match="not a safe address"):
        Heads(settings_in(tmp_path), NOW).digest("registry.example.com/one:1")
    assert asked == ["HEAD https://registry.example.com/v2/one/manifests/1"]


def wanting_token(token: bytes) -> Answer:
    """A registry that gives this to whoever asks for a token, and wants one."""

    def answer(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        if asked.path.startswith("/token"):
            return 200, {}, token
        if asked.headers.get("Authorization") == "Bearer good":
            return found()
        host = asked.headers["Host"]
        challenge = f'Bearer realm="http://{host}/token",service="here",scope="repository:other:push"'
        return 401, {"WWW-Authenticate": challenge}, b""

    return answer


def test_a_token_is_asked_for_and_only_to_pull(tmp_path: Path) -> None:
    """Whatever scope the registry names."""
    with serving(wanting_token(json.dumps({"token": "good"}).encode())) as (address, asked):
        assert Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1") == DIGEST
    assert re.sub("%3A", ":", asked[1]) == "GET /token?service=here&scope=repository:one:pull"


@pytest.mark.parametrize(
    "token", [b"[]", b'{"token": "a\\r\\nHost: b"}', b'{"token": 7}', b"{" * 99, b" " * (1 << 17) + b"{}"]
)
def test_a_token_that_is_none_is_refused(tmp_path: Path, token: bytes) -> None:
    """Not text, more than one line, or more of it than any token has."""
    with serving(wanting_token(token)) as (address, _), pytest.raises(OutsideError):
        Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1")


@pytest.mark.parametrize("refusal", [(403, b""), (200, b"[]"), (200, b"{")])
def test_a_private_repository_does_not_silence_its_registry(tmp_path: Path, refusal: tuple[int, bytes]) -> None:
    """No token for one says nothing of the others."""

    def answer(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        if asked.path.startswith("/token"):
            return refusal[0], {}, refusal[1]
        challenge = f'Bearer realm="http://{asked.headers["Host"]}/token"'
        return (401, {"WWW-Authenticate": challenge}, b"") if "one" in asked.path else found()

    with serving(answer) as (address, _):
        ask = Heads(settings_in(tmp_path), NOW)
        with pytest.raises(OutsideError, match=r"token|/token"):
            ask.digest(f"{address}/one:1")
        assert ask.digest(f"{address}/two:1") == DIGEST


def test_a_registry_that_is_down_is_asked_once(tmp_path: Path) -> None:
    """However many images it has."""
    with serving(lambda _: found()) as (address, _):
        pass
    ask = Heads(settings_in(tmp_path), NOW)
    for name in ("one", "two"):
        with pytest.raises(OutsideError, match=r"/one/.*does not answer"):
            ask.digest(f"{address}/{name}:1")


def test_a_person_who_will_not_wait_may_ask_a_registry_that_is_left_alone(tmp_path: Path) -> None:
    """For `--now`."""
    with serving(lambda _: found(**{"RateLimit-Remaining": "0;w=21600"})) as (address, _):
        assert Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1") == DIGEST
        with pytest.raises(OutsideError, match="asks not to be queried"):
            Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1")
        assert Heads(settings_in(tmp_path), NOW, at_once=True).digest(f"{address}/one:1") == DIGEST


@pytest.mark.parametrize(
    ("base", "digest", "told"),
    [
        ("127.0.0.1:9/a:1", DIGEST, "this machine"), ("[::1]:9/a:1", DIGEST, "this machine"),
        ("evil.example.com/a?b=../c:1", DIGEST, "not a reference"),
        ("evil.example.com/a:1\n", DIGEST, "not a reference"),
        ("registry.example.com/a:1", "sha256:../x", "not a digest"),
    ],
)  # fmt: skip
def test_somebody_elses_image_does_not_choose_what_is_asked(base: str, digest: str, told: str) -> None:
    """By the base that it names."""
    with pytest.raises(OutsideError, match=told):
        require_askable(base, digest, "registry.example.com/app:1")
    require_askable("registry.example.com/a:1", DIGEST, "other.example.com/app:1")
    require_askable("127.0.0.1:9/a:1", DIGEST, "127.0.0.1:9/app:1")


def test_a_login_is_the_one_that_docker_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the registry that it is for, once that asks for one."""

    def answer(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        login = asked.headers.get("Authorization", "")
        return found() if login == f"Basic {secret}" else (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")

    secret = base64.b64encode(b"ann:secret").decode()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    with serving(answer) as (address, _):
        with pytest.raises(OutsideError, match="does not allow"):
            Heads(settings_in(tmp_path / "state"), NOW).digest(f"{address}/one:1")
        logins = {address: {"auth": secret}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": logins}))
        assert Heads(settings_in(tmp_path / "state"), NOW).digest(f"{address}/one:1") == DIGEST
        (tmp_path / "config.json").write_text(json.dumps({"auths": {**logins, "other.example": {"auth": ""}}}))
        with pytest.raises(OutsideError, match="does not allow"):  # docker reads none of such a file
            Heads(settings_in(tmp_path / "state"), NOW).digest(f"{address}/one:1")


def test_an_answer_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole never does."""
    monkeypatch.setattr(http, "HEAD_SECONDS", Limit("registry.head-seconds", 1))
    over = threading.Event()

    def drip(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        while not over.is_set():
            asked.wfile.write(b"HTTP/1.1 200 OK\r\n" if over.is_set() else b"x")
            asked.wfile.flush()
            time.sleep(0.05)
        return found()

    with serving(drip) as (address, _):
        with pytest.raises(LateError, match=r"registry\.head-seconds"):
            Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1")
        over.set()


def test_who_gives_tokens_is_named_where_it_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the registry, which has answered; it alone is left alone."""
    clock, wait, over, drips = [0.0], asking.wait, threading.Event(), threading.Event()

    def waited(asked: object, seconds: float, *how: Any) -> Any:
        """The time of a question passes once somebody drips."""
        found = wait(asked, 0.02, *how)
        clock[0] += seconds * drips.is_set()
        return found

    def drip(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        drips.set()
        while not over.wait(0.05):
            asked.wfile.write(b"x")
            asked.wfile.flush()
        return found()

    def answer(asked: Registry) -> tuple[int, dict[str, str], bytes]:
        if "open" in asked.path:
            return found()
        return 401, {"WWW-Authenticate": f'Bearer realm="http://{tokens}/token",service="s"'}, b""

    monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(asking, "wait", waited)
    with serving(drip) as (tokens, _), serving(answer) as (address, _):
        ask = Heads(settings_in(tmp_path), NOW)
        with pytest.raises(LateError, match=rf"^{tokens} exceeds the limit registry\.head-seconds"):
            ask.digest(f"{address}/one:1")
        drips.clear()
        assert ask.digest(f"{address}/open:1") == DIGEST
        with pytest.raises(OutsideError, match=rf"^{tokens} exceeds"):
            ask.digest(f"{address}/two:1")
        over.set()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_registry_leads_no_question_elsewhere(tmp_path: Path, status: int) -> None:
    """Neither for a manifest nor for a head: a login of ours would go there too."""
    with serving(lambda _: found()) as (other, asked):
        moved = {"Location": f"http://{other}/v2/one/manifests/1", "Docker-Content-Digest": DIGEST}
        with serving(lambda _: (status, moved, b"")) as (address, _):
            assert RegistryHttp(settings_in(tmp_path)).manifest(f"{address}/one:1") is None
            with pytest.raises(OutsideError, match=f"answers {status}"):
                Heads(settings_in(tmp_path), NOW).digest(f"{address}/one:1")
    assert asked == []
