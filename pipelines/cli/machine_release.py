"""What the tasks on releases call where an image is a machine's: the same verbs, at AWS."""

from __future__ import annotations

from hardening.model import Kind
from images.artifact import Release
from images.aws import channels
from images.aws.cloud import Cloud
from images.aws.expiry import Fate, Step
from images.aws.orphans import Reaping, reap
from images.aws.rebuild import rebuild_machines
from images.aws.retire import walk
from images.aws.show import ShownMachine, show_machine
from images.context import Context
from images.release.channels import Change
from pipelines.contract import Line, PruneLine
from pipelines.wiring import image_context

REAP_COLUMNS = {"what": "kind", "where": "where", "image": "name", "action": "action", "because": "why"}
DONE = {Step.DEPRECATE: "deprecated", Step.DISABLE: "disabled", Step.REMOVE: "removed"}


class ReapLine(Line):
    """`image.reap`: one thing at AWS with our tags that no line of the ledger owns: keep, remove (planned), removed."""

    kind: str
    where: str
    name: str
    action: str
    why: str


def is_machine(context: Context, name: str) -> bool:
    """Whether a definition is a machine's."""
    loaded = context.definitions.get(name)
    return loaded is not None and loaded.definition.kind is Kind.MACHINE


def machine_meant(context: Context, ref: str) -> str:
    """The name of the machine that a reference means: a definition's, `name:channel`, or an image's id; else empty."""
    name = ref.partition(":")[0].partition("@")[0]
    return name if ref.startswith("ami-") or is_machine(context, name) else ""


def machine_release(context: Context, ref: str) -> Release | None:
    """The machine release that a digest, a name or `name:channel` means; None where it is no machine's."""
    if ref.startswith("sha256:"):
        known = context.ledger.release(ref)
        return known if known and known.repository.startswith("aws/") else None
    name, _, channel = ref.partition(":")
    if not is_machine(context, name):
        return None
    return channels.release_at(context.cloud, name, channel or "candidate")


def revoke_machine(cloud: Cloud, release: Release, reason: str) -> list[Change]:
    """Take a machine's release, and every one over the same content, out of policy."""
    return list(channels.revoke(cloud, release.digest, reason))


def show_machine_release(context: Context, ref: str) -> ShownMachine:
    """Everything about a machine's release, from AWS alone."""
    machines = [name for name in context.definitions if is_machine(context, name)]
    return show_machine(context.cloud, ref, machines)


def prune_machines(context: Context, *, apply: bool) -> list[PruneLine]:
    """The expiry walk, where AWS is set."""
    if not context.settings.aws.region:
        return []
    return [_walk_line(fate, apply=apply) for fate in walk(context.cloud, apply=apply)]


def rebuild_from_aws(context: Context) -> tuple[Release, ...]:
    """Fill the ledger from AWS, where it is set."""
    return rebuild_machines(context.cloud) if context.settings.aws.region else ()


def reap_leavings(*, apply: bool) -> list[ReapLine]:
    """What killed runs left at AWS, and what becomes of it."""
    found = reap(image_context(looks=not apply).cloud, apply=apply)
    return [_reap_line(reaping, apply=apply) for reaping in found]


def _walk_line(fate: Fate, *, apply: bool) -> PruneLine:
    name = fate.ami.release.name if fate.ami.release else fate.ami.name
    action = DONE.get(fate.step, fate.step.value) if apply else fate.step.value
    return PruneLine(name=name, release=fate.ami.where, action=action, why=fate.why)


def _reap_line(reaping: Reaping, *, apply: bool) -> ReapLine:
    action = ("removed" if apply else "remove") if reaping.remove else "keep"
    found = reaping.found
    return ReapLine(kind=found.kind, where=found.where, name=found.name, action=action, why=reaping.why)
