"""Which GitOps tool manages an object, and what to merge there instead: a kustomize patch and a pull request. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

Json = dict[str, Any]
ARGO, FLUX, RANCHER = "Argo CD", "Flux", "Rancher Fleet"
MARKS = {
    "argocd.argoproj.io/": ARGO,
    "kustomize.toolkit.fluxcd.io/": FLUX,
    "helm.toolkit.fluxcd.io/": FLUX,
    "fluxcd.io/": FLUX,
    "objectset.rio.cattle.io/": RANCHER,
}
"""How the names of labels and annotations begin that such a tool leaves on what it keeps.

`app.kubernetes.io/instance`, by which Argo CD may track too, is Helm's as well; then managedFields tell.
"""
MANAGERS = {
    "argocd-controller": ARGO,
    "argocd-application-controller": ARGO,
    "kustomize-controller": FLUX,
    "helm-controller": FLUX,
    "fleetagent": RANCHER,
    "fleet-agent": RANCHER,
}


def gitops_owner(shown: Json) -> str:
    """The tool that keeps an object as Git has it, and what tells so; empty where none does."""
    return next(_owners(shown["metadata"]), "")


def _owners(metadata: Json) -> Iterator[str]:
    for kind in ("labels", "annotations"):
        for key in sorted(metadata.get(kind) or {}):
            for mark, owner in MARKS.items():
                if key.startswith(mark):
                    yield f"{owner} ({kind[:-1]} {key})"
    for one in metadata.get("managedFields") or ():
        if (manager := str(one.get("manager"))) in MANAGERS:
            yield f"{MANAGERS[manager]} (field manager {manager})"


def instead(kind: str, name: str, namespace: str, container: str, image: str, reasons: Sequence[str]) -> str:
    """The text of a pull request that gives the container this image, with the kustomize patch that does it."""
    patch = kustomize_patch(kind, name, namespace, container, image)
    file = f"goldsmith-{kind.lower()}-{name}.yaml"
    why = "\n".join(f"- {_line(reason)}" for reason in reasons) or "- it is out of policy"
    return f"""\
Pull request: Roll {kind} {name} to {image.rpartition("/")[2]}

What runs now is out of policy:

{why}

This change gives the container {container} the image

    {image}

by digest, so that what was judged is what runs. To go back, revert it.

kustomization.yaml:

patches:
  - path: {file}

{file}:

{patch}"""


def kustomize_patch(kind: str, name: str, namespace: str, container: str, image: str) -> str:
    """A strategic merge patch for kustomize."""
    values = {key: json.dumps(value) for key, value in
              {"name": name, "namespace": namespace, "container": container, "image": image}.items()}  # fmt: skip
    return f"""\
apiVersion: apps/v1
kind: {kind}
metadata:
  name: {values["name"]}
  namespace: {values["namespace"]}
spec:
  template:
    spec:
      containers:
        - name: {values["container"]}
          image: {values["image"]}
"""


def _line(text: str) -> str:
    return " ".join(text.split())
