"""Renders the rules of roles as NetworkPolicies: their namespaces deny everything except what a rule names. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.network.model import EVERYWHERE, WORLD, Network, PlacedRule, Pods, addresses_of, bounds

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that Kubernetes itself gives each namespace: its name."""
PREFIX = "goldsmith-"


def policies(network: Network) -> list[dict[str, Any]]:
    """The NetworkPolicies of all roles that have pods. Raises ContentError for a peer without pods and addresses."""
    roles = sorted(network.roles.items())
    namespaces = sorted({role.pods.namespace for _, role in roles if role.pods})
    denied = [_policy(f"{PREFIX}default-deny", namespace, {}, {}) for namespace in namespaces]
    return [*denied, *(_of_role(network, name, role.pods) for name, role in roles if role.pods)]


def _of_role(network: Network, name: str, pods: Pods) -> dict[str, Any]:
    outgoing = network.roles[name].outgoing
    ingress = [
        {"from": [*_peers(network, one.rule.source, one, "from")], "ports": [*map(_ports, one.rule.ports)]}
        for one in network.rules if one.rule.target == name
    ]  # fmt: skip
    egress = [
        {"to": [*_peers(network, one.rule.target, one, "to")], "ports": [*map(_ports, one.rule.ports)]}
        for one in network.rules if one.rule.source == name
    ]  # fmt: skip
    rules = {"ingress": ingress, "egress": [{}] if outgoing == "any" else egress}
    return _policy(f"{PREFIX}{name}", pods.namespace, pods.labels, rules)


def _policy(name: str, namespace: str, labels: Mapping[str, str], rules: Mapping[str, Any]) -> dict[str, Any]:
    selector = {"matchLabels": dict(labels)} if labels else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "goldsmith"}},
        "spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], **rules},
    }


def _peers(network: Network, peer: str, placed: PlacedRule, key: str) -> Iterator[dict[str, Any]]:
    role = network.roles.get(peer)
    if role and role.pods:
        yield {
            "namespaceSelector": {"matchLabels": {NAME_LABEL: role.pods.namespace}},
            "podSelector": {"matchLabels": dict(role.pods.labels)},
        }
    if peer == WORLD or role is None or role.addresses or not role.pods:
        addresses = EVERYWHERE if peer == WORLD else addresses_of(network, peer, placed, key)
        yield from ({"ipBlock": {"cidr": one}} for one in addresses)


def _ports(text: str) -> dict[str, Any]:
    first, last = bounds(text)
    more = {"endPort": last} if last > first else {}
    return {"protocol": text.partition("/")[2].upper(), "port": first, **more}
