"""What `roll.simulate` calls and prints: rollouts of simulated fleets, and the invariants that they kept."""

from __future__ import annotations

from hardening.foundation.console import out, print_json, print_table
from hardening.foundation.errors import UsageError
from pipelines.contract import Line
from tests.simulation.simulate import Report, simulate

PROCESSES = 2


class BrokenLine(Line):
    """A seed whose rollout broke an invariant: which, and the smallest scenario that breaks it."""

    seed: int
    promise: str
    how: str
    smallest: str


class SimulateOutput(Line):
    """`roll.simulate`: `members` counts the outcomes of all members, `troubles` the faults."""

    rollouts: int
    first_seed: int
    events: int
    steps: int
    members: dict[str, int]
    troubles: dict[str, int]
    broken: tuple[BrokenLine, ...]


def simulate_rollouts(seeds: int, seed: int) -> SimulateOutput:
    """Simulate `seeds` rollouts from the seed `seed` on. Raises UsageError for less than one."""
    if seeds < 1:
        raise UsageError(f"--seeds is how many rollouts are simulated, not {seeds}")
    return output(simulate(seeds, seed, PROCESSES), seed)


def output(report: Report, seed: int) -> SimulateOutput:
    """A report as other programs read it."""
    members = {str(phase): number for phase, number in sorted(report.ends.items())}
    troubles = {str(kind): number for kind, number in sorted(report.troubles.items())}
    return SimulateOutput.of(report, first_seed=seed, members=members, troubles=troubles)


def show_simulation(done: SimulateOutput, *, as_json: bool) -> int:
    """Print what was simulated; exit code 1 where an invariant was broken."""
    if as_json:
        print_json(done.model_dump(mode="json"))
    else:
        last = done.first_seed + done.rollouts - 1
        print_table(["members ended", "how many"], [[phase, str(number)] for phase, number in done.members.items()])
        out().print(f"{done.rollouts} rollouts, seeds {done.first_seed} to {last}: {done.events} events")
        for one in done.broken:
            again = f"./goldsmith roll.simulate --seeds 1 --seed {one.seed}"
            out().print(f"broken: {one.how}\n  smallest: {one.smallest}\n  again: {again}")
        out().print(f"{len(done.broken)} broke an invariant")
    return 1 if done.broken else 0
