"""What is read of fleets: engines, clusters, regions, IAM, compose files, plans, webhooks, rows of the ledger."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from standardwebhooks.webhooks import Webhook

from hardening.foundation.errors import NOT_UNDERSTOOD, MalformedError, OutsideError, understood
from hardening.foundation.hashing import digest_of
from hardening.foundation.settings import Aws, Settings
from images.aws import tags
from images.aws.client import Client, Clients
from images.documents import to_json
from pipelines.blast_radius import account, gathering
from pipelines.blast_radius.escalation import AccountSteps
from pipelines.fleet.docker import container_spec, handover, written
from pipelines.fleet.docker.container_facts import processes_of
from pipelines.fleet.docker.drafts import definition_draft, dockerfile_draft, fleet_draft, undrafted
from pipelines.fleet.docker.images import Images
from pipelines.fleet.docker.inventory import ContainerInventory, first_check
from pipelines.fleet.docker.observing import _observed
from pipelines.fleet.ec2.groups import AutoScalingFleet
from pipelines.fleet.ec2.instances import Ec2Fleet
from pipelines.fleet.ecs.groups import ServiceFleet
from pipelines.fleet.ecs.members import ClusterReader, TaskFleet
from pipelines.fleet.eks.groups import NodeGroupFleet
from pipelines.fleet.eks.members import NodeFleet, NodeReader
from pipelines.fleet.kubernetes import kubeconfig
from pipelines.fleet.kubernetes.groups import WorkloadFleet
from pipelines.fleet.kubernetes.members import NamespaceReader, PodFleet
from pipelines.fleet.model import Fleet, Kubernetes
from pipelines.fleet.runtime_snapshots import facts_in
from pipelines.host import provision
from pipelines.rollout import approved_plan, deployments
from pipelines.serve.app import Answers, application
from tests.fuzz.harness import CORPUS, DECLARED, Form, Target, folder, loaded_moments, refused_or_read
from tests.pipelines.blast_radius import planted
from tests.pipelines.fleet import test_container_spec, test_docker_inventory, test_drafts, test_kubeconfig, test_written
from tests.pipelines.fleet.test_runtime_facts import CONTAINER, INFO, Engine, executed, seen, top
from tests.pipelines.rollout.test_approved_plan import document
from tests.pipelines.test_serve import NOW, SECRET
from tests.support import ec2 as shops
from tests.support.fleets import fleet, member, target

ROLLOUT = "web-20260301120000-123456"
RECORDED = CORPUS.with_name("recorded")


def _recorded(name: str) -> list[Any]:
    """What the emulators answered to the readers below."""
    return [loaded_moments((RECORDED / f"{name}.json").read_text())]


def _object(said: Any) -> dict[str, Any]:
    """What is an object, which the reader's caller sees to."""
    if not isinstance(said, dict):
        raise MalformedError("not an object")
    return said


# -- engines -----------------------------------------------------------------------------------------------------------


class _Listing:
    """An engine that shows these containers, and of each image the same."""

    def __init__(self, said: Any) -> None:
        self.said = said if isinstance(said, dict) else {"listed": said, "inspected": said}

    def containers(self, **_: Any) -> Any:
        return self.said.get("listed")

    def inspect_container(self, _: str) -> Any:
        return self.said.get("inspected")

    def inspect_image(self, _: str) -> Any:
        return self.said.get("image")


def _listed(said: Any) -> None:
    """As `HostsFleet` asks each host."""
    api = _Listing(said)
    for health in ("http", "docker"):
        inventory = ContainerInventory(
            api, test_docker_inventory.fleet(health), "host", Images(api, lambda _reference: None), tuple
        )
        with (
            suppress(OutsideError),
            understood("host"),
            patch("pipelines.fleet.docker.inventory.probe", lambda *_: SimpleNamespace(good=True)),
        ):
            for one in inventory.members():
                json.dumps(to_json(one))


def _engine() -> list[Any]:
    made = test_docker_inventory.Engine()
    inspected = made.run("web-1", policy="always", Links=["/web-2:/db"])
    return [{"listed": made.containers(), "inspected": inspected, "image": made.images[test_docker_inventory.IMAGE]}]


def _runs(said: Any) -> None:
    """How a container runs, by all that an engine shows of it."""
    said = said if isinstance(said, dict) else {}
    api = Engine(said.get("json"), **{key: [said.get(key)] for key in ("changes", "top", "exec")})
    api.answers["exec-1"] = api.answers["exec"]
    from pipelines.fleet.docker.container_facts import EngineSettings

    image = said.get("image")
    images = SimpleNamespace(of=lambda _container: image)
    daemon = EngineSettings(said.get("info") if isinstance(said.get("info"), dict) else {})
    observed = _observed(api, member(), images, fleet(), daemon)  # type: ignore[arg-type]
    if observed.now is not None:
        kept = json.loads(json.dumps(to_json(observed.now)))
        assert facts_in(kept) == observed.now


def _running() -> list[Any]:
    lines = top("100 1 7 nginx", "101 100 7 worker", "200 1 0 sh -c x")
    inspected = {**CONTAINER, "ExecIDs": ["exec-1"]}
    changes = [{"Path": "/usr/bin/x", "Kind": 1}, {"Path": "/scratch/y", "Kind": 0}]
    return [{"json": inspected, "changes": changes, "top": lines, "exec": executed(200, "sh", "-c")[0], "info": INFO,
             "image": {"Config": {"User": "7"}}}]  # fmt: skip


def _spec(said: Any) -> None:
    """What a replacement is made of. Whoever calls it turns what is not understood into an error of the host's."""
    said = said if isinstance(said, dict) else {}
    container, image = said.get("container"), said.get("image")
    for ask in (
        lambda: container_spec.creation(container, image, "r/web@sha256:2", {}),
        lambda: container_spec.differences(container, image, container, image, "web"),
        lambda: container_spec.image_changes(container, image["Config"], image["Config"]),
        lambda: container_spec.cannot_roll(container, [container]),
        lambda: container_spec.forced_in_place(container, ()),
        lambda: first_check(container),
        lambda: handover.ruleset("x", handover.published(container), 1),
    ):
        with suppress(OutsideError), understood("host"):
            ask()


ENGINES = [
    Target("engine-containers", _listed, _engine),
    Target("engine-running", _runs, _running),
    Target("engine-spec", _spec, lambda: [
        {"container": test_container_spec.full(), "image": test_container_spec.IMAGE}]),
    Target("engine-info", lambda text: provision.parse_info("unix:///x", text), lambda: [
        {"ServerVersion": "28.1", "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}], Form.JSON),
    Target("engine-top", processes_of, lambda: [top("100 1 7 nginx")], raises=NOT_UNDERSTOOD),
]  # fmt: skip


# -- compose files and Dockerfiles -------------------------------------------------------------------------------------


def _drafted(container: dict[str, Any], image: dict[str, Any]) -> None:
    found = test_drafts.found(container, image=image)
    for made in (
        fleet_draft(found, "ann", "nginx-golden", "it fits", test_drafts.KNOWN),
        definition_draft(found, "ann", test_drafts.KNOWN),
    ):
        assert made.text
    dockerfile_draft(found), [*undrafted(found)]


def _compose(text: str) -> None:
    for one in written.compose_services(text, test_written.COMPOSE).values():
        _drafted(one, {"Config": {}})


def _dockerfile(text: str) -> None:
    _, steps = written.last_stage(text, test_written.DOCKERFILE)
    image = written.image_of(steps)
    written.installed(steps)
    _drafted(written.unpacked_container("web", image), image)


WRITTEN = [
    Target("compose", _compose, lambda: [test_written.FULL], Form.TEXT),
    Target("compose-values", lambda said: _compose(json.dumps(said)), lambda: [
        {"services": {"web": written.loaded(test_written.FULL, Path("x"))["services"]}}]),
    Target("foreign-dockerfile", _dockerfile, lambda: [test_written.STAGES, test_drafts.DOCKERFILE], Form.TEXT),
]  # fmt: skip


# -- clusters ----------------------------------------------------------------------------------------------------------


def _kubeconfig(text: str) -> object:
    file = folder() / "config"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    context = "arn:aws:eks:x/prod"
    return kubeconfig.access_of(Kubernetes(kubeconfig=str(file), context=context, namespace="shop"))


class _Cluster:
    """An API server that answers so, by path."""

    access = SimpleNamespace(name="here", server="https://k")

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said

    def get(self, path: str, *_: Any, **__: Any) -> Any:
        return _object(self.said.get(path))

    def pages(self, path: str, **_: Any) -> Any:
        items = self.get(path).get("items") or []
        if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
            raise MalformedError("not a list of objects")
        return iter(items)


def _pods(said: Any) -> None:
    of = Fleet.model_validate({
        "name": "web", "title": "The web servers", "owner": "platform team", "kind": "kubernetes",
        "selector": {"app": "web"}, "replacement": {"definition": "nginx"},
        "kubernetes": {"kubeconfig": "/x", "context": "here", "namespace": "shop"},
    })  # fmt: skip
    reader = NamespaceReader(of, _Cluster(_object(said)))  # type: ignore[arg-type]
    pods = PodFleet(reader, lambda _reference: None)
    _looked_at(pods, WorkloadFleet(of, reader, lambda: NOW))


def _looked_at(members: Any, groups: Any) -> None:
    """All that a fleet is asked for without changing it."""

    def observe() -> None:
        shown = members.seen().members
        json.dumps([to_json(one) for one in shown])
        for one in members.observe(shown).values():
            json.dumps(to_json(one.now)) if one.now is not None else None

    def watch() -> None:
        for group in groups.groups():
            json.dumps(to_json(group))
            pinned = groups.pin(group)
            json.dumps(to_json(pinned))
            refused_or_read(
                partial(groups.pace, group, 3), partial(groups.watch, ROLLOUT, group),
                partial(groups.way_back, ROLLOUT, group, pinned),
            )  # fmt: skip

    refused_or_read(observe, watch)


CLUSTERS = [
    Target("kubeconfig", _kubeconfig, lambda: [json.dumps(test_kubeconfig.config(), indent=1)], Form.TEXT),
    Target("kubeconfig-values", lambda said: _kubeconfig(json.dumps(said)), lambda: [
        test_kubeconfig.config(),
        test_kubeconfig.config({"client-certificate-data": "eA==", "client-key-data": "eA=="})]),
    Target("kubernetes", _pods, lambda: _recorded("kubernetes")),
]  # fmt: skip


# -- AWS ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _answering(said: dict[str, Any]) -> Any:
    """Every client of AWS answers so, by the operation."""

    def call(_client: Client, operation: str, **_: Any) -> Any:
        answer = dict(_object(said.get(operation)))
        for token in ("NextToken", "nextToken", "Marker", "NextMarker", "IsTruncated"):
            answer.pop(token, None)  # the recorded page is all there is
        return answer

    with patch.object(Client, "call", call), patch.object(Clients, "_make", lambda *_: Client(None, "x", "1", "y")):
        yield


@contextmanager
def _moments_read() -> Iterator[None]:
    """botocore's parser has seen to what is a moment; by JSON, to nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"(?s).*Expected `datetime`", UserWarning)
        yield


class _Ledger:
    """Knows nothing."""

    def made(self, *_: Any, **__: Any) -> tuple[Any, ...]:
        return ()


@cache
def _cloud() -> Any:
    from images.aws.cloud import Cloud

    aws = Aws(account="123456789012", region="eu-central-1", read_within=timedelta(hours=1))
    settings = Settings(state=folder() / "state", aws=aws)
    return Cloud(settings, Clients(aws), _Ledger(), None, NOW, "ann")  # type: ignore[arg-type]


def _ec2(said: Any) -> None:
    of = shops.fleet(ec2={"regions": ["eu-central-1"]})
    with _answering(_object(said)), suppress(UserWarning):  # botocore has seen to what is text and what is a number
        _looked_at(Ec2Fleet(of, _cloud()), AutoScalingFleet(of, _cloud()))


def _ecs(said: Any) -> None:
    of = Fleet.model_validate({
        "name": "web", "title": "The web servers", "owner": "platform team", "kind": "ecs",
        "replacement": {"definition": "nginx"}, "ecs": {"cluster": "shop", "services": ["web"]},
    })  # fmt: skip
    with _answering(_object(said)), _moments_read():
        reader = ClusterReader(of, _cloud())
        _looked_at(TaskFleet(reader, lambda _reference: None), ServiceFleet(of, reader, _cloud(), lambda: NOW))


def _eks(said: Any) -> None:
    of = Fleet.model_validate({
        "name": "nodes", "title": "The nodes", "owner": "platform team", "kind": "eks",
        "replacement": {"definition": "debian-server"}, "eks": {"cluster": "shop", "node_groups": ["nodes"]},
    })  # fmt: skip
    with _answering(_object(said)), _moments_read():
        reader = NodeReader(of, _cloud())
        _looked_at(NodeFleet(reader), NodeGroupFleet(of, reader, lambda: NOW))


def _iam(said: Any) -> None:
    """An account's rights, and what follows from them."""
    with _answering({"GetAccountAuthorizationDetails": _object(said)}):
        found = gathering.ask_account(_cloud(), planted.ACCOUNT)
    steps = AccountSteps(found, _ways())
    for one in found.principals[:3]:
        steps.of(one)
    steps.of_account()


@cache
def _ways() -> Any:
    return gathering.load_ways()


def _release_tags(said: Any) -> object:
    return tags.release_of(tags.as_dict(said), "dev.goldsmith.", "r.example/x") if isinstance(said, list) else None


AWS = [
    Target("ec2", _ec2, lambda: _recorded("ec2")),
    Target("ecs", _ecs, lambda: _recorded("ecs")),
    Target("eks", _eks, lambda: _recorded("eks")),
    Target("iam", _iam, lambda: [planted.planted(name).shown() for name in [*planted.PLANTED][:4]]),
    Target("iam-policy", lambda text: account.document(text, "it"), lambda: [
        planted.policy(planted.EVERYTHING, {"Effect": "Deny", "NotAction": ["s3:*"], "NotResource": "arn:aws:s3:::x",
                                            "Condition": {"StringLike": {"aws:x": ["a*", "${aws:username}"]}}})],
           Form.JSON, raises=(*DECLARED, *NOT_UNDERSTOOD)),
]  # fmt: skip


# -- plans, webhooks, rows of the ledger -------------------------------------------------------------------------------


def _sealed(body: Any) -> None:
    """A plan whose digest is right, whatever stands in it; and what it is compared with."""
    with suppress(UnicodeEncodeError):
        digest = digest_of(body)
        text = json.dumps({"form": approved_plan.FORM, "digest": digest, "sealed": body})
        _compared(text)


def _compared(text: str) -> None:
    made = approved_plan.opened(text, "plan.json")
    approved_plan.compare(made, approved_plan.Present(fleet(), (), target(), NOW))


def _plan() -> Any:
    return json.loads(approved_plan.written(document()))


def _called(said: Any) -> None:
    """A webhook call with such headers and body: only one that our secret signed is taken, and none ends otherwise."""
    taken = list[str]()
    ledger = SimpleNamespace(add_trigger=lambda name, *_: taken.append(name) or True)
    runner = SimpleNamespace(wake=lambda: None)
    answers = Answers(
        ledger,
        runner,
        Webhook(SECRET),
        str,
        lambda: NOW,
        SimpleNamespace(policy=""),
        threading.Event(),  # type: ignore[arg-type]
    )
    said = said if isinstance(said, dict) else {}
    headers, body = said.get("headers"), str(said.get("body")).encode("utf-8", "surrogatepass")
    listed = headers.items() if isinstance(headers, dict) else ()
    raw = [
        (str(key).lower().encode("latin-1", "replace"), str(value).encode("latin-1", "replace"))
        for key, value in listed
    ]
    status = asyncio.run(_asked(application(answers), raw, body))
    assert status in (200, 202, 401, 404, 405, 413, 421), status
    assert bool(taken) <= (status in (200, 202))
    assert not taken or said.get("signed"), "taken without our signature"


async def _asked(app: Any, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent = list[Any]()

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/hooks", "raw_path": b"/hooks", "query_string": b"",
             "headers": headers, "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 2), "root_path": ""}  # fmt: skip
    await app(scope, receive, send)
    return int(sent[0]["status"])


def _calls() -> list[Any]:
    headers = {
        "webhook-id": "x",
        "webhook-timestamp": "1795608420",
        "webhook-signature": "v1,eA==",
        "host": "localhost",
    }
    return [{"headers": headers, "body": '{"type": "push"}'}]


def _row(said: Any) -> object:
    """How a member ran, as another version may have kept it."""
    return facts_in(said) if isinstance(said, dict) else None


def _forge(text: str) -> object:
    """A list of GitHub's deployments."""
    from hardening.foundation.limits import parse_json

    found = parse_json(text, "it")
    listed = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    deployments._said(text.encode("utf-8", "surrogatepass"))
    return [(deployments._rollout_of(one), deployments._id_of(one)) for one in listed]


def _deployments() -> list[Any]:
    from tests.support.forge import DEPLOYMENT

    return [[{**DEPLOYMENT, "id": 7, "payload": {"rollout": ROLLOUT}}, {"id": 8, "payload": '{"rollout": "x"}'}]]


REST = [
    Target("plan", lambda text: approved_plan.opened(text, "plan.json"), lambda: [_plan()], Form.JSON),
    Target("plan-sealed", _sealed, lambda: [_plan()["sealed"]]),
    Target("webhook", _called, _calls),
    Target("ledger-facts", _row, lambda: [to_json(seen(changes=[{"Path": "/x", "Kind": 1}], foreign=[]))]),
    Target("forge", _forge, _deployments, Form.JSON),
]

TARGETS: Sequence[Target] = (*ENGINES, *WRITTEN, *CLUSTERS, *AWS, *REST)
