"""`waiver.list`, `waiver.new` and `waiver.export`: waivers, what one allows, and other tools' formats."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.catalog import load_waivers
from hardening.foundation.console import print_json, print_text, say
from hardening.foundation.content import find_content, parse
from hardening.foundation.errors import ContentError, OutsideError, UsageError, nearest
from hardening.foundation.settings import ROOT, load_settings
from hardening.model import Enforcement, Waiver
from hardening.waivers import ASKED_FOR, NOT_IN_A_NAME, RUNNING, WAIVABLE, About, about_finding, about_rule, ending_soon
from pipelines.cli.preview_output import PreviewOutput, terminal
from pipelines.contract import Line
from pipelines.wiring import clock, image_context

if TYPE_CHECKING:
    from hardening.findings import Reason
    from hardening.foundation.errors import GoldsmithError
    from hardening.foundation.settings import Settings
    from images.context import Context

WAIVER_COLUMNS = {"waiver": "id", "for": "covers", "ends": "expires", "days left": "left", "because": "reason"}
VULNERABILITY = re.compile(r"[A-Z]+-[A-Za-z0-9-]+")


class WaiverLine(Waiver):
    """`waiver.list`: one waiver, and how many days it remains valid; negative if it has ended."""

    days_left: int

    @property
    def covers(self) -> tuple[str, ...]:
        """Whom it is about, in a table."""
        return (*self.subjects, "and what images on them have from them") if self.inherited else self.subjects

    @property
    def left(self) -> str:
        """How long it still works, in a table."""
        return "ended" if self.days_left < 0 else str(self.days_left)


class NewWaiverOutput(Line):
    """`waiver.new`: the file that was written, its content, and what it allows, compared with before."""

    file: str
    waiver: Waiver
    preview: PreviewOutput


# -- those that there are ----------------------------------------------------------------------------------------------


def waiver_lines() -> list[WaiverLine]:
    """Every waiver, those that have ended too, with the days that are left."""
    today = clock().date()
    return [
        WaiverLine(**waiver.model_dump(), days_left=(waiver.expires - today).days)
        for waiver in load_waivers(load_settings().roots)
    ]


def show_waivers(lines: Sequence[WaiverLine], *, as_json: bool) -> int:
    """Print the waivers, and which end soon."""
    from pipelines.cli.image_output import show

    empty = "no waiver is written; ./goldsmith waiver.new writes one"
    code = show(lines, columns=WAIVER_COLUMNS, as_json=as_json, empty=empty)
    if not as_json:
        announce_ending(load_settings().roots, clock())
    return code


def announce_ending(roots: Sequence[Path], now: datetime) -> None:
    """Say which waivers end within 14 days, which have ended, and whose they are."""
    waivers, today = load_waivers(roots), now.date()
    for waiver in ending_soon(waivers, today):
        say(f"waiver {ending_text(waiver)}")
    for waiver in (one for one in waivers if one.expires < today):
        say(f"waiver {ending_text(waiver, 'ended')}: it has no effect, so remove it or have {waiver.approver} renew it")


def ending_text(waiver: Waiver, ends: str = "ends") -> str:
    """A waiver that ends soon, or has ended: what, for whom, when and whose it is."""
    names, subjects = ", ".join(waiver.names), ", ".join(waiver.subjects)
    return f"{waiver.id} for {names} in {subjects} {ends} on {waiver.expires} ({waiver.owner})"


def refused_now(context: Context) -> Iterator[Reason]:
    """What refuses the newest images by the last verdicts on them, and members by the last checks of their fleets."""
    from pipelines.fleet.catalog import load_fleets
    from pipelines.fleet.judged_state import last_checks

    ledger = context.ledger
    for name in sorted(context.definitions):
        artifact = ledger.latest_artifact(name, context.settings.platform)
        verdict = ledger.verdict(artifact.digest, name) if artifact else None
        yield from verdict.refusals if verdict else ()
    for _, members in last_checks(context, load_fleets(context.settings.roots)).values():
        reasons = (reason for member in members for reason in member.reasons)
        yield from (one for one in reasons if one.stands and one.enforcement is Enforcement.ENFORCE)


def export_waivers(form: str, subject: str) -> str:
    """The waivers in force for `subject` as `openvex` or `trivyignore`, inherited ones too.

    Raises UsageError for another form, and ContentError for a name that no definition has.
    """
    from hardening.waivers import about_image, openvex, trivyignore
    from images.catalog import sound_definitions
    from images.plan.build_plan import with_ancestors

    roots, today = load_settings().roots, clock().date()
    names = find_content(roots, "images/definitions", "*/")
    if subject not in names and "/" not in subject:  # a member's name is its fleet's, a slash and its own
        raise ContentError(f"unknown definition: {subject}", hint=nearest(subject, names))
    waivers, (definitions, _) = load_waivers(roots), sound_definitions(roots)
    parents = {name: loaded.definition.parent for name, loaded in definitions.items()}
    below = sorted(with_ancestors([subject], parents) - {subject}) if subject in parents else []
    if form == "trivyignore":
        return trivyignore(waivers, subject, today, below)
    if form == "openvex":
        return openvex(list(about_image(waivers, subject, below)), [f"pkg:oci/{subject}"], "Goldsmith", today)
    raise UsageError(f"unknown form: {form}", hint="openvex or trivyignore")


# -- a new one ---------------------------------------------------------------------------------------------------------


def new_waiver(
    subject: str, rule: str, *, packages: Sequence[str] = (), versions: Sequence[str] = (), paths: Sequence[str] = (),
    reason: str = "", owner: str = "", approver: str = "", expires: str = "", inherited: bool = False,
    justification: str = "", name: str = "", content: str = "", context: Context | None = None,
) -> tuple[NewWaiverOutput, list[GoldsmithError]]:  # fmt: skip
    """Write a waiver that is not there yet, and judge everybody without and with it.

    Packages, versions and paths that are not given are those in which the last scans found it. Raises UsageError for
    what is missing, ContentError for a subject or rule that does not exist, before anything is written.
    """
    import tomlkit

    from hardening.catalog import require_known
    from pipelines.cli.preview import judge_all, preview_of
    from pipelines.lint import require_subjects

    context = context or image_context()
    missing = [flag for flag, value in (("--reason", reason), ("--approver", approver)) if not value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given", hint="a second person approves what you ask for")
    roots, today = context.settings.roots, context.now.date()
    last = _day(expires) if expires else today + ASKED_FOR
    owner = owner or _owner(context, subject)
    about = _about(context, subject, rule, packages, versions, paths)
    data: dict[str, Any] = {
        about[0].key: [about[0].name], **_scope(about, packages, versions, paths), "subjects": [subject],
        **({"inherited": True} if inherited else {}), **({"justification": justification} if justification else {}),
        "reason": reason, "owner": owner, "approver": approver, "created": today, "expires": last,
    }  # fmt: skip
    name = name or NOT_IN_A_NAME.sub("-", f"{subject}-{rule}".lower()).strip("-")
    definitions, fleets = (find_content(roots, *where) for where in (("images/definitions", "*/"), FLEETS))
    own = {_root_of(path, roots) for one, path in (*definitions.items(), *fleets.items()) if _is_about(subject, one)}
    file, text = _root(context.settings, content, own) / "hardening/waivers" / f"{name}.toml", tomlkit.dumps(data)
    waiver = parse(tomllib.loads(text), Waiver, file, id=name)
    require_known(file, waiver, find_content(roots, "hardening/controls", "*/"))
    require_subjects(file, waiver, roots, definitions, fleets)
    names = sorted(context.definitions)
    before = judge_all(context, names, context.now)
    _write(file, text)
    after = judge_all(context, names, context.now)
    preview = preview_of(
        before, after, compared_with="the content without it", at=context.now, changed=(f"waiver {name} (new)",)
    )
    return NewWaiverOutput(file=str(file), waiver=waiver, preview=preview), after.errors


FLEETS = ("pipelines/fleets", "*.toml")


def show_new(made: tuple[NewWaiverOutput, list[GoldsmithError]], *, as_json: bool) -> int:
    """Print the file and whom it frees. A fleet that cannot be read is told, and the waiver is written all the same."""
    output, errors = made
    for error in errors:
        say(str(error))
    if as_json:
        from images.documents import to_json

        print_json(to_json(output))
        return 0
    print_text(f"written: {output.file}")
    print_text(terminal(output.preview))
    if not output.preview.lines:
        say("it changes nothing now: what it covers refuses none of its subjects")
    say(f"commit it in a pull request that {output.waiver.approver} approves")
    return 0


def _about(
    context: Context, subject: str, rule: str, packages: Sequence[str], versions: Sequence[str], paths: Sequence[str]
) -> list[About]:
    """What a rule is: a control, a rule of ours, or what the last scans of the subject found, once for each place.

    Raises ContentError for a name of nothing.
    """
    controls = find_content(context.settings.roots, "hardening/controls", "*/")
    if rule in controls:
        return [About("controls", rule)]
    if (own := about_rule(rule)).name in (*WAIVABLE, *RUNNING):  # of which one that no waiver may name is told so
        return [own]
    known = list(_found(context, subject))
    if mine := [about for about in known if about.name == rule]:
        return mine
    if VULNERABILITY.fullmatch(rule) and packages:
        return [About("vulnerabilities", rule, package, tuple(versions)) for package in packages]
    if VULNERABILITY.fullmatch(rule):
        found = {about.name for about in known}
        more = nearest(rule, found) if found else f"./goldsmith image.scan {subject} looks for it"
        hint = f"--package NAME names it; {more}"
        raise ContentError(f"no scan of {subject} found {rule}, so its package is not known", hint=hint)
    if paths:
        return [About("secrets", rule, path=path) for path in paths]
    near = get_close_matches(rule, sorted({*controls, *WAIVABLE, *(about.name for about in known)}), n=3, cutoff=0)
    every = f"./goldsmith control.list lists the controls, ./goldsmith image.scan {subject} what scans find"
    hint = f"did you mean {' or '.join(near)}? {every}; docs/runtime-rules.md has rules of what runs"
    raise ContentError(f"{rule} is not a control, a rule, or a finding of a scan of {subject}", hint=hint)


def _found(context: Context, subject: str) -> Iterator[About]:
    """What the last scans found in the images that a subject names."""
    for name in (name for name in sorted(context.definitions) if fnmatchcase(name, subject)):
        artifact = context.ledger.latest_artifact(name, context.settings.platform)
        scan = context.ledger.scan(artifact.digest, name) if artifact else None
        yield from map(about_finding, scan.findings if scan else ())


def _scope(
    about: Iterable[About], packages: Sequence[str], versions: Sequence[str], paths: Sequence[str]
) -> dict[str, list[str]]:
    """Where it is accepted: what was given, else where it was found."""
    found = list(about)
    scope = {
        "packages": packages or {one.package for one in found if one.package},
        "versions": versions
        or {version for one in found if not packages or one.package in packages for version in one.versions},
        "paths": paths or {one.path for one in found if one.path},
    }
    return {key: sorted(values) for key, values in scope.items() if values}


def _owner(context: Context, subject: str) -> str:
    """Whose the subject is. Raises UsageError where that is not known."""
    from pipelines.fleet.catalog import load_fleets

    fleet = load_fleets(context.settings.roots).get(subject.partition("/")[0]) if "/" in subject else None
    loaded = context.definitions.get(subject)
    if found := fleet.owner if fleet else loaded.definition.owner if loaded else "":
        return found
    hint = "--owner TEAM says who fixes it" + (f"; {nearest(subject, near)}" if (near := context.definitions) else "")
    raise UsageError(f"--owner must be given, since {subject} is not one definition or fleet of ours", hint=hint)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--expires: invalid date: {text}", hint="such as 2027-01-31") from None


def _is_about(subject: str, name: str) -> bool:
    return fnmatchcase(name, subject.partition("/")[0])


def _root_of(path: Path, roots: Sequence[Path]) -> Path:
    """The content root that holds a file; of one inside of another, the inner one."""
    return max((root.resolve() for root in roots if path.is_relative_to(root)), key=lambda root: len(root.parts))


def _root(settings: Settings, content: str, own: set[Path]) -> Path:
    """The content root to write into: the named one, else that of all of `own`, else the checkout.

    Raises ContentError for a named one that may add no waivers.
    """
    from pipelines.wiring import checkout_for

    allowed = {ROOT, *((ROOT / one).resolve() for one in settings.judging.roots)}
    if not content and len(own) == 1 and own <= allowed:
        return next(iter(own))
    root = Path(content).resolve() if content else checkout_for(sorted(own - allowed)[:1], "waiver")
    if root not in allowed:
        raise ContentError(
            f"the settings let {content} add no waiver", file="goldsmith.toml", key="judging.roots",
            hint=f"give one of {', '.join(sorted(map(str, allowed)))}",
        )  # fmt: skip
    return root


def _write(file: Path, text: str) -> None:
    """Write a file that is not there yet. Raises UsageError where it is."""
    from images.store.files import content_modes

    try:
        with content_modes():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except FileExistsError:
        raise UsageError(f"{file} exists already", hint="--name gives this one another name") from None
    except OSError as error:
        raise OutsideError(f"{file} cannot be written: {error.strerror}") from None
