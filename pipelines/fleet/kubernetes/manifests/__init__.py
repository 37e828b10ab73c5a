"""The manifests for a fleet's cluster: the roles of its account, and a policy that verifies our signatures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.fleet.model import Fleet

HERE = Path(__file__).parent


def fleet_manifests(fleet: Fleet, repository: str, keys: Sequence[str], predicates: Sequence[str]) -> dict[str, str]:
    """File name → text of the role that reads, the one that rolls, and the policy for Kyverno, by public `keys` (PEM).

    No policy without a `repository` and keys: it would verify nothing.
    """
    from jinja2 import FileSystemLoader

    from hardening.foundation import templating

    sandbox = templating.Sandbox(FileSystemLoader([HERE]), trim_blocks=True)
    values = {
        "fleet": fleet.name, "name": f"goldsmith-{fleet.name}", "namespace": str(fleet.kubernetes.namespace),
        "repository": repository, "keys": [key.strip() for key in keys], "predicates": list(predicates),
    }  # fmt: skip
    wanted = ["read", "roll", *(["verify"] if repository and keys else [])]
    return {
        f"{values['name']}-{kind}.yaml": templating.render((HERE / f"{kind}.yaml.j2").read_text(), values, sandbox)
        for kind in wanted
    }
