"""Which replacements must not be started: a new container like the old one would break an enforced rule. Pure.

A rollout takes over what a container was started with. So without these, each roll would start again what the policy
forbids, and start the rule's grace again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from shlex import join

from hardening.findings import Reason
from hardening.foundation.errors import RefusedError
from hardening.model import Enforcement
from hardening.policy import Policy
from hardening.running import UNREAD
from hardening.runtime import STARTED_WITH, ContainerFacts
from pipelines.fleet.members import Changes
from pipelines.fleet.model import FleetKind
from pipelines.fleet.violations import FleetJudge, Judged

OF_CONTAINERS = (FleetKind.DOCKER, FleetKind.KUBERNETES, FleetKind.ECS)


def enforced(kind: FleetKind, policy: Policy, today: date) -> tuple[str, ...]:
    """The rules about what a container is started with that the policy enforces on that day; of no other kind any."""
    running = policy.on(today).running
    if kind not in OF_CONTAINERS:
        return ()
    return tuple(sorted(name for name in STARTED_WITH if getattr(running, name).enforcement is Enforcement.ENFORCE))


def broken(fleet: str, rules: Sequence[str], by: FleetJudge, one: Judged, change: Changes) -> tuple[str, ...]:
    """The enforced `rules` that the member's replacement would break, a line for each, with what to do.

    How a member runs that could not be read may break any of them.
    """
    if not rules:
        return ()
    if not isinstance(one.facts, ContainerFacts):
        return (f"how it is started could not be read, and {', '.join(rules)} must hold: fix the access to it",)
    facts = one.facts
    asked = [name for name in rules if name != "root_user" or change.user is None]
    facts = replace(facts, unread=tuple(line for line in facts.unread if line[0] in asked))
    if change.user is not None:
        facts = replace(facts, user=change.user)
    elif change.unread and "root_user" in rules and facts.user == facts.image_user:
        others = (line for line in facts.unread if line[0] != "root_user")
        facts = replace(facts, unread=(*others, ("root_user", change.unread)))
    return tuple(_told(fleet, one, reason) for reason in by.as_started(one, facts))


def _told(fleet: str, one: Judged, reason: Reason) -> str:
    """A broken rule, with what to do, and how a waiver is written."""
    if reason.rule == UNREAD and reason.remedy:
        unread = (line.partition(": ") for line in reason.remedy.evidence)
        told = "; ".join(f"{rule} must hold, and could not be judged: {why}" for rule, _, why in unread)
        return f"{told}; {reason.todo}"
    subject, rule = f"{fleet}/{one.member.name}", reason.rule.replace("_", "-")
    words = join(["./goldsmith", "waiver.new", subject, rule, "--reason", "WHY", "--approver", "WHO"])
    return f"{reason.rule} is enforced: {reason.what.partition(' (since ')[0]}; {reason.todo}; or waive it: {words}"


def refuse_all_broken(judged: Sequence[Judged], changes: Mapping[str, Changes]) -> None:
    """Refuse a plan where these rules keep every member from being replaced that could be, naming rule and waiver."""
    may = [one for one in judged if one.violations and not one.member.cannot_roll]
    bad = {one.member.name: changes[one.member.id].breaks for one in may}
    if bad and all(bad.values()):
        evidence = "\n".join(f"{name}: {line}" for name, lines in bad.items() for line in lines)
        what = f"{len(bad)} member(s) may not be replaced as they are: a replacement must keep the enforced rules"
        raise RefusedError(
            what, evidence=evidence, hint="change it where the container is defined, or write the waiver"
        )
