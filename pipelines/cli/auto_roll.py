"""`roll.auto`: brings fleets back into policy, several in parallel. Edge."""

from __future__ import annotations

from shlex import quote

from hardening.foundation.console import say
from hardening.foundation.content import select
from hardening.foundation.errors import GoldsmithError, as_ours
from hardening.foundation.process import ROLLS, interruptible, threads
from images.context import Context
from pipelines.cli.image_output import ended_by
from pipelines.fleet.catalog import load_fleets
from pipelines.nightly.fleet_stage import bring_into_policy, in_turn
from pipelines.rollout.rollout_store import without_file
from pipelines.rollout.service import WAITS, AutoLine, automated
from pipelines.rollout.session import fleet_session
from pipelines.wiring import image_context

AUTO_COLUMNS = {"fleet": "fleet", "outcome": "outcome", "detail": "detail"}


@interruptible(ROLLS)
def auto_roll(name: str, *, apply: bool, context: Context | None = None) -> tuple[list[AutoLine], list[GoldsmithError]]:
    """Bring the fleets that `name` means back into policy, as far as their files let an automated run.

    One is rolled in this process. Several are looked at and rolled side by side, so many as `parallel` under
    `[nightly]` says, each that is rolled in a process of its own. One that fails stops no other. Raises ContentError
    where no fleet has this name.
    """
    context = context or image_context(looks=not apply)
    fleets = load_fleets(context.settings.roots)
    names = select(name, {*fleets, *without_file(context)}, "fleet")
    until = context.now + WAITS  # for all of them together

    def alone(fleet: str) -> AutoLine:
        with fleet_session(fleet, context) as at:
            return automated(at, apply=apply, until=until)

    def ended(fleet: str) -> tuple[AutoLine, GoldsmithError | None]:
        try:
            elsewhere = apply and len(names) > 1 and fleet in fleets
            line = bring_into_policy(context, fleet) if elsewhere else alone(fleet)
        except Exception as error:
            known = as_ours(f"fleet {fleet}", error)
            return AutoLine(fleet=fleet, outcome=ended_by(known), detail=known.message), known
        return line, line.refused

    if len(names) == 1:
        answers = [ended(names[0])]
    else:
        with threads(context.settings.nightly.parallel) as pool:
            try:
                first = in_turn({name: fleets[name] for name in names if name in fleets}, context.now)
                answers = [*pool.map(ended, [*first, *(name for name in names if name not in fleets)])]
            except KeyboardInterrupt:
                if apply:
                    say(f"interrupted: ./goldsmith roll.auto {quote(name)} --apply continues what is not over")
                raise
    answers.sort(key=lambda answer: answer[0].fleet)
    return [line for line, _ in answers], [error for _, error in answers if error]
