"""Loads what people write in `hardening/` from the content roots. Edge: reads files, decides nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from hardening.foundation.content import find_content, load_toml, read_small, require_inside
from hardening.foundation.errors import ContentError, RefusedError, nearest, raise_all
from hardening.foundation.hashing import digest
from hardening.model import Cases, Control, LoadedControl, Profile, ProfileEntry, Waiver

if TYPE_CHECKING:
    from hardening.foundation.settings import Judging, Settings
    from hardening.policy import Policy


def load_controls(roots: Sequence[Path]) -> dict[str, LoadedControl]:
    """Every control of the content roots, by id, sorted.

    Raises ContentError for unknown keys, missing parts, undeclared files, and an id that stands in two roots.
    """
    return dict(ControlsOnDemand(roots))


class ControlsOnDemand(Mapping[str, LoadedControl]):
    """Every control of the content roots, by id, each loaded on first use.

    So a mistake in one concerns only who uses it. Asking for one raises ContentError as `load_controls` does.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._folders = find_content(roots, "hardening/controls", "*/")
        self._functions = find_content(roots, "hardening/functions", "*.sh")
        self._loaded: dict[str, LoadedControl] = {}

    def __getitem__(self, name: str) -> LoadedControl:
        if name not in self._loaded:
            self._loaded[name] = load_control(name, self._folders[name], self._functions)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._folders

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def load_cases(control: LoadedControl) -> Cases:
    """The control's proofs and render cases. Raises ContentError where there is none."""
    return load_toml(control.folder / "cases.toml", Cases)


def load_profiles(roots: Sequence[Path]) -> dict[str, Profile]:
    """Every profile of the content roots, by name, with `extends` resolved."""
    return {name: load_profile(roots, name) for name in find_content(roots, "hardening/profiles", "*.toml")}


def load_profile(roots: Sequence[Path], name: str) -> Profile:
    """The profile, with the entries of those it extends: an entry of its own replaces theirs in place, others follow.

    Raises ContentError for an unknown name, a cycle, a `without` that leaves out what is not there, or all there is.
    """
    files = find_content(roots, "hardening/profiles", "*.toml")
    return _resolve_profile(name, files, ())


def load_policies(roots: Sequence[Path]) -> dict[str, Policy]:
    """Every policy of the content roots, by name."""
    from hardening.policy import Policy

    files = find_content(roots, "hardening/policies", "*.toml")
    return {name: load_toml(file, Policy, name=name) for name, file in files.items()}


def load_policy(roots: Sequence[Path], name: str) -> Policy:
    """The policy. Raises ContentError for an unknown name, with the nearest known ones."""
    from hardening.policy import Policy

    files = find_content(roots, "hardening/policies", "*.toml")
    if name not in files:
        raise ContentError(f"unknown policy: {name}", hint=nearest(name, files))
    return load_toml(files[name], Policy, name=name)


def policy_digest(roots: Sequence[Path], name: str) -> str:
    """The digest of the bytes of a policy's file, which anybody who has the file can compare."""
    return digest(find_content(roots, "hardening/policies", "*.toml")[name].read_bytes())


def judging_roots(settings: Settings) -> tuple[Path, ...]:
    """Those of the content roots that may judge, in whatever revision they are."""
    given = settings.over(()).roots
    judging = _judging_among(given, settings.judging)
    return tuple(root for root, own in zip(settings.roots, given, strict=False) if own in judging)


def _judging_among(roots: Sequence[Path], judging: Judging) -> tuple[Path, ...]:
    """The first root, which is the checkout, and those that `[judging]` names."""
    from hardening.foundation.settings import ROOT

    named = {(ROOT / root).resolve() for root in judging.roots}
    return (*roots[:1], *(root for root in roots[1:] if root.resolve() in named))


def require_judging(roots: Sequence[Path], judging: Judging) -> None:
    """Raise ContentError where `[judging]` names a policy that is not there."""
    from hardening.foundation.settings import place_of

    files = find_content(roots, "hardening/policies", "*.toml")
    named = {f"judging.policies[{number}]": name for number, name in enumerate(judging.policies)}
    named |= {"judging.floor": judging.floor} if judging.floor else {}
    raise_all(
        ContentError(
            f"unknown policy: {name}",
            file=place_of(*key.partition("[")[0].split(".")),
            key=key,
            hint=nearest(name, files),
        )
        for key, name in named.items()
        if name not in files
    )


def require_may_publish(roots: Sequence[Path], judging: Judging, name: str, today: date) -> None:
    """Raise RefusedError unless the verdict of the policy `name` may let a release be published or promoted.

    `today`: the day from which on it must be strict enough. Raises ContentError as `require_judging` does.
    """
    from hardening.policy import weaknesses

    require_judging(roots, judging)
    file = find_content(roots, "hardening/policies", "*.toml").get(name, "")
    if not file:
        load_policy(roots, name)  # raises: to allow a missing policy in the settings would not help
    if name not in judging.policies:
        hint = f"add --policy {' or '.join(judging.policies)}, or set `policy` under [nightly]"
        if name not in type(judging)().policies:
            hint += (
                "; or, for a trial with a registry of its own, set "
                f'policies = ["{name}"] and floor = "" under [judging] '
                f"in goldsmith.toml, and give --policy {name}"
            )
        raise RefusedError(
            f"the policy {name} may not publish: judging.policies allows only {', '.join(judging.policies)}",
            hint=hint,
        )
    policy, floor = load_policy(roots, name), load_policy(roots, judging.floor) if judging.floor else None
    profiles = required_profiles(_judging_among(roots, judging), *filter(None, (policy, floor)))
    if weak := weaknesses(policy, floor, today, profiles):
        than = f"weaker than the policy {floor.name}, which is judging.floor" if floor else "too weak to publish with"
        loose = '; a trial with a registry of its own sets floor = "" under [judging]' if floor else ""
        raise RefusedError(f"the policy {name} is {than}", evidence="\n".join(weak), hint=f"see {file}{loose}")


def required_profiles(judging: Sequence[Path], *policies: Policy) -> dict[str, Profile]:
    """The profiles that policies require, by name, from the content roots that may judge. Raises ContentError."""
    return {
        profile.name: profile
        for policy in policies
        for kind in type(policy.image.controls).model_fields
        if (profile := required_profile(judging, policy, kind))
    }


def required_profile(judging: Sequence[Path], policy: Policy, kind: str) -> Profile | None:
    """The profile that a policy requires of images of a kind, if any, from the content roots that may judge.

    Raises ContentError where it, or one that it extends, stands in none of them.
    """
    name, where = getattr(policy.image.controls, kind), f"hardening/policies/{policy.name}.toml"
    try:
        return load_profile(judging, name) if name else None
    except ContentError as error:
        file, key = (error.file, error.key) if error.file else (where, f"image.controls.{kind}")
        hint = "it, and all that it extends, must stand in this checkout or in a root of judging.roots"
        raise ContentError(error.message, file=file, key=key, hint=hint) from None


def load_waivers(roots: Sequence[Path]) -> tuple[Waiver, ...]:
    """Every waiver of the content roots, expired ones too, sorted by id.

    Those of the first root, the checkout, reach every subject; those of another root only that root's own.
    """
    files = find_content(roots, "hardening/waivers", "*.toml")
    waivers = {file: load_toml(file, Waiver, id=name) for name, file in files.items()}
    known = find_content(roots, "hardening/controls", "*/") if any(w.controls for w in waivers.values()) else {}
    for file, waiver in waivers.items():
        require_known(file, waiver, known)
    return tuple(within_root(file, waiver, roots) for file, waiver in waivers.items())


def within_root(file: Path, waiver: Waiver, roots: Sequence[Path]) -> Waiver:
    """The waiver in `file`, for as far as the root that holds it may speak."""
    root = next(root for root in roots if file.parent == root / "hardening/waivers")
    return waiver if root == roots[0] else waiver.within(subjects_of(root))


def subjects_of(root: Path) -> frozenset[str]:
    """What the content of one root is about: its definitions, and its fleets with a slash after their names."""
    fleets = find_content([root], "pipelines/fleets", "*.toml")
    return frozenset([*find_content([root], "images/definitions", "*/"), *(f"{name}/" for name in fleets)])


def require_known(file: Path, waiver: Waiver, controls: Collection[str]) -> None:
    """Raise ContentError where the waiver names what does not exist: its author believes that it excuses something."""
    raise_all(_unknown(file, waiver, controls))


def _unknown(file: Path, waiver: Waiver, controls: Collection[str]) -> Iterator[ContentError]:
    from hardening.waivers import RUNNING, WAIVABLE

    known: dict[str, Collection[str]] = {"controls": controls, "rules": WAIVABLE}
    for key, other in (("controls", "rules"), ("rules", "controls")):
        for name in (name for name in getattr(waiver, key) if name not in known[key]):
            if key == "rules" and name in RUNNING:
                yield ContentError(f"{name} cannot be waived", file=file, key=key)
                continue
            hint = f"{name} belongs under {other}" if name in known[other] else nearest(name, known[key])
            yield ContentError(f"unknown {key.removesuffix('s')}: {name}", file=file, key=key, hint=hint)


def load_control(name: str, folder: Path, functions: Mapping[str, Path]) -> LoadedControl:
    """The control in `folder`; its scripts begin with the `functions` that it names. Raises as `load_controls`."""
    for path in folder.rglob("*"):
        require_inside(path, folder)
    control = load_toml(folder / "control.toml", Control, id=name)
    raise_all(_incomplete(control, folder, functions))
    head = "".join(read_small(functions[function]) for function in control.functions)
    apply = folder / "apply.sh"
    return LoadedControl(
        control=control,
        folder=folder,
        apply=head + read_small(apply) if apply.exists() else None,
        check=head + read_small(folder / "check.sh"),
        templates={spec.source: read_small(folder / "files" / spec.source) for spec in control.files},
    )


def _incomplete(control: Control, folder: Path, functions: Mapping[str, Path]) -> Iterator[ContentError]:
    """What is missing; of templates, what is declared must be there, and what is there must be declared."""
    own, files = folder / "control.toml", folder / "files"
    for part in ("check.sh", "cases.toml"):
        if not (folder / part).is_file():
            yield ContentError(
                "required, but missing", file=folder / part, hint="CONTRIBUTING.md shows a whole control"
            )
    for function in control.functions:
        if function not in functions:
            yield ContentError(f"no such file of functions: {function}", file=own, hint=nearest(function, functions))
    yield from _defined_twice(control, own, functions)
    declared = {spec.source for spec in control.files}
    present = {path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()}
    for source in sorted(declared - present):
        hint = nearest(source, present)
        yield ContentError(f"no such file: {files / source}", file=own, key="files.source", hint=hint)
    for source in sorted(present - declared):
        yield ContentError("not declared in control.toml", file=files / source, hint="add a [[files]] table for it")


def _defined_twice(control: Control, own: Path, functions: Mapping[str, Path]) -> Iterator[ContentError]:
    """Functions of one name in two files of functions: the shell would take the later one for both."""
    first: dict[str, str] = {}
    for file in (file for file in control.functions if file in functions):
        for name in re.findall(r"^(\w+) *\(\)", read_small(functions[file]), re.MULTILINE):
            if name in first:
                shown = f"{first[name]} and {file} both define {name}"
                yield ContentError(shown, file=own, key="functions", hint="rename one of the two")
            first[name] = file


def _resolve_profile(name: str, files: dict[str, Path], seen: tuple[str, ...]) -> Profile:
    if name in seen:
        raise ContentError(f"profiles extend each other in a circle: {' → '.join((*seen, name))}", file=files[name])
    if name not in files:
        file, key = (files[seen[-1]], "extends") if seen else ("", "")
        raise ContentError(f"unknown profile: {name}", file=file, key=key, hint=nearest(name, files))
    own = load_toml(files[name], Profile, name=name)
    own = own.model_copy(update={"controls": tuple(entry.of(files[name]) for entry in own.controls)})
    named = Counter(entry.control for entry in own.controls)
    raise_all(
        ContentError(f"{control} is listed twice", file=files[name], key="controls")
        for control, number in sorted(named.items())
        if number > 1
    )
    if own.extends is not None:
        base = _resolve_profile(own.extends, files, (*seen, name))
        own = own.model_copy(update={"controls": _merged(base, own, files[name])})
    if not own.controls:  # an image that nothing is asked of would pass as a hardened one
        hint = "list controls, or extend a profile that has some"
        raise ContentError("contains no control", file=files[name], key="controls", hint=hint)
    return own


def _merged(base: Profile, own: Profile, file: Path) -> tuple[ProfileEntry, ...]:
    inherited = {entry.control: entry for entry in base.controls}
    raise_all(
        ContentError(f"{base.name} does not list it", file=file, key=f"without.{name}", hint=nearest(name, inherited))
        for name in sorted(own.without.keys() - inherited.keys())
    )
    kept = {control: entry for control, entry in inherited.items() if control not in own.without}
    return tuple({**kept, **{entry.control: entry for entry in own.controls}}.values())
