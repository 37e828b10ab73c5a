"""Waivers: what they cover, when they end, how one is asked for, and their forms for other tools."""

from __future__ import annotations

import json
import tomllib
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hardening.model import Waiver
from hardening.waive import active, covers, ended, how_to_ask, openvex, trivyignore, waived_by

TODAY = date(2026, 11, 25)


def waiver(**change: object) -> Waiver:
    base = {
        "id": "openssl-quic",
        "vulnerabilities": ("CVE-2026-0001",),
        "subjects": ("python-*",),
        "reason": "QUIC is not compiled in",
        "owner": "web",
        "approver": "security",
        "created": TODAY - timedelta(days=10),
        "expires": TODAY + timedelta(days=10),
    }
    return Waiver.model_validate({**base, **change})


def test_a_waiver_covers_what_it_names_for_whom_it_names():
    """Id and subject must both fit; a control's name with underscores is the same as with dashes."""
    assert covers(waiver(), "CVE-2026-0001", "python-runtime")
    assert not covers(waiver(), "CVE-2026-0002", "python-runtime")
    assert not covers(waiver(), "CVE-2026-0001", "node-runtime")
    assert covers(waiver(controls=("max-age",)), "max_age", "python-runtime")


@given(st.integers(-400, 400))
def test_a_waiver_works_from_the_day_it_was_created_through_the_day_it_expires(days):
    """Not before, not after, on both boundary days."""
    today = TODAY + timedelta(days=days)
    found = waived_by([waiver()], "CVE-2026-0001", "python-runtime", today)
    assert (found is not None) == (-10 <= days <= 10)


def test_the_longest_lived_of_several_waivers_counts():
    """So that the date shown is the date on which the exception really ends."""
    later = waiver(id="later", expires=TODAY + timedelta(days=20))
    assert waived_by([later, waiver()], "CVE-2026-0001", "python-runtime", TODAY) == later


def test_an_expired_waiver_is_reported_to_its_owner():
    """It names the owner, the file, and that it has no effect any more; others' images do not hear of it."""
    old = waiver(expires=TODAY - timedelta(days=1))
    [reason] = ended([old], "python-runtime", TODAY)
    assert "expired on 2026-11-24: no effect" in reason.what
    assert "web: delete hardening/waivers/openssl-quic.toml" in reason.todo
    assert ended([old], "node-runtime", TODAY) == []
    assert ended([waiver()], "python-runtime", TODAY) == []


@pytest.mark.parametrize(("rule", "finding"), [("CVE-2026-0001", True), ("max_age", False), ("no-setuid", False)])
def test_the_waiver_to_paste_is_valid_and_covers_the_reason(rule, finding):
    """What a refusal prints loads once two people stand in it, and would silence just that refusal."""
    head, *toml = how_to_ask(rule, "web/web-1", "security@example.com", TODAY, finding=finding).splitlines()
    assert head.startswith("ask security@example.com, with this as hardening/waivers/web-web-1-")
    blank = tomllib.loads("\n".join(toml))
    with pytest.raises(ValidationError, match="owner"):
        Waiver.model_validate({**blank, "id": "pasted"})
    pasted = Waiver.model_validate({**blank, "id": "pasted", "owner": "web", "approver": "security"})
    assert waived_by([pasted], rule, "web/web-1", TODAY) == pasted
    assert pasted.expires - TODAY == timedelta(days=30)


def test_openvex_says_affected_and_accepted_not_unaffected():
    """A waiver accepts a risk; a scanner of others must not read it as "not vulnerable"."""
    old = waiver(id="old", vulnerabilities=("CVE-2026-0009",), expires=TODAY - timedelta(days=1))
    text = openvex([waiver(), old], ["pkg:oci/python-runtime"], "Goldsmith", TODAY)
    document = json.loads(text)
    [statement] = document["statements"]
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert statement["vulnerability"] == {"name": "CVE-2026-0001"}
    assert statement["status"] == "affected"
    assert "security" in statement["action_statement"]
    assert text == openvex([old, waiver()], ["pkg:oci/python-runtime"], "Goldsmith", TODAY)


def test_trivys_ignore_file_ends_when_the_waiver_ends():
    """Trivy's own expiry carries the date, and expired waivers are not in it at all."""
    document = json.loads(trivyignore([waiver()], "python-runtime", TODAY))
    assert document["vulnerabilities"][0] == {
        "id": "CVE-2026-0001",
        "expired_at": "2026-12-05",
        "statement": "openssl-quic: QUIC is not compiled in",
    }
    assert json.loads(trivyignore([waiver()], "node-runtime", TODAY))["vulnerabilities"] == []
    assert active([waiver()], TODAY + timedelta(days=11)) == ()
