"""All content of all roots, loaded and cross-checked: what `lint` says of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from hardening.catalog import require_known, within_root
from hardening.foundation.console import err, say
from hardening.foundation.content import find_content, load_toml
from hardening.foundation.errors import ContentError, Problems, nearest
from hardening.foundation.settings import Judging, load_settings
from hardening.lint import check_hardening, check_publishing, load_waiver_files
from hardening.model import Waiver
from images.catalog import LoadedDefinition, load_definition
from images.plan.graph import order
from images.plan.validate import DefinitionValidator
from pipelines.fleet.model import Fleet
from pipelines.wiring import clock


def lint_content() -> int:
    """Print all that is wrong with the content of this checkout and its further roots; 2 where anything is, else 0."""
    settings = load_settings()
    roots = settings.roots
    found = content_problems(roots, clock().date(), settings.judging)
    for error in found:
        err().print(str(error), style="red")
    say(f"content of {', '.join(map(str, roots))}: {f'{len(found)} wrong' if found else 'sound'}")
    return 2 if found else 0


def content_problems(roots: Sequence[Path], today: date, judging: Judging | None = None) -> tuple[ContentError, ...]:
    """What is wrong with controls, profiles, policies, definitions, fleets and waivers, each once."""
    problems = Problems()
    problems.of(check_hardening, roots, problems)
    check_publishing(roots, judging or Judging(), problems)
    names = find_content(roots, "images/definitions", "*/")
    loaded = {name: problems.of(load_definition, name, folder) for name, folder in names.items()}
    definitions = {name: found for name, found in loaded.items() if found}
    problems.of(_check_definitions, DefinitionValidator(roots, today, definitions), names, problems)
    fleets = find_content(roots, "pipelines/fleets", "*.toml")
    policies = find_content(roots, "hardening/policies", "*.toml")
    told = list[Fleet]()
    for name, file in fleets.items():
        if fleet := problems.of(partial(load_toml, file, Fleet, name=name)):
            problems.of(require_policy, fleet, file, policies)
            problems.of(_require_replacement, fleet, file, names)
            problems.of(_require_apart, fleet, file, told)
            told.append(fleet)
    controls = find_content(roots, "hardening/controls", "*/")
    for file, waiver in load_waiver_files(roots, problems).items():
        problems.of(require_known, file, waiver, controls)
        problems.of(_require_subjects, file, waiver, roots, names, fleets)
    return problems.found


def _check_definitions(sound: DefinitionValidator, names: Collection[str], problems: Problems) -> None:
    for loaded in sound.definitions.values():
        golden = loaded.definition.parent
        if golden is None or golden in sound.definitions or golden not in names:  # what does not load has been told
            problems.of(sound.require, loaded)
    problems.of(order, _parents(sound.definitions.values()))


def _parents(definitions: Iterable[LoadedDefinition]) -> dict[str, str | None]:
    """Each definition's parent, as far as both load: what is missing has been told, circles have not."""
    parents = {loaded.name: loaded.definition.parent for loaded in definitions}
    return {name: parent if parent in parents else None for name, parent in parents.items()}


def require_policy(fleet: Fleet, file: Path, policies: Collection[str]) -> None:
    """Raises ContentError where a fleet's policy is none."""
    if fleet.policy not in policies:
        hint = nearest(fleet.policy, policies)
        raise ContentError(f"no policy is named {fleet.policy}", file=file, key="policy", hint=hint)


def _require_replacement(fleet: Fleet, file: Path, definitions: Collection[str]) -> None:
    """Raises ContentError where what a fleet's members become is no definition."""
    wanted = fleet.replacement.definition
    if wanted and wanted not in definitions:
        hint = nearest(wanted, definitions)
        raise ContentError(f"{wanted} is not a definition", file=file, key="replacement.definition", hint=hint)


def _require_apart(fleet: Fleet, file: Path, others: Iterable[Fleet]) -> None:
    """Raises ContentError where every member of one fleet is another's too: both would replace it."""
    for other in others:
        less, more = sorted((fleet.selector.items(), other.selector.items()), key=len)
        places = [(fleet.ec2.regions, other.ec2.regions), (fleet.ec2.accounts, other.ec2.accounts)]
        elsewhere = any(ours and theirs and not {*ours} & {*theirs} for ours, theirs in places)
        if fleet.kind is other.kind and less <= more and not elsewhere:
            raise ContentError(
                f"it selects what the fleet {other.name} selects", file=file, key="selector",
                hint="a member belongs to one fleet: give one of them a label that the other's members do not have",
            )  # fmt: skip


def _require_subjects(
    file: Path, waiver: Waiver, roots: Sequence[Path], definitions: Collection[str], fleets: Collection[str]
) -> None:
    """Raises ContentError for a subject that can be no definition, no member of a fleet and no image elsewhere.

    A waiver of a further root reaches only what that root defines.
    """
    reach = within_root(file, waiver, roots).reach
    ours = [name for name in definitions if reach is None or name in reach]
    theirs = [name for name in fleets if reach is None or f"{name}/" in reach]
    for number, subject in enumerate(waiver.subjects):
        elsewhere = bool(re.search(r"[.:]|^localhost$", subject.partition("/")[0])) and "/" in subject
        meant = (elsewhere and reach is None) or any(fnmatchcase(name, subject) for name in ours)
        if not meant and not any(_may_be_member(subject, fleet) for fleet in theirs):
            where = "" if reach is None else " of this content root, whose waivers reach no other's"
            raise ContentError(
                f"{subject} is no definition and no member of a fleet (fleet/member){where}", file=file,
                key=f"subjects[{number}]", hint=nearest(subject.partition("/")[0], [*ours, *theirs]),
            )  # fmt: skip


def _may_be_member(subject: str, fleet: str) -> bool:
    """Whether some member `fleet/…` could match the glob: members come and go, fleets are known."""
    if "/" in subject:
        return fnmatchcase(fleet, subject.partition("/")[0])
    fixed = re.split(r"[*?\[]", subject)[0]
    return fixed != subject and f"{fleet}/".startswith(fixed)
