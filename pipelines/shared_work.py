"""The flows that workers share, by name: the one place where what a worker can execute is put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.limits import parse_json
from hardening.foundation.process import ENGINE, Completed, dies_with_us, failed, run
from hardening.foundation.settings import ROOT
from images.context import Context
from pipelines.durable.port import Flow, Json, WorkflowEngine

KIND = "nightly"  # whose flows workers take: those of nights
FLEET = "fleet"
OURS = ("GOLDSMITH_", "AWS_")


def shared_flows(context: Callable[[], Context]) -> Mapping[str, Flow]:  # noqa: ARG001
    """What a worker executes. `context` opens a new context, whose moment is that of the call."""
    return {FLEET: fleet_flow}


async def fleet_flow(engine: WorkflowEngine, argument: Json) -> Json:
    """Bring a fleet back into policy as its file lets an automated run: `{"fleet": NAME}`; what `roll.auto` answers."""
    return await engine.step(f"roll {argument['fleet']}", lambda: _rolled(argument["fleet"]))


def _rolled(fleet: str) -> Any:
    """The line of `roll.auto`, which runs as a process of its own: its rollout has a workflow engine of its own.

    It ends with ours; whoever does this again finds by the lease and the ledger what it has done.
    """
    argv = [sys.executable, "-m", "invoke", "roll.auto", fleet, "--apply", "--json"]
    passes = (*ENGINE, *(name for name in os.environ if name.startswith(OURS)))
    done = run(dies_with_us(argv), cwd=ROOT, passes=passes, ok=range(256))
    if done.stderr.strip():
        say(done.stderr.strip())
    if not done.stdout.strip():
        raise failed(done)
    (line,) = parse_json(done.stdout, f"what roll.auto {fleet} prints")
    if done.status:
        raise _failure(done, line)
    return line


def _failure(done: Completed, line: Any) -> RefusedError | OutsideError:
    kind = RefusedError if done.status == RefusedError.exit_code else OutsideError
    return kind(f"{line['fleet']}: {line['detail']}", hint=f"./goldsmith roll.status {line['fleet']} shows it")
