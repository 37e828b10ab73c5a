"""What commands print with `--json`: the contract with other programs. Each has a schema in docs/schemas/.

Lines that are made of one command's own values stand with that command, in `pipelines/cli/`.

Fields are added, never renamed or removed, within a major version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from hardening.disagreement import Disagreement
from hardening.findings import CheckResult, Finding, Reason, ScanReport


class Line(BaseModel):
    """The base of all output: frozen, and complete."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def of(cls, found: object, **others: Any) -> Self:
        """The line of a value whose fields have the same names, and of what has `others`."""
        names = (name for name in cls.model_fields if name not in others and hasattr(found, name))
        return cls.model_validate({name: getattr(found, name) for name in names} | others, from_attributes=True)


class DefinitionLine(Line):
    """`image.list`: one definition, and what is known of its newest artifact and release.

    `revoked`: which of built, candidate and stable are, or stand on what is.
    """

    name: str
    title: str
    kind: str
    base: str
    profile: str
    policy: str
    digest: str
    candidate: str
    stable: str
    expires_at: datetime | None
    revoked: tuple[str, ...] = ()

    def marked(self, what: str, digest: str) -> tuple[str, ...]:
        """A digest in a table, with a word about it where it is revoked."""
        return (digest, "REVOKED") if what in self.revoked else (digest,) if digest else ("-",)

    @property
    def built_cell(self) -> tuple[str, ...]:
        """What was built last."""
        return self.marked("built", self.digest)

    @property
    def candidate_cell(self) -> tuple[str, ...]:
        """What `candidate` points to."""
        return self.marked("candidate", self.candidate)

    @property
    def stable_cell(self) -> tuple[str, ...]:
        """What `stable` points to."""
        return self.marked("stable", self.stable)


class VerifyLine(Line):
    """`image.verify`, `image.boot` and `control.check`: the result of each control on one image, directory or host.

    `todo`, of a host: for each control that does not hold, the steps that mend a host which runs already, in order.
    """

    name: str
    digest: str
    passed: bool
    checks: tuple[CheckResult, ...]
    todo: dict[str, tuple[str, ...]] = {}


class ScanOutput(Line):
    """`image.scan`: the result of each scanner, and the findings with each scanner's severity.

    `disagreements` of the scanners of vulnerabilities, each with its cause; `agreement` tells of them in a line.
    """

    ref: str
    digest: str
    reports: tuple[ScanReport, ...]
    findings: tuple[Finding, ...]
    allowed: bool
    policy: str
    reasons: tuple[Reason, ...]
    disagreements: tuple[Disagreement, ...] = ()
    agreement: str = ""


class LockLine(Line):
    """`image.lock`: the digest that an upstream base is pinned to now.

    `action` is pinned (for the first time), moved, unchanged, or waits; `newest` is what the tag names, and
    `waits_until` when that may be taken, if it has to wait out its cooldown.
    """

    name: str
    base: str
    digest: str
    action: str = ""
    newest: str = ""
    waits_until: datetime | None = None
    why: str = ""

    @property
    def because(self) -> str:
        """Why, and until when it waits, in a table."""
        return f"{self.why}, until {self.waits_until:%Y-%m-%d %H:%M} UTC" if self.waits_until else self.why


class ReleaseLine(Line):
    """`image.rebuild`: one release in the registry."""

    name: str
    release: str
    content: str
    expires_at: datetime


class PruneLine(Line):
    """`image.prune`: what happens to one release: keep, warn, remove (planned) or removed. For a machine, `release` is
    one image, region/id, and `action` also deprecate(d) or disable(d).
    """

    name: str
    release: str
    action: str
    why: str


class FleetLine(Line):
    """`fleet.list`: one fleet."""

    name: str
    title: str
    kind: str
    selector: dict[str, str]
    policy: str
    replacement: str
    approval: str


class NightlyLine(Line):
    """`nightly`: one part of the night; `detail` says it in words for people.

    `kind` and its `status`: the machine's `clock` jumped since its last night; `index` and `feeds` are refreshed,
    unchanged or failed, each by suite, and `feeds` kept where one that failed goes on with its last good copy, or
    without; the `feeds` named `changes` are changed or
    unchanged by newer data, or first, where there was none to compare with; a `lock`, the pin of an upstream image, is
    pinned, moved, waits or failed, and one that a person moves has something newer or was left unasked; an `image` is
    published, re-dated, unchanged, refused or failed; a `channel` that could not be moved is refused or failed, soaks
    while its candidate is too young, and is promoted where that could not wait, no canary ran, or to an earlier
    candidate; a `fleet` is compliant, empty, rolled, waits (for a person's approval), skipped, refused or failed; a
    `waiver` ends within 14 days, or ended so lately and what it covered refuses something; releases to `prune` are due
    or removed; the `digest` to the channels was sent, has nothing to say, or failed. What `report` and `notify` could
    not do, and what is `urgent` of the `feeds`, has a line of its own. With `--dry-run`, `index`, `feeds` and `lock`
    would be asked, and what a night would do is planned.

    `days_left`, of an image: until its `stable` release ends, below 0 once it has; null where it has none. `stopped_by`
    names the image that it stands on, where that was refused or failed and nothing was done for this one. `exit_code`
    says who must act on what was refused or failed, or on a fleet that is empty; else 0.
    """

    kind: str
    name: str
    status: str
    detail: str
    seconds: float
    days_left: int | None = None
    stopped_by: str = ""
    exit_code: int = 0


class NightlyDuty(Line):
    """`nightly`: who must act, by exit code, and on which `parts`, such as `image web` or `index trixie`."""

    exit_code: int
    who: str
    parts: tuple[str, ...]


class NightlyOutput(Line):
    """`nightly`: the whole night; the images it built, published (or re-dated) and promoted to `stable`; the exit code,
    which is the highest of `must_act`, and the path of the report (empty after `--only-urgent` without anything urgent,
    or with `--dry-run`). `resumed` are the interrupted nights that were completed before it. `policy`: the policy used
    instead of the definitions' own; empty if these were used.
    """

    started_at: datetime
    ended_at: datetime
    built: tuple[str, ...]
    published: tuple[str, ...]
    promoted: tuple[str, ...]
    lines: tuple[NightlyLine, ...]
    summary: str
    exit_code: int
    report: str
    id: str = ""
    resumed: tuple[str, ...] = ()
    dry_run: bool = False
    policy: str = ""
    must_act: tuple[NightlyDuty, ...] = ()


class DemoOutput(Line):
    """`demo`: how long it took, in all and by parts, and the results of the requests. `kept_at` is where the service
    still answers, if kept. `reached_seconds`: how long after the planted vulnerability became known it was found,
    refused, fixed in `stable`, and gone from the last member.
    """

    seconds: float
    requests: int
    failed: int
    slowest_seconds: float
    report: str
    kept_at: str
    steps: dict[str, float] = {}
    reached_seconds: dict[str, float] = {}


class DoctorLine(Line):
    """`doctor`: one thing that Goldsmith needs of this machine, and what does not work without it."""

    what: str
    present: bool
    essential: bool
    detail: str
    costs: str


class AuditReport(Line):
    """`report`: one thing that was done, by whom, to what."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
