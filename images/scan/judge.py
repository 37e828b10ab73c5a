"""Judge an artifact: unpack what was built, verify, scan, and ask the gate. Nothing here is pushed anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hardening.catalog import load_policy, load_waivers, policy_digest
from hardening.check import run_checks
from hardening.evaluation import counts, judges, silence
from hardening.findings import BaseImage, CheckResult, Finding, FindingKind, Outcome, ScanReport, Verdict, merge
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, nearest
from hardening.foundation.hashing import digest_of
from hardening.gate import GateError, judge_image
from hardening.model import Kind
from hardening.policy import Policy
from hardening.render import Overlay
from images.advisories import Advisory, is_before
from images.artifact import Artifact, Package
from images.boot import Level
from images.build.workspace import workspace
from images.context import Context
from images.documents import to_json
from images.feeds import Exploited
from images.ledger.artifacts import ScanRecord, parent_of
from images.machine import trees
from images.machine.trees import private_mounts
from images.plan.planner import Planner
from images.scan import chosen, matcher
from images.scan.base import Feed, ScanTarget
from images.scan.flow import FeedsOnce, ScanResult, at_best, scan, unchanged
from images.scan.verify import changed_checks, enforced_by, facts_of, offered, verify, without_result

ANSWERS = (Outcome.PASS, Outcome.FAIL, Outcome.NOT_APPLICABLE)
TRIAL = "./goldsmith {} {} --policy demo, or ./goldsmith demo"
"""What to type where there is no vulnerability data: it judges by the sample that ships."""


@dataclass(frozen=True)
class Judgement:
    """The gate's verdict over one content, and what it rests on. `policy_digest` is that of the policy's file,
    `scripts` has, by control, the digest of the check that made its result.
    """

    verdict: Verdict
    checks: tuple[CheckResult, ...]
    result: ScanResult
    policy_digest: str = ""
    scripts: Mapping[str, str] = field(default_factory=dict)


class NotBuiltError(ContentError):
    """No artifact of a definition is on this machine."""


def latest(context: Context, name: str) -> Artifact:
    """The newest artifact of `name`. Raises NotBuiltError without one, RefusedError where it was refused."""
    found = context.ledger.latest_artifact(name, context.settings.platform)
    if found and context.store.whole(found.digest):
        return found
    lines = context.ledger.audit_lines(subject=name)
    refused = next((line for line in reversed(lines) if line.action == "refuse"), None)
    if refused:
        raise RefusedError(
            f"{name} was built on {refused.at:%Y-%m-%d %H:%M} UTC and refused, so there is nothing to go on with",
            evidence=refused.detail, hint=f"./goldsmith image.build {name} once that is fixed",
        )  # fmt: skip
    raise NotBuiltError(f"{name} has not been built on this machine", hint=f"./goldsmith image.build {name}")


def reverify(
    context: Context, name: str, control: str = "", level: Level = Level.RELEASE
) -> tuple[str, tuple[CheckResult, ...]]:
    """Check the newest artifact of `name` again, by today's profile; its digest and the results.

    With `control`, only that one; a machine is booted at `level`. Raises ContentError where the profile has no such
    control.
    """
    loaded = context.definitions[name]
    overlay = only_check(Planner(context).judged_overlay(name), control, loaded.definition.profile)
    artifact = latest(context, name)  # a slip of the pen comes before what was not built
    return artifact.digest, _verified(context, artifact, overlay, level)


def todays_checks(planner: Planner, name: str, digest: str) -> tuple[tuple[CheckResult, ...], tuple[str, ...]]:
    """The results of today's controls of `name` for the content `digest`, and the controls without a result.

    New and changed checks run over the stored tree of a container; one that needs a run of it, or a boot, has no
    result. Nothing is recorded.
    """
    context, loaded = planner.context, planner.context.definitions[name]
    overlay, known, artifact = (
        planner.judged_overlay(name),
        context.ledger.checks(digest, name),
        context.ledger.artifact_over(digest, name),
    )
    scripts = _scripts(context, artifact) if artifact else context.ledger.check_scripts(digest, name)
    open_controls = {*without_result(known, overlay, loaded.definition), *changed_checks(scripts, overlay)}
    chosen = tuple(one for one in overlay.checks if one.control in open_controls and "RUN_STATUS" not in one.text)
    made: dict[str, CheckResult] = {}
    if chosen and not loaded.definition.is_machine and context.store.whole(digest):
        say(f"{name}: checking {_few([one.control for one in chosen])}")
        facts = facts_of(loaded.definition, context.store.config(digest), None, context.declared(name))
        try:
            with unpacked(context, digest) as (_, tree):
                results = run_checks(replace(overlay, checks=chosen), tree, facts)
            made = {one.control: one for one in results if one.outcome in ANSWERS}
        except OutsideError as error:
            say(f"{name}: cannot be checked here: {error.message}")
    kept = (one for one in known if one.control not in made)
    return (*kept, *made.values()), tuple(sorted(open_controls - made.keys()))


def only_check(overlay: Overlay, control: str, profile: str) -> Overlay:
    """The overlay with the check of `control` alone; all of them where that is empty. Raises ContentError."""
    chosen = tuple(check for check in overlay.checks if control in ("", check.control))
    if not chosen:
        hint = nearest(control, (check.control for check in overlay.checks))
        raise ContentError(f"{profile} has no control {control}", hint=hint)
    return replace(overlay, checks=chosen)


def _verified(
    context: Context, artifact: Artifact, overlay: Overlay, level: Level = Level.RELEASE
) -> tuple[CheckResult, ...]:
    """The results of the overlay's checks over a stored image."""
    loaded = context.definitions[artifact.name]
    definition, strange = loaded.definition, Planner(context).not_offered(loaded)
    with unpacked(context, artifact.digest) as (work, tree):
        return *offered(strange), *verify(
            definition, overlay, tree=tree, digest=artifact.digest, store=context.store, work=work,
            docker_host="" if definition.is_machine else context.build_host(),
            declared=context.declared(artifact.name), level=level,
        )  # fmt: skip


@contextmanager
def unpacked(context: Context, digest: str) -> Iterator[tuple[Path, Path]]:
    """A workspace and, in it, the filesystem of a stored image, for as long as the block lasts."""
    with workspace(context.settings) as work:
        if context.store.disk_of(digest) is None:
            yield work, context.store.unpack(digest, work / "tree")
            return
        with private_mounts(), trees.mounted(context.store, trees.key_of(digest), work / "tree") as tree:
            yield work, tree


def judge(context: Context, artifact: Artifact, policy_name: str, *, afresh: bool = False) -> Judgement:
    """Scan the artifact and ask the gate by the policy of that name; the ledger keeps scan and verdict.

    Where the ledger lacks a result of a control, such as of one that its profile got since, or has one of another check
    than today's, it is verified again.
    What of the last scan still stands is not made again, unless `afresh`; the gate is asked in any case.
    """
    policy = load_policy(context.settings.roots, policy_name)
    checks = _checks(context, artifact, policy)
    result = scan_again(context, artifact, policy, afresh=afresh)
    waivers = load_waivers(context.settings.roots)
    verdict = judge_image(
        policy, artifact.name, checks, result.reports, result.findings, waivers, context.now,
        context.ledger.bases_from(*parent_of(artifact.inputs)),
        _offered(context, artifact.name, result.findings),
    )  # fmt: skip
    context.ledger.record_verdict(artifact.digest, verdict)
    digest = policy_digest(context.settings.roots, policy_name)
    return Judgement(verdict, checks, result, digest, _scripts(context, artifact))


def _offered(context: Context, name: str, findings: Sequence[Finding]) -> frozenset[tuple[str, str]] | None:
    """The fixes of `findings` that the fetched index has, in this version or a newer one; None without an index."""
    fixes = {(one.package, one.fixed) for one in findings if one.fixed and one.kind is FindingKind.VULNERABILITY}
    if not fixes:
        return frozenset()
    try:
        bootstrap = Planner(context).bootstrap(context.definitions[name])
        if not context.index.is_fetched(bootstrap):
            return None
        candidates = context.index.candidates(bootstrap, {package for package, _ in fixes})
    except GoldsmithError:
        return None
    return frozenset(
        (one, fixed) for one, fixed in fixes if one in candidates and not is_before(candidates[one], fixed)
    )


class KnownJudge:
    """Judges many artifacts by what is known of them already, and reads what they share once. It keeps no verdict."""

    def __init__(self, context: Context, planner: Planner) -> None:
        self._context = context
        self._planner = planner
        self._feeds = FeedsOnce()
        self._bases: dict[tuple[str, str], tuple[BaseImage, ...]] = {}
        self._waivers = load_waivers(context.settings.roots)

    def judge(self, artifact: Artifact, policy: Policy) -> Judgement | None:
        """The judgement of `judge` where nothing has to be verified or scanned for it; None where something has.

        It does not ask whether a build would get the fixes, so that its reasons say nothing of the index.
        """
        context = self._context
        overlay, known = self._planner.judged_overlay(artifact.name, policy), _last_scan(context, artifact)
        checks, scripts = context.ledger.checks_with_scripts(artifact.digest, artifact.name)
        if not known or _unverified(context, artifact, overlay, checks, scripts):
            return None
        disk = context.store.disk_of(artifact.digest) is not None
        subject, benchmark = scan_subject(context, artifact, policy, disk=disk)
        result = unchanged(
            known, subject, context.settings, now=context.now, benchmark=bool(benchmark), source=self._feeds
        )
        if result is None:
            return None
        findings, enforced = _dated(context, result.findings), enforced_by(checks, overlay)
        verdict = judge_image(
            policy, artifact.name, enforced, result.reports, findings, self._waivers, context.now,
            self._bases_of(parent_of(artifact.inputs)),
        )  # fmt: skip
        return Judgement(verdict, enforced, replace(result, findings=findings))

    def _bases_of(self, parent: tuple[str, str]) -> tuple[BaseImage, ...]:
        if parent not in self._bases:
            self._bases[parent] = self._context.ledger.bases_from(*parent)
        return self._bases[parent]


def scan_subject(context: Context, artifact: Artifact, policy: Policy | None, *, disk: bool) -> tuple[str, str]:
    """What stands for all that scanners get to see of an artifact, and the benchmark that a machine is measured by."""
    reason = context.definitions[artifact.name].definition.healthcheck.none_because
    benchmark = policy.image.benchmark.profile if disk and policy and policy.image.benchmark else ""
    seen = [artifact.name, artifact.digest, artifact.dockerfile, to_json(artifact.packages), reason]
    return digest_of([*seen, benchmark] if benchmark else seen), benchmark


def scan_again(context: Context, artifact: Artifact, policy: Policy, *, afresh: bool = False) -> ScanResult:
    """Scan the artifact, as far as the last scan no longer stands; the ledger keeps it."""
    known = None if afresh else _last_scan(context, artifact)
    result = scan_content(context, artifact.digest, artifact, known, policy)
    findings = _dated(context, result.findings)
    sbom = context.store.put_bytes(result.sbom, "application/vnd.cyclonedx+json")
    spdx = context.store.put_bytes(result.spdx, "application/spdx+json")
    record = ScanRecord(result.reports, findings, sbom.digest, result.suite, result.inputs, spdx.digest)
    context.ledger.record_scan(artifact.digest, record, context.now, artifact.name)
    return replace(result, findings=findings)


def add_newer(
    context: Context, content: str, name: str, found: Mapping[Package, Sequence[Advisory]], feed: Feed,
    exploited: Exploited,
) -> None:  # fmt: skip
    """Add to the last scan of a content what newer data opens or fixes in its packages, so that everything which judges
    by that scan counts it. Nothing is removed: that takes a scan.
    """
    last = context.ledger.scan(content, name)
    dates = [one.data_date for one in last.reports if one.scanner == matcher.NAME and one.data_date] if last else []
    if last is None or (feed.date and any(at > feed.date for at in dates)):  # scanned elsewhere, by newer data
        return
    fixed = {(one.id, one.package): one.fixed for one in last.findings}
    said = (matcher.as_finding(package, one) for package, advisories in found.items() for one in advisories)
    newer = [
        one for one in said if (one.id, one.package) not in fixed or (one.fixed and not fixed[one.id, one.package])
    ]
    if newer or any(one.id in exploited.ids and not one.exploited for one in last.findings):
        scores = exploited.likely.scores
        findings = tuple(
            replace(one, exploited=one.exploited or one.id in exploited.ids, epss=scores.get(one.id, one.epss))
            for one in merge((*last.findings, *newer))
        )
        record = replace(last, findings=_dated(context, findings))
        context.ledger.record_scan(content, record, context.now, name)


def _checks(context: Context, artifact: Artifact, policy: Policy) -> tuple[CheckResult, ...]:
    """The results of the controls on the artifact, each enforced as its profile, and the policy's, say today."""
    overlay = Planner(context).judged_overlay(artifact.name, policy)
    known = context.ledger.checks(artifact.digest, artifact.name)
    why = _unverified(context, artifact, overlay, known, context.ledger.check_scripts(artifact.digest, artifact.name))
    if not why:
        return enforced_by(known, overlay)
    say(f"{artifact.name}: verifying {len(overlay.checks)} controls again, since {why}")
    made = _verified(context, artifact, overlay)
    scripts = dict(overlay.parts["checks"])
    context.ledger.record_checks(artifact.digest, made, context.now, scripts, name=artifact.name)
    return made


def _unverified(
    context: Context, artifact: Artifact, overlay: Overlay, known: Sequence[CheckResult], scripts: Mapping[str, str]
) -> str:
    """Why the results that are known do not say whether today's controls hold; empty where they do."""
    if not known:
        return "no result is known"
    if lacks := without_result(known, overlay, context.definitions[artifact.name].definition):
        return f"no result of {_few(lacks)} is known"
    changed = changed_checks(scripts or _as_built(artifact), overlay)
    return f"the check of {_few(changed)} has changed" if changed else ""


def _scripts(context: Context, artifact: Artifact) -> dict[str, str]:
    """By control, the digest of the check that made the result that is known of it.

    An earlier version of Goldsmith did not keep that: it was the check of the artifact's inputs.
    """
    return context.ledger.check_scripts(artifact.digest, artifact.name) or _as_built(artifact)


def _as_built(artifact: Artifact) -> dict[str, str]:
    return dict(artifact.inputs.get("overlay", {}).get("checks", []))


def _few(controls: Sequence[str]) -> str:
    return f"{', '.join(controls[:3])}{', …' if controls[3:] else ''}"


def scan_content(
    context: Context, digest: str, artifact: Artifact | None, known: ScanResult | None = None,
    policy: Policy | None = None,
) -> ScanResult:  # fmt: skip
    """Run every scanner over an image of the store. What `artifact` says is installed must have been seen by them.

    What of `known`, the last scan of that content, still stands is not made again. A machine is measured by the
    benchmark of `policy`.
    """
    reason = context.definitions[artifact.name].definition.healthcheck.none_because if artifact else ""
    disk, config = context.store.disk_of(digest), context.store.config(digest)
    subject, benchmark = scan_subject(context, artifact, policy, disk=disk is not None) if artifact else ("", "")
    now, settings = context.now, context.settings
    if known and subject and (still := unchanged(known, subject, settings, now=now, benchmark=bool(benchmark))):
        return still
    say(f"{artifact.name if artifact else digest[:19]}: scanning")
    with unpacked(context, digest) as (work, tree):
        target = ScanTarget(
            artifact.name if artifact else digest, None if disk else context.store.layout_for(digest, work / "layout"),
            tree, dockerfile=_dockerfile(context, artifact, work) if artifact else None,
            packages=artifact.packages if artifact else (), subject=subject, no_healthcheck_because=reason,
            kind=Kind.MACHINE if disk else Kind.CONTAINER, disk=disk, digest=digest,
            created=config["created"] if disk else config.get("created", ""), benchmark=benchmark,
        )  # fmt: skip
        return scan(target, settings, now=now, known=known)


def _last_scan(context: Context, artifact: Artifact) -> ScanResult | None:
    """What was last found in that content, as far as it is still there whole."""
    last = context.ledger.scan(artifact.digest, artifact.name)
    if last is None or not last.inputs or not all(bill and context.store.has(bill) for bill in (last.sbom, last.spdx)):
        return None
    sbom, spdx = (context.store.blob(bill).read_bytes() for bill in (last.sbom, last.spdx))
    return ScanResult(last.reports, last.findings, sbom, last.suite, last.inputs, spdx)


def _dockerfile(context: Context, artifact: Artifact, work: Path) -> Path | None:
    """The Dockerfile that made the artifact, where one did; kept in the store under the digest that its inputs name."""
    digest = artifact.dockerfile
    if not digest or not context.store.has(digest):
        return None
    path = work / "Dockerfile"
    path.write_bytes(context.store.blob(digest).read_bytes())
    return path


def _dated(context: Context, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings with the day on which their fix was first known here, from which fix windows are counted."""
    fixed = [(finding.id, finding.package) for finding in findings if finding.fixed]
    if not fixed:
        return findings
    seen = context.ledger.first_seen_all(fixed, context.now)
    return tuple(replace(f, fix_known_since=seen.get((f.id, f.package), f.fix_known_since)) for f in findings)


def _judges_at_best(context: Context, name: str, suite: str) -> tuple[Policy, tuple[ScanReport, ...], bool]:
    """The policy of the image `name` of `suite`, what judges of its kind could say at best, and whether one counts."""
    policy = load_policy(context.settings.roots, context.policy_of(name))
    scanners, kind = chosen(context.settings.scanners), context.definitions[name].definition.kind
    reports = at_best(context.settings, suite, context.now)
    mine = tuple(report for report in reports if kind in scanners[report.scanner].kinds)
    return policy, mine, any(counts(policy.image.judges, report, context.now) for report in mine)


def silent_judges(context: Context, name: str, suite: str) -> str:
    """Why no scanner here could judge the image `name` of `suite`, whatever is in it; empty where one can."""
    policy, reports, able = _judges_at_best(context, name, suite)
    return "" if able else silence(policy.image.judges, reports, context.now)


def without_judges(context: Context, name: str, suite: str) -> RefusedError | None:
    """Why the gate will refuse the image `name` of `suite` whatever is in it; None where somebody can judge it.

    Asked before hours are spent on an image that nobody here has the data to judge.
    """
    policy, reports, able = _judges_at_best(context, name, suite)
    if able:
        return None
    return GateError(
        f"{name} would be refused by the policy {policy.name} whatever is in it, so it was not built",
        tuple(judges(policy.image.judges, name, reports, context.now)),
        hint=f"the reason says what to do about it; to try Goldsmith without: {TRIAL.format('image.build', name)}",
    )  # fmt: skip


def refusal(judgement: Judgement) -> RefusedError:
    """The gate's no, in full: for each reason what, why it matters, what to do, and how to ask for a waiver."""
    verdict = judgement.verdict
    reasons = verdict.refusals
    nobody = any(reason.rule == "judges" for reason in reasons)
    trial = f"; to try Goldsmith without: {TRIAL.format('image.scan', verdict.subject)}" if nobody else ""
    return GateError(
        f"{verdict.subject} is refused by the policy {verdict.policy}: {len(reasons)} reason(s); nothing was published",
        reasons,
        hint=f"each reason says what to do about it{trial}",
    )
