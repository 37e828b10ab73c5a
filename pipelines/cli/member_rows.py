"""The members as the report's page keeps them for its script: every text once, every set of violations once. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from hardening.foundation.text import short_digests, visible
from pipelines.cli.open_points import NEVER
from pipelines.cli.report_output import MemberReport, ReportOutput
from pipelines.fleet.judged_state import JudgedMember, JudgedState, ViolationLine

MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
GOOD = "within policy"


class _Pool:
    """Values, each kept once; what is handed out is its number."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self.values: list[Any] = []

    def number(self, key: Any, value: Any = None) -> int:
        """The number of a value, by what makes it the same."""
        if (known := self._numbers.get(key)) is None:
            known = self._numbers[key] = len(self.values)
            self.values.append(key if value is None else value)
        return known


class _Packing:
    """Packs members; all text in them is made visible, and digests short, once for each text."""

    def __init__(self) -> None:
        self.texts, self.violations, self.facts = _Pool(), _Pool(), _Pool()
        self._facts: dict[str, int] = {}  # by their JSON: most members of a fleet run alike

    def text(self, text: str) -> int:
        return self.texts.number(text)

    def violation(self, one: ViolationLine) -> int:
        told = [
            self.text(one.rule), self.text(one.enforcement), int(one.stands), self.text(one.what), self.text(one.why),
            tuple(map(self.text, one.evidence)), _seconds(one.since), _seconds(one.deadline),
            tuple(map(self.text, one.repairs)), self.text(one.todo), self.text(one.side), self.text(one.acts),
            self.text(one.waived_by),
        ]  # fmt: skip
        return self.violations.number(tuple(told))

    def runs_as(self, found: dict[str, Any] | None) -> int:
        """How it runs, a line for each thing that is set; when it was started is not among it, so that twins share."""
        same = json.dumps({**(found or {}), "launched": None, "unread": None}, sort_keys=True)
        if (known := self._facts.get(same)) is None:
            told = tuple(
                (self.text(name.replace("_", " ")), self.text(_in_words(value)))
                for name, value in json.loads(same).items()
                if value not in (None, "", [], {}, 0, False)
            )
            known = self._facts[same] = self.facts.number(told)
        return known

    def member(self, one: MemberReport, judged: JudgedMember | None) -> list[Any]:
        violations = judged.violations if judged else ()
        standing = [line for line in violations if line.stands]
        since = min((line.since for line in standing if line.since), default=None)
        acts = dict.fromkeys(line.acts for line in standing)
        return [
            self.text(one.member), self.text(one.state), tuple(map(self.text, one.rules)), self.text(one.ailment),
            int(one.superseded), _seconds(since), _seconds(one.deadline), self.text(", ".join(acts)),
            self.text(one.image or "not one of ours"), self.text(judged.image if judged else ""), self.text(one.digest),
            self.text(one.status), _seconds(judged.since if judged else None), _seconds(one.judged_at),
            tuple(map(self.violation, violations)), self.runs_as(judged.runs_as if judged else None),
            self.text(judged.release if judged else ""),
        ]  # fmt: skip


def member_rows(report: ReportOutput, state: JudgedState | None) -> str:
    """What the script reads, as JSON that may stand within an HTML page: no markup can begin or end in it."""
    known = judged_by_name(state)
    pack = _Packing()
    members = [pack.member(one, known.get(one.member)) for one in in_order(report.members)]
    told = {
        "members": members, "violations": pack.violations.values, "facts": pack.facts.values,
        "texts": [visible(short_digests(str(text))) for text in pack.texts.values],
    }  # fmt: skip
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).translate(MARKUP)


def judged_by_name(state: JudgedState | None) -> Mapping[str, JudgedMember]:
    """Every judged member, by `fleet/member`."""
    fleets = state.fleets if state else ()
    return {f"{one.fleet}/{one.name}": one for fleet in fleets for one in fleet.members}


def in_order(members: tuple[MemberReport, ...]) -> list[MemberReport]:
    """Who needs somebody first: not within policy, then not healthy, each by its deadline."""
    return sorted(members, key=lambda one: (one.state == GOOD, one.healthy, one.deadline or NEVER, one.member))


def _seconds(at: datetime | None) -> int:
    """A moment as the script reads it: seconds since 1970; 0: none."""
    return int(at.timestamp()) if at else 0


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(part)}" for key, part in value.items() if part not in ("", [], None))
    return "; ".join(map(_in_words, value)) if isinstance(value, list) else str(value)
