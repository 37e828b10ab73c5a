"""The client of a cluster follows no redirect, and takes no answer that is too long or too slow."""

from __future__ import annotations

import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import CHUNK, JSON_BYTES, KUBERNETES_SECONDS
from pipelines.fleet.kubernetes import cluster_client
from pipelines.fleet.kubernetes.cluster_client import ClusterClient, ClusterError
from pipelines.fleet.kubernetes.kubeconfig import ClusterAccess
from tests.strict_kube import TOKEN, StrictKube, running
from tests.support.hostile import Hostile, Reply, endless, gzip_bomb, hostile, redirect

PODS = "/api/v1/namespaces/shop/pods"


@pytest.fixture
def api() -> Iterator[Hostile]:
    """An API server that means harm."""
    with hostile() as made:
        yield made


def client(address: str, **more: str) -> ClusterClient:
    """What asks it, with a token, and once."""
    return ClusterClient(lambda: ClusterAccess("here", address, token=TOKEN, **more), timedelta(0))


ASK: dict[str, Callable[[ClusterClient], object]] = {
    "get": lambda one: one.get(PODS),
    "pages": lambda one: list(one.pages(PODS)),
    "patch": lambda one: one.patch(PODS, {"metadata": {}}),
    "delete": lambda one: one.delete(PODS, "1"),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("verb", ASK)
def test_no_redirect_is_followed(api: Hostile, verb: str, status: int) -> None:
    """The server that it leads to would get the token, or the change."""
    api[PODS] = redirect(f"{api.elsewhere}/there", status)
    api["/there"] = Reply(b"{}")
    with pytest.raises(ClusterError) as error:
        ASK[verb](client(api.address))
    assert (error.value.status, len(api.asked)) == (status, 1)


def test_an_answer_without_an_end_is_refused_at_its_limit(api: Hostile) -> None:
    """While it is read, not after all of it was kept."""
    api[PODS] = Reply(endless(b" " * (1 << 16)))
    with pytest.raises(OutsideError, match=JSON_BYTES.name):
        client(api.address).get(PODS)


def test_an_answer_that_unpacks_to_more_is_refused_before_it_takes_memory(api: Hostile) -> None:
    """Although no packed answer was asked for."""
    api[PODS] = Reply(gzip_bomb(1 << 28), headers={"Content-Encoding": "gzip"})
    tracemalloc.start()
    try:
        with pytest.raises(OutsideError):
            client(api.address).get(PODS)
        assert tracemalloc.get_traced_memory()[1] < JSON_BYTES.most + 16 * CHUNK
    finally:
        tracemalloc.stop()


def test_an_answer_that_comes_too_slowly_is_refused(api: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part of it in time, the whole never."""
    clock = count(step=KUBERNETES_SECONDS.most + 1)
    monkeypatch.setattr(cluster_client, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    api[PODS] = Reply(b"{}")
    with pytest.raises(OutsideError, match=KUBERNETES_SECONDS.name):
        client(api.address).get(PODS)


def test_a_server_that_says_nothing_is_not_waited_for(api: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers after a minute, which is too late."""
    monkeypatch.setattr(cluster_client, "READ_SECONDS", 0.05)
    over = threading.Event()

    def late() -> Iterator[bytes]:
        over.wait(60)
        yield b"{}"

    api[PODS] = Reply(late())
    with pytest.raises(OutsideError, match="timed out"):
        client(api.address).get(PODS)
    over.set()


def test_what_is_left_of_a_refused_answer_is_not_the_next_one(tmp_path: Path) -> None:
    """It would be read as the answer to another question, over the connection that both share."""
    with running(StrictKube(), tmp_path) as kube:
        access = ClusterAccess("here", kube.address, kube.authority.decode(), token=TOKEN)
        one = ClusterClient(lambda: access, timedelta(0))
        kube.answer = b" " * (JSON_BYTES.most + 9) + b'{"items": [{"metadata": {"name": "left"}}]}'
        with pytest.raises(OutsideError, match=JSON_BYTES.name):
            one.get(PODS)
        kube.answer = b""
        assert one.get(PODS)["items"] == []


def test_an_error_is_told_in_short(api: Hostile) -> None:
    """However much a server has to say."""
    api[PODS] = Reply(b'{"message": "%s"}' % (b"x" * 100_000), 403)
    with pytest.raises(ClusterError) as error:
        client(api.address).get(PODS)
    assert len(str(error.value)) < 1000


def test_a_certificate_of_another_name_gets_no_token(tmp_path: Path) -> None:
    """Though the authority is the cluster's own; the kubeconfig may say which name it has."""
    with running(StrictKube(), tmp_path) as kube:
        elsewhere, authority = kube.address.replace("127.0.0.1", "localhost"), kube.authority.decode()
        with pytest.raises(OutsideError, match="certificate verify failed"):
            client(elsewhere, authority=authority).get(PODS)
        assert not kube.requests
        assert client(elsewhere, authority=authority, server_name="127.0.0.1").get(PODS)["items"] == []


def test_no_older_tls_is_spoken() -> None:
    """Whatever the host's own settings allow."""
    one = client("https://127.0.0.1:1")
    assert one._pool.connection_pool_kw["ssl_context"].minimum_version is ssl.TLSVersion.TLSv1_2


def test_only_the_very_object_is_removed(tmp_path: Path) -> None:
    """Another one by its name, as a StatefulSet makes it, stays; one that is gone is not an error, a refusal is."""
    with running(StrictKube(), tmp_path) as kube:
        one, web, pods = client(kube.address, authority=kube.authority.decode()), f"{PODS}/web-0", {("pods", "web-0")}
        uid = str(kube.pod("web-0", "r.example/web:1")["metadata"]["uid"])
        one.delete(web, f"{uid}0")
        assert pods <= kube.objects.keys()
        kube.denied = {"delete pods"}
        with pytest.raises(ClusterError, match="forbidden"):
            one.delete(web, uid)
        kube.denied = set()
        for _ in range(2):
            one.delete(web, uid)
            assert not pods & kube.objects.keys()
