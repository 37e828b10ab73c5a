"""All content of `hardening/`, cross-checked at once instead of where it is first used. Edge: reads files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hardening.catalog import load_cases, load_control, load_policy, load_profile, require_may_publish
from hardening.foundation.content import find_content, load_toml
from hardening.foundation.errors import ContentError, Problems, RefusedError, nearest
from hardening.foundation.settings import Judging
from hardening.model import LoadedControl, Waiver
from hardening.policy import Policy
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
    for name, file in find_content(roots, "hardening/policies", "*.toml").items():
        if policy := problems.of(load_policy, roots, name):
            problems.of(_require_window, file, policy)


def check_publishing(roots: Sequence[Path], judging: Judging, problems: Problems) -> None:
    """See that each policy that may publish is there, and as strict as the floor."""
    problems.of(_require_floor, roots, judging)
    for name in judging.policies:
        problems.of(_require_strict, roots, judging, name)


def _require_floor(roots: Sequence[Path], judging: Judging) -> None:
    if judging.floor:
        load_policy(roots, judging.floor)


def _require_strict(roots: Sequence[Path], judging: Judging, name: str) -> None:
    try:
        require_may_publish(roots, judging, name)
    except RefusedError as error:
        file = find_content(roots, "hardening/policies", "*.toml")[name]
        hint = "make it as strict, or take it out of judging.policies in goldsmith.toml"
        raise ContentError(error.message, file=file, evidence=error.evidence, hint=hint) from None


def _require_window(file: Path, policy: Policy) -> None:
    """Raises ContentError for a policy by which an image with every known hole passes."""
    if not policy.image.has_window:
        raise ContentError(
            "no window is enforced in which a vulnerability must be fixed", file=file, key="image.vulnerabilities",
            hint='such as [[image.vulnerabilities]] with severity = "high" and within = "7d"',
        )  # fmt: skip


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
