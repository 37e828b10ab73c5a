"""When fixes appeared, and what members have run since when: moments of a patch that the ledger has nowhere else."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from hardening.foundation.asking import portions
from images.ledger import tables as t
from images.ledger.database import BATCH, Database
from images.ledger.tables import ClosedFix, MemberRun

LEAST = timedelta(microseconds=1)
GONE_FOR = timedelta(days=365)
"""What members ran that are gone for longer is forgotten: fleets whose members come and go would fill the ledger."""


class Fixes(Database):
    """The ledger's lines about closed vulnerabilities and about what members run. No line of it is ever changed."""

    def record_fixes(self, fixes: Collection[ClosedFix]) -> None:
        """Keep what a release closed; what is known of one already stands."""
        keys = {(one.image, one.content) for one in fixes}
        known = {_key(one) for image, content in keys for one in self._closed(image=image, content=content)}
        try:
            self._insert(t.closed_fixes, *(asdict(one) for one in fixes if _key(one) not in known))
        except IntegrityError:  # another process has just written some of them
            self.record_fixes(fixes)

    def closed_fixes(self) -> tuple[ClosedFix, ...]:
        """Everything that releases closed, in the order of their publication."""
        return self._closed()

    def record_run(self, run: MemberRun) -> None:
        """Keep what a member runs from now on, unless that is what it was last said to run."""
        self._record_runs(self._last_runs(run.fleet, run.member), [run])

    def record_whole_fleet(self, fleet: str, contents: Mapping[str, str], at: datetime, told_by: str) -> None:
        """Keep what all members of a fleet run, by name; a member that is not among them is gone."""
        last = self._last_runs(fleet)
        left = [one for one in last.values() if one.member not in contents and not one.gone]
        gone = [replace(one, content="", gone=True, told_by=told_by, at=at) for one in left]
        seen = [
            MemberRun(fleet, member, content, gone=False, told_by=told_by, at=at)
            for member, content in contents.items()
        ]
        self._record_runs(last, [*gone, *seen])
        over = [one.member for one in last.values() if one.gone and one.at < at - GONE_FOR]
        columns = t.member_runs.c
        for some in portions(set(over) - contents.keys(), BATCH):
            self._change(delete(t.member_runs).where(columns.fleet == fleet, columns.member.in_(some)))

    def last_content(self, fleet: str, member: str, *, but: str = "") -> str:
        """What a member ran last, other than `but`; empty where that is not known."""
        runs = reversed(self.member_runs(fleet, member))
        return next((run.content for run in runs if not run.gone and run.content != but), "")

    def member_runs(self, fleet: str = "", member: str = "") -> tuple[MemberRun, ...]:
        """What members (of a fleet, or one of them) have run, in the order in which it was told."""
        same: dict[str, Any] = {"fleet": fleet, "member": member}
        asked = {column: value for column, value in same.items() if value}
        return self._find(MemberRun, t.member_runs, t.member_runs.c.id, **asked)

    def _record_runs(self, last: Mapping[str, MemberRun], runs: Sequence[MemberRun]) -> None:
        """Add what is new. A line is later than the one before it, whatever clocks say, so that the order stays."""
        lines = []
        for run in runs:
            before = last.get(run.member)
            if before is None or (before.content, before.gone) != (run.content, run.gone):
                lines.append(replace(run, at=max(run.at, before.at + LEAST)) if before else run)
        self._insert(t.member_runs, *map(asdict, lines))

    def _last_runs(self, fleet: str, member: str = "") -> dict[str, MemberRun]:
        table = t.member_runs
        which = (table.c.fleet == fleet, *([table.c.member == member] if member else []))
        newest = select(func.max(table.c.id)).where(*which).group_by(table.c.member)
        return {run.member: run for run in self._find(MemberRun, table, where=[table.c.id.in_(newest)])}

    def _closed(self, **same: Any) -> tuple[ClosedFix, ...]:
        order = (t.closed_fixes.c.published_at, t.closed_fixes.c.vulnerability, t.closed_fixes.c.package)
        return self._find(ClosedFix, t.closed_fixes, *order, **same)


def _key(fix: ClosedFix) -> tuple[str, str, str, str]:
    return fix.vulnerability, fix.package, fix.image, fix.content
