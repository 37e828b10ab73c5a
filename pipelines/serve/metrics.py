"""The content of `/metrics`, in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from images.ledger import Ledger
from pipelines.serve.runner import Runner


def metrics(ledger: Ledger, runner: Runner) -> str:
    """What was done last and what waits. Raises OutsideError where the ledger fails."""
    registry = CollectorRegistry()
    waiting = Gauge(
        "goldsmith_waiting", "What waits to be served: moments of the schedule and webhooks.", registry=registry
    )
    waiting.set(len(ledger.waiting_triggers()))
    runs = Gauge("goldsmith_running", "1 while a night or an urgent run is under way.", registry=registry)
    runs.set(runner.running is not None)
    done = Gauge(
        "goldsmith_last_run_timestamp_seconds", "When the last run of a kind ended.", ["kind"], registry=registry
    )
    code = Gauge("goldsmith_last_run_exit_code", "Exit code of the last run of a kind.", ["kind"], registry=registry)
    for kind, last in runner.last_runs().items():
        if last.done_at:
            done.labels(kind).set(last.done_at.timestamp())
        code.labels(kind).set(int(last.outcome.rpartition(" ")[2]))
    return generate_latest(registry).decode()
