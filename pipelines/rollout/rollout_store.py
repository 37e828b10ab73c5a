"""Rollouts seen and commanded from outside, by the ledger: status, history, commands. Edge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from images.context import Context
from images.documents import from_json
from images.ledger import ApprovedPlanRow, AuditLine, Lease, Ledger, Rollout
from images.ledger import CommandRow as Given
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.members import BACK, ReplacementImage
from pipelines.fleet.model import Fleet
from pipelines.rollout.state import (
    FINAL,
    Command,
    DesiredState,
    MemberState,
    OperatorCommands,
    Order,
    Phase,
    RolloutStage,
    RolloutState,
    put_back,
)


@dataclass(frozen=True)
class View:
    """A rollout as the ledger shows it. `state` is None before its first step; `lease`: who has the fleet now.

    `commands`: what people told it, in that order. `carried`: whether a process holds the lease for it, and lives.
    `plan`: the approved plan that it used.
    """

    row: Rollout
    state: RolloutState | None
    order: Order
    members: tuple[MemberState, ...]
    lease: Lease | None
    commands: tuple[Given, ...]
    carried: bool
    plan: ApprovedPlanRow | None = None

    @property
    def replacement(self) -> str:
        """What members or groups become, exactly."""
        return self.order.plan.targets[0].reference

    @property
    def back(self) -> bool:
        """Whether it brings members or groups back from that to what they ran."""
        return bool(self.order.back)

    @property
    def waves(self) -> int:
        """How many waves there are; each group is one."""
        return self.order.plan.parts


def view(context: Context, row: Rollout) -> View:
    """The rollout with all that the ledger knows of it, its members in the order of their waves."""
    order = Order.read(row.order)
    members = members_of(context.ledger, row.id, order)
    state = from_json(RolloutState, row.state) if row.state else None
    lease = context.ledger.lease(row.fleet)
    carried = _carried(context, row, lease)
    commands, plan = context.ledger.commands(row.id), context.ledger.plan_of(row.id)
    return View(row, state, order, members, lease, commands, carried, plan)


def _carried(context: Context, row: Rollout, lease: Lease | None) -> bool:
    return lease is not None and lease.rollout == row.id and _lives(context, lease)


def _lives(context: Context, lease: Lease) -> bool:
    """Whether a lease's owner is alive: by the engine's lock, which dies with it and not before, also while it sleeps;
    by the lease where no lock tells.
    """
    from pipelines.durable.dbos import engaged, engine_url

    try:
        lives = engaged(engine_url(context.settings.database_url, lease.fleet))
    except OutsideError:  # another user's lock
        lives = None
    return lease.until > context.ledger.now() if lives is None else lives


def members_of(ledger: Ledger, rollout: str, order: Order) -> tuple[MemberState, ...]:
    """How far members and groups are, in the order of their waves; of a way back those that go it."""
    saved, going = ledger.rollout_members(rollout), {one.id for one in order.back}
    return tuple(
        from_json(MemberState, saved[member]) if member in saved else MemberState(member, name)
        for member, name in order.plan.names.items()
        if member in going or not going
    )


def require_known(context: Context, fleet: str) -> None:
    """Raise ContentError for a name that is no fleet's. What was rolled is known by that, whatever its file says now:
    content that is broken or gone must not keep anybody from an abort.
    """
    if not context.ledger.rollouts(fleet, 1):
        load_fleet(context.settings.roots, fleet)


def missing_file(context: Context, fleet: str) -> str:
    """The fleet's file where it is gone; else empty."""
    file = f"pipelines/fleets/{fleet}.toml"
    return "" if any((root / file).exists() for root in context.settings.roots) else file


def fleet_of(context: Context, name: str) -> Fleet:
    """The fleet `name`. Raises ContentError, which names the file to put back where its rollout is open."""
    if error := file_is_gone(context, name):
        raise error
    return load_fleet(context.settings.roots, name)


def file_is_gone(context: Context, name: str) -> ContentError | None:
    """The error of a fleet whose file is gone and whose rollout is open; it names the file to put back."""
    file = missing_file(context, name)
    if not file or not (rows := context.ledger.open_rollouts(name)):
        return None
    hint = f"{put_back(file)}repeat the command"
    return ContentError(f"the file of {name} is gone, and its rollout {rows[0].id} is open", hint=hint)


def without_file(context: Context) -> list[str]:
    """The fleets whose file is gone and whose open rollout no process executes."""
    rows = [row for row in context.ledger.open_rollouts() if missing_file(context, row.fleet)]
    return sorted({row.fleet for row in rows if not _carried(context, row, context.ledger.lease(row.fleet))})


def newest(context: Context, fleet: str) -> View:
    """The fleet's open rollout, else its last one. Raises RefusedError where there was none."""
    rows = context.ledger.open_rollouts(fleet) or context.ledger.rollouts(fleet, 1)
    if not rows:
        hint = f"./goldsmith roll.plan {fleet} shows what one would do"
        raise RefusedError(f"{fleet} has not been rolled by this ledger", hint=hint)
    return view(context, rows[0])


MOST_FAILED = 2  # a second try, for what only failed in passing


def why_not_again(ledger: Ledger, fleet: str, target: ReplacementImage) -> str:
    """Why an automated run does not take a replacement again that the fleet has tried: people took it back, or it has
    failed too often; empty where it may. Goldsmith cannot change what a tag of others names.
    """
    failed = list[str]()
    for found in ledger.ended_rollouts(fleet):
        state = from_json(RolloutState, found)
        if state.target.rpartition("@")[2] != target.digest:
            continue
        again = f"./goldsmith roll.start {fleet} rolls to it anyway"
        if state.id.endswith(BACK) or commands_of(ledger, state.id).desired_state is DesiredState.ROLLBACK:
            return f"{state.id} took it back; {again}"
        if not state.failure:
            return ""
        failed.append(state.id)
        if len(failed) == MOST_FAILED:
            return f"{' and '.join(reversed(failed))} failed with it; {again}"
    return ""


def commands_of(ledger: Ledger, rollout: str) -> OperatorCommands:
    """What people have asked of a rollout."""
    return OperatorCommands.given([one.command for one in ledger.commands(rollout)])


def history(context: Context, fleet: str) -> Iterator[View]:
    """Every rollout of the fleet, the newest first; each is read as its turn comes."""
    for rollout in context.ledger.rollout_ids(fleet):
        if row := context.ledger.rollout(rollout):
            yield view(context, row)


def told(context: Context, fleet: str, rollout: str) -> tuple[AuditLine, ...]:
    """What was done in a rollout of the fleet, by whom, the oldest first. Raises RefusedError where there was none."""
    row = context.ledger.rollout(rollout)
    if row is None or row.fleet != fleet:
        hint = f"./goldsmith roll.history {row.fleet if row else fleet} lists {'it' if row else 'those that it knows'}"
        raise RefusedError(f"the ledger knows no rollout {rollout} of {fleet}", hint=hint)
    return context.ledger.audit_lines(subject=rollout, limit=100_000)


def tell(context: Context, fleet: str, command: Command, reason: str = "") -> View:
    """Give a command to the fleet's open rollout, and wake it.

    Raises RefusedError where none is open, where a final command was already given, or where nothing waits
    for the approval that is given.
    """
    rows = context.ledger.open_rollouts(fleet)
    if not rows:
        hint = f"./goldsmith roll.history {fleet} shows those that are over"
        raise RefusedError(f"no rollout of {fleet} is under way", hint=hint)
    rollout = rows[0].id
    desired_state = commands_of(context.ledger, rollout).desired_state
    if desired_state in FINAL.values():
        raise RefusedError(f"{rollout} was already told to {desired_state}", hint=f"./goldsmith roll.status {fleet}")
    if command is Command.APPROVE:
        refuse_unasked(view(context, rows[0]))
    from pipelines.durable.dbos import engine_url, wake

    context.ledger.give_command(Given(rollout, command, context.actor, datetime.now(UTC)), reason)
    wake(engine_url(context.settings.database_url, fleet), rollout)
    return view(context, rows[0])


def refuse_unasked(seen: View) -> None:
    """Raise RefusedError where nothing bakes: an approval counts from then on, and an earlier one would be lost. What
    is paused may bake once a member is new.
    """
    stage = seen.state.stage if seen.state else RolloutStage.ROLLING
    paused = stage is RolloutStage.PAUSED and any(one.phase in (Phase.SERVING, Phase.NEW) for one in seen.members)
    if not paused and stage not in (RolloutStage.BAKING, RolloutStage.CANARY_APPROVAL):
        hint = f"./goldsmith roll.status {seen.row.fleet} --watch shows when its canary bakes"
        raise RefusedError(f"{seen.row.id} is {stage}: nothing waits for approval yet", hint=hint)
