"""What was built, and its verification results and verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from hardening.findings import BaseImage, CheckResult, Finding, Outcome, ScanReport, Verdict
from hardening.foundation.asking import portions
from images.artifact import Artifact, Package, unsigned
from images.documents import from_json, to_json
from images.ledger import tables as t
from images.ledger.database import BATCH, Database, Value

TOLD, SCRIPT = "told-", "script"
_NEWEST = (t.artifacts.c.built_at.desc(), t.artifacts.c.id.desc())
PARENT = t.artifacts.c.inputs["parent"].as_string().label("parent")


def _last(wanted: ColumnElement[bool]) -> Select[Any]:
    columns = t.judgements.c
    either = or_(wanted, columns.kind == bindparam("kind"))
    query = select(columns.value).where(columns.digest == bindparam("digest"), either)
    return query.order_by(columns.at.desc(), columns.kind.desc()).limit(1)


_LAST_OF_ONE, _LAST_OF_ANY = (
    _last(t.judgements.c.kind == bindparam("own")), _last(t.judgements.c.kind.like(bindparam("own")))
)  # fmt: skip


@dataclass(frozen=True)
class ScanRecord:
    """The scanners' last results for a content; `sbom` and `spdx` are the digests of its SBOMs in the store.

    `inputs`: by scanner, what its report was made from (`images.scan.flow`); `suite`: of the image.
    """

    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    sbom: str = ""
    suite: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    spdx: str = ""


@dataclass(frozen=True)
class PackageList:
    """The packages of a content, of which definition, and the content that it is based on; `suite` if known.

    `parent` is empty for a bootstrap. `unversioned`: the packages from a source of another name whose version was not
    kept by an earlier version of Goldsmith, so that advisories cannot be compared with it.
    """

    name: str
    packages: tuple[Package, ...]
    parent: str
    suite: str
    unversioned: frozenset[Package] = frozenset()

    @property
    def comparable(self) -> tuple[Package, ...]:
        """The packages of whose source the version is known."""
        if not self.unversioned:  # as nearly always, and of many contents at once
            return self.packages
        return tuple(package for package in self.packages if package not in self.unversioned)


class Artifacts(Database):
    """The ledger's lines about artifacts, and the results of checks, scanners and the gate for their content."""

    def record_artifact(self, artifact: Artifact) -> None:
        """Keep a built artifact; the same name, platform and inputs replace the older line."""
        row = {**asdict(artifact), "packages": to_json(artifact.packages)}
        self._put(t.artifacts, row, keys=("name", "platform", "input_digest"))

    def artifact_by_input(self, name: str, platform: str, input_digest: str) -> Artifact | None:
        """The artifact that was built from exactly these inputs."""
        return next(iter(self._artifacts(name=name, platform=platform, input_digest=input_digest)), None)

    def latest_artifact(self, name: str, platform: str) -> Artifact | None:
        """The artifact built last."""
        return next(iter(self._artifacts(limit=1, name=name, platform=platform)), None)

    def latest_artifacts(self, names: Iterable[str], platform: str) -> dict[str, Artifact]:
        """The same of many definitions, by name: one question for hundreds of them."""
        found, table = dict[str, Artifact](), t.artifacts
        newest = func.row_number().over(partition_by=table.c.name, order_by=_NEWEST).label("place")
        for some in portions(names, BATCH):
            among = select(table.c.id, newest).where(table.c.name.in_(some), table.c.platform == platform).subquery()
            last = table.c.id.in_(select(among.c.id).where(among.c.place == 1))
            found |= {one.name: one for one in self._artifacts(where=(last,))}
        return found

    def artifacts(self, name: str = "") -> tuple[Artifact, ...]:
        """All artifacts (of one definition), the newest first."""
        return self._artifacts(**({"name": name} if name else {}))

    def artifact_over(self, digest: str, name: str = "") -> Artifact | None:
        """The newest artifact of that content, that of the definition `name` before any other."""
        found = self._artifacts(digest=digest)
        return next((one for one in found if one.name == name), next(iter(found), None))

    def package_lists(
        self, sources: Collection[str] | None = None, of: Collection[str] | None = None
    ) -> dict[str, PackageList]:  # fmt: skip
        """What the content of every artifact holds, by its digest; of packages only those from `sources`, if given.

        The whole ledger is read in one pass, and no more of each line than is asked for. `of`: these contents alone,
        and what they stand on.
        """
        if of is None:
            return self._package_lists(sources)
        found = dict[str, PackageList]()
        for some in portions(of, BATCH):
            found |= self._package_lists(sources, _with_all_below(some))
        return found

    def _package_lists(
        self, sources: Collection[str] | None, among: Select[Any] | None = None
    ) -> dict[str, PackageList]:  # fmt: skip
        def asked_for(item: Mapping[str, Any]) -> bool:
            return sources is None or unsigned(item.get("source") or item["name"])[0] in sources

        table, scans = t.artifacts, t.judgements
        suite = table.c.inputs["definition", "base", "bootstrap", "suite"].as_string().label("suite")
        packages = table.c.packages if sources is None or sources else literal(None).label("packages")
        found = select(table.c.digest, table.c.name, packages, PARENT, suite).order_by(table.c.built_at)
        scanned = select(scans.c.digest, scans.c.value["suite"].as_string().label("suite")).where(
            scans.c.kind.startswith("scan")
        )
        if among is not None:
            found, scanned = found.where(table.c.digest.in_(among)), scanned.where(scans.c.digest.in_(among))
        suites = {row.digest: row.suite for row in self._rows(scanned)}
        lists = {
            row.digest: PackageList(
                row.name,
                tuple(Package(**item) for item in row.packages or () if asked_for(item)),
                row.parent or "",
                suites.get(row.digest) or row.suite or "",
                frozenset(Package(**item) for item in row.packages or () if asked_for(item) and _lacks_version(item)),
            )
            for row in self._rows(found)
        }
        return {digest: replace(one, suite=_suite(one, lists)) for digest, one in lists.items()}

    def bases_of(self, digest: str, name: str = "") -> tuple[BaseImage, ...]:
        """What a content has from each image of ours that it stands on, the nearest first, as far as it is known."""
        artifact = self.artifact_over(digest, name)
        return self.bases_from(*parent_of(artifact.inputs)) if artifact else ()

    def bases_from(self, parent: str, name: str = "") -> tuple[BaseImage, ...]:
        """The packages and findings of the images below one on the content `parent`, of the definition `name`."""
        below = self.artifact_over(parent, name) if parent else None
        if below is None:
            return ()
        scan, checks = self.scan(below.digest, below.name), self.checks(below.digest, below.name)
        base = BaseImage(
            below.name,
            frozenset((package.name, package.version) for package in below.packages),
            frozenset((one.kind, one.id, one.package) for one in (scan.findings if scan else ())),
            frozenset((check.control, check.evidence) for check in checks if check.outcome is Outcome.FAIL),
        )
        return (base, *self.bases_of(below.digest, below.name))

    def record_checks(
        self, digest: str, checks: tuple[CheckResult, ...], at: datetime, scripts: Mapping[str, str] | None = None, *,
        name: str = "", told: bool = False,
    ) -> None:  # fmt: skip
        """Keep the results of the controls' checks of a content, built from the definition `name`. `scripts`: by
        control, the digest of the check that made its result. `told`: by a registry, which proves nothing.
        """
        known = scripts or {}
        rows = [{**to_json(one), **({SCRIPT: known[one.control]} if one.control in known else {})} for one in checks]
        self._put(t.judgements, _judged(digest, f"{TOLD if told else ''}checks", name, at, rows))

    def checks(self, digest: str, name: str = "") -> tuple[CheckResult, ...]:
        """The last results of the controls' checks; empty when there are none."""
        return self.checks_with_scripts(digest, name)[0]

    def check_scripts(self, digest: str, name: str = "") -> dict[str, str]:
        """By control, the digest of the check that made its last result, where that was kept."""
        return self.checks_with_scripts(digest, name)[1]

    def checks_with_scripts(self, digest: str, name: str = "") -> tuple[tuple[CheckResult, ...], dict[str, str]]:
        """`checks` and `check_scripts`, which one line has."""
        rows = self._judgement(list[dict[str, Any]], digest, "checks", name) or []
        scripts = {row["control"]: row[SCRIPT] for row in rows if SCRIPT in row}
        return from_json(tuple[CheckResult, ...], rows), scripts

    def record_scan(self, digest: str, scan: ScanRecord, at: datetime, name: str = "") -> None:
        """Keep what the scanners said of a content, built from the definition `name`."""
        self._put(t.judgements, _judged(digest, "scan", name, at, to_json(scan)))

    def scan(self, digest: str, name: str = "") -> ScanRecord | None:
        """What the scanners last said of a content."""
        return self._judgement(ScanRecord, digest, "scan", name)

    def record_verdict(self, digest: str, verdict: Verdict, *, told: bool = False) -> None:
        """Keep the gate's answer about a content. `told`: as a registry tells it, which lets nothing through."""
        kind = f"{TOLD if told else ''}verdict"
        self._put(t.judgements, _judged(digest, kind, verdict.subject, verdict.judged_at, to_json(verdict)))

    def record_verdicts(self, verdicts: Iterable[tuple[str, Verdict]]) -> None:
        """Keep the gate's answers about many contents, in one transaction."""
        rows = (_judged(digest, "verdict", one.subject, one.judged_at, to_json(one)) for digest, one in verdicts)
        self._put(t.judgements, *rows)

    def verdict(self, digest: str, name: str = "", *, told: bool = False) -> Verdict | None:
        """The gate's last answer about a content, made on a machine of this ledger; or `told` by a registry."""
        return self._judgement(Verdict, digest, f"{TOLD if told else ''}verdict", name)

    def first_seen_all(self, pairs: Iterable[tuple[str, str]], now: datetime) -> dict[tuple[str, str], datetime]:
        """When each vulnerability was first found in its package; `now` when this is the first time.

        A day that lies ahead, as a moved clock leaves it, becomes `now`: else it would lengthen every window from it.
        """
        wanted = set(pairs)
        new = sorted(wanted - self._seen(wanted).keys())
        rows = [{"vulnerability": vulnerability, "package": package, "at": now} for vulnerability, package in new]
        try:
            self._insert(t.first_seen, *rows)
        except IntegrityError:  # another run saw some of them in this moment: its time stands
            return self.first_seen_all(wanted, now)
        known = self._seen(wanted)
        if any(known[pair] > now for pair in wanted):
            self._change(update(t.first_seen).where(t.first_seen.c.at > now).values(at=now))
        return {pair: min(known[pair], now) for pair in wanted}

    def fixes_known_since(self, vulnerability: str) -> dict[str, datetime]:
        """By package, when the fix of a vulnerability was first known here."""
        query = select(t.first_seen).where(t.first_seen.c.vulnerability == vulnerability)
        return {row.package: row.at for row in self._rows(query)}

    def _artifacts(self, **which: Any) -> tuple[Artifact, ...]:
        found = self._find(Artifact, t.artifacts, *_NEWEST, **which)
        return tuple(replace(one, packages=from_json(tuple[Package, ...], one.packages)) for one in found)

    def _judgement(self, of: type[Value], digest: str, kind: str, name: str) -> Value | None:
        """The last verdict on the content as the definition `name`; without a name, as any.

        A line without a definition is an earlier version's, which kept one for all of them.
        """
        own = f"{kind} {name}" if name else f"{kind} %"
        rows = self._rows(_LAST_OF_ONE if name else _LAST_OF_ANY, digest=digest, kind=kind, own=own)
        return from_json(of, rows[0].value) if rows else None

    def _seen(self, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], datetime]:
        """What is kept of the vulnerabilities of these pairs."""
        asked, column = {vulnerability for vulnerability, _ in pairs}, t.first_seen.c.vulnerability
        rows = (
            row for some in portions(asked, BATCH) for row in self._rows(select(t.first_seen).where(column.in_(some)))
        )
        return {(row.vulnerability, row.package): row.at for row in rows}


def _with_all_below(contents: Collection[str]) -> Select[Any]:
    """The digests of these contents and of what they stand on, as far as the ledger has it."""
    table = t.artifacts
    found = select(table.c.digest, PARENT).where(table.c.digest.in_(contents)).cte("found", recursive=True)
    below = select(table.c.digest, PARENT).join(found, table.c.digest == found.c.parent)
    return select(found.union(below).c.digest)


def parent_of(inputs: Mapping[str, Any]) -> tuple[str, str]:
    """The content that an artifact with these inputs stands on, and the definition of that; empty: none of ours."""
    base = (inputs.get("definition") or {}).get("base") or {}
    return str(inputs.get("parent", "")), str(base.get("golden") or "")


def _judged(digest: str, kind: str, name: str, at: datetime, value: Any) -> dict[str, Any]:
    return {"digest": digest, "kind": f"{kind} {name}".rstrip(), "at": at, "value": value}


def _lacks_version(item: Mapping[str, Any]) -> bool:
    """Whether a package's row is of a time when the version of its source was not kept."""
    return "source_version" not in item and item.get("source", "") not in ("", item["name"])


def _suite(one: PackageList, lists: Mapping[str, PackageList]) -> str:
    """The suite of a content: its own, or that of the nearest one which it stands on."""
    passed = set[str]()
    while not one.suite and one.parent in lists and one.parent not in passed:
        passed.add(one.parent)
        one = lists[one.parent]
    return one.suite
