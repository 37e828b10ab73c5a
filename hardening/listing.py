"""What `control.list`, `control.show` and `control.check` tell, as frozen values that other programs can rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.catalog import load_cases, load_controls, load_profile, load_profiles
from hardening.foundation.errors import ContentError, nearest
from hardening.model import Enforcement, Kind, LoadedControl, Param, Profile, Severity

if TYPE_CHECKING:
    from hardening.findings import CheckResult


@dataclass(frozen=True)
class Use:
    """A profile that lists a control: its enforcement today and the params it sets."""

    profile: str
    enforcement: Enforcement
    params: dict[str, Any]

    def __str__(self) -> str:
        return self.profile if self.enforcement is Enforcement.ENFORCE else f"{self.profile} ({self.enforcement})"


@dataclass(frozen=True)
class ControlRow:
    """One line of `control.list`."""

    id: str
    title: str
    severity: Severity
    applies_to: tuple[Kind, ...]
    owner: str
    used_by: tuple[Use, ...]


@dataclass(frozen=True)
class ControlDetail(ControlRow):
    """Everything about a control that its reader may ask, `control.show`."""

    rationale: str
    cost: str
    references: dict[str, tuple[str, ...]]
    params: dict[str, Param]
    files: tuple[str, ...]
    changes_the_image: bool
    proofs: tuple[str, ...]
    folder: Path


def list_controls(roots: Sequence[Path], today: date) -> tuple[ControlRow, ...]:
    """Every control, by id, with the profiles that use it. Raises ContentError for wrong content."""
    profiles = load_profiles(roots)
    return tuple(_row(loaded, profiles, today) for loaded in load_controls(roots).values())


def show_control(roots: Sequence[Path], name: str, today: date) -> ControlDetail:
    """The control in full. Raises ContentError for an unknown name, with the nearest known ones."""
    controls = load_controls(roots)
    if name not in controls:
        raise ContentError(f"no control is named {name}", hint=nearest(name, controls))
    loaded = controls[name]
    control = loaded.control
    return ControlDetail(
        **vars(_row(loaded, load_profiles(roots), today)),
        rationale=control.rationale,
        cost=control.cost,
        references=control.references,
        params=control.params,
        files=tuple(spec.path for spec in control.files),
        changes_the_image=loaded.apply is not None or bool(control.files),
        proofs=tuple(proof.title for proof in load_cases(loaded).proof),
        folder=loaded.folder,
    )


def check_tree(
    roots: Sequence[Path], profile: str, tree: Path, today: date, *, only: Sequence[str] = ()
) -> tuple[CheckResult, ...]:
    """What the profile's checks, or those of `only`, say of the filesystem at `tree`, `control.check`.

    Nothing is known of an image but its files: checks that need more fail, as they must.
    Raises ContentError when `only` names a control that the profile does not list.
    """
    from hardening.check import run_checks
    from hardening.findings import ImageFacts
    from hardening.render import render

    overlay = render(load_profile(roots, profile), load_controls(roots), {}, {}, today)
    known = [check.control for check in overlay.checks]
    for name in only:
        if name not in known:
            raise ContentError(f"{profile} has no control {name}", hint=nearest(name, known))
    checks = tuple(check for check in overlay.checks if not only or check.control in only)
    return run_checks(replace(overlay, checks=checks), tree, ImageFacts())


def _row(loaded: LoadedControl, profiles: Mapping[str, Profile], today: date) -> ControlRow:
    control = loaded.control
    uses = (
        Use(profile.name, entry.enforced(today), entry.params)
        for profile in profiles.values()
        for entry in profile.controls
        if entry.control == control.id
    )
    return ControlRow(control.id, control.title, control.severity, control.applies_to, control.owner, tuple(uses))
