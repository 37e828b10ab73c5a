"""A kubeconfig is hostile input: it runs nothing, sends no file but its own, and turns no verification off."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError
from hardening.foundation.limits import KUBECONFIG_FILE
from pipelines.fleet.kubernetes import kubeconfig
from pipelines.fleet.kubernetes.cluster_client import ClusterClient
from pipelines.fleet.kubernetes.kubeconfig import access_of, leads_to
from pipelines.fleet.model import Kubernetes

Json = dict[str, Any]


def config(user: Json | None = None, cluster: Json | None = None) -> Json:
    """A kubeconfig, as JSON, which is YAML."""
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "other",
        "contexts": [{"name": "arn:aws:eks:x/prod", "context": {"cluster": "c", "user": "u", "namespace": "n"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "abc"} if user is None else user}],
    }  # fmt: skip


def read(folder: Path, document: Json | str) -> kubeconfig.ClusterAccess:
    file = folder / "config"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return access_of(Kubernetes(kubeconfig=str(file), context="arn:aws:eks:x/prod", namespace="shop"))


def test_a_context_says_server_authority_and_token(tmp_path: Path) -> None:
    """An id of a member has its name without slashes; nothing that is printed has its token."""
    found = read(tmp_path, config(cluster={"certificate-authority-data": b64encode(b"PEM").decode()}))
    assert (found.name, found.server) == ("arn:aws:eks:x:prod", "https://10.0.0.1:6443")
    assert (found.authority, found.token) == ("PEM", "abc")
    assert "abc" not in repr(found)


def test_files_beside_it_are_read(tmp_path: Path) -> None:
    """By a relative or an absolute path."""
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "token").write_text("tok.en\n")
    user = {"tokenFile": str(tmp_path / "token")}
    found = read(tmp_path, config(user, {"certificate-authority": "ca.pem"}))
    assert (found.authority, found.token) == ("CA", "tok.en")


def test_one_namespace_is_recognised_however_it_is_reached(tmp_path: Path) -> None:
    """By the server's address; from here nobody rolls what no kubeconfig leads to."""
    servers = {"one": "https://10.0.0.1:6443/", "same": "https://10.0.0.1:6443", "other": "https://10.0.0.2:6443"}
    for name, server in servers.items():
        (tmp_path / name).write_text(json.dumps(config(cluster={"server": server})))
    at = {
        name: Kubernetes(kubeconfig=str(tmp_path / name), context="arn:aws:eks:x/prod", namespace="shop")
        for name in (*servers, "absent")
    }
    assert {name for name, place in at.items() if leads_to(place, at["one"])} == {"one", "same"}
    assert not leads_to(at["one"].model_copy(update={"namespace": "mail"}), at["one"])


REFUSED: dict[str, tuple[Json, Json, str]] = {
    "exec": ({"exec": {"command": "sh", "args": ["-c", "id"]}}, {}, "runs a program of its choice"),
    "provider": ({"auth-provider": {"name": "gcp"}}, {}, "asks a provider"),
    "password": ({"username": "a", "password": "b"}, {}, "by a password"),
    "as": ({"token": "x", "as": "admin"}, {}, "as somebody else"),
    "proxy": ({}, {"proxy-url": "http://evil.example"}, "through a proxy"),
    "insecure": ({}, {"insecure-skip-tls-verify": True}, "turns the verification of TLS off"),
    "http": ({}, {"server": "http://10.0.0.1"}, "not a server's address"),
    "userinfo": ({}, {"server": "https://a:b@10.0.0.1"}, "not a server's address"),
    "file": ({}, {"server": "file:///etc/shadow"}, "not a server's address"),
    "port": ({}, {"server": "https://10.0.0.1:x"}, "not a server's address"),
    "query": ({}, {"server": "https://10.0.0.1/?a=b"}, "not a server's address"),
    "fragment": ({}, {"server": "https://10.0.0.1/#a"}, "not a server's address"),
    "elsewhere": ({"tokenFile": "/etc/hostname"}, {}, "does not lie beside"),
    "upwards": ({"tokenFile": "../../../etc/hostname"}, {}, "does not lie beside"),
    "device": ({"tokenFile": "pipe"}, {}, "is not a file"),
    "linked": ({"tokenFile": "link"}, {}, "does not lie beside"),
    "large": ({"tokenFile": "large"}, {}, "kubeconfig.file"),
    "nul": ({"tokenFile": "a\0b"}, {}, "is not a file"),
    "token": ({"token": "a\r\nHost: x"}, {}, "not a bearer token"),
    "unknown": ({"tokn": "x"}, {}, "did you mean token"),
    "base64": ({}, {"certificate-authority-data": "%%%"}, "not PEM in base64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_must_not_ask_for_is_refused_with_file_and_key(tmp_path: Path, name: str) -> None:
    """Before anything is asked of any server."""
    user, cluster, said = REFUSED[name]
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "large").write_text("x" * (KUBECONFIG_FILE.most + 1))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ContentError) as error:
        read(tmp_path, config(user or None, cluster))
    assert said in str(error.value)
    assert str(tmp_path / "config") in str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: one.update(contexts=[]), "no context is called"),
        (lambda one: one.update(contexts=one["contexts"] * 2), "2 entries are called"),
        (lambda one: one.update(clusters="x"), "no cluster is called c"),
        (lambda one: one.update(users=[{"name": "u", "user": 3}]), "no user is called u"),
    ],
)
def test_a_name_that_means_nothing_or_two_things_is_refused(
    tmp_path: Path, change: Callable[[Json], None], said: str
) -> None:
    """What current-context says is never taken instead."""
    document = config()
    change(document)
    with pytest.raises(ContentError, match=said):
        read(tmp_path, document)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000, "not YAML|nested too deeply"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)), "values"),
        ("!!python/object/apply:os.system [id]", "is not a kubeconfig|no context"),
        ("x" * ((1 << 20) + 1), "kubeconfig.bytes"),
        ("", "is not a kubeconfig"),
    ],
)  # fmt: skip
def test_yaml_that_grows_or_acts_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """By its aliases, by its depth, by its tags, by its size."""
    with pytest.raises(ContentError, match=said):
        read(tmp_path, text)


def test_a_kubeconfig_that_is_not_there_is_named_once_and_who_names_it(tmp_path: Path) -> None:
    """With its path, and the key of the fleet's file."""
    file = tmp_path / "gone.kubeconfig"
    with pytest.raises(ContentError) as error:
        access_of(Kubernetes(kubeconfig=str(file), context="prod", namespace="shop"))
    assert str(error.value).startswith(f"{file}: the kubeconfig cannot be read: No such file or directory\n")
    assert "under [kubernetes]" in error.value.hint


def test_the_environment_is_read_only_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then it names one file."""
    (tmp_path / "config").write_text(json.dumps(config()))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    place = Kubernetes(kubeconfig="$KUBECONFIG", context="arn:aws:eks:x/prod", namespace="shop")
    assert access_of(place).token == "abc"
    for said in (f"{tmp_path}/a:{tmp_path}/b", ""):
        monkeypatch.setenv("KUBECONFIG", said)
        with pytest.raises(ContentError, match="KUBECONFIG"):
            access_of(place)


def test_certificates_that_are_none_are_an_error_of_the_content(tmp_path: Path) -> None:
    """Not of whoever is asked with them."""
    data = b64encode(b"no PEM").decode()
    for cluster, user in (({"certificate-authority-data": data}, None),
                          ({}, {"client-certificate-data": data, "client-key-data": data})):  # fmt: skip
        with pytest.raises(ContentError, match="cannot be used"):
            ClusterClient(partial(read, tmp_path, config(user, cluster)))
