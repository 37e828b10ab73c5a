"""OpenSCAP: a machine's tree by the benchmark (CIS) for its own release, rule by rule.

It ends with status 0 over content for another release, having found every rule not applicable: what counts is how many
rules it evaluated. The tree is read by OSCAP_PROBE_ROOT (`man oscap`, offline mode): nothing in it is run, and what
only a running system knows (active units) is left undecided or does not hold; the boot gate looks at that. In place of
the tree's empty /proc it sees the parameters that the tree sets, what it mounts, and as its own environment the PATH
that root has there (`images.scan.boot_state`, openscap.sh).
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

from hardening.evaluation import JUDGE
from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME = JUDGE
STREAMS = {"bookworm": "ssg-debian12-ds.xml", "trixie": "ssg-debian13-ds.xml"}  # content by suite
ANSWER = "openscap.xml"
PROC = "openscap-proc"
WITHIN = Path(__file__).with_suffix(".sh")
XCCDF = {"": "http://checklists.nist.gov/xccdf/1.2"}
RULE, PROFILE = "xccdf_org.ssgproject.content_rule_", "xccdf_org.ssgproject.content_profile_"
PASSED, BROKEN = "pass", "fail"
NOT_ASKED = ("notapplicable", "informational")


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; it fetches nothing, and reads no configuration."""
    content = inputs.feeds[NAME].directory / STREAMS[inputs.suite]
    answer = inputs.work / ANSWER
    return ["oscap", "xccdf", "eval", f"--profile={target.benchmark}", f"--results={answer}", str(content)]


def within(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """What it is run by: for it alone, what the tree sets and mounts at boot lies where the kernel will have it."""
    return ["unshare", "--mount", "sh", str(WITHIN), str(inputs.work / PROC), str(target.tree), sys.executable]


def environment(target: ScanTarget, _inputs: ScanInputs) -> dict[str, str]:
    """The tree that is judged instead of the host."""
    return {"OSCAP_PROBE_ROOT": str(target.tree), "LC_ALL": "C"}


def lacks(_target: ScanTarget, inputs: ScanInputs) -> str:
    """Why OpenSCAP cannot evaluate this tree; empty when it can."""
    if inputs.mounts:
        return "a /proc is mounted in the tree: the host's mounts would be judged, not the image's"
    return "" if inputs.suite in STREAMS else f"there is no benchmark content for {inputs.suite or 'an unknown suite'}"


def parse(answer: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """A finding for each rule that does not hold; evaluated are the rules that hold or do not.

    What is neither, an error too, is named in the report, and is no pass.
    """
    document = ElementTree.fromstring(answer)  # noqa: S314 - oscap's own output, without entities of others
    run = document.find("TestResult", XCCDF)
    if run is None or target.benchmark != _profile(run):
        raise ValueError(f"not a result of {target.benchmark}")
    titles = {rule.get("id", ""): rule.findtext("title", "", XCCDF) for rule in document.iterfind(".//Rule", XCCDF)}
    every = ((r.findtext("result", "", XCCDF), r) for r in run.iterfind("rule-result", XCCDF))
    said = {r.get("idref", ""): (word, r) for word, r in every if word != "notselected"}
    held = sum(word == PASSED for word, _ in said.values())
    broken = [_finding(rule, titles[rule], r.get("severity", "")) for rule, (word, r) in said.items() if word == BROKEN]
    return report(
        NAME,
        SCANNER.kind,
        broken,
        held + len(broken),
        f"none of its {len(said)} rules applies: is the content for another release?",
        feed=inputs.feeds.get(NAME),
        version=run.get("test-system", "").rpartition(":")[2],
        profile=target.benchmark,
        note=_undecided(sorted(rule for rule, (word, _) in said.items() if word not in (PASSED, BROKEN, *NOT_ASKED))),
    )


def _profile(run: ElementTree.Element) -> str:
    named = run.find("profile", XCCDF)
    return "" if named is None else named.get("idref", "").removeprefix(PROFILE)


def _undecided(rules: list[str]) -> str:
    return f"undecided on a tree: {', '.join(rule.removeprefix(RULE) for rule in rules)}" if rules else ""


def _finding(rule: str, title: str, word: str) -> Finding:
    return finding(NAME, SCANNER.kind, rule.removeprefix(RULE), "benchmark", word, title=" ".join(title.split()))


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "oscap",
    command,
    parse,
    lacks=lacks,
    feed=NAME,
    kinds=(Kind.MACHINE,),
    spares=lambda target: "" if target.benchmark else "its policy asks for no benchmark",
    ok=(0, 2),  # 2: at least one rule does not hold
    answers=(ANSWER,),
    environment=environment,
    within=within,
)
