"""What a cluster is given for a fleet: the roles are exactly what is used, and Kyverno is told our keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from hardening.foundation.errors import UsageError
from hardening.trust import Trust
from pipelines.cli import rendering
from pipelines.fleet.kubernetes.manifests import fleet_manifests
from pipelines.fleet.port import Progress
from tests.pipelines.fleet.test_kubernetes_groups import KINDS, LIMITS, SURGE
from tests.strict_kube import Ill
from tests.strict_kube.schemas import require_valid
from tests.support.kube import ROLLOUT, Cluster, cluster

KEY = "-----BEGIN PUBLIC KEY-----\nAAAA\nBBBB\n-----END PUBLIC KEY-----\n"


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, **LIMITS) as made:
        yield made


def documents(at: Cluster, *keys: str) -> dict[str, list[dict[str, Any]]]:
    """The objects of each file."""
    files = fleet_manifests(at.fleet, "r.example/nginx", keys, Trust().required)
    return {name.removeprefix("goldsmith-web-"): [*yaml.safe_load_all(text)] for name, text in files.items()}


def allowed(objects: list[dict[str, Any]]) -> set[str]:
    """Verbs on kinds that a role allows."""
    (role,) = [one for one in objects if one["kind"] == "Role"]
    return {f"{verb} {kind}" for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}


def test_the_roles_allow_what_is_used_and_nothing_else(at: Cluster) -> None:
    """Looking, planning, rolling, holding and going back, of every kind."""
    roles = documents(at)
    for kind in KINDS:
        at.kube.add(kind, kind.lower(), **(SURGE if kind == "Deployment" else {}))
    members = at.pods.seen().members
    at.pods.observe(members)
    groups = {group.id: (group, at.port.pin(group), at.port.pace(group, 3)) for group in at.port.groups()}
    assert at.kube.used == allowed(roles["read.yaml"])
    at.kube.controllers.ill[at.new] = Ill.CRASHES
    for group, pinned, pace in groups.values():
        at.port.begin(ROLLOUT, group, at.target, pinned, pace)
        at.port.cancel(ROLLOUT, group, pinned)
        at.port.begin(ROLLOUT, group, at.target, pinned, pace)
        at.until(group, Progress.FAILED)
        at.port.roll_back(ROLLOUT, group, pinned)
        at.until(group, Progress.ROLLED_BACK)
    assert at.kube.used == allowed(roles["read.yaml"]) | allowed(roles["roll.yaml"])


def test_the_roles_are_what_the_api_knows(at: Cluster) -> None:
    """By its own schema, in the fleet's namespace alone, and for one account."""
    files = documents(at)
    objects = [*files["read.yaml"], *files["roll.yaml"]]
    for one in objects:
        require_valid(one)
    assert {one["metadata"]["namespace"] for one in objects} == {"shop"}
    accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
    assert accounts == {each["name"] for one in objects for each in one.get("subjects", [])} == {"goldsmith-web"}


def test_kyverno_asks_each_statement_of_each_key(at: Cluster) -> None:
    """Any of the keys is enough, and none of a public log is asked for."""
    (policy,) = documents(at, KEY, KEY.replace("A", "C"))["verify.yaml"]
    (rule,) = policy["spec"]["rules"]
    (verify,) = rule["verifyImages"]
    assert rule["match"]["any"][0]["resources"]["namespaces"] == ["shop"]
    assert (verify["type"], verify["failureAction"], verify["required"]) == ("SigstoreBundle", "Enforce", True)
    assert verify["imageReferences"] == ["r.example/nginx:*", "r.example/nginx@*"]
    assert tuple(one["type"] for one in verify["attestations"]) == Trust().required
    for one in verify["attestations"]:
        (attestors,) = one["attestors"]
        keys = [entry["keys"] for entry in attestors["entries"]]
        assert attestors["count"] == 1
        assert [key["publicKeys"] for key in keys] == [KEY.strip(), KEY.strip().replace("A", "C")]
        assert all(key["rekor"]["ignoreTlog"] and key["ctlog"]["ignoreSCT"] for key in keys)


def test_without_a_key_there_is_no_policy(at: Cluster) -> None:
    """It would verify nothing."""
    assert documents(at).keys() == {"read.yaml", "roll.yaml"}


def test_only_a_kubernetes_fleet_has_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of another kind is refused; a registry without an address has nothing that a cluster could ask."""
    folder = tmp_path / "content/pipelines/fleets"
    folder.mkdir(parents=True)
    head = 'title = "t"\nowner = "o"\nselector = { app = "web" }\nreplacement = { definition = "nginx-unprivileged" }\n'
    (folder / "docker.toml").write_text(f'{head}kind = "docker"\n')
    place = '[kubernetes]\nkubeconfig = "k"\ncontext = "c"\nnamespace = "shop"\n'
    (folder / "kube.toml").write_text(f'{head}kind = "kubernetes"\n{place}')
    for name, value in {"STATE": str(tmp_path / "state"), "CONTENT": f'["{tmp_path / "content"}"]',
                        "JUDGING__ROOTS": f'["{tmp_path / "content"}"]'}.items():  # fmt: skip
        monkeypatch.setenv(f"GOLDSMITH_{name}", value)
    with pytest.raises(UsageError, match="kind docker"):
        rendering.render_manifests("docker", output="", force=False)
    lines = rendering.render_manifests("kube", output=str(tmp_path / "out"), force=False)
    assert [Path(one.path).name for one in lines] == ["goldsmith-kube-read.yaml", "goldsmith-kube-roll.yaml"]
    with pytest.raises(UsageError, match="exists already"):
        rendering.render_manifests("kube", output=str(tmp_path / "out"), force=False)
