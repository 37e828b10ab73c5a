"""The pods of a fleet are found page by page, by what keeps them, and judged by how they run; nothing unread counts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import MalformedError, OutsideError, RefusedError
from hardening.runtime import ContainerFacts, Mount
from pipelines.fleet.kubernetes import cluster_client
from pipelines.fleet.kubernetes.pod_facts import CHANGED, EXECUTED, NOT_ROOT, quantity
from pipelines.fleet.members import Key, Member
from pipelines.fleet.model import Method
from tests.strict_kube import TOKEN, Ill
from tests.support.kube import OLD, Cluster, cluster


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def seen(at: Cluster) -> dict[str, Member]:
    return {one.name: one for one in at.pods.seen().members}


def test_each_pod_is_a_member_of_what_keeps_it(at: Cluster) -> None:
    """By the digest that its node runs; a Deployment keeps its pods through a ReplicaSet."""
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        at.kube.add(kind, kind.lower(), replicas=2) if kind != "DaemonSet" else at.kube.add(kind, "daemonset")
    found = seen(at)
    assert {one.group for one in found.values()} == {
        f"here/shop/{kind}/{kind}" for kind in ("deployment", "statefulset", "daemonset")
    }
    assert len(found) == 2 + 2 + 3
    one = found["statefulset-0"]
    assert (one.id, one.image, one.healthy) == ("here/shop/pod/statefulset-0", OLD, True)
    assert one.exact == f"r.example/web@{one.digests[0]}"
    assert one.cannot_roll == "the StatefulSet statefulset rolls it"
    assert not at.pods.describe()


def test_a_pod_that_nothing_keeps_or_a_job_does_is_left_alone(at: Cluster) -> None:
    """Nothing would start another one. What has ended is no member."""
    at.kube.pod("alone", OLD)
    at.kube.pod("job-1", OLD, owners=[{"kind": "Job", "name": "job", "uid": "1", "controller": True}])
    at.kube.pod("over", OLD)
    at.kube.controllers.ill[OLD] = Ill.GONE
    at.kube.objects["pods", "over"]["status"]["phase"] = "Succeeded"
    names = {one.name: one.cannot_roll for one in at.pods.describe() if one.name != "over"}
    assert names.keys() == {"alone", "job-1"}
    assert "nothing keeps its pod" in names["alone"]
    assert "the Job job keeps its pod" in names["job-1"]


def test_the_other_containers_of_a_pod_are_judged_and_not_rolled(at: Cluster) -> None:
    """The fleet's file names the one that is."""
    proxy = {"name": "proxy", "image": "r.example/proxy:2"}
    at.kube.add("Deployment", replicas=1, template={"spec": {"containers": [{"name": "web", "image": OLD}, proxy]}})
    assert {name.partition(":")[2] for name in seen(at)} == {"web", "proxy"}
    at.container = "web"
    at.begin_anew()
    found = seen(at)
    (ours,) = [one for one in found.values() if one.group]
    (other,) = [one for one in found.values() if not one.group]
    assert (":" in ours.name, other.name) == (False, f"{ours.name}:proxy")
    assert "rolls the container web" in other.cannot_roll
    assert not at.pods.describe()


def test_a_pod_whose_image_was_never_pulled_is_known_by_the_digest_that_it_asks_for(at: Cluster) -> None:
    """One that asks for a tag is known by nothing."""
    asked = f"r.example/web@sha256:{5:064x}"
    for name, image in (("a", asked), ("b", OLD)):
        at.kube.controllers.ill[image] = Ill.GONE
        at.kube.pod(name, image)
    assert {name: one.digests for name, one in seen(at).items()} == {"a": (asked.partition("@")[2],), "b": (OLD,)}
    assert not any(one.healthy or one.exact for one in seen(at).values())


def test_a_pod_that_asks_not_to_be_disrupted_says_until_when(at: Cluster) -> None:
    """By an annotation: a label cannot hold a time."""
    until = {"dev.goldsmith.do-not-disrupt-until": "2027-01-31T12:00Z"}
    at.kube.add("Deployment", replicas=1, template={"metadata": {"annotations": until}})
    (one,) = seen(at).values()
    assert one.protected_until == datetime(2027, 1, 31, 12, tzinfo=UTC)
    at.kube.objects["pods", one.name]["metadata"]["annotations"] = dict.fromkeys(until, "soon")
    (one,) = seen(at).values()
    assert one.protected_until
    assert one.protected_until.year == 9999
    assert "not a date with time" in one.cannot_roll


def test_a_container_that_a_mesh_adds_to_pods_is_not_the_one_that_is_rolled(at: Cluster) -> None:
    """The template has one container, and its pods have two."""
    at.kube.add("Deployment", replicas=1)
    (name,) = (name for kind, name in at.kube.objects if kind == "pods")
    at.kube.objects["pods", name]["spec"]["containers"].append({"name": "proxy", "image": "r.example/proxy:2"})
    at.kube.pass_time(1)
    assert {one.name: bool(one.group) for one in seen(at).values()} == {name: True, f"{name}:proxy": False}
    assert at.group.cannot_roll == ""


def test_every_page_is_read_and_a_list_that_expired_is_read_again(at: Cluster) -> None:
    """However few the server gives at a time."""
    at.kube.add("Deployment", replicas=12)
    at.kube.most, at.kube.expires = 5, 1
    assert len(seen(at)) == 12
    pages = [path for verb, path in at.kube.requests if "/pods?" in path]
    assert all("limit=50" in path for path in pages)
    at.kube.expires = 2
    with pytest.raises(OutsideError, match="too old"):
        at.pods.seen()


def test_pages_without_an_end_are_refused(at: Cluster) -> None:
    """By a server that answers the same page again, and by a list that has more than anybody has."""
    at.kube.answer = b'{"items": [], "metadata": {"continue": "x"}}'
    with pytest.raises(OutsideError, match="no end"):
        at.pods.seen()
    at.kube.answer = b""
    at.kube.add("Deployment", replicas=3)
    at.kube.most = 1
    for limit in (cluster_client.KUBERNETES_PAGES, cluster_client.KUBERNETES_LIST):
        with pytest.MonkeyPatch.context() as patched:
            name = next(name for name, one in vars(cluster_client).items() if one is limit)
            patched.setattr(cluster_client, name, replace(limit, most=2))
            with pytest.raises(OutsideError, match=limit.name):
                at.pods.seen()
    assert len(at.pods.seen().members) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b'{"items": [' + b"[" * 100 + b"]" * 100 + b"]}", "json.depth"),
        (b" " * (4 << 20) + b"{} ", "json.bytes"),
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"items": 3}', "not a list of objects"),
        (b'{"items": [3]}', "not a list of objects"),
        (b'{"items": [{"metadata": {"name": "x"}}, {"metadata": {}}]}', "items[1] has no metadata.name"),
        (b'{"items": [{"metadata": 7}]}', "items[0] has no metadata.name"),
        (b'{"items": [{"metadata": {"name": "x"}, "spec": {"template": []}}]}', "not understood"),
    ],
)
def test_an_answer_that_no_api_gives_is_an_error_of_the_outside(at: Cluster, answer: bytes, said: str) -> None:
    """Whatever stands in it."""
    at.kube.answer = answer
    for ask in (at.pods.seen, at.port.groups):
        with pytest.raises(OutsideError) as error:
            ask()
        assert said in str(error.value)


def test_what_the_role_denies_is_told_with_the_way_to_it(at: Cluster) -> None:
    """And is no empty fleet."""
    at.kube.denied = {"list pods"}
    with pytest.raises(OutsideError, match="cannot list resource") as error:
        at.pods.seen()
    assert "fleet.render" in error.value.hint


def test_faults_are_tried_again_and_a_wrong_token_is_not(at: Cluster) -> None:
    """A server that is busy for a moment."""
    at.kube.add("Deployment", replicas=1)
    at.kube.faults = [503]
    assert len(seen(at)) == 1
    at.kube.kubeconfig(at.file.parent, token=f"{TOKEN}x")
    at.begin_anew()
    asked = len(at.kube.requests)
    with pytest.raises(OutsideError, match="Unauthorized"):
        at.pods.seen()
    assert len(at.kube.requests) == asked + 1


def test_a_token_that_ended_is_read_again_from_its_file(at: Cluster) -> None:
    """In the middle of a rollout: it lasts for an hour, and somebody renews it."""
    token = at.file.parent / "token"
    token.write_text("an.older.token")
    at.kube.kubeconfig(at.file.parent, tokenFile="token")
    at.begin_anew()
    token.write_text(f"{TOKEN}\n")
    assert at.pods.seen().members == ()


@pytest.mark.parametrize("where", ["data", "files"])
def test_a_certificate_of_the_kubeconfig_logs_in_and_is_left_in_no_file(
    at: Cluster, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the kubeconfig, or in files beside it."""
    folder = at.file.parent
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    pairs = {"client-certificate": at.kube.certificate, "client-key": at.kube.key}
    for name, data in pairs.items():
        (folder / name).write_bytes(data)
    data_user = {f"{name}-data": b64encode(data).decode() for name, data in pairs.items()}
    before = {*folder.iterdir()}
    at.kube.kubeconfig(folder, **(data_user if where == "data" else {name: name for name in pairs}))
    at.begin_anew()
    assert at.pods.seen().members == ()
    assert {*folder.iterdir()} == before


def test_a_server_with_another_authoritys_certificate_gets_no_token(tmp_path: Path, at: Cluster) -> None:
    """TLS is verified by the kubeconfig's authority alone."""
    text = at.file.read_text().replace("certificate-authority-data", "extensions")
    at.file.write_text(text)
    at.begin_anew()
    with pytest.raises(OutsideError, match="certificate verify failed"):
        at.pods.seen()
    assert not at.kube.requests


def test_no_pod_is_ever_stepped(at: Cluster) -> None:
    """What keeps it replaces it."""
    key = Key("r1", "here/shop/pod/x", "x", "x", Method.SURGE)
    with pytest.raises(RefusedError):
        at.pods.create(key, at.target, at.kube.now)
    assert at.pods.changes(None, at.target).told == ()


# -- how they run ------------------------------------------------------------------------------------------------------


def facts(at: Cluster, user: str | None = "app", **spec: Any) -> ContainerFacts:
    """How the one pod runs; `user` is its image's, None where no registry tells."""
    container = {"name": "web", "image": OLD, **spec.pop("container", {})}
    at.kube.pod("one", OLD, containers=[container], **spec)
    (member,) = at.pods.seen().members
    at.users[member.exact] = None if user is None else {"config": {"User": user}}
    found = at.pods.observe([member])[member.id].now
    assert isinstance(found, ContainerFacts)
    return found


SAFE: dict[str, Any] = {
    "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "runAsNonRoot": True},
    "resources": {"limits": {"memory": "64Mi", "cpu": "250m"}},
}


def test_a_pod_that_is_careful_breaks_nothing(at: Cluster) -> None:
    """A limit of processes is its node's, and a root that is read-only cannot have changed."""
    found = facts(at, container=SAFE)
    assert (found.user, found.memory_bytes, found.cpus, bool(found.pids)) == ("app", 64 << 20, 0.25, True)
    assert (found.writable_root, found.no_new_privileges, found.privileged) == (False, True, False)
    assert found.unread == (("foreign_processes", EXECUTED),)


def test_a_pod_that_is_careless_shows_all_of_it(at: Cluster) -> None:
    """Each in the words of the rules of containers."""
    volumes = [{"name": "sock", "hostPath": {"path": "/run/containerd/containerd.sock"}},
               {"name": "etc", "hostPath": {"path": "/etc"}}, {"name": "fast", "emptyDir": {"medium": "Memory"}},
               {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]  # fmt: skip
    mounts = [{"name": "sock", "mountPath": "/s"}, {"name": "etc", "mountPath": "/h", "readOnly": True, "subPath": "x"},
              {"name": "fast", "mountPath": "/f"}, {"name": "data", "mountPath": "/d"}]  # fmt: skip
    context = {"privileged": True, "capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN"]}, "runAsUser": 0}
    debug = [{"name": "debugger", "image": "busybox"}]
    reference = {"secretKeyRef": {"name": "db", "key": "password"}}
    more = {"env": [{"name": "DB_PASSWORD", "valueFrom": reference}, {"name": "LANG", "value": "C"}],
            "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}  # fmt: skip
    found = facts(
        at, hostNetwork=True, hostPID=True, volumes=volumes, ephemeralContainers=debug,
        securityContext={"runAsUser": 1000, "seccompProfile": {"type": "Unconfined"}},
        container={"securityContext": context, "volumeMounts": mounts, **more},
    )  # fmt: skip
    assert found.mounts == (
        Mount("bind", "/run/containerd/containerd.sock", "/s", True), Mount("bind", "/etc/x", "/h", False),
        Mount("tmpfs", "", "/f", True), Mount("volume", "data", "/d", True),
    )  # fmt: skip
    assert (found.user, found.image_user, found.privileged) == ("0", "app", True)
    assert found.capabilities == ("NET_ADMIN", "SYS_ADMIN")
    assert (found.memory_bytes, found.cpus, found.no_new_privileges, found.writable_root) == (0, 0, False, True)
    assert (found.host_namespaces, found.daemon) == (("network", "pid"), ())
    assert found.processes == ("container debugger of busybox",)
    assert (found.published, found.secrets) == (("0.0.0.0:8080 to 80/tcp",), ("DB_PASSWORD",))
    assert dict(found.unread)["changed_files"] == CHANGED


@pytest.mark.parametrize(
    ("pod", "own", "image", "user"),
    [
        ({}, {}, "app", "app"),
        ({}, {}, "", ""),
        ({"runAsUser": 7}, {}, "", "7"),
        ({"runAsUser": 7}, {"runAsUser": 0}, "app", "0"),
        ({"runAsNonRoot": True}, {}, None, NOT_ROOT),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, "", ""),
        ({"runAsNonRoot": True}, {}, "app", "app"),
    ],
)
def test_the_user_is_the_containers_the_pods_or_the_images(
    at: Cluster, pod: dict[str, Any], own: dict[str, Any], image: str | None, user: str
) -> None:
    """Or none that is root, where the node promises that."""
    found = facts(at, image, securityContext=pod, container={"securityContext": own})
    assert (found.user, "root_user" in dict(found.unread)) == (user, False)


def test_a_user_that_nobody_tells_is_unread(at: Cluster) -> None:
    """The image may set root or not."""
    assert "root_user" in dict(facts(at, None).unread)


@pytest.mark.parametrize(
    ("text", "value"),
    [("128Mi", 128 * 2**20), ("1G", 1e9), ("100m", 0.1), ("2", 2.0), (2, 2.0), ("1e3", 1000.0), ("1.5Ki", 1536.0),
     (None, 0.0), ("lots", 0.0), ("1e999", 0.0), ({}, 0.0)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text: object, value: float) -> None:
    """What is none is no limit."""
    assert quantity(text) == pytest.approx(value)


def test_one_pod_that_is_not_understood_is_unread_and_the_others_are_not(at: Cluster) -> None:
    """Its facts are of another kind, or of tomorrow."""
    for name in ("good", "strange"):
        at.kube.pod(name, OLD)
    at.kube.objects["pods", "strange"]["spec"]["securityContext"] = ["x"]
    members = at.pods.seen().members
    found = {one.name: at.pods.observe(members)[one.id] for one in members}
    assert (found["good"].now is None, found["strange"].now) == (False, None)
    assert "not understood" in found["strange"].unread


def test_an_answer_that_is_of_another_kind_is_malformed(at: Cluster) -> None:
    """It concerns this fleet alone."""
    at.kube.answer = b'{"items": [{"metadata": {"name": "x"}, "spec": {"containers": 3}}]}'
    with pytest.raises(MalformedError):
        at.pods.seen()
