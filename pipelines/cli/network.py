"""What `network.render`, `network.apply` and `network.check` call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from typing import TYPE_CHECKING, Any

from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, UsageError
from hardening.foundation.locks import only_one
from images.catalog import LoadedDefinition
from images.context import Context
from pipelines.cli.image_output import show
from pipelines.cli.rendering import RenderedLine, rendered_lines
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.network import comparing, definitions, docker_networks, kubernetes, security_groups
from pipelines.network.catalog import require_network, require_role
from pipelines.network.comparing import NetworkDifference, Openness
from pipelines.network.model import Network, overdue, overdue_text
from pipelines.network.nftables import CONTROL, Params, firewall_params
from pipelines.wiring import fleet_host, image_context

if TYPE_CHECKING:
    from pipelines.network.security_groups import GroupKey

_Tell = Callable[[str], None]
KINDS = ("nftables", "security-groups", "docker", "kubernetes")
DIFF = "kubectl diff -f shows what differs there"
OTHER_HOST = "a fleet names it, and networks are those of the engine of the settings (docker.host)"
STEP_COLUMNS = {"kind": "kind", "where": "where", "action": "action", "what": "what", "done": "done_cell"}
DIFFERENCE_COLUMNS = {"where": "where", "is": "verdict", "what": "what"}


class NetworkStepLine(Line):
    """`network.apply`: one change, in the order in which it is made; `done` with `--apply`.

    `kind` and its `action`: nftables (write, into a definition), security-groups (authorize, revoke), docker (create,
    connect, disconnect, remove).
    """

    kind: str
    where: str
    action: str
    what: str
    done: bool

    @property
    def done_cell(self) -> str:
        """Whether it is done, in a table."""
        return "yes" if self.done else "planned"


class NetworkDifferenceLine(Line):
    """`network.check`: one difference. `verdict`: too-open, too-closed, unknown (it could not be read), or overdue."""

    where: str
    verdict: Openness
    what: str


def chosen(kind: str, network: Network) -> list[str]:
    """The kinds that are meant; of `all` those that some role has. Raises UsageError for another one, ContentError for
    one that no role has.
    """
    if kind != "all" and kind not in KINDS:
        raise UsageError(f"unknown kind: {kind}", hint=f"there are {', '.join(KINDS)}; or all")
    keys = {
        "nftables": "definitions",
        "security-groups": "security_groups",
        "docker": "containers",
        "kubernetes": "pods",
    }
    had = [one for one in KINDS if any(getattr(role, keys[one]) for role in network.roles.values())]
    if kind != "all" and kind not in had:
        raise ContentError(f"no role has {keys[kind]}, by which {kind} identifies members",
                           hint="docs/network.md shows them")  # fmt: skip
    return had if kind == "all" else [kind]


# --- network.render -------------------------------------------------------------------------------------------------


def render_network(kind: str, *, output: str, force: bool, context: Context | None = None) -> list[RenderedLine]:
    """What the network means to each kind, and with `output` write the files into that folder.

    Raises ContentError where a rule cannot be said to a kind, UsageError for a file that is there unless `force`.
    """
    context = context or image_context(looks=True)
    network = require_network(context.settings.roots)
    renderers: dict[str, Callable[[], dict[str, str]]] = {
        "nftables": lambda: _nftables(network, context), "security-groups": lambda: _security_groups(network, context),
        "docker": lambda: _docker(network), "kubernetes": lambda: _kubernetes(network),
    }  # fmt: skip
    return rendered_lines({one: renderers[one]() for one in chosen(kind, network)}, output, force=force)


def _nftables(network: Network, context: Context) -> dict[str, str]:
    """The ruleset of each definition, by the control's own template and the definition's own profile."""
    return {
        f"{loaded.name}.nft": ruleset(loaded, firewall_params(network, role), context)
        for role, loaded in definitions.machines_of(network, context.definitions)
    }


def ruleset(loaded: LoadedDefinition, params: Params, context: Context) -> str:
    """The file that the control `firewall` installs with these params."""
    from hardening.catalog import load_profile
    from hardening.render import render

    profile = load_profile(context.settings.roots, loaded.definition.profile)
    mine = tuple(one for one in profile.controls if one.control == CONTROL)
    over = {key: value for key, value in loaded.definition.profile_params.get(CONTROL, {}).items()
            if key not in definitions.MANAGED}  # fmt: skip
    only = profile.model_copy(update={"controls": mine})
    overlay = render(only, context.controls, {CONTROL: over | params}, {"kind": "machine"}, context.now.date())
    return overlay.files[0].content


def _security_groups(network: Network, context: Context) -> dict[str, str]:
    wanted = _wanted_groups(network, context, say)
    return {f"{key[2]}.json": _document(_group(key, rules)) for key, rules in wanted.items()}


def _wanted_groups(network: Network, context: Context, tell: _Tell) -> security_groups.Rules:
    """The rules of all groups; who cannot be named in them is told."""
    from pipelines.network.groups_edge import own_account

    account = own_account(context.cloud, network)
    for key, what in security_groups.unnamed_peers(network, account):
        tell(f"note: {'/'.join(key)}: {what}")
    return security_groups.wanted_rules(network, account)


def _group(key: GroupKey, rules: frozenset[security_groups.GroupRule]) -> dict[str, Any]:
    account, region, group = key
    sides = {"IpPermissions": "ingress", "IpPermissionsEgress": "egress"}
    requests = {
        name: security_groups.as_request([one for one in rules if one.direction == side], account)
        for name, side in sides.items()
    }
    return {"Account": account, "Region": region, "GroupId": group, **requests}


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _docker(network: Network) -> dict[str, str]:
    by_role = docker_networks.networks_of(network)
    every = sorted({one for networks in by_role.values() for one in networks})
    told = [
        {"name": one.name, "internal": one.internal, "icc": one.icc,
         "roles": sorted(role for role, networks in by_role.items() if one in networks)}
        for one in every
    ]  # fmt: skip
    return {"docker-networks.json": _document(told)}


def _kubernetes(network: Network) -> dict[str, str]:
    import yaml  # type: ignore[import-untyped]

    return {"network-policies.yaml": yaml.safe_dump_all(kubernetes.policies(network), sort_keys=False)}


# --- network.apply --------------------------------------------------------------------------------------------------


def apply_network(
    kind: str, *, apply: bool, context: Context | None = None
) -> tuple[list[NetworkStepLine], list[GoldsmithError]]:
    """The changes until all is as the network says, made one by one with `apply`; and what went wrong by kind.

    Raises ContentError where the network is wrong, UsageError where it has nothing that is changed from here,
    RefusedError while another process applies it.
    """
    context = context or image_context(looks=not apply)
    network = require_network(context.settings.roots)
    kinds, rendered = chosen(kind, network), "NetworkPolicies are rendered, and not applied from here"
    if kind == "kubernetes":
        hint = "./goldsmith network.render kubernetes, and have it applied by what keeps your cluster"
        raise UsageError(rendered, hint=hint)
    if "kubernetes" in kinds:
        kinds.remove("kubernetes")
        say(f"note: kubernetes: {rendered}")
    if not kinds:
        hint = "./goldsmith network.render shows what the network means to each kind"
        raise UsageError("no role has members that are changed from here", hint=hint)
    with changing_network(context) if apply else nullcontext():
        return _run(kinds, network, context, apply=apply)


def changing_network(context: Context) -> AbstractContextManager[None]:
    """Let nobody else change the network meanwhile. Raises RefusedError while somebody does."""
    return only_one(context.settings.state_dir / "locks" / "network.lock", "a change of the network")


def show_steps(lines: Sequence[NetworkStepLine], errors: Sequence[GoldsmithError], *, as_json: bool) -> int:
    """Print the changes, and what went wrong; the exit code."""
    empty = "no change is known" if errors else "nothing to change: all is as the network says"
    return show(lines, errors, columns=STEP_COLUMNS, as_json=as_json, empty=empty, long="what")


def _run(
    kinds: Sequence[str], network: Network, context: Context, *, apply: bool
) -> tuple[list[NetworkStepLine], list[GoldsmithError]]:
    """Plan each kind, and act. What one kind lacks stops no other."""
    lines, errors = list[NetworkStepLine](), list[GoldsmithError]()
    for kind in kinds:
        try:
            if apply:
                _act(kind, network, context, lines)
            else:
                lines += [
                    NetworkStepLine(kind=kind, **told, done=False) for told, _ in _planned(kind, network, context)
                ]
        except GoldsmithError as error:
            errors.append(error)
    return lines, errors


def _planned(kind: str, network: Network, context: Context, tell: _Tell = say) -> Sequence[_Step]:
    """The steps of one kind, from what is there now; what no step can do is told."""
    if kind == "nftables":
        return _plan_definitions(network, context.over_content(context.settings.roots))
    return _plan_groups(network, context, tell) if kind == "security-groups" else _plan_engine(network, context, tell)


def _act(kind: str, network: Network, context: Context, lines: list[NetworkStepLine]) -> None:
    """Do the steps of one kind; the audit says so before and after each, and what failed. Then it is read again."""
    steps, at = _planned(kind, network, context), len(lines)
    lines += [NetworkStepLine(kind=kind, **told, done=False) for told, _ in steps]
    if not steps:
        return

    def note(where: str, what: str) -> None:
        context.ledger.audit(context.now, context.actor, "network", where, what)

    note(kind, f"{len(steps)} steps begin")
    for number, (told, act) in enumerate(steps, start=at):
        where, what = told["where"], f"{told['action']}: {told['what']}"
        note(where, f"begins: {what}")
        try:
            act()
        except GoldsmithError as error:
            note(where, f"failed: {what}: {error.message}")
            raise
        note(where, f"done: {what}")
        lines[number] = lines[number].model_copy(update={"done": True})
    if left := _planned(kind, network, context, tell=lambda _: None):
        evidence = "\n".join(f"{told['where']}: {told['action']} {told['what']}" for told, _ in left)
        hint = "somebody else changes it too, or it was not taken: run it again"
        raise OutsideError(
            f"{kind}: after the change something still differs from the network", evidence=evidence, hint=hint
        )


_Step = tuple[dict[str, str], Callable[[], None]]


def _plan_definitions(network: Network, context: Context) -> Sequence[_Step]:
    from images.packages.index import write_atomically

    def act(step: definitions.DefinitionStep) -> None:
        text = step.file.read_text()
        write_atomically(step.file, definitions.with_params(text, step.after), step.file.stat().st_mode & 0o777)

    return [
        ({"where": str(one.file), "action": "write", "what": one.told()}, lambda one=one: act(one))  # type: ignore[misc]
        for one in definitions.steps(network, context.definitions)
    ]


def _plan_groups(network: Network, context: Context, tell: _Tell) -> Sequence[_Step]:
    from pipelines.network.groups_edge import change_group, read_groups

    wanted = _wanted_groups(network, context, tell)
    seen = read_groups(context.cloud, wanted)
    unread = [f"{'/'.join(key)}: {found}" for key, found in seen.items() if isinstance(found, str)]
    if unread:
        raise OutsideError("not every security group could be read: none is changed", evidence="\n".join(unread))
    before: dict[Any, Any] = {**seen}
    return [
        (
            {"where": "/".join(one.group), "action": one.action, "what": _rules_told(one)},
            lambda one=one: change_group(context.cloud, one),  # type: ignore[misc]
        )
        for one in security_groups.ordered(before, wanted)
    ]


def _rules_told(step: security_groups.GroupRuleStep) -> str:
    return "; ".join(str(one.opening(step.group[2])) for one in step.permissions)


def _plan_engine(network: Network, context: Context, tell: _Tell) -> Sequence[_Step]:
    from pipelines.network.engine_edge import change_engine, read_engine

    host, wanted = fleet_host(context), docker_networks.networks_of(network)
    seen = read_engine(host, network)
    if wrong := [*docker_networks.conflicts(seen, wanted)]:
        hint = "./goldsmith network.check docker shows all; rename or remove what is in the way"
        raise RefusedError("the networks of the engine cannot be changed", evidence="\n".join(wrong), hint=hint)
    for label in _other_hosts(context, host):
        tell(f"note: the networks of {label} are not changed: {OTHER_HOST}")
    for one in seen.containers:
        if one.fixed:
            tell(f"note: {one.name} runs with --network {one.mode}: its networks cannot be changed while it is there")
    for name in sorted(one.name for one in {each for networks in wanted.values() for each in networks}):
        for line in docker_networks.strangers(seen, name):
            tell(f"note: {line}: network.apply changes only containers of roles")
    return [
        (
            {"where": one.network.name, "action": one.action, "what": one.container or _options(one.network)},
            lambda one=one: change_engine(host, one),  # type: ignore[misc]
        )
        for one in docker_networks.ordered(seen, wanted)
    ]


def _options(network: docker_networks.EngineNetwork) -> str:
    return "internal" if network.internal else "leads outside; containers on it do not reach each other"


# --- network.check --------------------------------------------------------------------------------------------------


def check_network(
    kind: str, role: str = "", ruleset_file: str = "", sockets_file: str = "", context: Context | None = None
) -> list[NetworkDifferenceLine]:
    """What differs from the network: of one machine, where `role` is given; else of all that is seen from here.

    Raises ContentError where the network is wrong, UsageError for files without a role.
    """
    context = context or image_context(looks=True)
    network = require_network(context.settings.roots)
    if role:
        found = _machine(network, require_role(network, role), ruleset_file, sockets_file)
    elif ruleset_file or sockets_file:
        raise UsageError("--ruleset and --sockets are of one machine", hint="--role says which role it has")
    else:
        found = _all(kind, network, context)
    return [NetworkDifferenceLine.of(one) for one in (*found, *_overdue(network, context.now.date()))]


def _overdue(network: Network, today: date) -> Iterator[NetworkDifference]:
    for placed, days in overdue(network, today):
        yield NetworkDifference(f"{placed.file}", Openness.OVERDUE, overdue_text(placed, days).partition(": ")[2])


def _machine(network: Network, role: str, ruleset_file: str, sockets_file: str) -> Iterator[NetworkDifference]:
    from pipelines.network.machine_edge import read_ruleset, read_sockets

    here = not (ruleset_file or sockets_file)
    if here or ruleset_file:
        where = ruleset_file or "this machine"
        yield from _read(where, lambda: comparing.compare_ruleset(network, role, read_ruleset(ruleset_file), where))
    else:
        yield _not_given(role, "--ruleset")
    if here or sockets_file:
        where = sockets_file or "this machine"
        yield from _read(where, lambda: comparing.compare_sockets(network, role, read_sockets(sockets_file), where))
    else:
        yield _not_given(role, "--sockets")


def _not_given(role: str, option: str) -> NetworkDifference:
    return NetworkDifference(f"a machine of {role}", Openness.UNKNOWN, f"not read: give {option} too")


def _read(where: str, look: Callable[[], Iterator[NetworkDifference]]) -> list[NetworkDifference]:
    """What a look finds; where it could not be read, that."""
    try:
        return list(look())
    except (OutsideError, RefusedError) as error:
        return [NetworkDifference(where, Openness.UNKNOWN, error.message)]


def _all(kind: str, network: Network, context: Context) -> Iterator[NetworkDifference]:
    kinds = chosen(kind, network)
    if not kinds:
        yield NetworkDifference("the network", Openness.UNKNOWN, "no role has members that are looked at from here")
    for one in kinds:
        if one == "nftables":
            yield from definitions.differences(network, context.definitions)
        elif one == "security-groups":
            yield from _read(one, lambda: _groups(network, context))
        elif one == "docker":
            yield from _read(one, lambda: _engine(network, context))
        elif kind == one:
            raise UsageError("the policies of a cluster are not read", hint=DIFF)
        else:
            yield NetworkDifference(one, Openness.UNKNOWN, f"the policies of a cluster are not read from here: {DIFF}")


def _groups(network: Network, context: Context) -> Iterator[NetworkDifference]:
    from pipelines.network.groups_edge import own_account, read_groups, read_interfaces

    account = own_account(context.cloud, network)
    wanted = security_groups.wanted_rules(network, account)
    yield from comparing.compare_groups(wanted, read_groups(context.cloud, wanted))
    yield from comparing.compare_interfaces(network, account, read_interfaces(context.cloud, wanted))
    for key, what in security_groups.unnamed_peers(network, account):
        yield NetworkDifference("/".join(key), Openness.UNKNOWN, what)


def _engine(network: Network, context: Context) -> Iterator[NetworkDifference]:
    from pipelines.host.private_engine import PrivateEngine
    from pipelines.network.engine_edge import read_engine

    host, wanted = fleet_host(context), docker_networks.networks_of(network)
    walled = host != PrivateEngine(context.settings).host
    yield from comparing.compare_engine(network, wanted, read_engine(host, network), "engine", walled=walled)
    for label in _other_hosts(context, host):
        yield NetworkDifference(label, Openness.UNKNOWN, f"the containers of this host are not looked at: {OTHER_HOST}")


def _other_hosts(context: Context, host: str) -> list[str]:
    """The hosts that fleets name themselves, but for the engine that is looked at."""
    fleets = load_fleets(context.settings.roots).values()
    return sorted({one.label for fleet in fleets for one in fleet.docker.addresses if one.text != host})


def show_differences(lines: Sequence[NetworkDifferenceLine], *, as_json: bool) -> int:
    """Print the differences; the exit code: 4 where something could not be read, 3 where something differs."""
    empty = "nothing differs from the network"
    show(lines, columns=DIFFERENCE_COLUMNS, as_json=as_json, empty=empty, long="what")
    verdicts = {one.verdict for one in lines}
    if Openness.UNKNOWN in verdicts:
        return OutsideError.exit_code
    return RefusedError.exit_code if verdicts - {Openness.OVERDUE} else 0
