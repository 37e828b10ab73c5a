"""What `image.scan` calls: scan images of this machine or of any registry, and show what was found, in many forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardening.catalog import load_policy, load_waivers
from hardening.disagreement import Disagreement, DisagreementCause, compared, disagreements, summary
from hardening.findings import Finding, FindingKind, ScanReport
from hardening.foundation.console import Cell, err, out, print_json, print_table, print_text, say
from hardening.foundation.errors import ContentError, GoldsmithError, UsageError
from hardening.foundation.process import interruptible
from hardening.gate import explain, judge_image
from hardening.model import Waiver
from hardening.waivers import about_finding, waived_by
from images.context import Context
from images.documents import to_json
from images.ledger.artifacts import parent_of
from images.plan.upstream import Upstream
from images.registry.references import require_reference, split
from images.registry.releases import reference_of
from images.scan.formats import ScannedImage, cyclonedx, sarif
from images.scan.judge import NotBuiltError, judge, latest, scan_content
from pipelines.cli.image import means_several, subjects
from pipelines.cli.image_output import finish, form_named, require_place, write_out
from pipelines.cli.page import compiled, style
from pipelines.contract import ScanOutput
from pipelines.wiring import image_context

TEMPLATE = Path(__file__).with_name("scan.html.j2")
FORMS = ("table", "json", "sarif", "cyclonedx", "html")
ENDINGS = {".sarif": "sarif", ".sarif.json": "sarif", ".cdx.json": "cyclonedx", ".html": "html", ".json": "json"}
SHOWN = 20  # disagreements in a table
Scan = tuple[ScanOutput, bytes, dict[tuple[str, str], Waiver]]
"""What is printed of a scan, its SBOM, and by which waiver findings, as (id, package), are waived."""


def form_of(form: str, output: str) -> str:
    """The form that is asked for, by its name or by the ending of the file it is written to. Raises UsageError."""
    return form_named(form, output, FORMS, ENDINGS)


@interruptible()
def scan_images(ref: str, policy: str = "") -> tuple[list[Scan], list[GoldsmithError]]:
    """Scan artifacts of this machine (a definition's name, a glob, or `all`) or a published image, and ask the gate.

    Pushes nothing. Of several, one that cannot be scanned stops no other: what was scanned, and what went wrong. `all`
    leaves out what was never built, unless nothing was.
    """
    context = image_context(policy=policy)
    if not means_several(ref):
        return [_scan(context, ref)], []
    scans, errors = list[Scan](), dict[str, GoldsmithError]()
    for name in subjects(context, ref):
        try:
            scans.append(_scan(context, name))
        except GoldsmithError as error:
            errors[name] = error
    unbuilt = [name for name, error in errors.items() if isinstance(error, NotBuiltError)]
    if ref == "all" and scans and unbuilt:
        say(f"left out: {', '.join(unbuilt)}; not built on this machine (./goldsmith image.build all)")
        errors = {name: error for name, error in errors.items() if name not in unbuilt}
    return scans, [*errors.values()]


def _scan(context: Context, ref: str) -> Scan:
    """What a registry holds, ours or another's, is judged as a stranger: by the default policy, without checks."""
    reference, waivers, today = ref, load_waivers(context.settings.roots), context.now.date()
    if ref in context.definitions:
        artifact = latest(context, ref)
        judged = judge(context, artifact, context.policy_of(ref), afresh=True)
        digest, result, verdict = artifact.digest, judged.result, judged.verdict
        bases = context.ledger.bases_from(*parent_of(artifact.inputs))
    else:
        reference = reference_meant(context, ref)
        digest = Upstream(context.settings, context.store, context.now).bring(reference)
        result, bases = scan_content(context, digest, None), ()
        by = load_policy(context.settings.roots, context.policy or "default")
        verdict = judge_image(by, ref, None, result.reports, result.findings, waivers, context.now)
    told = disagreements(result.reports, waivers, ref, today, bases)
    output = ScanOutput.of(
        verdict, ref=reference, digest=digest, reports=result.reports, findings=result.findings, disagreements=told,
        agreement=summary(result.reports, told),
    )  # fmt: skip
    covering = {(finding.id, finding.package): waived_by(waivers, about_finding(finding, bases), ref, today)
                for finding in result.findings}  # fmt: skip
    return output, result.sbom, {key: by for key, by in covering.items() if by}


def reference_meant(context: Context, ref: str) -> str:
    """A reference in full; of another registry, one without a tag means `latest`, as everywhere.

    Raises ContentError for what is none.
    """
    require_reference(ref)
    repository, wanted = split(ref)
    host = repository.partition("/")[0]
    own = repository.startswith(f"{context.registry.address}/")
    if not wanted and "/" in repository and not own and ("." in host or ":" in host):
        return f"{repository}:latest"
    return reference_of(context.registry, ref, context.definitions)


def show_scans(
    ref: str, found: tuple[Sequence[Scan], Sequence[GoldsmithError]], *, form: str = "table", output: str = ""
) -> int:
    """Print what scanners and gate say, or write it to the file `output`; as JSON a list where `ref` may mean several.

    The exit code: 3 where an image is refused, or that of what went wrong.
    """
    scans, errors = found
    printed = [scan[0] for scan in scans]
    if form == "json" and not output:
        print_json(to_json(tuple(printed) if means_several(ref) else printed[0]))
    elif form == "table" and not output:
        for scan in printed:
            show_scan(scan)
    elif scans:
        write_out(_text(form, scans[0]), output)
        if not printed[0].allowed:
            err().print(f"refused by the policy {printed[0].policy}\n{explain(printed[0].reasons)}")
    return finish(errors) or (0 if all(scan.allowed for scan in printed) else 3)


def require_one(ref: str, form: str, output: str) -> None:
    """Raises ContentError where what describes one image is asked for of several, and for a table in a file."""
    if (form not in ("table", "json") or output) and means_several(ref):
        raise ContentError(f"{ref} may mean several images, and --form {form} describes one", hint="name one of them")
    if form == "table" and output:
        raise UsageError("--output: a table is for people to read here", hint=f"--form: {', '.join(FORMS[1:])}")
    if output:
        require_place(output)


def _text(form: str, scan: Scan) -> str:
    output, sbom, waived = scan
    image = ScannedImage(
        output.ref, output.digest, output.reports, output.findings, sbom, _texts(waived),
        {key: by.justification for key, by in waived.items() if by.justification}, output.reasons,
    )  # fmt: skip
    if form == "json":
        return output.model_dump_json(indent=2) + "\n"
    return {"sarif": lambda: sarif(image), "cyclonedx": lambda: cyclonedx(image), "html": lambda: html(scan)}[form]()


def _texts(waived: Mapping[tuple[str, str], Waiver]) -> dict[tuple[str, str], str]:
    return {key: f"{by.id} until {by.expires}: {by.reason}" for key, by in waived.items()}


def html(scan: Scan) -> str:
    """One page with all of a scan; nothing is fetched, and all in it is escaped and visible."""
    output, _, waived = scan
    return compiled(TEMPLATE).render(
        scan=output, waived=_texts(waived), style=style(), unexplained=DisagreementCause.UNEXPLAINED,
        judged=_judged(output), agreement=_agreement(output),
    )  # fmt: skip


def show_scan(scan: ScanOutput) -> None:
    """Print what scanners and gate say of one image."""
    rows = [
        [r.scanner, r.outcome, _evaluated(r), str(r.data_date or "")[:10], _measure(r) + (r.reason or r.data_source)]
        for r in scan.reports
    ]
    print_table(["scanner", "outcome", "evaluated", "data of", "data, or why not"], rows, title=scan.ref)
    if scan.findings:
        cells = [
            [f.id, f.package, f.installed, f.fixed or _no_fix(f), [": ".join(said) for said in f.scanners]]
            for f in scan.findings
        ]
        print_table(["finding", "package", "installed", "fixed", "who says what"], cells)
    _show_agreement(scan)
    out().print(f"\n{'allowed' if scan.allowed else 'refused'} by the policy {scan.policy}")
    print_text(explain(scan.reasons))


def _evaluated(report: ScanReport) -> str:
    """How much it looked at, and of a vulnerability scanner in which ecosystems."""
    return " ".join([str(report.evaluated), *report.ecosystems, *(f"no {name}" for name, _ in report.beyond)])


def _judged(scan: ScanOutput) -> bool:
    """Whether as many scanners as the policy requires count as judges."""
    return all(one.rule != "judges" for one in scan.reasons)


def _agreement(scan: ScanOutput) -> str:
    """Whether scanners disagree; empty where nothing was compared, and where too few of them count as judges, since
    that none disagrees means nothing then.
    """
    told = len(compared(scan.reports)) > 1 and (_judged(scan) or scan.disagreements)
    return scan.agreement if told else ""


def _show_agreement(scan: ScanOutput) -> None:
    """Print whether scanners disagree, and about what; the unexplained first."""
    if agreement := _agreement(scan):
        out().print(f"\n{agreement}")
    first = sorted(scan.disagreements, key=lambda one: (one.cause is not DisagreementCause.UNEXPLAINED, one))
    if first:
        columns = ["disagreement", "package", "about", "who says what", "because"]
        print_table(columns, [_cells(one) for one in first[:SHOWN]])
    if first[SHOWN:]:
        out().print(f"and {len(first) - SHOWN} more; --json shows all")


def _cells(one: Disagreement) -> list[Cell]:
    said = [f"{scanner}: {answer}" for scanner, answer in one.opinions]
    return [one.id, one.package, one.question, said, [one.cause, one.evidence]]


def _measure(report: ScanReport) -> str:
    """How far a benchmark holds, or how much was reproduced, in words that stand before the rest."""
    if report.reproduced is not None:
        return f"{100 * report.reproduced / report.evaluated:.1f} % reproduced; "
    return "" if report.score is None else f"{report.score:.1f} % of {report.profile} holds; "


def _no_fix(finding: Finding) -> str:
    return "no fix yet" if finding.kind is FindingKind.VULNERABILITY else ""
