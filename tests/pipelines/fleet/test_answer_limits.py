"""Lists that an engine or AWS answers with are read up to a limit, and beyond it are one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from typing import Any

import docker
import pytest

from hardening.foundation import limits
from hardening.foundation.errors import OutsideError
from images.aws import client
from images.aws.client import Client
from pipelines.fleet.docker import inventory
from pipelines.fleet.docker.inventory import limited, outside
from pipelines.fleet.docker.members import make
from tests.support.hostile import Drip, Hostile, Reply, endless, hostile


def api_of(server: Hostile) -> Any:
    return limited(docker.APIClient(base_url=server.address, version="1.41"))


def test_an_engine_may_not_answer_without_end() -> None:
    """Whatever is asked; as one error that names the limit and what was tried. What is small is read as ever."""
    with hostile() as server:
        server.fallback = Reply(b'[{"Id": "1"}]', headers={"Content-Type": "application/json"})
        api = api_of(server)
        assert api.containers(all=True) == [{"Id": "1"}]
        server.fallback = Reply(endless(b"[" * limits.MIB))
        for ask in (lambda: api.containers(all=True), lambda: api.inspect_container("web"), api.info):
            said = r"the Docker Engine exceeds the limit engine.answer \(67,108,864"
            with pytest.raises(OutsideError, match=said), outside("listing containers", "here"):
                ask()
        api.close()


def test_a_new_container_asks_for_its_networks_in_the_engines_own_words() -> None:
    """Also for what docker's library has no word for, as the priority of a gateway; the primary network on creation."""
    shop, back = {"GwPriority": 1, "Aliases": ["web"]}, {"GwPriority": 7, "IPAMConfig": {"IPv6Address": "fd::9"}}
    with hostile() as server:
        server.fallback = Reply(b'{"Id": "1"}', headers={"Content-Type": "application/json"})
        api = api_of(server)
        make(api, {"Image": "web"}, "web-1.r1", {"shop": shop, "back": back})
        api.close()
    created, joined = [(one.path, json.loads(one.body)) for one in server.asked]
    assert created == ("/v1.41/containers/create?name=web-1.r1", {
        "Image": "web", "NetworkingConfig": {"EndpointsConfig": {"shop": shop}}
    })  # fmt: skip
    assert joined == ("/v1.41/networks/back/connect", {"Container": "web-1.r1", "EndpointConfig": back})


@pytest.mark.parametrize("reply", [Reply(b"[", claim=100), Drip([b"["], claim=100)], ids=["ends early", "stalls"])
def test_an_answer_that_breaks_off_is_an_error_of_the_outside(reply: Reply) -> None:
    """So that what was begun is tried again or taken back, as after any other failure of the engine."""
    with hostile() as server:
        server.fallback = reply
        api = api_of(server)
        api.timeout = 0.5
        with pytest.raises(OutsideError, match="broke off"), outside("listing containers", "here"):
            api.containers(all=True)
        api.close()


def test_an_answer_of_the_engine_may_be_as_long_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a byte longer."""
    body = b'["%s"]' % (b"x" * 96)
    with hostile() as server:
        server.fallback = Reply(body)
        api = api_of(server)
        for most, longer in ((100, False), (99, True)):
            monkeypatch.setattr(inventory, "ENGINE_ANSWER", replace(limits.ENGINE_ANSWER, most=most))
            if longer:
                with pytest.raises(OutsideError, match=r"engine\.answer"):
                    api.info()
            else:
                assert api.info() == ["x" * 96]
        api.close()


@pytest.mark.parametrize(("pages", "items", "name"), [(3, 100, "aws.pages"), (100, 5, "aws.items")])
def test_a_list_of_aws_that_leads_to_itself_ends(
    monkeypatch: pytest.MonkeyPatch, pages: int, items: int, name: str
) -> None:
    """By its pages, or by what they hold."""
    monkeypatch.setattr(client, "AWS_PAGES", replace(limits.AWS_PAGES, most=pages))
    monkeypatch.setattr(client, "AWS_ITEMS", replace(limits.AWS_ITEMS, most=items))
    asked = count()

    def call(_: Client, _operation: str, **_request: Any) -> dict[str, Any]:
        return {"serviceArns": [str(next(asked)), "x"], "nextToken": "again"}

    monkeypatch.setattr(Client, "call", call)
    ours = Client.__new__(Client)
    object.__setattr__(ours, "service", "ecs")
    object.__setattr__(ours, "region", "eu-central-1")
    with pytest.raises(OutsideError, match=rf"ecs:ListServices in eu-central-1 exceeds the limit {name} "):
        list(ours.pages("ListServices", "serviceArns"))
