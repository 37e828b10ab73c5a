"""lynis: of its audit, the tests that read nothing but a machine's tree.

Most of its tests ask the running system for its processes, mounts or kernel: over a tree (`--rootdir`) they would judge
the host. So those are named that look below the root alone. It writes what it found to a report of its own.
"""

from __future__ import annotations

from hardening.findings import FindingKind, ScanReport
from hardening.model import Kind
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME = "lynis"
ROOT = "/run/tree"
REPORT, LOG, PROFILE = "lynis-report.dat", "lynis.log", "lynis.prf"
TESTS = (
    *("AUTH-9204", "AUTH-9208", "AUTH-9222", "AUTH-9226", "AUTH-9229", "AUTH-9230", "AUTH-9264", "AUTH-9266"),
    *("AUTH-9286", "BANN-7124", "BANN-7126", "BANN-7128", "BANN-7130"),
)
WORDS = {"warning": "medium", "suggestion": "low"}


def command(_target: ScanTarget, _inputs: ScanInputs) -> list[str]:
    """The argv in the work directory; an empty profile, and a place without plugins, keep the host's own out.

    It refuses arguments with other characters than a few, such as the underscores of temporary directories.
    """
    return [
        "lynis", "audit", "system", "--rootdir", f"{ROOT}/", "--profile", PROFILE, "--plugindir", ".",
        "--tests", ":".join(TESTS), "--report-file", REPORT, "--logfile", LOG, "--quick", "--quiet", "--no-colors",
    ]  # fmt: skip


def within(target: ScanTarget, _inputs: ScanInputs) -> list[str]:
    """What it is run by: the machine's tree is mounted at a place of its own, for it alone."""
    return ["sh", "-c", f'mkdir {ROOT} && mount --bind "$0" {ROOT} && exec "$@"', str(target.tree)]


def parse(text: str, _target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by test; evaluated is the number of the tests that it says it ran, of those that it was told to.

    It passes over a test whose file is not there, and says so; one that it says nothing of is a gap.
    """
    lines = [line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#")]
    told = {key: value for key, _, value in lines}
    ran, passed_over = (set(told[f"tests_{how}"].split("|")) & set(TESTS) for how in ("executed", "skipped"))
    said: dict[tuple[str, str], list[str]] = {}
    for key, _, value in lines:
        test, title, *_ = [*value.split("|"), ""]
        if (word := WORDS.get(key.removesuffix("[]"))) and test in TESTS:
            said.setdefault((test, word), []).append(title.replace(ROOT, ""))
    findings = [
        finding(NAME, SCANNER.kind, test, "audit", word, title="; ".join(titles))
        for (test, word), titles in said.items()
    ]
    nothing, version = "it ran no test", told.get("lynis_version", "")
    return report(
        NAME, SCANNER.kind, findings, len(ran), nothing, expected=len(TESTS) - len(passed_over), version=version,
        things="tests",
    )  # fmt: skip


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "lynis",
    command,
    parse,
    kinds=(Kind.MACHINE,),
    answers=(REPORT,),
    within=within,
    files=lambda _target, _inputs: {PROFILE: ""},
)
