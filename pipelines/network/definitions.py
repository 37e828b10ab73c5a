"""Writes the network's rules into the firewall params of its roles' definitions. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from hardening.foundation.errors import NOT_UNDERSTOOD, ContentError, nearest, raise_all, traced
from hardening.model import Kind
from images.catalog import LoadedDefinition
from pipelines.network.comparing import NetworkDifference, Openness, compare_listeners, compare_openings
from pipelines.network.model import EVERYWHERE, Network, protocol_and_bounds
from pipelines.network.nftables import CONTROL, Params, firewall_params
from pipelines.network.openings import ANY, Opening

MANAGED = ("ports", "openings", "output", "output_ports", "output_openings")
"""The params of the control that the network decides."""
IN_A_LINE = 3
"""Values of a list that stand in one line."""
HINT = "./goldsmith network.apply nftables --apply writes it"


@dataclass(frozen=True)
class DefinitionStep:
    """A definition whose params are to become those of its role."""

    name: str
    role: str
    file: Path
    before: Params
    after: Params

    def told(self) -> str:
        """What changes, a key each."""
        keys = [key for key in MANAGED if self.before.get(key) != self.after.get(key)]
        return "; ".join(f"{key}: {_text(self.before.get(key))} → {_text(self.after.get(key))}" for key in keys)


def _text(value: Any) -> str:
    return "nothing" if value in (None, []) else ", ".join(value) if isinstance(value, list) else str(value)


def given_params(loaded: LoadedDefinition) -> Params:
    """What a definition itself says of the params that the network decides."""
    given = loaded.definition.profile_params.get(CONTROL, {})
    return {key: given[key] for key in MANAGED if key in given}


def machines_of(
    network: Network, definitions: Mapping[str, LoadedDefinition]
) -> Iterator[tuple[str, LoadedDefinition]]:
    """Each role with each of its definitions. Raises ContentError for one that is not there, or of no machine."""
    for role, one in sorted(network.roles.items()):
        for number, name in enumerate(one.definitions):
            where: dict[str, Any] = {"file": network.files[role], "key": f"roles.{role}.definitions[{number}]"}
            if name not in definitions:
                raise ContentError(f"{name} is not a definition", **where, hint=nearest(name, definitions))
            if definitions[name].definition.kind is not Kind.MACHINE:
                hint = "containers are identified by their labels: `containers`"
                raise ContentError(f"{name} is not a machine, so it has no firewall of its own", **where, hint=hint)
            yield role, definitions[name]


def steps(network: Network, definitions: Mapping[str, LoadedDefinition]) -> list[DefinitionStep]:
    """The definitions that say something else of their firewall than their role does."""
    found = [
        DefinitionStep(
            loaded.name, role, loaded.folder / "image.toml", given_params(loaded), firewall_params(network, role)
        )
        for role, loaded in machines_of(network, definitions)
    ]
    return [one for one in found if one.before != one.after]


def differences(network: Network, definitions: Mapping[str, LoadedDefinition]) -> Iterator[NetworkDifference]:
    """Definitions by what they open, and by what they say that their machines listen on."""
    for role, loaded in machines_of(network, definitions):
        where, wanted, given = f"definition {loaded.name}", firewall_params(network, role), given_params(loaded)
        try:
            into, out = opened(given, role), asked(given, role)
        except NOT_UNDERSTOOD as error:
            yield NetworkDifference(
                where, Openness.UNKNOWN, f"[profile_params.{CONTROL}] was not understood: {traced(error)}"
            )
            continue
        yield from compare_openings(f"{where} input", opened(wanted, role), into)
        yield from compare_openings(f"{where} output", asked(wanted, role), out)
        yield from compare_listeners(network, role, _listens(loaded, definitions), f"{where} listens")


def _listens(loaded: LoadedDefinition, definitions: Mapping[str, LoadedDefinition]) -> set[str]:
    """What its machines listen on, with what they have from the definitions below."""
    found, seen = set[str](), set[str]()
    while loaded.name not in seen:
        seen.add(loaded.name)
        found |= {*(loaded.definition.machine.listens if loaded.definition.machine else ())}
        loaded = definitions.get(loaded.definition.parent or "", loaded)
    return found


def require_agreement(network: Network, definitions: Mapping[str, LoadedDefinition]) -> None:
    """Raises ContentError where a definition opens something else than its role: what is built is what was reviewed."""
    raise_all(
        ContentError(
            f"differs from the network's role {one.role}: {one.told()}",
            file=one.file,
            key=f"profile_params.{CONTROL}",
            hint=HINT,
        )
        for one in steps(network, definitions)
    )


def opened(params: Params, role: str) -> list[Opening]:
    """What params of the control let in to the machines of a role."""
    return [Opening(address, role, *ports) for address, ports in _openings(params, "ports", "openings")]


def asked(params: Params, role: str) -> list[Opening]:
    """What params of the control let the machines of a role ask."""
    if params.get("output", "accept") == "accept":
        return [Opening(role, address, ANY) for address in EVERYWHERE]
    return [Opening(role, address, *ports) for address, ports in _openings(params, "output_ports", "output_openings")]


def _openings(params: Params, to_all: str, to_some: str) -> Iterator[tuple[str, tuple[str, int, int]]]:
    for ports in params.get(to_all, ()):
        yield from ((address, protocol_and_bounds(ports)) for address in EVERYWHERE)
    for line in params.get(to_some, ()):
        ports, _, address = line.split(" ")
        yield str(ip_network(address)), protocol_and_bounds(ports)


def with_params(text: str, params: Params) -> str:
    """The text of a definition with these params of the control, all else as it stands."""
    import tomlkit

    document = tomlkit.parse(text)
    if "profile_params" not in document:
        document["profile_params"] = tomlkit.table(is_super_table=True)
    tables: Any = document["profile_params"]
    if CONTROL not in tables:
        tables[CONTROL] = tomlkit.table()
    table = tables[CONTROL]
    for key in MANAGED:
        if key not in params:
            table.pop(key, None)
        elif table.get(key) != params[key]:
            table[key] = _array(params[key]) if isinstance(params[key], list) else params[key]
    return tomlkit.dumps(document)


def _array(values: list[str]) -> Any:
    import tomlkit

    made = tomlkit.array()
    made.extend(values)
    return made.multiline(len(values) > IN_A_LINE)
