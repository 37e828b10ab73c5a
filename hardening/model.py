"""The formats of `hardening/`: controls, profiles and waivers, as strict frozen models; policies: policy.py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from hardening.foundation.content import Content
from hardening.foundation.wording import matching

Name = Annotated[str, matching(r"^[a-z0-9][a-z0-9-]*$", "a name of small letters, digits and dashes")]
IN_LINE = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]"


def _stays_inside(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("a path in the image has no `..`")
    return path


_INSIDE = AfterValidator(_stays_inside)
ImagePath = Annotated[str, matching(rf"^/{IN_LINE}+$", "an absolute path, beginning with /"), _INSIDE]
Mode = matching(r"^0[0-7]{3,4}$", 'a mode in octal such as "0644"')
Owner = matching(r"^[0-9]+:[0-9]+$", 'numbers of user and group such as "0:0"')
NonEmpty = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
LONGEST_WAIVER_DAYS = 366


class Severity(StrEnum):
    """How bad it is, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    UNKNOWN = "unknown"


class Enforcement(StrEnum):
    """What a rule does when it is broken: recorded only, shown as a warning, or refused."""

    AUDIT = "audit"
    WARN = "warn"
    ENFORCE = "enforce"


WORST_FIRST, LENIENT_FIRST = tuple(Severity), tuple(Enforcement)


class Kind(StrEnum):
    """What an image is."""

    CONTAINER = "container"
    MACHINE = "machine"


class Param(Content):
    """A knob of a control. Without a `default` the profile must give a value; `allowed` lists a choice's values."""

    type: Literal["string", "integer", "boolean", "list"]
    help: NonEmpty
    default: Any = None
    allowed: tuple[str, ...] = ()

    def wrong(self, value: Any) -> str:
        """Why `value` is none of this knob's values; empty when it is."""
        fits = {
            "string": isinstance(value, str),
            "integer": isinstance(value, int) and not isinstance(value, bool),
            "boolean": isinstance(value, bool),
            "list": isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
        }
        if not fits[self.type]:
            return f"must be {'a list of strings' if self.type == 'list' else f'of type {self.type}'}, not {value!r}"
        if self.allowed and value not in self.allowed:
            return f"must be one of {', '.join(self.allowed)}, not {value!r}"
        return ""

    @model_validator(mode="after")
    def _default_fits(self) -> Param:
        if self.default is not None and (reason := self.wrong(self.default)):
            raise ValueError(f"default {reason}")
        return self


class FileSpec(Content):
    """A file that a control puts into the image: `source` under the control's `files/` is a Jinja2 template."""

    path: ImagePath
    source: NonEmpty
    mode: Annotated[str, Mode] = "0644"
    owner: Annotated[str, Owner] = "0:0"
    only_with: Annotated[str, matching(r"^(/.*)?$", "an absolute path, beginning with /"), _INSIDE] = Field(
        "", description="install only where this directory of the image exists"
    )


class Control(Content):
    """One reviewed decision about hardening, with its reason and its cost beside it."""

    id: Name
    title: NonEmpty
    severity: Severity
    applies_to: Annotated[tuple[Kind, ...], Field(min_length=1)]
    owner: NonEmpty
    rationale: NonEmpty
    cost: NonEmpty
    functions: Annotated[
        tuple[Name, ...], Field(description="files of hardening/functions that its scripts begin with, without .sh")
    ] = ()
    references: dict[str, tuple[str, ...]] = {}
    params: dict[str, Param] = {}
    files: tuple[FileSpec, ...] = ()
    before_boot: bool = Field(
        False, description="true: files are judged as before a first boot; a host that runs is asked with LIVE=1 alone"
    )
    on_hosts: Annotated[tuple[NonEmpty, ...], Field(description="steps that mend a host which runs already")] = ()


@dataclass(frozen=True)
class LoadedControl:
    """A control with the texts beside it, so that rendering reads no file. `templates` maps a source to its text."""

    control: Control
    folder: Path
    apply: str | None
    check: str
    templates: dict[str, str]


class RenderCase(Content):
    """What a control's files look like under given parameters: path in the image → expected text."""

    params: dict[str, Any] = {}
    expect: Annotated[dict[str, str], Field(min_length=1)]


class Proof(Content):
    """One way to break a control. Its check must fail on the broken tree, and pass on the hardened tree."""

    title: NonEmpty
    on: Literal["unhardened", "hardened"] = Field("hardened", description="the tree that is planted into")
    plant: str = Field("", description="POSIX sh that breaks the tree at $ROOT")
    params: dict[str, Any] = Field({}, description="over the profile's own")
    facts: dict[str, Any] = Field({}, description="over the facts of a good image, see ImageFacts")
    evidence: NonEmpty = Field(description="what the red check's evidence must name")
    healed: bool = Field(False, description="true: applying the overlay again makes the planted tree green")
    profile: Name | None = Field(None, description="profile of this proof, where it is not the others'")
    live: bool = Field(False, description="true: the check runs inside the tree with LIVE=1, as in a booted machine")


class Cases(Content):
    """`cases.toml` of a control: a control without a proof is not accepted."""

    profile: Name = Field("container-base", description="profile whose hardened tree the proofs stand on")
    render: tuple[RenderCase, ...] = ()
    proof: Annotated[tuple[Proof, ...], Field(min_length=1)]


class Stage(Content):
    """An enforcement that begins on a date."""

    enforcement: Enforcement
    from_date: date = Field(alias="from")


class ProfileEntry(Content):
    """A control in a profile: its parameters, its enforcement now, and future stages."""

    control: Name
    enforcement: Enforcement = Enforcement.ENFORCE
    params: dict[str, Any] = {}
    stages: tuple[Stage, ...] = ()
    _file: str = ""

    @property
    def file(self) -> str:
        """The file of the profile that lists it, which a profile that extends that one takes it over from."""
        return self._file

    def of(self, file: Path) -> ProfileEntry:
        """The same entry as one that stands in `file`."""
        entry = self.model_copy()
        entry._file = str(file)
        return entry

    def enforced(self, today: date) -> Enforcement:
        """The enforcement in force on `today`: the latest stage that has begun, else the entry's own."""
        begun = sorted((s.from_date, s.enforcement) for s in self.stages if s.from_date <= today)
        return begun[-1][1] if begun else self.enforcement


class Profile(Content):
    """A named list of controls. `extends` inherits a profile's entries; an entry here replaces that control's."""

    name: Name
    title: NonEmpty
    owner: NonEmpty
    extends: Name | None = None
    controls: tuple[ProfileEntry, ...] = ()
    without: dict[Name, NonEmpty] = Field({}, description="controls of `extends` left out, each with the reason")


VULNERABILITY = r"^(CVE-[0-9]{4}-[0-9]{4,}|(GHSA|TEMP|DSA|DLA|USN|PYSEC|GO|RUSTSEC|OSV|MAL|GMS)(-[A-Za-z0-9]+)+)$"
VulnerabilityId = Annotated[
    str,
    matching(
        VULNERABILITY,
        "a vulnerability's id such as CVE-2026-0001 or GHSA-2j2x-hqr9-3h42",
    ),
]
ScopePath = Annotated[
    str, matching(r"^/[^*?\[]+(/.*)?$", "an absolute path; a glob begins with a whole directory, such as /usr/share/*")
]
Justification = Literal[
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
]
WAIVER_KEYS = ("controls", "vulnerabilities", "secrets", "misconfigurations", "benchmark", "rules")


class Waiver(Content):
    """A written exception that ends: what it names, each kind under its own key, is accepted until `expires`.

    A vulnerability is accepted in the named packages alone, a secret under the named paths.
    """

    id: Name
    controls: tuple[Name, ...] = ()
    vulnerabilities: tuple[VulnerabilityId, ...] = Field((), description="ids, in the `packages` that are named")
    packages: tuple[NonEmpty, ...] = Field((), description="exact names; `vulnerabilities` is about them alone")
    versions: tuple[NonEmpty, ...] = Field((), description="exact versions of the packages; empty: any version")
    secrets: tuple[NonEmpty, ...] = Field((), description="ids of findings, under the `paths` that are named")
    paths: tuple[ScopePath, ...] = Field((), description="globs over absolute paths that `secrets` is about")
    misconfigurations: tuple[NonEmpty, ...] = Field((), description="ids of a scanner's findings")
    benchmark: tuple[NonEmpty, ...] = Field((), description="short names of a benchmark's rules")
    rules: tuple[Name, ...] = Field((), description="Goldsmith's own rules, such as max-age or boot-listening")
    subjects: Annotated[tuple[str, ...], Field(min_length=1, description="globs over definition or fleet/member names")]
    inherited: bool = Field(False, description="true: also in images built on a subject, of what they have from it")
    justification: Justification | None = Field(
        None, description="why no `vulnerabilities` of it affect the subjects, in OpenVEX's words; without it, they do"
    )
    reason: NonEmpty
    owner: NonEmpty
    approver: NonEmpty
    created: date
    expires: date
    _reach: frozenset[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that it names."""
        return tuple(name for key in WAIVER_KEYS for name in getattr(self, key))

    @property
    def reach(self) -> frozenset[str] | None:
        """The subjects that its content root may speak for; None: all."""
        return self._reach

    def within(self, reach: frozenset[str]) -> Waiver:
        """The same waiver for these subjects alone: names of definitions, and of fleets with a slash after them."""
        waiver = self.model_copy()
        waiver._reach = reach
        return waiver

    def may_speak_for(self, subject: str) -> bool:
        """Whether its content root may speak for `subject`."""
        head, slash, _ = subject.partition("/")
        return self._reach is None or f"{head}{slash}" in self._reach

    def reaches(self, subject: str, below: Sequence[str] = ()) -> bool:
        """Whether it is about `subject`: one of its globs matches, and its content root may speak for it.

        One that is inherited also matches by the images `below` that the subject has from what it is about.
        """
        names = (subject, *below) if self.inherited else (subject,)
        return self.may_speak_for(subject) and any(fnmatchcase(name, glob) for name in names for glob in self.subjects)

    @field_validator("rules", "controls", mode="before")
    @classmethod
    def _not_vulnerabilities(cls, names: Any) -> Any:
        """Names from a file, which may be of any type; a vulnerability among them is told where it belongs."""
        for name in names if isinstance(names, (list, tuple)) else ():
            if isinstance(name, str) and re.match(VULNERABILITY, name):
                raise ValueError(f"{name} is a vulnerability: it stands under `vulnerabilities`, with its `packages`")
        return names

    @model_validator(mode="after")
    def _bounded(self) -> Waiver:
        if wrong := list(self._contradictions()):
            raise ValueError("; and ".join(wrong))
        return self

    def _contradictions(self) -> Iterator[str]:
        """What does not go together."""
        if not self.names:
            yield (f"a waiver names something under at least one of {', '.join(WAIVER_KEYS)}")
        for what, where in (("vulnerabilities", "packages"), ("secrets", "paths")):
            if bool(getattr(self, what)) != bool(getattr(self, where)):
                yield (f"{what} and {where} go together: a waiver says of which {where} it accepts {what}")
        if self.inherited and self.rules:
            yield ("inherited and rules do not go together: a rule is about one image or member alone")
        if self.inherited and self.secrets:
            yield ("inherited and secrets do not go together: what stands at a path may be another secret there")
        if self.versions and not self.packages:
            yield ("versions are those of packages, and no package is named")
        if self.justification and not self.vulnerabilities:
            yield ("justification is about vulnerabilities, and none is named")
        if self.approver.casefold() == self.owner.casefold():
            yield ("approver and owner must be two people")
        if not 0 < (self.expires - self.created).days <= LONGEST_WAIVER_DAYS:
            yield (f"expires must lie after created, and within {LONGEST_WAIVER_DAYS} days of it")
