"""Fuzz for some minutes: `.venv/bin/python tests/fuzz/run.py --minutes 60`; what does harm is put into the corpus."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import resource
import sys
import time
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
TURN = 200  # inputs of one target, before the next one's turn


def main() -> int:
    """Exit code 1 where an input did harm."""
    faulthandler.enable()  # where C code crashed; the seed finds the input again
    sys.path.insert(0, str(ROOT))
    from tests.fuzz.harness import CORPUS, Fuzzed, dumped, smallest
    from tests.fuzz.targets import TARGETS

    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=10)
    asked.add_argument("--only", default="", help="targets whose names hold this")
    asked.add_argument("--seed", type=int, default=time.time_ns())
    given = asked.parse_args()
    print(f"seed {given.seed}", flush=True)
    every = [Fuzzed(one, Random(f"{given.seed} {one.name}")) for one in TARGETS if given.only in one.name]
    until = time.monotonic() + 60 * given.minutes
    while time.monotonic() < until:
        for one in (one for one in every if time.monotonic() < until):
            for harm in one.go_on(TURN):
                least = smallest(harm)
                data = dumped(one.target, least.given)
                file = CORPUS / one.target.name / hashlib.sha256(data).hexdigest()[:12]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
                print(f"{one.target.name}: {harm.where}\n  kept as {file}\n{least.told}", flush=True)
    for one in every:
        counts = f"{len(one.harms)} harms, {len(one.understood)} understood"
        print(f"{one.target.name}: {one.inputs:,} inputs, {len(one.reached.lines):,} lines, {counts}")
        for where, tripped in sorted(one.understood.items()):
            least = smallest(tripped)
            print(f"  understood: {where}: {least.error!r:.100} of {dumped(one.target, least.given)[:200]!r}")
    inputs, harms = sum(one.inputs for one in every), sum(len(one.harms) for one in every)
    tripped = sum(len(one.understood) for one in every)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    spent = f"{time.process_time() / 60:.1f} minutes of the processor, {peak} MB at most"
    print(f"{inputs:,} inputs, {harms} harms, {tripped} understood, {spent}")
    return int(any(one.harms for one in every))


if __name__ == "__main__":
    raise SystemExit(main())
