"""Waivers: which one covers what today, how to ask for one, and their formats for other tools. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase, translate

from hardening.evaluation import ECOSYSTEMS, REPRODUCED, SCORE, UNCOVERED, is_rule
from hardening.findings import BaseImage, Finding, FindingKind, Reason
from hardening.foundation.hashing import digest_of
from hardening.model import Enforcement, Waiver
from hardening.policy import RunningRules

STARTS = "container-starts"
OFFERED = "packages-offered"
TITLES = {
    "boot-completed": "The machine boots to its default target",
    "boot-failed-units": "No unit has failed after the boot",
    "boot-listening": "Nothing listens but what the definition names",
    "boot-cloud-init": "cloud-init ends without an error",
    "boot-second": "A second boot is as good, and what makes a machine itself is made once for each",
    STARTS: "The container gets healthy as it is shipped",
    OFFERED: "An archive offers each package of the upstream base in that version, or in a newer one",
}
# Goldsmith's own rules, beside controls, findings and benchmarks.
RUNNING = tuple(rule.replace("_", "-") for rule in RunningRules.model_fields)
# Whatever is not listed cannot be waived: that something was evaluated at all, what a policy must hold, a revocation.
WAIVABLE = dict.fromkeys(
    (
        *(rule for rule in RUNNING if rule != "revoked"), SCORE, REPRODUCED,
        *(f"{UNCOVERED}{name}" for name in (*ECOSYSTEMS, "other")), *TITLES,
    )
)  # fmt: skip


ASKED_FOR = timedelta(days=30)
SOON = timedelta(days=14)  # before its end a waiver is announced, and for so long after it what it covered
SUBJECT, SLUG = "s/u/b/j", "s-u-b-j"  # stands for a subject, and for it in a name, in what is made for many
WILD = re.compile(r"[*?\[]")
NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


def active(waivers: Sequence[Waiver], today: date) -> tuple[Waiver, ...]:
    """The waivers in force on `today`: from the day they were created through the day they expire."""
    return tuple(waiver for waiver in waivers if waiver.created <= today <= waiver.expires)


@dataclass(frozen=True)
class About:
    """What a reason is about, as a waiver names it: `key` is the waiver's key that contains `name`.

    `package` and `versions` are a vulnerability's, `path` is a secret's. `below`: the images that the subject stands on
    and that have it already, the nearest first.
    """

    key: str
    name: str
    package: str = ""
    versions: tuple[str, ...] = ()
    path: str = ""
    below: tuple[str, ...] = ()


KEYS = {FindingKind.VULNERABILITY: "vulnerabilities", FindingKind.SECRET: "secrets"}


def about_finding(finding: Finding, bases: Sequence[BaseImage] = ()) -> About:
    """A finding of a scanner, or a broken rule of a benchmark; `bases` are what the image stands on."""
    below = tuple(base.name for base in bases if _holds(base, finding))
    if is_rule(finding):
        return About("benchmark", finding.id, below=below)
    key = KEYS.get(finding.kind, "misconfigurations")
    if key == "vulnerabilities":
        return About(key, finding.id, package=finding.package, versions=finding.versions, below=below)
    return About(key, finding.id, path=finding.package if key == "secrets" else "", below=below)


def _holds(base: BaseImage, finding: Finding) -> bool:
    """Whether a base has exactly that: the same package in the same version, or the same finding.

    Never a secret: what stands at its path may be another one.
    """
    if finding.kind is FindingKind.SECRET:
        return False
    if finding.kind is FindingKind.VULNERABILITY and finding.versions:
        return all((finding.package, version) in base.packages for version in finding.versions)
    return (finding.kind, finding.id, finding.package) in base.findings


def about_check(control: str, bases: Sequence[BaseImage] = (), evidence: str = "") -> About:
    """A control, or what the boot itself showed. It comes from a base that breaks it by the very same `evidence`."""
    below = tuple(base.name for base in bases if (control, evidence) in base.broken)
    return About("rules", control) if control in TITLES else About("controls", control, below=below)


def about_rule(rule: str) -> About:
    """One of Goldsmith's own rules."""
    return About("rules", rule.replace("_", "-"))


def covers(waiver: Waiver, about: About, subject: str) -> bool:
    """Whether `waiver` accepts exactly that, in that package, version or path, for `subject`."""
    if about.name not in getattr(waiver, about.key) or not waiver.reaches(subject, about.below):
        return False
    if about.key == "vulnerabilities":
        versions = set(about.versions or ("",))  # a version that nobody knows is none that a waiver names
        return about.package in waiver.packages and (not waiver.versions or versions <= set(waiver.versions))
    return about.key != "secrets" or any(fnmatchcase(about.path, glob) for glob in waiver.paths)


def waived_by(waivers: Sequence[Waiver], about: About, subject: str, today: date) -> Waiver | None:
    """The waiver in force on `today` that covers it for `subject`, the longest-lived if there are several."""
    fitting = [waiver for waiver in active(waivers, today) if covers(waiver, about, subject)]
    return max(fitting, key=lambda waiver: (waiver.expires, waiver.id), default=None)


class ActiveWaivers:
    """The waivers in force on `today`, indexed for many questions about Goldsmith's own rules (`RunningRules`)."""

    def __init__(self, waivers: Iterable[Waiver], contact: str, today: date) -> None:
        self._contact, self._today = contact, today
        # By the literal beginning of a subject's glob: a subject is looked up by its own beginnings.
        self._by_beginning: dict[str, list[tuple[re.Pattern[str] | None, Waiver]]] = {}
        for waiver in active(tuple(waivers), today):
            for glob in waiver.subjects:
                begins = WILD.split(glob, maxsplit=1)[0]
                whole = None if begins == glob else re.compile(translate(glob))
                self._by_beginning.setdefault(begins, []).append((whole, waiver))
        self._lengths = sorted({len(one) for one in self._by_beginning})
        self._asked: dict[str, tuple[str, str]] = {}

    def of(self, subject: str) -> dict[str, Waiver]:
        """What accepts violations by `subject`: the waiver of each rule, the longest-lived if there are several."""
        found = dict[str, Waiver]()
        for length in self._lengths:
            for glob, waiver in self._by_beginning.get(subject[:length], ()):
                matches = glob.match(subject) if glob else len(subject) == length
                if matches and waiver.may_speak_for(subject):
                    for rule in WAIVABLE.keys() & waiver.rules:
                        name = rule.replace("-", "_")
                        found[name] = max(found.get(name, waiver), waiver, key=lambda one: (one.expires, one.id))
        return found

    def how_to_ask(self, rule: str, subject: str) -> str:
        """How to ask for a waiver of a rule; empty where none can be had."""
        name = rule.replace("_", "-")
        if name not in WAIVABLE:
            return ""
        if rule not in self._asked:  # the same for each subject but for its name, which stands there twice
            before, _, rest = how_to_ask(About("rules", name), SUBJECT, self._contact, self._today).partition(SLUG)
            self._asked[rule] = (before, rest)
        before, rest = self._asked[rule]
        slug = NOT_IN_A_NAME.sub("-", subject.lower()).strip("-")
        return f"{before}{slug}{rest.replace(SUBJECT, json.dumps(subject)[1:-1], 1)}"


def cited(waiver: Waiver, inherited: str = "") -> str:
    """A waiver as a reason that it covers names it."""
    return f"{waiver.id} until {waiver.expires}{inherited}: {waiver.reason}"


def answered(reason: Reason, about: About, contact: str, waivers: Sequence[Waiver], now: datetime) -> Reason:
    """`reason` with the waiver that covers it today, or with how to ask `contact` for one.

    A rule of Goldsmith's own that is not WAIVABLE has neither: no waiver can say that anything was evaluated.
    """
    if about.key == "rules" and about.name not in WAIVABLE:
        return reason
    if waiver := waived_by(waivers, about, reason.subject, now.date()):
        inherited = "" if waiver.reaches(reason.subject) else f", inherited from {', '.join(waiver.subjects)}"
        return replace(reason, waived_by=cited(waiver, inherited))
    return replace(reason, waiver=how_to_ask(about, reason.subject, contact, now.date()))


def ended(waivers: Sequence[Waiver], subject: str, today: date, below: Sequence[str] = ()) -> Iterator[Reason]:
    """A warning for each waiver about `subject` that has expired: it has no effect, and someone should know."""
    for waiver in waivers:
        if waiver.expires < today and waiver.reaches(subject, below):
            file, names = f"hardening/waivers/{waiver.id}.toml", ", ".join(waiver.names)
            what = f"waiver {waiver.id} for {names} expired on {waiver.expires}: no effect"
            why = "an exception that outlives its end is a hole that nobody decided on"
            todo = f"{waiver.owner}: delete {file}, or have {waiver.approver} approve a new end"
            yield Reason("waiver-ended", subject, Enforcement.WARN, what, why, todo)


def ending(waivers: Sequence[Waiver], subject: str, today: date, below: Sequence[str] = ()) -> Iterator[Reason]:
    """A warning for each waiver about `subject` that ends soon: what it covers refuses again from the day after."""
    for waiver in ending_soon(waivers, today):
        if waiver.reaches(subject, below):
            what = f"waiver {waiver.id} for {', '.join(waiver.names)} ends on {waiver.expires}"
            why = "from the day after, what it covers counts again"
            todo = f"{waiver.owner}: fix what it covers, or have {waiver.approver} approve a new end"
            yield Reason("waiver-ending", subject, Enforcement.WARN, what, why, todo)


def ending_soon(waivers: Sequence[Waiver], today: date) -> tuple[Waiver, ...]:
    """The waivers in force that end within 14 days, the first first."""
    soon = (waiver for waiver in active(waivers, today) if waiver.expires - today <= SOON)
    return tuple(sorted(soon, key=lambda waiver: (waiver.expires, waiver.id)))


def refusing_since(waivers: Sequence[Waiver], reasons: Iterable[Reason], today: date) -> dict[str, tuple[str, ...]]:
    """By its id, each waiver that ended within 14 days and names what is among `reasons`, with their subjects."""
    lately = [one for one in waivers if today - SOON <= one.expires < today]
    found: dict[str, dict[str, None]] = {}
    for reason in reasons if lately else ():  # which are read as they are asked for
        for waiver in lately:
            named = {reason.rule, reason.rule.replace("_", "-")} & {*waiver.names}
            if named and waiver.reaches(reason.subject, [reason.comes_from] if reason.comes_from else ()):
                found.setdefault(waiver.id, {})[reason.subject] = None
    return {waiver: tuple(sorted(subjects)) for waiver, subjects in found.items()}


def how_to_ask(about: About, subject: str, contact: str, today: date) -> str:
    """How an application developer asks for an exception: whom, and a waiver to paste and complete."""
    name = NOT_IN_A_NAME.sub("-", f"{about.below[-1] if about.below else subject}-{about.name}".lower()).strip("-")
    scope = {
        "packages": (about.package,) if about.package else (),
        "versions": about.versions,
        "paths": (about.path,) if about.path else (),
    }
    of_member = about.key == "rules" or "/" in subject
    more = [] if of_member else ["# inherited = true  # for the images that are built on it too"]
    lines = [
        f"ask {contact}, with this as hardening/waivers/{name}.toml in a pull request:",
        f"{about.key} = {listed([about.name])}",
        *(f"{key} = {listed(values)}" for key, values in scope.items() if values),
        f"subjects = {listed([about.below[-1] if about.below else subject])}",
        *(["inherited = true  # it comes from there, and each image on it has it"] if about.below else more),
        'reason = "why it is acceptable until then"',
        'owner = ""  # your team',
        'approver = ""  # a second person, not the owner',
        f"created = {today}",
        f"expires = {today + ASKED_FOR}",
    ]
    return "\n".join(lines)


def listed(values: Iterable[str]) -> str:
    """A TOML array of text. JSON's quoting of one text is TOML's too, and quick: each member of a fleet asks for it."""
    return f"[{', '.join(map(json.dumps, values))}]"


def openvex(waivers: Sequence[Waiver], products: Sequence[str], author: str, today: date) -> str:
    """The vulnerability waivers in force as an OpenVEX 0.2.0 document (https://openvex.dev/ns/v0.2.0) over `products`.

    A waiver accepts a risk: the status is `affected`, and the action statement carries reason, approver and end. Only
    one with a justification claims that the product is unaffected, which lets other scanners leave the finding out.
    """
    statements = [
        {
            "vulnerability": {"name": vulnerability},
            "timestamp": f"{waiver.created}T00:00:00Z",
            "products": [{"@id": product, "subcomponents": subcomponents(waiver)} for product in sorted(products)],
            **_status(waiver),
        }
        for waiver in sorted(active(waivers, today), key=lambda waiver: waiver.id)
        for vulnerability in waiver.vulnerabilities
    ]
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "author": author,
        "timestamp": f"{today}T00:00:00Z",
        "version": 1,
        "statements": statements,
    }
    identity = f"https://openvex.dev/docs/goldsmith/{digest_of(document).removeprefix('sha256:')}"
    return json.dumps({"@id": identity, **document}, indent=2, sort_keys=True) + "\n"


def _status(waiver: Waiver) -> dict[str, str]:
    if waiver.justification is None:
        return {
            "status": "affected",
            "action_statement": f"accepted until {waiver.expires} by {waiver.approver}: {waiver.reason}",
            "action_statement_timestamp": f"{waiver.created}T00:00:00Z",
        }
    return {
        "status": "not_affected",
        "justification": waiver.justification,
        "impact_statement": waiver.reason,
        "status_notes": f"claimed until {waiver.expires} by {waiver.approver}",
    }


def subcomponents(waiver: Waiver) -> list[dict[str, str]]:
    """The packages that a waiver's vulnerabilities are accepted in, as OpenVEX names them."""
    return [{"@id": purl} for purl in purls(waiver)]


def purls(waiver: Waiver) -> list[str]:
    """The packages of a waiver as package URLs of Debian, with each version where it names any."""
    versions = [f"@{version}" for version in waiver.versions] or [""]
    return [f"pkg:deb/debian/{package}{version}" for package in waiver.packages for version in versions]


def about_image(waivers: Iterable[Waiver], subject: str, below: Sequence[str]) -> Iterator[Waiver]:
    """The waivers that hold for `subject` wherever they are read. Of what it has from the images `below`, only that of
    package versions that the waiver names: by another tool it would cover what the image brings itself.
    """
    for waiver in waivers:
        if waiver.reaches(subject):
            yield waiver
        elif waiver.reaches(subject, below) and waiver.versions:
            yield waiver.model_copy(update={"misconfigurations": (), "secrets": ()})


def trivyignore(waivers: Sequence[Waiver], subject: str, today: date, below: Sequence[str] = ()) -> str:
    """The waivers in force for `subject` as `.trivyignore.yaml`, for those who run trivy by hand; JSON is YAML.

    Goldsmith's own scans use none: what is waived is still found, and shown as waived.
    """
    mine = sorted(about_image(active(waivers, today), subject, below), key=lambda w: w.id)
    document = {
        "vulnerabilities": [_ignored(w, name, purls=purls(w)) for w in mine for name in w.vulnerabilities],
        "misconfigurations": [_ignored(w, name) for w in mine for name in w.misconfigurations],
        "secrets": [_ignored(w, name, paths=list(w.paths)) for w in mine for name in w.secrets],
    }
    return json.dumps(document, indent=2) + "\n"


def _ignored(waiver: Waiver, name: str, **scope: list[str]) -> dict[str, object]:
    """One line of trivy's file, which reads moments and no days: the waiver holds through its last day."""
    ends = f"{waiver.expires + timedelta(days=1)}T00:00:00Z"
    return {"id": name, **scope, "expired_at": ends, "statement": f"{waiver.id}: {waiver.reason}"}
