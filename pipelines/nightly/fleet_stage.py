"""A fleet's stage of a night or of `roll.auto`. Its rollout has a flow of its own, which another process runs. Edge.

The workflow engine serves one process's flows from one place at a time: the night's lie in its own engine, and those of
a fleet where `roll.status` and the next process look for them. So what has to be rolled is rolled by
`python -m pipelines.nightly.fleet_stage FLEET UNTIL POLICY`, which ends with its caller, however that ends; asked to by
Ctrl-C, as soon as no step acts.

Releases are dated by the night's own moment. Fleets live by the real clock: the windows, freezes, budgets and waivers
of a night say nothing of the noon at which it goes on, where it lost its power meanwhile.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from hardening.foundation.errors import OutsideError, RefusedError, as_ours
from hardening.foundation.process import run_ours
from hardening.foundation.settings import ROOT
from images.context import Context
from images.documents import from_json, to_json
from pipelines.fleet.model import Fleet
from pipelines.nightly.model import Failure
from pipelines.rollout.schedule import may_act
from pipelines.rollout.service import WAITS, WORK, AutoLine, automated
from pipelines.rollout.session import fleet_session
from pipelines.wiring import clock


def in_turn(fleets: Mapping[str, Fleet], now: datetime) -> list[str]:
    """Their names, those first that may be rolled now: who waits for a window keeps a place for up to a day."""

    def begins(name: str) -> datetime:
        hold = may_act(fleets[name].limits, now)
        return now if hold is None else hold.until or datetime.max.replace(tzinfo=UTC)

    return sorted(fleets, key=lambda name: (begins(name), name))


FINISH = "finish"


def bring_into_policy(context: Context, name: str, *, begins: bool = True) -> AutoLine:
    """Check the fleet, and roll it where its file says that an automated run may.

    Without `begins`, it only finishes a rollout whose process died, if there is one.
    Raises what the rollout raised: RefusedError where a limit forbids it or it failed, and OutsideError.
    """
    until = context.now + WAITS  # for all fleets together: each one's own day would make days of it
    if not context.ledger.open_rollouts(name):
        line = _automated(context, name, until, apply=False, tells=begins)
        if line.outcome not in WORK or not begins:
            return line
        if line.outcome == "waits":
            return _automated(context, name, until, apply=True)
    only = () if begins else (FINISH,)
    done = run_ours([sys.executable, "-m", __name__, name, until.isoformat(), context.policy, *only], cwd=ROOT)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = f"the process that rolls {name} ended with status {done.status}"
        hint = f"./goldsmith roll.status {name} shows how far it is; the next nightly or roll.auto goes on"
        raise OutsideError(said, hint=hint) from None
    if "failure" in answer:
        raise from_json(Failure, answer["failure"]).error
    return from_json(AutoLine, answer["line"])


def look_at(context: Context, name: str) -> tuple[str, str, RefusedError | None]:
    """What a night would do with a fleet, and what is wrong where nothing was judged."""
    line = _automated(context, name, context.now + WAITS, apply=False)
    return line.outcome, line.detail, line.refused


def _automated(
    context: Context, name: str, until: datetime, *, apply: bool, begins: bool = True, tells: bool = False
) -> AutoLine:
    with fleet_session(name, context.moved(clock())) as at:
        return automated(at, apply=apply, begins=begins, tells=tells, until=until)


def main(name: str, until: str, policy: str = "", only: str = "") -> None:
    """Roll one fleet, or `only` finish its rollout, and say what came of it as JSON."""
    from hardening.foundation.console import print_json
    from pipelines.wiring import image_context

    try:
        context, ends = image_context(policy=policy), datetime.fromisoformat(until)
        line = _automated(context, name, ends, apply=True, begins=only != FINISH)
        print_json({"line": to_json(line)})
    except KeyboardInterrupt:  # the rollout has said how it is continued
        sys.exit(1)
    except Exception as error:
        print_json({"failure": to_json(Failure.of(as_ours(f"fleet {name}", error)))})


if __name__ == "__main__":
    main(*sys.argv[1:])
