"""Proves a control on temporary filesystems: its check fails where it is broken, passes where it is hardened. Edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from hardening.check import run_checks
from hardening.findings import ImageFacts, Outcome, outcome_of
from hardening.foundation.confinement import change_tree
from hardening.foundation.errors import ContentError, OutsideError
from hardening.model import Cases, Kind, LoadedControl, Profile, ProfileEntry, Proof
from hardening.overlay import apply_to
from hardening.render import Check, Overlay, render

GOOD = ImageFacts(
    user="65532",
    healthcheck_reason="a base image runs nothing by itself",
    history=("PATH=/usr/bin",),
    config={"config": {"Env": ["PATH=/usr/bin"], "Entrypoint": ["/app"]}},
    run_status=0,
)
BASES = {Kind.CONTAINER: "container-base", Kind.MACHINE: "machine-base"}
INSIDE = {"ROOT": "/", "LIVE": "1", "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class ProofResult:
    """The result of one proof: `said` is the check's evidence, or what is wrong; `key` its place in cases.toml."""

    profile: str
    title: str
    passed: bool
    said: str
    key: str = ""

    def error(self, loaded: LoadedControl) -> ContentError:
        """What a proof that does not hold is told as."""
        said, _, evidence = self.said.partition("\n")
        file = loaded.folder / "cases.toml"
        return ContentError(f"{self.title}: {said}", file=file, key=self.key, evidence=evidence)


def kind_of(profile: Profile, controls: Mapping[str, LoadedControl]) -> Kind:
    """What a profile is for: the kind that all of its controls apply to, a machine where both do."""
    applicable = [controls[entry.control].control.applies_to for entry in profile.controls]
    return Kind.MACHINE if all(Kind.MACHINE in kinds for kinds in applicable) else Kind.CONTAINER


def require_kind(profile: Profile, loaded: LoadedControl, controls: Mapping[str, LoadedControl]) -> None:
    """Raise ContentError where a control is to be proved on a profile that is for nothing that it applies to."""
    kinds = set(Kind)
    for entry in profile.controls:
        if entry.control != loaded.control.id:
            kinds &= set(controls[entry.control].control.applies_to)
    ours = loaded.control.applies_to
    if kinds and not kinds & set(ours):
        there = f"{profile.name} is for a {' or '.join(sorted(kinds))}, and {loaded.control.id} applies to {ours[0]}"
        hint = f'write at the top of the file: profile = "{BASES[ours[0]]}", or another one of a {ours[0]}'
        raise ContentError(there, file=loaded.folder / "cases.toml", key="profile", hint=hint)


def with_control(profile: Profile, loaded: LoadedControl) -> Profile:
    """The profile, with the control as its last one where it does not list it yet, as its cases.toml says."""
    name = loaded.control.id
    if any(entry.control == name for entry in profile.controls):
        return profile
    entry = ProfileEntry(control=name).of(loaded.folder / "cases.toml")
    return profile.model_copy(update={"controls": (*profile.controls, entry)})


def overlay_of(
    profile: Profile,
    controls: Mapping[str, LoadedControl],
    today: date,
    *,
    only: str = "",
    params: Mapping[str, Any] | None = None,
) -> Overlay:
    """The profile's overlay, or that of one of its controls alone, with `params` over the profile's own."""
    entries = tuple(entry for entry in profile.controls if only in ("", entry.control))
    facts = {"kind": kind_of(profile, controls)}
    chosen = profile.model_copy(update={"controls": entries})
    return render(chosen, controls, {only: params} if params else {}, facts, today)


def prove_hardened(overlay: Overlay, tree: Path) -> tuple[bool, str]:
    """Whether the one check of `overlay` holds on the hardened `tree`, and what it says."""
    [result] = run_checks(overlay, tree, GOOD)
    passed = result.outcome is Outcome.PASS
    return passed, result.evidence if passed else f"its check says {result.outcome}: {result.evidence}"


def prove_broken(proof: Proof, overlay: Overlay, tree: Path, work: Path) -> tuple[bool, str]:
    """Break `tree` as `proof` says: whether the one check of `overlay` sees it and names it, and heals it if it must.

    The tree is changed; `work` must not exist. What is wrong comes with the check's own words.
    """
    try:
        return _live(proof, overlay.checks[0], tree) if proof.live else _broken(proof, overlay, tree, work)
    except OutsideError as error:
        return False, f"{error.message}\n{error.evidence}".strip()


def _broken(proof: Proof, overlay: Overlay, tree: Path, work: Path) -> tuple[bool, str]:
    _plant(proof, tree)
    [result] = run_checks(overlay, tree, facts_of(proof))
    told = _red(proof, result.outcome, result.evidence)
    if told[0] and proof.healed:
        apply_to(overlay, tree, work)
        [after] = run_checks(overlay, tree, facts_of(proof))
        if after.outcome is not Outcome.PASS:
            return False, f"applying it does not heal what was broken; its check says {after.outcome}: {after.evidence}"
    return told


def _live(proof: Proof, check: Check, tree: Path) -> tuple[bool, str]:
    """Inside the tree a check asks programs what is in force: green after a first boot, red once it is broken."""
    if (tree / "usr/bin/ssh-keygen").exists():  # what a first boot makes, as far as the checks' programs need it
        (tree / "run/sshd").mkdir(parents=True, exist_ok=True)
        change_tree(tree, ["chroot", str(tree), "ssh-keygen", "-A"], {})
    outcome, evidence = _inside(check, tree)
    if outcome is not Outcome.PASS:
        return False, f"inside the tree, before it is broken, its check says {outcome}: {evidence}"
    _plant(proof, tree)
    return _red(proof, *_inside(check, tree))


def _inside(check: Check, tree: Path) -> tuple[Outcome, str]:
    argv = ["chroot", str(tree), "sh", "-c", check.text, check.control]
    done = change_tree(tree, argv, {**check.env, **INSIDE}, ok=range(256))
    return outcome_of(done.status, done.stdout, done.stderr)


def _plant(proof: Proof, tree: Path) -> None:
    change_tree(tree, ["sh", "-euc", proof.plant], {})


def _red(proof: Proof, outcome: Outcome, evidence: str) -> tuple[bool, str]:
    if outcome is not Outcome.FAIL:
        return False, f"its check must fail where it is broken, and says {outcome}: {evidence}"
    if proof.evidence not in evidence:
        return False, f"its check fails, as it must, but its evidence does not name {proof.evidence}: {evidence}"
    return True, evidence


def facts_of(proof: Proof) -> ImageFacts:
    """Good facts, broken as the proof says; TOML has no null, so `not run` stands for it."""
    changes: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in proof.facts.items()
    }
    if changes.get("run_status") == "not run":
        changes["run_status"] = None
    return replace(GOOD, **changes)


def prove_rendered(
    loaded: LoadedControl, cases: Cases, profile: Profile, controls: Mapping[str, LoadedControl], today: date
) -> list[ProofResult]:
    """Whether each `[[render]]` case gives exactly the text that it expects, and each file has a case."""
    name, found = loaded.control.id, list[ProofResult]()
    for number, case in enumerate(cases.render):
        overlay = overlay_of(profile, controls, today, only=name, params=case.params)
        texts = {file.path: file.content for file in overlay.files}
        wrong = [path for path, text in case.expect.items() if texts.get(path) != text]
        said = f"{wrong[0]} reads: {texts.get(wrong[0], 'nothing')}" if wrong else ", ".join(case.expect)
        title = f"files with {case.params or 'the default params'}"
        found.append(ProofResult(profile.name, title, not wrong, said, f"render[{number}].expect"))
    shown = {path for case in cases.render for path in case.expect}
    lacking = [file.path for file in loaded.control.files if file.path not in shown]
    if lacking:
        example = "".join(f'\n"{path}" = """\nthe whole text\n"""' for path in lacking)
        said = (
            f"no [[render]] case shows what is in {', '.join(lacking)}\nsuch as:\n[[render]]\n[render.expect]{example}"
        )
        found.append(ProofResult(profile.name, "each file has a case", passed=False, said=said, key="render"))
    return found
