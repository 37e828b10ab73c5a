"""Waivers: what they cover, when they end, how one is asked for, and their forms for other tools."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hardening.evaluation import JUDGE
from hardening.findings import BaseImage, Finding, FindingKind, Reason
from hardening.foundation.hashing import digest_of
from hardening.model import Enforcement, Severity, Waiver
from hardening.waivers import (
    About,
    about_check,
    about_finding,
    about_rule,
    active,
    answered,
    covers,
    ended,
    how_to_ask,
    openvex,
    trivyignore,
    waived_by,
)

TODAY = date(2026, 11, 25)
HOLE = About("vulnerabilities", "CVE-2026-0001", "libssl3t64", ("3.5.1-1",))
FINDING = Finding(
    FindingKind.VULNERABILITY, "CVE-2026-0001", "libssl3t64", "3.5.1-1", "3.5.1-2", Severity.HIGH,
    (("trivy", Severity.HIGH),),
)  # fmt: skip


def waiver(**change: object) -> Waiver:
    base = {
        "id": "openssl-quic",
        "vulnerabilities": ("CVE-2026-0001",),
        "packages": ("libssl3t64",),
        "subjects": ("python-*",),
        "reason": "QUIC is not compiled in",
        "owner": "web",
        "approver": "security",
        "created": TODAY - timedelta(days=10),
        "expires": TODAY + timedelta(days=10),
    }
    return Waiver.model_validate({**base, **change})


def test_a_waiver_covers_what_it_names_for_whom_it_names():
    """Name and subject must both fit; a rule's name with underscores is the same as with dashes."""
    assert covers(waiver(), HOLE, "python-runtime")
    assert not covers(waiver(), replace(HOLE, name="CVE-2026-0002"), "python-runtime")
    assert not covers(waiver(), replace(HOLE, name="CVE-2026-00010"), "python-runtime")
    assert not covers(waiver(), HOLE, "node-runtime")
    assert covers(waiver(rules=("max-age",)), about_rule("max_age"), "python-runtime")


@pytest.mark.parametrize(
    ("change", "package", "version", "covered"),
    [
        ({}, "libssl3t64", "3.5.1-1", True),
        ({}, "nodejs", "3.5.1-1", False),
        ({"versions": ("3.5.1-1",)}, "libssl3t64", "3.5.1-1", True),
        ({"versions": ("3.5.1-1",)}, "libssl3t64", "3.5.1-2", False),
        ({"versions": ("3.5.1-1",)}, "libssl3t64", "", False),
        ({}, "libssl3t64", "", True),
        ({"versions": ("3.5.1-1",)}, "libssl3t64", "3.5.1-1 | 3.5.1-2", False),
        ({"versions": ("3.5.1-1", "3.5.1-2")}, "libssl3t64", "3.5.1-1 | 3.5.1-2", True),
    ],
)
def test_a_vulnerability_is_waived_in_the_named_packages_and_versions_alone(change, package, version, covered):
    """The same advisory in another package, or in a version that somebody looked at nothing of, still refuses."""
    found = replace(FINDING, package=package, installed=version)
    assert covers(waiver(**change), about_finding(found), "python-runtime") is covered


def test_a_secret_is_waived_where_it_was_accepted_alone():
    """A test's key under one directory excuses no key anywhere else."""
    accepted = waiver(vulnerabilities=(), packages=(), secrets=("private-key",), paths=("/usr/share/doc/*/test.key",))
    for path, covered in {"/usr/share/doc/x/test.key": True, "/root/.ssh/id_rsa": False}.items():
        secret = replace(FINDING, kind=FindingKind.SECRET, id="private-key", package=path)
        assert covers(accepted, about_finding(secret), "python-runtime") is covered


def test_each_sort_has_names_of_its_own():
    """A waiver for a control excuses no finding, no benchmark's rule and no rule of ours that is called the same."""
    same = [
        about_check("expired"), about_rule("expired"), About("benchmark", "expired"),
        about_finding(replace(FINDING, kind=FindingKind.MISCONFIGURATION, id="expired")),
    ]  # fmt: skip
    for about in same:
        named = waiver(vulnerabilities=(), packages=(), **{about.key: ("expired",)})
        assert [covers(named, other, "python-runtime") for other in same] == [other is about for other in same]
    assert about_check("boot-listening").key == "rules"


@pytest.mark.parametrize("rule", ["revoked", "judges", "checks", "trivy-secret-evaluated", "policy-window"])
def test_a_revocation_and_that_nothing_was_evaluated_cannot_be_waived(rule):
    """Whatever a waiver says that came past the loader; and nobody is told how to ask for one."""
    loose = waiver(rules=(rule,))
    now = datetime(2026, 11, 25, tzinfo=UTC)
    reason = Reason(rule, "python-runtime", Enforcement.ENFORCE, "what", "why", "todo")
    assert answered(reason, about_rule(rule), "security@example.com", [loose], now) == reason


ON_BASE = replace(HOLE, below=("python-base", "debian-base"))


def test_an_inherited_waiver_follows_what_comes_from_its_subject():
    """The same package of the base in a child; not what the child brings itself, and not without the word."""
    of_base = waiver(subjects=("debian-base",), inherited=True)
    assert covers(of_base, ON_BASE, "shop")
    assert not covers(of_base, HOLE, "shop")
    assert not covers(waiver(subjects=("debian-base",)), ON_BASE, "shop")
    now = datetime(2026, 11, 25, tzinfo=UTC)

    def reason(subject: str) -> Reason:
        return Reason("CVE-2026-0001", subject, Enforcement.ENFORCE, "what", "why", "todo")

    said = answered(reason("shop"), ON_BASE, "security@example.com", [of_base], now).waived_by
    assert said == "openssl-quic until 2026-12-05, inherited from debian-base: QUIC is not compiled in"
    own = answered(reason("debian-base"), HOLE, "security@example.com", [of_base], now)
    assert own.waived_by
    assert "inherited" not in own.waived_by


def test_an_inherited_waiver_of_a_further_root_reaches_that_roots_images_alone():
    """Whatever theirs stand on: what comes from another's base is accepted for their own image."""
    theirs = waiver(subjects=("debian-base",), inherited=True).within(frozenset({"shop"}))
    assert covers(theirs, ON_BASE, "shop")
    assert not covers(theirs, ON_BASE, "bank")
    assert not covers(theirs, HOLE, "debian-base")


def test_the_waiver_to_paste_of_an_image_offers_to_free_those_on_it():
    """Such as where a base is refused, and stops the image that was to be published."""
    text = how_to_ask(HOLE, "debian-base", "security@example.com", TODAY)
    for pasted, frees in ((text, False), (text.replace("# inherited", "inherited"), True)):
        fields = tomllib.loads("\n".join(pasted.splitlines()[1:])) | {"id": "p", "owner": "a", "approver": "b"}
        made = Waiver.model_validate(fields)
        assert covers(made, HOLE, "debian-base")
        assert covers(made, ON_BASE, "shop") is frees
    for about, subject in ((replace(HOLE, key="rules", name="max-age"), "web"), (HOLE, "shop/web-1")):
        assert "inherited" not in how_to_ask(about, subject, "security@example.com", TODAY)


def test_the_waiver_to_paste_for_what_comes_from_a_base_is_the_bases():
    """One for all images on it, where it is asked for by the lowest that has it."""
    text = how_to_ask(ON_BASE, "shop", "security@example.com", TODAY)
    assert "hardening/waivers/debian-base-cve-2026-0001.toml" in text
    pasted = tomllib.loads("\n".join(text.splitlines()[1:])) | {"id": "p", "owner": "a", "approver": "b"}
    made = Waiver.model_validate(pasted)
    assert (made.subjects, made.inherited) == (("debian-base",), True)
    assert covers(made, ON_BASE, "shop")


@pytest.mark.parametrize("below", [(), ("debian-base",)])
def test_an_ended_waiver_that_was_inherited_is_told_of_the_child_too(below):
    """It is the child's refusal that somebody will ask about."""
    old = waiver(subjects=("debian-base",), inherited=True, expires=TODAY - timedelta(days=1))
    assert len([*ended([old], "shop", TODAY, below)]) == len(below)
    of_base = waiver(subjects=("debian-base",), inherited=True)
    named = of_base.model_copy(update={"versions": ("3.5.1-1",)})
    listed = [json.loads(trivyignore([one], "shop", TODAY, below))["vulnerabilities"] for one in (of_base, named)]
    assert [*map(len, listed)] == [0, len(below)], "without a version it would cover what the child brings itself"


def test_a_rule_is_not_inherited():
    """Dates and boots are one image's or member's own."""
    with pytest.raises(ValidationError, match="inherited and rules do not go together"):
        waiver(rules=("max-age",), inherited=True)


BASES = (
    BaseImage("python-base", frozenset({("libssl3t64", "3.5.1-1"), ("python3", "3.13")})),
    BaseImage(
        "debian-base", frozenset({("libssl3t64", "3.5.1-1")}), frozenset({(FindingKind.SECRET, "key", "/k")}),
        frozenset({("no-setuid", "/usr/bin/su")}),
    ),
)  # fmt: skip


def test_where_a_finding_comes_from_is_known_by_package_version_finding_or_check():
    """A package in another version is the image's own; boots are nobody's but its own."""
    assert about_finding(FINDING, BASES).below == ("python-base", "debian-base")
    assert about_finding(replace(FINDING, installed="3.5.1-2"), BASES).below == ()
    assert about_finding(replace(FINDING, installed="3.5.1-1 | 3.5.1-2"), BASES).below == ()
    assert about_finding(replace(FINDING, package="python3", installed="3.13"), BASES).below == ("python-base",)
    secret = replace(FINDING, kind=FindingKind.SECRET, id="key", package="/k")
    assert about_finding(secret, BASES).below == (), "what stands there now may be another secret"
    assert about_check("no-setuid", BASES, "/usr/bin/su").below == ("debian-base",)
    assert about_check("no-setuid", BASES, "/usr/bin/su\n/usr/bin/own").below == ()
    assert about_check("boot-listening", BASES).below == ()


@given(st.integers(-400, 400))
def test_a_waiver_works_from_the_day_it_was_created_through_the_day_it_expires(days):
    """Not before, not after, on both boundary days."""
    today = TODAY + timedelta(days=days)
    found = waived_by([waiver()], HOLE, "python-runtime", today)
    assert (found is not None) == (-10 <= days <= 10)


def test_the_longest_lived_of_several_waivers_counts():
    """So that the date shown is the date on which the exception really ends."""
    later = waiver(id="later", expires=TODAY + timedelta(days=20))
    assert waived_by([later, waiver()], HOLE, "python-runtime", TODAY) == later


def test_an_expired_waiver_is_reported_to_its_owner():
    """It names the owner, the file, and that it has no effect any more; others' images do not hear of it."""
    old = waiver(expires=TODAY - timedelta(days=1))
    [reason] = ended([old], "python-runtime", TODAY)
    assert "expired on 2026-11-24: no effect" in reason.what
    assert "web: delete hardening/waivers/openssl-quic.toml" in reason.todo
    assert (reason.rule, reason.subject) == ("waiver-ended", "python-runtime")
    assert reason.why == "an exception that outlives its end is a hole that nobody decided on"
    assert list(ended([old], "node-runtime", TODAY)) == []
    assert list(ended([waiver()], "python-runtime", TODAY)) == []


@pytest.mark.parametrize(
    "about",
    [
        about_rule("max_age"), about_check("no-setuid"), About("secrets", "private-key", path="/root/key"),
        About("vulnerabilities", "CVE-2026-0001", "zlib1g", ("1", "2")), About("misconfigurations", "DS-0002"),
        About("benchmark", "sshd_limit_user_access"),
    ],
)  # fmt: skip
def test_the_waiver_to_paste_is_valid_and_covers_the_reason(about):
    """What a refusal prints loads once two people stand in it, and would silence just that refusal."""
    head, *toml = how_to_ask(about, "web/web-1", "security@example.com", TODAY).splitlines()
    assert head.startswith("ask security@example.com, with this as hardening/waivers/web-web-1-")
    blank = tomllib.loads("\n".join(toml))
    with pytest.raises(ValidationError, match="owner"):
        Waiver.model_validate({**blank, "id": "pasted"})
    pasted = Waiver.model_validate({**blank, "id": "pasted", "owner": "web", "approver": "security"})
    assert waived_by([pasted], about, "web/web-1", TODAY) == pasted
    assert waived_by([pasted], replace(about, name="other"), "web/web-1", TODAY) is None
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
    assert statement["products"] == [
        {"@id": "pkg:oci/python-runtime", "subcomponents": [{"@id": "pkg:deb/debian/libssl3t64"}]}
    ]
    assert "security" in statement["action_statement"]
    assert text == openvex([old, waiver()], ["pkg:oci/python-runtime"], "Goldsmith", TODAY)


def test_openvex_is_one_document_whatever_order_its_waivers_come_in():
    """Dates, author, and an identity that is the digest of all the rest; sorted and indented, so that it diffs well."""
    second = waiver(id="zlib", vulnerabilities=("CVE-2026-0002",), packages=("zlib1g",), versions=("1", "2"))
    text = openvex([second, waiver()], ["pkg:oci/b", "pkg:oci/a"], "Goldsmith", TODAY)
    assert text == openvex([waiver(), second], ["pkg:oci/a", "pkg:oci/b"], "Goldsmith", TODAY)
    document = json.loads(text)
    assert text == json.dumps(document, indent=2, sort_keys=True) + "\n"
    identity = document.pop("@id")
    assert identity == f"https://openvex.dev/docs/goldsmith/{digest_of(document).split(':')[1]}"
    statements = document.pop("statements")
    assert document == {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "author": "Goldsmith",
        "timestamp": "2026-11-25T00:00:00Z",
        "version": 1,
    }
    assert [statement["vulnerability"]["name"] for statement in statements] == ["CVE-2026-0001", "CVE-2026-0002"]
    packages = [{"@id": "pkg:deb/debian/zlib1g@1"}, {"@id": "pkg:deb/debian/zlib1g@2"}]
    assert statements[1] == {
        "vulnerability": {"name": "CVE-2026-0002"},
        "timestamp": "2026-11-15T00:00:00Z",
        "products": [{"@id": f"pkg:oci/{name}", "subcomponents": packages} for name in "ab"],
        "status": "affected",
        "action_statement": "accepted until 2026-12-05 by security: QUIC is not compiled in",
        "action_statement_timestamp": "2026-11-15T00:00:00Z",
    }


def test_trivys_ignore_file_lists_each_kind_under_its_own_key_in_order_of_the_waivers():
    """Misconfigurations too; indented, so that a person can read it."""
    second = waiver(id="zlib", vulnerabilities=(), packages=(), misconfigurations=("DS-0002",))
    first = waiver(vulnerabilities=(), packages=(), misconfigurations=("DS-0001",))
    text = trivyignore([second, first], "python-runtime", TODAY)
    document = json.loads(text)
    assert text == json.dumps(document, indent=2) + "\n"
    assert document == {
        "vulnerabilities": [],
        "misconfigurations": [
            {
                "id": "DS-0001",
                "expired_at": "2026-12-06T00:00:00Z",
                "statement": "openssl-quic: QUIC is not compiled in",
            },
            {"id": "DS-0002", "expired_at": "2026-12-06T00:00:00Z", "statement": "zlib: QUIC is not compiled in"},
        ],
        "secrets": [],
    }


def test_trivys_ignore_file_ends_when_the_waiver_ends():
    """Trivy's own expiry carries the date, and expired waivers are not in it at all."""
    key = {"secrets": ("private-key",), "paths": ("/usr/share/key",), "versions": ("3.5.1-1",)}
    document = json.loads(trivyignore([waiver(**key)], "python-runtime", TODAY))
    assert document["secrets"][0] | {"id": "private-key", "paths": ["/usr/share/key"]} == document["secrets"][0]
    assert document["vulnerabilities"][0] == {
        "id": "CVE-2026-0001",
        "purls": ["pkg:deb/debian/libssl3t64@3.5.1-1"],
        "expired_at": "2026-12-06T00:00:00Z",
        "statement": "openssl-quic: QUIC is not compiled in",
    }
    assert json.loads(trivyignore([waiver()], "node-runtime", TODAY))["vulnerabilities"] == []
    assert active([waiver()], TODAY + timedelta(days=11)) == ()


def test_a_finding_is_named_by_the_key_of_its_kind():
    """Only a vulnerability has a package and versions, and only a secret has a path."""
    of = replace(FINDING, id="x", package="p", installed="1 | 2")
    assert about_finding(of) == About("vulnerabilities", "x", "p", ("1", "2"))
    assert about_finding(replace(of, kind=FindingKind.SECRET)) == About("secrets", "x", path="p")
    assert about_finding(replace(of, kind=FindingKind.MISCONFIGURATION)) == About("misconfigurations", "x")
    rule = replace(of, kind=FindingKind.MISCONFIGURATION, scanners=((JUDGE, Severity.HIGH),))
    assert about_finding(rule) == About("benchmark", "x")
