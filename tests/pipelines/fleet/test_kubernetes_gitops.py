"""What GitOps keeps is left alone, and what to merge there instead is a patch that kustomize takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from hardening.foundation.process import run
from pipelines.fleet.kubernetes.gitops import gitops_owner, instead, kustomize_patch
from tests.strict_kube.server import NAMESPACE, StrictKube

IMAGE = f"r.example/web@sha256:{9:064x}"


@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_kustomize_takes_the_patch(tmp_path: Path, kind: str) -> None:
    """The container's image is the new one, and nothing else has changed."""
    made = StrictKube().add(kind, template={"spec": {"containers": [
        {"name": "web", "image": "r.example/web:1", "env": [{"name": "A", "value": "b"}]},
        {"name": "proxy", "image": "r.example/proxy:1"}]}})  # fmt: skip
    base = {key: value for key, value in made.items() if key != "status"}
    base["metadata"] = {"name": "web", "namespace": NAMESPACE}
    (tmp_path / "base.yaml").write_text(json.dumps(base))
    text = instead(kind, "web", NAMESPACE, "web", IMAGE, ["superseded"])
    heading, _, patch = text.partition(f"\ngoldsmith-{kind.lower()}-web.yaml:\n\n")
    kustomization = yaml.safe_load(heading.partition("kustomization.yaml:\n")[2])
    (tmp_path / kustomization["patches"][0]["path"]).write_text(patch)
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": ["base.yaml"], **kustomization}))
    built = yaml.safe_load(run(["kubectl", "kustomize", str(tmp_path)], cwd=tmp_path).stdout)
    base["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE
    assert built == base


def test_the_text_says_why_and_names_the_image_by_digest() -> None:
    """Each reason is one line, whatever stands in it."""
    text = instead("Deployment", "web", NAMESPACE, "web", IMAGE, ["superseded since\n- [x](http://evil.example)"])
    assert text.startswith(f"Pull request: Roll Deployment web to web@sha256:{9:064x}\n")
    assert "\n- superseded since - [x](http://evil.example)\n" in text
    assert kustomize_patch("Deployment", "web", NAMESPACE, "web", IMAGE) in text


def test_what_is_named_strangely_stays_one_value() -> None:
    """The patch is YAML whatever an object is called."""
    patch = yaml.safe_load(kustomize_patch("Deployment", "on", "1e3", "null", "a: b\n- c"))
    assert patch["metadata"] == {"name": "on", "namespace": "1e3"}
    assert patch["spec"]["template"]["spec"]["containers"] == [{"name": "null", "image": "a: b\n- c"}]


def test_nothing_owns_what_people_apply() -> None:
    """Neither kubectl nor Helm."""
    metadata = {"managedFields": [{"manager": "kubectl-client-side-apply"}, {"manager": "helm"}, {}],
                "labels": {"app.kubernetes.io/instance": "web"}, "annotations": None}  # fmt: skip
    assert gitops_owner({"metadata": metadata}) == ""


KEPT = {
    "argocd.argoproj.io/tracking-id": "Argo CD", "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/namespace": "Flux", "fluxcd.io/sync-checksum": "Flux",
    "objectset.rio.cattle.io/id": "Rancher Fleet",
}  # fmt: skip
MANAGING = {
    "argocd-controller": "Argo CD", "argocd-application-controller": "Argo CD", "kustomize-controller": "Flux",
    "helm-controller": "Flux", "fleetagent": "Rancher Fleet", "fleet-agent": "Rancher Fleet",
}  # fmt: skip


@pytest.mark.parametrize("key", KEPT)
@pytest.mark.parametrize("kind", ["labels", "annotations"])
def test_each_mark_of_a_tool_tells_that_it_keeps_an_object(kind: str, key: str) -> None:
    """As a label and as an annotation, among others; not as a part of another name."""
    metadata = {"labels": {"app": "web"}, "annotations": {"note": "x"}}
    assert gitops_owner({"metadata": metadata}) == ""
    metadata[kind] |= {key: "x"}
    assert gitops_owner({"metadata": metadata}) == f"{KEPT[key]} ({kind[:-1]} {key})"
    metadata[kind] = {f"not-{key}": "x"}
    assert gitops_owner({"metadata": metadata}) == ""


@pytest.mark.parametrize("manager", MANAGING)
def test_each_manager_of_fields_tells_which_tool_keeps_an_object(manager: str) -> None:
    """Also where others have changed it since."""
    fields = [{"manager": "kubectl"}, {"manager": manager}, {"manager": "kube-controller-manager"}]
    assert gitops_owner({"metadata": {"managedFields": fields}}) == f"{MANAGING[manager]} (field manager {manager})"
