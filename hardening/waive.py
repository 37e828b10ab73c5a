"""Waivers: which one covers what today, how to ask for one, and their forms for other tools. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase

from hardening.findings import Reason
from hardening.foundation.hashing import digest_of
from hardening.model import Enforcement, Waiver

ASKED_FOR = timedelta(days=30)


def active(waivers: Sequence[Waiver], today: date) -> tuple[Waiver, ...]:
    """The waivers in force on `today`: from the day they were created through the day they expire."""
    return tuple(waiver for waiver in waivers if waiver.created <= today <= waiver.expires)


def covers(waiver: Waiver, rule: str, subject: str) -> bool:
    """Whether `waiver` is about `rule` (a control, a running rule, or a finding's id) and about `subject`."""
    about = rule in waiver.vulnerabilities or rule.replace("_", "-") in waiver.controls
    return about and any(fnmatchcase(subject, glob) for glob in waiver.subjects)


def waived_by(waivers: Sequence[Waiver], rule: str, subject: str, today: date) -> Waiver | None:
    """The waiver in force on `today` that covers `rule` for `subject`, the longest-lived if there are several."""
    fitting = [waiver for waiver in active(waivers, today) if covers(waiver, rule, subject)]
    return max(fitting, key=lambda waiver: (waiver.expires, waiver.id), default=None)


UNWAIVABLE = ("judges", "policy-review", "waiver-ended")


def settle(reason: Reason, contact: str, waivers: Sequence[Waiver], now: datetime, *, finding: bool = False) -> Reason:
    """`reason` with the waiver that covers it today, or with how to ask `contact` for one.

    `finding`: its rule is a finding's id, not a control's. Nobody can waive that anything was evaluated at all.
    """
    if reason.rule in UNWAIVABLE:
        return reason
    waiver = waived_by(waivers, reason.rule, reason.subject, now.date())
    if waiver:
        return replace(reason, waived_by=f"{waiver.id} until {waiver.expires}: {waiver.reason}")
    return replace(reason, waiver=how_to_ask(reason.rule, reason.subject, contact, now.date(), finding=finding))


def ended(waivers: Sequence[Waiver], subject: str, today: date) -> list[Reason]:
    """A warning for each waiver about `subject` that has expired: it has no effect, and someone should know."""
    return [
        Reason(
            rule="waiver-ended",
            subject=subject,
            enforcement=Enforcement.WARN,
            what=f"waiver {w.id} for {', '.join((*w.controls, *w.vulnerabilities))} expired on {w.expires}: no effect",
            why="an exception that outlives its end is a hole that nobody decided on",
            todo=f"{w.owner}: delete hardening/waivers/{w.id}.toml, or have {w.approver} approve a new end",
        )
        for w in sorted(waivers, key=lambda waiver: waiver.id)
        if w.expires < today and any(fnmatchcase(subject, glob) for glob in w.subjects)
    ]


def how_to_ask(rule: str, subject: str, contact: str, today: date, *, finding: bool = False) -> str:
    """How an application developer asks for an exception: whom, and a waiver to paste and complete."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{subject}-{rule}".lower()).strip("-")
    what = f"vulnerabilities = [{_toml(rule)}]" if finding else f"controls = [{_toml(rule.replace('_', '-'))}]"
    lines = [
        f"ask {contact}, with this as hardening/waivers/{name}.toml in a pull request:",
        what,
        f"subjects = [{_toml(subject)}]",
        'reason = "why it is acceptable until then"',
        'owner = ""  # your team',
        'approver = ""  # a second person, not the owner',
        f"created = {today}",
        f"expires = {today + ASKED_FOR}",
    ]
    return "\n".join(lines)


def _toml(text: str) -> str:
    return json.dumps(text)


def openvex(waivers: Sequence[Waiver], products: Sequence[str], author: str, today: date) -> str:
    """The vulnerability waivers in force as an OpenVEX 0.2.0 document (https://openvex.dev/ns/v0.2.0) over `products`.

    A waiver accepts a risk, it does not claim that the product is unaffected: the status is `affected`, and the action
    statement carries reason, owner, approver and end.
    """
    statements = [
        {
            "vulnerability": {"name": vulnerability},
            "timestamp": f"{waiver.created}T00:00:00Z",
            "products": [{"@id": product} for product in sorted(products)],
            "status": "affected",
            "action_statement": f"accepted until {waiver.expires} by {waiver.approver}: {waiver.reason}",
            "action_statement_timestamp": f"{waiver.created}T00:00:00Z",
        }
        for waiver in sorted(active(waivers, today), key=lambda waiver: waiver.id)
        for vulnerability in waiver.vulnerabilities
    ]
    document = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "author": author,
        "timestamp": f"{today}T00:00:00Z",
        "version": 1,
        "statements": statements,
    }
    identity = f"https://openvex.dev/docs/goldsmith/{digest_of(document).removeprefix('sha256:')}"
    return json.dumps({"@id": identity, **document}, indent=2, sort_keys=True) + "\n"


def trivyignore(waivers: Sequence[Waiver], subject: str, today: date) -> str:
    """The waivers in force for `subject` as `.trivyignore.yaml`, for those who run trivy by hand; JSON is YAML.

    Goldsmith's own scans use none: what is waived is still found, and shown as waived.
    """
    ids = [
        {"id": vulnerability, "expired_at": str(waiver.expires), "statement": f"{waiver.id}: {waiver.reason}"}
        for waiver in sorted(active(waivers, today), key=lambda waiver: waiver.id)
        for vulnerability in waiver.vulnerabilities
        if covers(waiver, vulnerability, subject)
    ]
    return json.dumps(dict.fromkeys(("vulnerabilities", "misconfigurations", "secrets"), ids), indent=2) + "\n"
