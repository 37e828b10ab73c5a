"""Verify: every control's check against the built filesystem, with the image really run beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from hardening.check import run_checks
from hardening.findings import CheckResult, ImageFacts, Outcome
from hardening.model import Enforcement, Waiver
from hardening.render import Overlay
from hardening.waive import waived_by
from images.model import Definition
from images.store.oci import Store
from images.trial import run_hardened


def facts_of(definition: Definition, config: dict[str, Any], run: tuple[int, str] | None) -> ImageFacts:
    """What checks may know of an image beside its tree; `run` is the trial's status and output. Pure."""
    inner = config.get("config", {})
    history = [
        *(entry.get("created_by", "") for entry in config.get("history", [])),
        *inner.get("Env", []),
        *(f"{key}={value}" for key, value in (inner.get("Labels") or {}).items()),
    ]
    test = (inner.get("Healthcheck") or {}).get("Test", [])
    return ImageFacts(
        user=inner.get("User", ""),
        healthcheck=" ".join(test),
        healthcheck_reason=definition.healthcheck.none_because,
        history=tuple(history),
        config=config,
        run_status=run[0] if run else None,
        run_log=run[1] if run else "",
    )


def verify(
    definition: Definition,
    overlay: Overlay,
    *,
    tree: Path,
    config: dict[str, Any],
    digest: str,
    store: Store,
    work: Path,
    docker_host: str,
) -> tuple[CheckResult, ...]:
    """Run the image, then every check of the overlay over its `tree`; one result for each control."""
    run = run_hardened(definition, digest, store, work, docker_host) if definition.smoke else None
    return run_checks(overlay, tree, facts_of(definition, config, run))


def refusals(
    results: Iterable[CheckResult], subject: str = "", waivers: Sequence[Waiver] = (), today: date = date.min
) -> tuple[CheckResult, ...]:
    """The results that refuse the image `subject`: enforced, neither passed nor not applicable, and not waived. Pure.

    An error refuses like a failure: a check that could not look has not passed.
    """
    good = {Outcome.PASS, Outcome.NOT_APPLICABLE}
    broken = [r for r in results if r.enforcement is Enforcement.ENFORCE and r.outcome not in good]
    return tuple(r for r in broken if not waived_by(waivers, r.control, subject, today))


def waived(results: Iterable[CheckResult], subject: str, waivers: Sequence[Waiver], today: date) -> tuple[str, ...]:
    """What would refuse the image `subject` but for a waiver: the control, and the waiver with its end. Pure."""
    found = ((result.control, waived_by(waivers, result.control, subject, today)) for result in refusals(results))
    return tuple(f"{control} is waived by {by.id} until {by.expires}" for control, by in found if by)


def enforced_by(results: Iterable[CheckResult], overlay: Overlay) -> tuple[CheckResult, ...]:
    """The results with the enforcement that `overlay` has: it may have begun since they were found. Pure."""
    now = {check.control: check.enforcement for check in overlay.checks}
    return tuple(replace(r, enforcement=now.get(r.control, r.enforcement)) for r in results)
