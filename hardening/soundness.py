"""All content of `hardening/`, cross-checked at once instead of where it is first used. Edge: reads files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hardening.catalog import load_cases, load_control, load_policy, load_profile
from hardening.foundation.content import find_content, load_toml
from hardening.foundation.errors import ContentError, Problems, nearest
from hardening.model import LoadedControl, Waiver
from hardening.render import require_sound, require_templates


def check_hardening(roots: Sequence[Path], problems: Problems) -> None:
    """Load every control, profile and policy of the content roots, and see that what each names is there."""
    profiles = find_content(roots, "hardening/profiles", "*.toml")
    controls: dict[str, LoadedControl] = {}
    folders = find_content(roots, "hardening/controls", "*/")
    functions = find_content(roots, "hardening/functions", "*.sh")
    for name, folder in folders.items():
        if loaded := problems.of(load_control, name, folder, functions):
            controls[name] = loaded
            problems.of(require_templates, loaded)
            problems.of(_require_cases, loaded, profiles)
    for name in profiles:
        profile = problems.of(load_profile, roots, name)
        for entry in profile.controls if profile else ():
            if entry.control in controls or entry.control not in folders:  # what does not load has been told
                problems.of(require_sound, entry, controls)
    for name in find_content(roots, "hardening/policies", "*.toml"):
        problems.of(load_policy, roots, name)


def load_waiver_files(roots: Sequence[Path], problems: Problems) -> dict[Path, Waiver]:
    """Every waiver that loads, by its file."""
    files = find_content(roots, "hardening/waivers", "*.toml")
    found = {file: problems.of(partial(load_toml, file, Waiver, id=name)) for name, file in files.items()}
    return {file: waiver for file, waiver in found.items() if waiver}


def _require_cases(loaded: LoadedControl, profiles: dict[str, Path]) -> None:
    """Raises ContentError where the proofs stand on no profile, or give params that the control does not have."""
    cases = load_cases(loaded)
    file = loaded.folder / "cases.toml"
    for profile in (cases.profile, *(proof.profile for proof in cases.proof if proof.profile)):
        if profile not in profiles:
            hint = nearest(profile, profiles)
            raise ContentError(f"no profile is named {profile}", file=file, key="profile", hint=hint)
    given = [(f"render[{number}]", case.params) for number, case in enumerate(cases.render)]
    given += [(f"proof[{number}]", proof.params) for number, proof in enumerate(cases.proof)]
    for place, params in given:
        for name in params:
            if name not in loaded.control.params:
                hint = nearest(name, loaded.control.params)
                raise ContentError("unknown param", file=file, key=f"{place}.params.{name}", hint=hint)
