"""What `control.*`, `policy.show` and `fleet.list` print of the content."""

from __future__ import annotations

from hardening.catalog import load_controls, load_policies, load_profiles
from hardening.foundation.console import out, print_json
from hardening.foundation.content import select
from hardening.foundation.durations import shown
from hardening.foundation.settings import load_settings
from hardening.model import Policy, Profile, Rule
from pipelines.contract import ControlLine, ControlOutput, FleetLine
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.model import Replacement

CONTROL_COLUMNS = {"control": "id", "severity": "severity", "title": "title", "profiles": "profiles"}
FLEET_COLUMNS = {
    "fleet": "name",
    "kind": "kind",
    "policy": "policy",
    "replacement": "replacement",
    "approval": "approval",
}


def control_lines() -> list[ControlLine]:
    """One line for each control, with the profiles it stands in."""
    roots = load_settings().roots
    profiles = load_profiles(roots)
    return [
        ControlLine(
            id=name, title=loaded.control.title, severity=loaded.control.severity,
            applies_to=loaded.control.applies_to, profiles=tuple(_standing(name, profiles)),
        )
        for name, loaded in sorted(load_controls(roots).items())
    ]  # fmt: skip


def _standing(control: str, profiles: dict[str, Profile]) -> dict[str, str]:
    """Profile → enforcement, for every profile that `control` stands in."""
    return {
        name: entry.enforcement
        for name, profile in sorted(profiles.items())
        for entry in profile.controls
        if entry.control == control
    }


def show_control(name: str, *, as_json: bool) -> None:
    """Print one control whole: why it is there, what it costs, what to do instead, how it is checked."""
    roots = load_settings().roots
    controls = load_controls(roots)
    loaded = controls[select(name, controls, "control")[0]]
    profiles = _standing(loaded.control.id, load_profiles(roots))
    if as_json:
        output = ControlOutput(
            control=loaded.control.model_dump(mode="json"), profiles=profiles, folder=str(loaded.folder)
        )
        print_json(output.model_dump(mode="json"))
        return
    control = loaded.control
    texts = [
        f"{control.id} ({control.severity}): {control.title}", f"Owner: {control.owner}",
        f"\nWhy\n{control.rationale}", f"\nWhat it costs\n{control.cost}",
        "\nReferences\n" + "\n".join(f"  {name}: {', '.join(numbers)}" for name, numbers in control.references.items()),
        "\nParameters\n" + ("\n".join(f"  {n} = {p.default!r}: {p.help}" for n, p in control.params.items()) or "  none"),
        "\nProfiles\n" + ("\n".join(f"  {name}: {how}" for name, how in profiles.items()) or "  none"),
        f"\nCheck: {loaded.folder}/check.sh",
    ]  # fmt: skip
    for text in texts:
        out().print(text, markup=False)


def show_policies(name: str, *, as_json: bool) -> None:
    """Print what policies ask, rule by rule."""
    policies = load_policies(load_settings().roots)
    chosen = [policies[found] for found in select(name, policies, "policy")]
    if as_json:
        print_json([policy.model_dump(mode="json") for policy in chosen])
        return
    for policy in chosen:
        _show_policy(policy)


def _show_policy(policy: Policy) -> None:
    lines = [f"{policy.name}: {policy.title}", policy.rationale.strip(), f"Owner: {policy.owner}"]
    lines += [f"Review by: {policy.review_by}", f"Exceptions: {policy.exception_contact}", "To be published:"]
    judges = policy.image.judges
    lines.append(
        f"  {judges.minimum} vulnerability scanner(s) evaluated, data at most {shown(judges.data_max_age)} old: "
        f"{judges.enforcement}"
    )
    lines += [
        f"  {window.severity}{' and exploited' if window.exploited else ''}: fixed within {shown(window.within)}: "
        f"{window.enforcement}"
        for window in policy.image.vulnerabilities
    ]
    lines.append("To keep running:")
    for rule_name in type(policy.running).model_fields:
        rule = getattr(policy.running, rule_name)
        if isinstance(rule, Rule):
            lines.append(f"  {rule_name}: {rule.enforcement} after a grace of {shown(rule.grace)}")
    out().print("\n".join(lines) + "\n", markup=False)


def fleet_lines() -> list[FleetLine]:
    """One line for each fleet."""
    fleets = load_fleets(load_settings().roots)
    return [
        FleetLine(
            name=name, title=fleet.title, kind=fleet.kind, selector=fleet.selector, policy=fleet.policy,
            replacement=_replacement(fleet.replacement), approval=fleet.approval,
        )
        for name, fleet in sorted(fleets.items())
    ]  # fmt: skip


def _replacement(replacement: Replacement) -> str:
    return replacement.tag or f"{replacement.definition}:{replacement.channel}"
