"""What `lint` and `test` run: all content of all roots, loaded and cross-checked, then the project's own tools."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hardening.catalog import (
    judging_roots,
    load_control,
    load_policy,
    load_profile,
    load_profiles,
    require_judging,
    require_known,
    require_may_publish,
    within_root,
)
from hardening.foundation.console import err, say
from hardening.foundation.content import find_content, load_toml, read_toml
from hardening.foundation.errors import ContentError, Problems, RefusedError, closest, nearest, raise_all
from hardening.foundation.process import follow, run
from hardening.foundation.settings import ROOT, Judging, Settings, load_settings
from hardening.model import WAIVER_KEYS, Cases, LoadedControl, Param, Profile, Waiver
from hardening.policy import Policy
from hardening.proof import overlay_of, prove_rendered, require_kind, with_control
from hardening.render import require_sound, require_templates
from images.catalog import LoadedDefinition, load_definition
from images.plan.build_plan import order
from images.plan.freshness import NO_END, SUPPORT
from images.plan.upstream import Pin, pins
from images.plan.validate import DefinitionValidator
from images.registry.release_trust import require_base_allowed
from pipelines.fleet.catalog import require_replacement
from pipelines.fleet.model import Fleet
from pipelines.network.catalog import load_network, network_files
from pipelines.network.definitions import require_agreement
from pipelines.network.model import NetworkFile, overdue, overdue_text
from pipelines.serve.moments import Schedule
from pipelines.wiring import clock


def lint_content() -> int:
    """Print all that is wrong with the content of this checkout and its further roots; 2 where anything is, else 0."""
    settings = load_settings()
    roots = settings.roots
    problems = Problems()
    problems.of(Schedule.of, settings.serve)
    problems.of(require_readable_home, os.environ.get("HOME", ""))
    found = (*problems.found, *content_problems(roots, clock().date(), settings))
    for error in found:
        err().print(str(error), style="red")
    for note in (*unused_controls(roots), *unreviewed_rules(roots, clock().date())):
        say(note)
    say(f"content of {', '.join(map(str, roots))}: {f'{len(found)} wrong' if found else 'sound'}")
    return 2 if found else 0


def content_problems(roots: Sequence[Path], today: date, settings: Settings | None = None) -> tuple[ContentError, ...]:
    """The errors in controls, profiles, policies, definitions, fleets and waivers, each once. Without settings, nothing
    is known of an archive of one's own, or of upstream bases that are refused.
    """
    problems = Problems()
    problems.of(check_hardening, roots, today, problems)
    check_publishing(roots, settings.judging if settings else Judging(), today, problems)
    names = find_content(roots, "images/definitions", "*/")
    loaded = {name: problems.of(load_definition, name, folder) for name, folder in names.items()}
    definitions = {name: found for name, found in loaded.items() if found}
    judging = judging_roots(settings) if settings else tuple(roots)
    problems.of(_check_definitions, DefinitionValidator(roots, today, definitions, judging=judging), names, problems)
    locked = problems.of(lambda: [*pins(dict.fromkeys((*judging, *roots)))])
    problems.of(raise_all, _conflicting(locked or ()))
    for found in definitions.values():
        among = judging if found.folder.parents[2] in judging else roots
        pinned = [name for file, images in locked or () if file.parents[2] in among for name in images]
        problems.of(raise_all, _unbuildable(found, None if locked is None else pinned, settings))
    fleets = find_content(roots, "pipelines/fleets", "*.toml")
    policies = find_content(roots, "hardening/policies", "*.toml")
    told = list[Fleet]()
    for name, file in fleets.items():
        if fleet := problems.of(load_toml, file, Fleet, name=name):
            problems.of(require_policy, fleet, file, policies)
            problems.of(require_replacement, fleet, file, names)
            problems.of(_require_apart, fleet, file, told)
            told.append(fleet)
    controls = find_content(roots, "hardening/controls", "*/")
    for name, file in find_content(roots, "hardening/waivers", "*.toml").items():
        if waiver := problems.of(load_toml, file, Waiver, id=name) or _readable_names(file):
            problems.of(require_known, file, waiver, controls)
            problems.of(require_subjects, file, waiver, roots, names, fleets)
    check_network(roots, loaded, problems)
    return problems.found


def _conflicting(locked: Iterable[tuple[Path, Mapping[str, Pin]]]) -> Iterator[ContentError]:
    """The pins of references that an earlier lock file pins otherwise."""
    first = dict[str, tuple[Path, Pin]]()
    for file, reference, pin in ((file, name, pin) for file, images in locked for name, pin in images.items()):
        counts, other = first.setdefault(reference, (file, pin))
        if pin != other:
            why = f"{counts} pins it otherwise, and that pin counts"
            hint = "remove one of the two entries, or make them equal"
            yield ContentError(why, file=file, key=f'images."{reference}"', hint=hint)


def require_readable_home(home: str) -> None:
    """Raises ContentError where HOME is another user's: registry logins and settings of programs are read there."""
    if home and Path(home).exists() and not os.access(home, os.R_OK | os.X_OK):
        hint = "set it to a directory of the user who runs this"
        raise ContentError(f"user id {os.geteuid()} cannot read {home}", file="environment", key="HOME", hint=hint)


def _unbuildable(
    loaded: LoadedDefinition, pinned: Collection[str] | None, settings: Settings | None
) -> Iterator[ContentError]:
    """The reasons why a build would refuse the base. `pinned` is None where a lock file does not load."""
    base, file, suites = loaded.definition.base, loaded.folder / "image.toml", {*SUPPORT, *NO_END}
    if base.bootstrap and base.bootstrap.suite not in suites and not (settings and settings.packages.mirror):
        hint = f"{nearest(base.bootstrap.suite, suites)} packages.mirror in goldsmith.toml names an archive of your own"
        yield ContentError(
            f"unknown suite: {base.bootstrap.suite}", file=file, key="base.bootstrap.suite", hint=hint
        )  # fmt: skip
    if base.image and pinned is not None and base.image not in pinned:
        near = f"did you mean {' or '.join(close)}? " if (close := closest(base.image, pinned)) else ""
        hint = f"{near}./goldsmith image.lock {loaded.name} pins it"
        yield ContentError(f"{base.image} is not pinned, so no build takes it", file=file, key="base.image", hint=hint)
    try:
        if base.image and settings:
            require_base_allowed(settings, base.image)
    except RefusedError as error:
        yield ContentError(error.message, file=file, key="base.image", hint=error.hint)
    except ContentError:  # of the floor, which is told as its own
        return


def check_network(
    roots: Sequence[Path], loaded: Mapping[str, LoadedDefinition | None], problems: Problems
) -> None:  # fmt: skip
    """See that each file of the network loads, that all together are one, and that machines open what it says.

    Of `loaded` those that do not load are None, which has been told.
    """
    files = network_files(roots)
    sound = {file: problems.of(load_toml, file, NetworkFile, name=name) for name, file in files.items()}
    if all(sound.values()) and (network := problems.of(load_network, roots)):
        wrong = {name for role in network.roles.values() for name in role.definitions if loaded.get(name, "") is None}
        if not wrong:
            problems.of(require_agreement, network, {name: found for name, found in loaded.items() if found})


def unreviewed_rules(roots: Sequence[Path], today: date) -> list[str]:
    """What to know of each rule of the network whose review is due; nothing where the network is wrong."""
    try:
        network = load_network(roots)
    except ContentError:  # which is told as an error
        return []
    return [f"note: {overdue_text(placed, days)}" for placed, days in overdue(network, today)]


def _check_definitions(sound: DefinitionValidator, names: Collection[str], problems: Problems) -> None:
    for loaded in sound.definitions.values():
        golden = loaded.definition.parent
        if golden is None or golden in sound.definitions or golden not in names:  # what does not load has been told
            problems.of(sound.require, loaded)
    # As far as both load: what is missing has been told, circles have not.
    parents = {name: loaded.definition.parent for name, loaded in sound.definitions.items()}
    problems.of(order, {name: parent if parent in parents else None for name, parent in parents.items()})


def require_policy(fleet: Fleet, file: Path, policies: Collection[str]) -> None:
    """Raises ContentError where a fleet's policy is none."""
    if fleet.policy not in policies:
        hint = nearest(fleet.policy, policies)
        raise ContentError(f"unknown policy: {fleet.policy}", file=file, key="policy", hint=hint)


def _require_apart(fleet: Fleet, file: Path, others: Iterable[Fleet]) -> None:
    """Raises ContentError where every member of one fleet is another's too: both would replace it."""
    for other in others:
        less, more = sorted((fleet.selector.items(), other.selector.items()), key=len)
        places = [(fleet.ec2.regions, other.ec2.regions), (fleet.ec2.named_accounts, other.ec2.named_accounts)]
        places.append((fleet.docker.labels, other.docker.labels))
        elsewhere = any(ours and theirs and not {*ours} & {*theirs} for ours, theirs in places)
        elsewhere |= fleet.kubernetes.place != other.kubernetes.place
        for ours, theirs in ((fleet.ecs, other.ecs), (fleet.eks, other.eks)):
            elsewhere |= any(getattr(ours, key) != getattr(theirs, key) for key in ("cluster", "region", "account"))
        named = {*fleet.ecs.services, *fleet.eks.node_groups}, {*other.ecs.services, *other.eks.node_groups}
        elsewhere |= all(named) and not named[0] & named[1]
        if fleet.kind is other.kind and less <= more and not elsewhere:
            hint = "a member belongs to one fleet: give one of them a label that the other's members do not have"
            raise ContentError(f"it selects what the fleet {other.name} selects", file=file, key="selector", hint=hint)


def require_subjects(
    file: Path, waiver: Waiver, roots: Sequence[Path], definitions: Collection[str], fleets: Collection[str]
) -> None:
    """Raises ContentError for a subject that can be no definition, no member of a fleet and no image elsewhere.

    A waiver of a further root reaches only what that root defines.
    """
    raise_all(_strangers(file, waiver, roots, definitions, fleets))


def _strangers(
    file: Path, waiver: Waiver, roots: Sequence[Path], definitions: Collection[str], fleets: Collection[str]
) -> Iterator[ContentError]:
    reach = within_root(file, waiver, roots).reach
    ours = [name for name in definitions if reach is None or name in reach or waiver.inherited]
    theirs = [name for name in fleets if reach is None or f"{name}/" in reach]
    for number, subject in enumerate(waiver.subjects):
        elsewhere = bool(re.search(r"[.:]|^localhost$", subject.partition("/")[0])) and "/" in subject
        meant = (elsewhere and reach is None) or any(fnmatchcase(name, subject) for name in ours)
        if not meant and not any(_may_be_member(subject, fleet) for fleet in theirs):
            where = "" if reach is None else " of this content root, whose waivers reach no other's"
            yield ContentError(
                f"{subject} is neither a definition nor a member of a fleet (fleet/member){where}", file=file,
                key=f"subjects[{number}]", hint=nearest(subject.partition("/")[0], [*ours, *theirs]),
            )  # fmt: skip


def _may_be_member(subject: str, fleet: str) -> bool:
    """Whether some member `fleet/…` could match the glob: members come and go, fleets are known."""
    if "/" in subject:
        return fnmatchcase(fleet, subject.partition("/")[0])
    fixed = re.split(r"[*?\[]", subject)[0]
    return fixed != subject and f"{fleet}/".startswith(fixed)


def check_hardening(roots: Sequence[Path], today: date, problems: Problems) -> None:
    """Load every control, profile and policy of the content roots, and see that what each names is there."""
    profiles = find_content(roots, "hardening/profiles", "*.toml")
    controls, proofs, sound = dict[str, LoadedControl](), dict[str, Cases](), dict[str, Profile]()
    folders = find_content(roots, "hardening/controls", "*/")
    functions = find_content(roots, "hardening/functions", "*.sh")
    for name, folder in folders.items():
        told = len(problems.found)
        if loaded := problems.of(load_control, name, folder, functions):
            controls[name] = loaded
            problems.of(require_templates, loaded)
        if (folder / "cases.toml").is_file():
            cases = problems.of(_require_cases, folder, loaded.control.params if loaded else None, profiles)
            proofs |= {name: cases} if cases and len(problems.found) == told else {}
    for name in profiles:
        told = len(problems.found)
        profile = problems.of(load_profile, roots, name) or _own_entries(profiles[name], name)
        for entry in profile.controls if profile else ():
            if entry.control in controls or entry.control not in folders:  # what does not load has been told
                problems.of(require_sound, entry, controls)
        whole = profile and len(problems.found) == told and all(entry.control in controls for entry in profile.controls)
        sound |= {name: profile} if profile and whole else {}
    for name, cases in proofs.items():
        problems.of(raise_all, _unproved(controls[name], cases, sound, controls, today))
    for name, file in find_content(roots, "hardening/policies", "*.toml").items():
        if policy := problems.of(load_policy, roots, name):
            problems.of(_require_window, file, policy)


def _own_entries(file: Path, name: str) -> Profile | None:
    """What a profile lists itself, where that can be read though the whole is wrong."""
    try:
        own = load_toml(file, Profile, name=name)
    except ContentError:
        return None
    return own.model_copy(update={"controls": tuple(entry.of(file) for entry in own.controls)})


def unused_controls(roots: Sequence[Path], among: Collection[str] | None = None) -> list[str]:
    """What to know of each control, or each one of `among`, that no profile lists; nothing where profiles are wrong."""
    folders = find_content(roots, "hardening/controls", "*/")
    try:
        profiles = load_profiles(roots).values()
    except ContentError:  # which is told as an error
        return []
    listed = {entry.control for profile in profiles for entry in profile.controls}
    return [
        f'note: {folder}: no profile uses it, so it hardens no image; add {{ control = "{name}" }} to one'
        for name, folder in folders.items()
        if name not in listed and (among is None or name in among)
    ]


def check_publishing(roots: Sequence[Path], judging: Judging, today: date, problems: Problems) -> None:
    """See that each policy that may publish is there, and as strict as the floor."""
    problems.of(require_judging, roots, judging)
    known = find_content(roots, "hardening/policies", "*.toml")
    there = judging.model_copy(update={"policies": tuple(name for name in judging.policies if name in known)})
    for name in there.policies if judging.floor in ("", *known) else ():
        problems.of(_require_strict, roots, there, name, today)


def _require_strict(roots: Sequence[Path], judging: Judging, name: str, today: date) -> None:
    try:
        require_may_publish(roots, judging, name, today)
    except RefusedError as error:
        file = find_content(roots, "hardening/policies", "*.toml")[name]
        hint = "make it as strict, or take it out of judging.policies in goldsmith.toml"
        raise ContentError(error.message, file=file, evidence=error.evidence, hint=hint) from None


def _require_window(file: Path, policy: Policy) -> None:
    """Raises ContentError for a policy by which an image with every known hole passes."""
    if not policy.image.has_window:
        lack = "no window is enforced in which a vulnerability must be fixed"
        hint = 'such as [[image.vulnerabilities]] with severity = "high" and within = "7d"'
        raise ContentError(lack, file=file, key="image.vulnerabilities", hint=hint)


def _readable_names(file: Path) -> Waiver | None:
    """Of a waiver that is wrong, as much of what it names as can be read, so that all is told at once."""
    try:
        told = read_toml(file)
    except ContentError:
        return None
    lists = {key: told.get(key) for key in (*WAIVER_KEYS, "subjects")}
    names: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else ()
        for key, value in lists.items()
    }
    return Waiver.model_construct(id=file.stem, inherited=told.get("inherited") is True, **names)


def _require_cases(folder: Path, params: Mapping[str, Param] | None, profiles: dict[str, Path]) -> Cases:
    """The proofs of a control. Raises ContentError where they stand on no profile, or give params that it has not.

    `params` is None where the control does not load, which has been told.
    """
    file = folder / "cases.toml"
    cases = load_toml(file, Cases)
    raise_all(_wrong_cases(cases, file, params, profiles))
    return cases


def _unproved(
    loaded: LoadedControl, cases: Cases, profiles: Mapping[str, Profile], controls: Mapping[str, LoadedControl],
    today: date,
) -> Iterator[ContentError]:  # fmt: skip
    """Why `control.test` would fail before it breaks any tree, which is raised or given: by the kind of a profile, by a
    template and its values, or by a file that no case shows as it is. Of `profiles` only sound ones are there.
    """
    named = dict.fromkeys([cases.profile, *(proof.profile or cases.profile for proof in cases.proof)])
    on = {name: with_control(profiles[name], loaded) for name in named if name in profiles}
    for profile in on.values():
        require_kind(profile, loaded, controls)
    for one in prove_rendered(loaded, cases, on[cases.profile], controls, today) if cases.profile in on else ():
        if not one.passed:
            yield one.error(loaded)
    for proof in cases.proof:
        if chosen := on.get(proof.profile or cases.profile):
            overlay_of(chosen, controls, today, only=loaded.control.id, params=proof.params)


def _wrong_cases(
    cases: Cases, file: Path, params: Mapping[str, Param] | None, profiles: dict[str, Path]
) -> Iterator[ContentError]:
    named = {"profile": cases.profile}
    named |= {f"proof[{number}].profile": one.profile for number, one in enumerate(cases.proof) if one.profile}
    for key, profile in named.items():
        if profile not in profiles:
            yield ContentError(f"unknown profile: {profile}", file=file, key=key, hint=nearest(profile, profiles))
    given = [(f"render[{number}]", case.params) for number, case in enumerate(cases.render)]
    given += [(f"proof[{number}]", proof.params) for number, proof in enumerate(cases.proof)]
    for place, values in given if params is not None else ():
        for name, value in values.items():
            key = f"{place}.params.{name}"
            if params is None or name not in params:
                yield ContentError("unknown param", file=file, key=key, hint=nearest(name, params or ()))
            elif reason := params[name].wrong(value):
                yield ContentError(reason, file=file, key=key, hint=params[name].help)


WORKFLOWS = tuple(f".github/workflows/{name}.yml" for name in ("audit", "nightly", "test"))
LINT = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("check-jsonschema", "--quiet", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS),
)


def pytest_command(path: str = "", only: str = "", *, fast: bool = False) -> tuple[str, ...]:
    """The tests of `path`; else all on four workers, for many wait more than they compute, or the `fast` ones, which
    wait less, on three; the slowest ten are told.

    A file's tests stay together, so that what its fixtures build is built once; tests/conftest.py gives the files their
    order, and says what is `fast`.
    """
    count = "3" if fast else "4"
    workers = () if path else ("-n", count, "--dist", "loadfile", "--no-loadscope-reorder", "--durations=10")
    chosen = (*(("--fast",) if fast else ()), *(("-k", only) if only else ()), *((path,) if path else ()))
    return ("pytest", "-q", *workers, *chosen)


TESTS_TAKE = 4_000_000_000
"""Bytes: more than all temporary files of the tests take at any moment."""
MOUNTED = 'mount -t tmpfs -o mode=1777 tests "$TMPDIR" && exec "$0" "$@"'


def run_tests(command: tuple[str, ...]) -> int:
    """Run pytest as `run_checks` does, with its temporary files in a directory that is gone afterwards."""
    with TemporaryDirectory(prefix="") as folder:
        return run_checks([in_memory(command, folder)])


def in_memory(command: tuple[str, ...], folder: str) -> tuple[str, ...]:
    """Pytest with its temporary files in memory, mounted at `folder` for it alone; as it is, without root or memory.

    Tests make and remove trees of files all the time, and ext4 looks for an inode that was not just freed: a seventh of
    their processor time (`recently_deleted` in the kernel's ext4/ialloc.c). /tmp itself stays: the checkout may lie
    there. Without --basetemp, paths of sockets would be longer than the 107 bytes that unix(7) allows.
    """
    from images.store.files import fits_in_memory

    if os.geteuid() != 0 or not fits_in_memory(TESTS_TAKE):
        return command
    program = str(Path(sys.executable).parent / command[0])
    alone = ("unshare", "--mount", "--propagation", "slave", "env", f"TMPDIR={folder}", "sh", "-c", MOUNTED)
    return (*alone, program, f"--basetemp={folder}/tests", *command[1:])


def compile_tests() -> None:
    """In a fresh clone, collect all tests once, which keeps them compiled: else each worker would compile all."""
    if not (ROOT / "tests/__pycache__").exists():
        run([str(Path(sys.executable).parent / "pytest"), "--collect-only", "-q"], cwd=ROOT, ok=range(-64, 256))


def run_checks(commands: Iterable[tuple[str, ...]]) -> int:
    """Run every command, whatever became of the others; 0 when all passed, else 1, naming those that did not."""
    broken = [" ".join(command) for command in commands if _run(command) != 0]
    if broken:
        say(f"failed: {'; '.join(broken)}")
    return 1 if broken else 0


def _run(command: tuple[str, ...]) -> int:
    say(f"$ {' '.join(command)}")
    ours = Path(sys.executable).parent / command[0]
    return follow([str(ours) if ours.exists() else command[0], *command[1:]], cwd=ROOT)
