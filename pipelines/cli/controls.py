"""What `control.*`, `policy.*` and `fleet.list` print of the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.catalog import load_cases, load_controls, load_policies, load_profile, load_profiles
from hardening.findings import Outcome
from hardening.foundation.console import out, print_json, print_table, print_text, say
from hardening.foundation.content import find_content, select
from hardening.foundation.durations import shown
from hardening.foundation.errors import ContentError, UsageError, nearest
from hardening.foundation.settings import load_settings
from hardening.foundation.text import many
from hardening.model import Enforcement, Kind, LoadedControl, Param, Profile, Severity
from pipelines.wiring import clock

if TYPE_CHECKING:
    from hardening.findings import CheckResult
    from hardening.policy import Benchmark, FixWindow, Judges, Policy, Reproduced, RequiredProfiles, Rule
    from hardening.render import Overlay
    from pipelines.contract import FleetLine, VerifyLine

CONTROL_COLUMNS = {"control": "id", "severity": "severity", "title": "title", "profiles": "used_by"}
HOST_PROFILE = "container-host"
FLEET_COLUMNS = {"fleet": "name"} | {name: name for name in ("kind", "policy", "replacement", "approval")}


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
class ProofLine:
    """`control.test`: the result of one proof; `said` is the check's evidence, or what is wrong."""

    control: str
    profile: str
    proof: str
    passed: bool
    said: str

    @property
    def result(self) -> str:
        """The outcome in a table, with as much evidence as shows that something was looked at."""
        lines = [line for line in self.said.splitlines() if not line.endswith(":")] or [self.said]
        return f"yes: {lines[0]}" if self.passed else "NO: see its error, told beside this table"


@dataclass(frozen=True)
class ControlDetail(ControlRow):
    """`control.show`: everything about a control."""

    rationale: str
    cost: str
    on_hosts: tuple[str, ...]
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


def control_detail(roots: Sequence[Path], name: str, today: date) -> ControlDetail:
    """The control in full. Raises ContentError for an unknown name, with the nearest known ones."""
    controls = load_controls(roots)
    if name not in controls:
        raise ContentError(f"unknown control: {name}", hint=nearest(name, controls))
    loaded = controls[name]
    control = loaded.control
    return ControlDetail(
        **vars(_row(loaded, load_profiles(roots), today)),
        rationale=control.rationale,
        cost=control.cost,
        on_hosts=control.on_hosts,
        references=control.references,
        params=control.params,
        files=tuple(spec.path for spec in control.files),
        changes_the_image=loaded.apply is not None or bool(control.files),
        proofs=tuple(proof.title for proof in load_cases(loaded).proof),
        folder=loaded.folder,
    )


def check_tree(
    roots: Sequence[Path], profile: str, tree: Path, today: date, *, control: str = ""
) -> tuple[CheckResult, ...]:
    """What the profile's checks, or that of `control` alone, say of the filesystem at `tree`, `control.check`.

    Nothing is known of an image but its files: checks that need more fail, as they must.
    Raises ContentError where the profile does not list that control.
    """
    from hardening.check import run_checks
    from hardening.findings import ImageFacts

    return run_checks(_overlay(load_controls(roots), load_profile(roots, profile), today, control), tree, ImageFacts())


def _overlay(controls: Mapping[str, LoadedControl], profile: Profile, today: date, control: str) -> Overlay:
    """What a profile does, with all of its checks, or those of `control`, a name or a glob. Raises ContentError where
    it has none.
    """
    from hardening.render import render

    overlay = render(profile, controls, {}, {}, today)
    checks = tuple(check for check in overlay.checks if fnmatchcase(check.control, control or "*"))
    if not checks:
        hint = nearest(control, [check.control for check in overlay.checks])
        raise ContentError(f"{profile.name} has no control {control}", hint=hint)
    return replace(overlay, checks=checks)


def _row(loaded: LoadedControl, profiles: Mapping[str, Profile], today: date) -> ControlRow:
    control = loaded.control
    uses = (
        Use(profile.name, entry.enforced(today), entry.params)
        for profile in profiles.values()
        for entry in profile.controls
        if entry.control == control.id
    )
    return ControlRow(control.id, control.title, control.severity, control.applies_to, control.owner, tuple(uses))


def control_rows() -> list[ControlRow]:
    """One row for each control, with the profiles it stands in."""
    return list(list_controls(load_settings().roots, clock().date()))


def show_control_of(name: str, *, as_json: bool) -> None:
    """Print one control whole: why it is there, what it costs, what to do instead, how it is checked."""
    detail = control_detail(load_settings().roots, name, clock().date())
    if as_json:
        from images.documents import to_json

        print_json(to_json(detail))
        return
    params = [f"  {name} = {param.default!r}: {param.help}" for name, param in detail.params.items()]
    parts = {
        f"{detail.id} ({detail.severity})": detail.title,
        "Why": _flowing(detail.rationale),
        "What it costs": _flowing(detail.cost),
        **({"On a host that runs": _steps(detail.on_hosts)} if detail.on_hosts else {}),
        "References": "\n".join(f"  {name}: {', '.join(numbers)}" for name, numbers in detail.references.items())
        or "  none",
        "Parameters": "\n".join(params) or "  none",
        "Profiles": "\n".join(f"  {use.profile}: {use.enforcement}" for use in detail.used_by) or "  none",
        "Proofs": "\n".join(f"  {proof}" for proof in detail.proofs),
        "Files": f"  {detail.folder}",
    }
    for heading, text in parts.items():
        out().print(heading, style="bold")
        print_text(text.strip("\n") + "\n")


def _steps(steps: Sequence[str]) -> str:
    """Steps, a numbered line for each."""
    return "\n".join(f"  {number}. {_flowing(step)}" for number, step in enumerate(steps, 1))


def _flowing(text: str) -> str:
    """Text without its own line breaks, so that it folds where the reader's terminal ends; paragraphs stay."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def means_folder(name: str) -> bool:
    """Whether what a person typed is a folder's path, as no image's name has a slash or is `.`."""
    return "/" in name or name in (".", "..")


def check_directory(place: str, profile: str, control: str) -> list[VerifyLine]:
    """Check any filesystem, such as a mounted disk or an exported container, by a profile or one control of it.

    Raises UsageError without a profile, ContentError where the directory is none, or no filesystem.
    """
    from hardening.check import no_filesystem
    from images.scan.verify import refusals
    from pipelines.contract import VerifyLine

    tree, today = Path(place).resolve(), clock().date()
    if not profile:
        what = f"{place} is a folder: --profile must name the profile to check it by" if tree.is_dir() else ""
        raise UsageError(what or f"no such folder: {place}", hint="such as /mnt/disk --profile container-base")
    if reason := no_filesystem(tree) if tree.is_dir() else f"{place} is not a directory":
        raise ContentError(reason, hint="give the root of a filesystem: a mounted disk, an exported container")
    checks = check_tree(load_settings().roots, profile, tree, today, control=control)
    return [VerifyLine(name=str(tree), digest="", passed=not refusals(checks), checks=checks)]


def require_one_subject(name: str, host: str | bool) -> None:
    """Raise UsageError unless one thing is to be checked."""
    if bool(name) == bool(host):
        what = f"{name} and --host are two things to check" if name else "nothing is named to check"
        hint = "name an image or a directory, or give --host alone, or with an address such as ssh://ops@web-2"
        raise UsageError(what, hint=hint)


def check_a_host(address: str, profile: str, control: str) -> list[VerifyLine]:
    """Check a host that runs: this one without an `address`. It is only read, by the profile that is named or
    HOST_PROFILE, whatever stands in it for images alone left out.
    """
    from images.scan.verify import refusals
    from pipelines.contract import VerifyLine
    from pipelines.host_check import LOCAL, check_host, host_address

    settings, at = load_settings(), host_address(address)
    controls = load_controls(settings.roots)
    overlay = _overlay(controls, load_profile(settings.roots, profile or HOST_PROFILE), clock().date(), control)
    name = at.text if at else LOCAL
    say(f"{name}: checking {many(len(overlay.checks), 'control')}")
    checks = check_host(at, overlay.checks, controls, settings.docker.ssh_config)
    bad = [check.control for check in checks if check.outcome not in (Outcome.PASS, Outcome.NOT_APPLICABLE)]
    todo = {name: steps for name in bad if (steps := controls[name].control.on_hosts)}
    return [VerifyLine(name=name, digest="", passed=not refusals(checks), checks=checks, todo=todo)]


def prove_controls(pattern: str) -> tuple[list[ProofLine], list[ContentError]]:
    """Prove the controls that `pattern` means: a line for each proof, and an error for each that does not hold."""
    from images import proofs
    from pipelines.lint import unused_controls
    from pipelines.wiring import image_context

    context = replace(image_context(looks=True), lenient=True)
    roots = context.settings.roots
    names = select(pattern, find_content(roots, "hardening/controls", "*/"), "control")
    lines, errors = list[ProofLine](), list[ContentError]()
    for loaded, results in proofs.prove_controls(context, names):
        for one in results:
            lines.append(ProofLine(loaded.control.id, one.profile, one.title, one.passed, one.said))
            if not one.passed:
                errors.append(one.error(loaded))
    for note in unused_controls(roots, names):
        say(note)
    return lines, errors


def show_proofs(found: tuple[list[ProofLine], list[ContentError]], *, as_json: bool) -> int:
    """Print what became of each proof, with the first line of its check's evidence; exit code 2 where one fails."""
    from pipelines.cli.image_output import finish, show

    lines, errors = found
    if as_json:
        show(lines, columns={}, as_json=True)
    for control in () if as_json else dict.fromkeys(line.control for line in lines):
        rows = [[line.profile, line.proof, line.result] for line in lines if line.control == control]
        print_table(["on", "proof", "proved"], rows, title=control, whole=["on"])
    return finish(errors)


def show_policies(name: str, *, as_json: bool) -> None:
    """Print what policies ask, rule by rule."""
    policies = load_policies(load_settings().roots)
    chosen = [policies[found] for found in select(name, policies, "policy")]
    if as_json:
        print_json([policy.model_dump(mode="json", by_alias=True) for policy in chosen])
        return
    for policy in chosen:
        print_text(policy_text(policy) + "\n")


def fleet_lines() -> list[FleetLine]:
    """One line for each fleet."""
    from pipelines.contract import FleetLine
    from pipelines.fleet.catalog import load_fleets

    fleets = load_fleets(load_settings().roots)
    return [
        FleetLine.of(fleet, replacement=(to := fleet.replacement).image or f"{to.definition}:{to.channel}")
        for _, fleet in sorted(fleets.items())
    ]


TOLD_APART = ("controls", "judges", "vulnerabilities", "benchmark", "reproduced")


def policy_text(policy: Policy) -> str:
    """Whom it belongs to, why it is so, and rule by rule what it asks; lines that belong to a heading are indented."""
    image, running = policy.image, policy.running
    rules = {name: getattr(image, name) for name in type(image).model_fields if name not in TOLD_APART}
    lines = [
        f"{policy.name}: {policy.title}",
        " ".join(policy.rationale.split()),
        f"Owner: {policy.owner}",
        f"Review by: {policy.review_by}",
        f"Exceptions: {policy.exception_contact}",
        "To be published:",
        f"  controls: {_required(image.controls)}",
        f"  judges: {_judges(image.judges)}",
        *(f"  {_which(w)}: gone {shown(w.within)} after a fix is known: {_rule(w)}" for w in image.vulnerabilities),
        *(f"  {name}: {_rule(rule)}" for name, rule in rules.items()),
        *_benchmark(image.benchmark),
        f"  reproduced: {_reproduced(image.reproduced)}",
        "To keep running:",
        *(f"  {name}: {_running(getattr(running, name))}" for name in type(running).model_fields),
    ]
    return "\n".join(lines)


def _required(controls: RequiredProfiles) -> str:
    """The profiles that images must hold, by kind."""
    return ", ".join(f"{kind} {name or '(none)'}" for kind, name in controls.model_dump().items())


def _judges(judges: Judges) -> str:
    sample = "counts, whatever its age" if judges.accept_sample else "does not count"
    return (
        f"{judges.minimum} vulnerability scanner(s) evaluated, data at most {shown(judges.data_max_age)} old; "
        f"the sample of advisories that ships {sample} (accept_sample): {_rule(judges)}; packages of an ecosystem that "
        f"none of them evaluated (uncovered): {judges.uncovered}"
    )


def _benchmark(rule: Benchmark | None) -> list[str]:
    """What a machine is measured by, and each rule that is explained, with its owner."""
    if rule is None:
        return ["  benchmark: not asked"]
    head = (
        f"  benchmark: {rule.minimum_score:g} % of {rule.profile} holds, of at least {rule.minimum_rules} rules "
        f"evaluated, and each rule that does not is explained or waived: {_rule(rule)}"
    )
    told = (
        f"    {name} ({', '.join(why.subjects)}) is explained by {why.owner}: {' '.join(why.reason.split())}"
        for name, why in sorted(rule.explained.items())
    )
    return [head, *told]


def _reproduced(rule: Reproduced | None) -> str:
    return f"at least {rule.minimum_percent:g} % of the packages: {_rule(rule)}" if rule else "not asked"


def _rule(rule: Rule) -> str:
    return f"{_enforced(rule)}, grace {shown(rule.grace)}" if rule.grace else _enforced(rule)


def _enforced(rule: Rule) -> str:
    return f"{rule.enforcement} from {rule.from_date} on, warn before" if rule.from_date else str(rule.enforcement)


def _running(rule: Rule | None) -> str:
    """A rule for what runs; its own limits before its enforcement."""
    from hardening.policy import AgeRule, AllowingRule, SourceRule

    if rule is None:
        return "not asked"
    extra = f"at most {shown(rule.limit)}: " if isinstance(rule, AgeRule) else ""
    if isinstance(rule, SourceRule):
        extra = f"{', '.join(rule.prefixes) or 'the registry of the settings'}: "
    if isinstance(rule, AllowingRule) and rule.allowed:
        extra = f"but {', '.join(rule.allowed)}: "
    return f"{extra}{_enforced(rule)} after a grace of {shown(rule.grace)}"


def _which(window: FixWindow) -> str:
    """The vulnerabilities that a window covers, in words."""
    unnamed = window.severity is Severity.UNKNOWN
    severity = "of a severity that nobody named" if unnamed else f"of severity {window.severity} or worse"
    likely = "" if window.epss is None else f" with an EPSS score from {window.epss:g}"
    return f"{'exploited ones' if window.exploited else 'vulnerabilities'} {severity}{likely}"
