"""Where vulnerability scanners disagree about one image, and why. Pure.

They disagree about a vulnerability in a package that one reports and another one that evaluated the image does not, and
about the severity or the fixed version of one that both report. A difference has a cause only where the reports
themselves show it; what they do not show is UNEXPLAINED.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from hardening.findings import BaseImage, Finding, FindingKind, Outcome, ScanReport
from hardening.model import Severity, Waiver
from hardening.waivers import about_finding, waived_by

DISTRIBUTION = ("", "deb")  # ecosystems of an operating system's own packages
LANGUAGES = "languages"
SIGNED_COPIES = "signed copies"  # of kernels and GRUB, over whose own sources there are no advisories
UNFIXED = "unfixed"


class DisagreementCause(StrEnum):
    """Why scanners disagree; the first that applies."""

    WAIVER = "waiver"
    NOT_SEEN = "package not seen"
    IGNORED = "ignored status"
    DATA_DATE = "data date"
    SEVERITY_SOURCE = "severity source"
    UNEXPLAINED = "unexplained"


class Question(StrEnum):
    """What scanners disagree about."""

    PRESENCE = "whether it is there"
    SEVERITY = "severity"
    FIXED = "fixed version"


@dataclass(frozen=True, order=True)
class Disagreement:
    """One question about one vulnerability in one package: what each scanner says, the cause, and what shows it.

    `opinions` are (scanner, answer); of `Question.PRESENCE` the answer is `reported` or `silent`.
    """

    id: str
    package: str
    question: Question
    opinions: tuple[tuple[str, str], ...]
    cause: DisagreementCause
    evidence: str


Opinions = Sequence[tuple[ScanReport, Finding | None]]


def disagreements(
    reports: Sequence[ScanReport], waivers: Sequence[Waiver] = (), subject: str = "", today: date = date.min,
    bases: Sequence[BaseImage] = (),
) -> tuple[Disagreement, ...]:  # fmt: skip
    """Every disagreement of the scanners that evaluated the image `subject`, which stands on `bases`, in a fixed order.

    A vulnerability that a waiver covers on `today` has been answered by a person, whatever scanners say.
    """
    looked = compared(reports)
    found = {(report.scanner, one.id, one.package): one for report in looked for one in report.findings}
    told = list[Disagreement]()
    for id_, package in sorted({(id_, package) for _, id_, package in found}):
        opinions = [(report, found.get((report.scanner, id_, package))) for report in looked]
        first = next(one for _, one in opinions if one)
        waiver = waived_by(waivers, about_finding(first, bases), subject, today)
        told += _about(opinions, first, f"waived by {waiver.id} until {waiver.expires}" if waiver else "")
    return tuple(told)


def compared(reports: Sequence[ScanReport]) -> list[ScanReport]:
    """The vulnerability scanners that evaluated the image: what others say or do not say is no opinion."""
    known = (Outcome.PASS, Outcome.FAIL)
    return [report for report in reports if report.kind is FindingKind.VULNERABILITY and report.outcome in known]


def summary(reports: Sequence[ScanReport], found: Sequence[Disagreement]) -> str:
    """The disagreements in a line: how many, and how many of each cause."""
    looked = len(compared(reports))
    unread = [{name for name, _ in report.beyond} for report in compared(reports)]
    names = ", ".join(sorted(set.intersection(*unread))) if unread else ""
    common = f"; none of them evaluated {names}" if names else ""
    if looked < 2:  # noqa: PLR2004 - one alone has nobody to disagree with
        return f"{'one scanner' if looked else 'no scanner'} evaluated vulnerabilities: there is nothing to compare"
    if not found:
        return f"the {looked} scanners of vulnerabilities agree{common}"
    counted = Counter(one.cause for one in found)
    causes = ", ".join(f"{counted[cause]} {cause}" for cause in DisagreementCause if counted[cause])
    return f"scanners disagree on {len(found)}: {causes}{common}"


def _about(opinions: Opinions, first: Finding, waived: str) -> Iterator[Disagreement]:
    """What the scanners disagree about in one vulnerability of one package."""
    spoke = [(report, one) for report, one in opinions if one]
    asked = (
        (Question.PRESENCE, [(r, o, "reported" if o else "silent") for r, o in opinions]),
        (Question.SEVERITY, [(r, o, str(o.severity)) for r, o in spoke]),
        (Question.FIXED, [(r, o, o.fixed or "none") for r, o in spoke]),
    )
    for question, answers in asked:
        if len({answer for _, _, answer in answers}) > 1:
            cause, evidence = (DisagreementCause.WAIVER, waived) if waived else _cause(question, answers)
            said = tuple((report.scanner, answer) for report, _, answer in answers)
            yield Disagreement(first.id, first.package, question, said, cause, evidence)


Answers = Sequence[tuple[ScanReport, Finding | None, str]]


def _cause(question: Question, answers: Answers) -> tuple[DisagreementCause, str]:
    """The cause of every two different answers: where one pair has none, that pair's."""
    pairs = [(a, b) for number, a in enumerate(answers) for b in answers[number + 1 :] if a[2] != b[2]]
    causes = [_between(question, a[:2], b[:2]) for a, b in pairs]
    return next((one for one in causes if one[0] is DisagreementCause.UNEXPLAINED), causes[0])


def _between(
    question: Question, one: tuple[ScanReport, Finding | None], other: tuple[ScanReport, Finding | None]
) -> tuple[DisagreementCause, str]:
    """Why two scanners answer differently, with what shows it."""
    if question is Question.PRESENCE:
        (_, found), (silent, _) = (one, other) if one[1] else (other, one)
        if found and (ignored := _ignored(found, silent)):
            return ignored
    if question is Question.SEVERITY and (differ := _sources(one, other)):
        return DisagreementCause.SEVERITY_SOURCE, differ
    if differ := _dates(one[0], other[0]):
        return DisagreementCause.DATA_DATE, differ
    return DisagreementCause.UNEXPLAINED, f"{one[0].scanner} and {other[0].scanner} judge by data of the same day"


def _ignored(found: Finding, silent: ScanReport) -> tuple[DisagreementCause, str] | None:
    """Whether a silent scanner never reports packages, or vulnerabilities, of that kind."""
    if found.ecosystem not in DISTRIBUTION and LANGUAGES in silent.ignores:
        return (
            DisagreementCause.NOT_SEEN,
            f"{silent.scanner} reads the distribution's packages, not those of {found.ecosystem}",
        )
    statuses = {found.status, "" if found.fixed else UNFIXED} - {""}
    if named := sorted(statuses & set(silent.ignores)):
        return DisagreementCause.IGNORED, f"{silent.scanner} does not report {named[0]}"
    return None


def _sources(one: tuple[ScanReport, Finding | None], other: tuple[ScanReport, Finding | None]) -> str:
    """Whose word each severity is, where they are not the same; `none` for a scanner without one."""
    told = []
    for report, found in (one, other):
        silent = found is None or found.severity is Severity.UNKNOWN
        told.append((report.scanner, "none" if silent else found.source if found else ""))
    differ = told[0][1] != told[1][1] and all(source for _, source in told)
    return ", ".join(f"{scanner}: {source}" for scanner, source in told) if differ else ""


def _dates(one: ScanReport, other: ScanReport) -> str:
    """The days of their data, where they are not the same; the sample that ships is data of its own."""
    told = [(r.scanner, f"{r.data_date:%Y-%m-%d}" if r.data_date else "unknown", r.sample) for r in (one, other)]
    if told[0][1:] == told[1][1:]:
        return ""
    return ", ".join(f"{scanner}: {'sample of ' if sample else ''}{day}" for scanner, day, sample in told)
