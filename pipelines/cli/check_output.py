"""What `fleet.check` and `fleet.scan` print of each member: with `--json`, and in a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from hardening.findings import Reason
from hardening.foundation import text
from pipelines.contract import Line
from pipelines.fleet.violations import Judged, MemberVerdict, PolicyState, named, verdict_of


class MemberLine(Line):
    """`fleet.check`: one member of `fleet`. `violations` are the reasons to replace it; `reasons` all, recorded and
    waived ones too. `superseded`: a newer release is out, whether or not the policy has a rule for it.
    """

    member: str
    name: str
    image: str
    release: str
    base: str
    expires_at: datetime | None
    healthy: bool
    violations: tuple[str, ...]
    deadline: datetime | None
    reasons: tuple[Reason, ...]
    fleet: str = ""
    state: PolicyState = PolicyState.OUT
    superseded: bool = False
    starting: bool = False

    @property
    def verdict(self) -> MemberVerdict:
        """What every screen says of it."""
        healthy, starting = self.healthy, self.starting
        return MemberVerdict(self.state, self.violations, self.deadline, self.superseded, healthy, starting)

    @property
    def runs(self) -> str:
        """Its image in a table: a golden one by its name and day, another as it was started, with a short digest."""
        return _runs(self.release or self.image, self.base)


class SeenLine(Line):
    """`fleet.scan`: one member, or a place that could not be read. `golden` is the release that it is judged by;
    `policy` says whether it is within policy, `why` why it could not be read.
    """

    fleet: str
    member: str
    name: str
    image: str
    golden: str
    state: str
    policy: str = ""
    why: str = ""

    @property
    def stands(self) -> str:
        """Whether it is within policy, or why that is not known."""
        return f"{self.policy}: {self.why}" if self.why else self.policy

    @property
    def runs(self) -> str:
        """Its image in a table."""
        return _runs(self.golden or self.image)


def _runs(image: str, base: str = "") -> str:
    on = f" on {base.partition(' (')[0]}" if base else ""
    return text.short_digests(image.partition(" (")[0]) + on


def member_lines(judged: Iterable[Judged]) -> list[MemberLine]:
    """One line for each member."""
    return [
        MemberLine.of(
            one.member,
            member=one.member.id,
            release=named(one.origin.release) if one.origin.release else "",
            base=named(one.origin.base) if one.origin.base else "",
            expires_at=one.origin.golden.expires_at if one.origin.golden else None,
            violations=verdict.rules,
            deadline=verdict.deadline,
            reasons=one.reasons,
            state=verdict.state,
            superseded=verdict.superseded,
        )
        for one, verdict in ((one, verdict_of(one)) for one in judged)
    ]
