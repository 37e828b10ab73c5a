"""The story of one member, by a fleet in a strict AWS: what is violated since when, and what its owner can do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from hardening.findings import Finding, FindingKind, Outcome, ScanReport
from hardening.foundation.console import out
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import ROOT
from hardening.model import Severity
from images.documents import to_json
from images.ledger import ScanRecord
from pipelines.cli.explain import MemberStory, _follows, explain_member, screen, show_story
from pipelines.fleet.judged_state import JudgedMember, judged_state
from pipelines.fleet.members import Followed, Provenance
from tests.pipelines.fleet.test_ec2_check import Office, office
from tests.strict_aws import Fault
from tests.strict_aws.making import image
from tests.support.cloud import DAY
from tests.support.fleets import NOW, judged

__all__ = ["office"]

HOLE = Finding(
    FindingKind.VULNERABILITY, "CVE-2026-0001", "openssl", "3.5", "3.6", Severity.HIGH, (("trivy", Severity.HIGH),),
)  # fmt: skip
REPORT = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 90, None, "feed", "")


def told(office: Office, name: str, days: float = 2) -> MemberStory:
    """What is told of a member so many days after the old release."""
    context = office.context
    at = context.now + days * DAY
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipelines.cli.explain.fleet_session", _at(at))
        return explain_member(name, context)


def _at(moment: Any) -> Any:
    from pipelines.rollout.session import fleet_session

    return lambda fleet, context: fleet_session(fleet, context, now=lambda: moment)


def found(member: JudgedMember, rule: str) -> Any:
    """The one violation of a rule."""
    (one,) = [one for one in member.violations if one.rule == rule]
    return one


def valid(name: str, data: Any) -> Any:
    """Data that its published schema accepts."""
    jsonschema.validate(data, json.loads((ROOT / "docs/schemas" / f"{name}.json").read_text()))
    return data


def test_an_image_that_is_followed_is_not_called_unknown(office: Office) -> None:
    """It says of which tag, since when it was seen, and what is newer; one without that is of unknown origin."""
    story = told(office, office.at.instance())
    tag = "docker.io/library/nginx:1.27"
    seen = judged(origin=Provenance(followed=Followed(tag, NOW, "sha256:" + 64 * "b", NOW)))
    said = _follows(seen)
    assert said == f"made by others, of {tag}, seen here since {NOW:%Y-%m-%d %H:%M} UTC; newer: sha256:bbbbbbbbbbbb"
    assert _follows(judged(origin=Provenance(followed=Followed(tag, None)))).endswith("the first look at that tag")
    assert (_follows(judged()), _follows(judged(origin=Provenance()))) == ("", "")
    told_so = list(screen(story.model_copy(update={"image": None, "follows": said})))
    assert f"  image      {said}" in told_so
    assert any("of unknown origin" in line for line in screen(story.model_copy(update={"image": None})))


def test_a_member_is_told_on_one_screen(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    """Which image, since when it is out of policy, what comes next, what can be done; by name, by id, or by both."""
    name, ledger = office.at.instance(MetadataOptions={"HttpTokens": "optional"}), office.at.cloud.ledger
    built = ledger.artifact_over(office.at.old.content)
    assert built
    before = replace(built.packages[0], version="0.1")
    ledger.record_artifact(
        replace(built, digest="sha256:before", input_digest="before", packages=(before, *built.packages[1:]),
                built_at=built.built_at - DAY)
    )  # fmt: skip
    story = told(office, name)
    assert story.image
    assert story.image.because == (f"package {before.name} 0.1 → {built.packages[0].version}",)
    assert told(office, f"shop/{name}") == story
    superseded = found(story.member, "superseded")
    assert (superseded.stands, superseded.side, superseded.acts, superseded.repairs[0]) == (True, "base", "ann", "roll")
    assert superseded.deadline == superseded.since + timedelta(days=7)
    assert found(story.member, "imdsv1").evidence == ("HttpTokens optional, hop limit 1",)
    assert not found(story.member, "imdsv1").stands
    assert story.can_do[0] == "./goldsmith roll.plan shop"
    assert [line.at for line in story.next if line.at] == sorted(line.at for line in story.next if line.at)
    out.cache_clear()
    assert show_story(story, as_json=False) == 3
    first = story.member.standing[0].model_copy(update={"rule": "unread"})
    unread = story.model_copy(update={"member": story.member.model_copy(update={"violations": (first,)})})
    assert show_story(unread, as_json=True) == 4
    capsys.readouterr()
    out.cache_clear()
    show_story(story, as_json=False)
    printed = capsys.readouterr().out.splitlines()
    out.cache_clear()
    assert max(map(len, printed)) <= 80
    assert len(printed) <= 40
    assert {"superseded", "imdsv1", "debian-server", "you can:"} <= {word for word in ("superseded", "imdsv1",
            "debian-server", "you can:") if any(word in line for line in printed)}  # fmt: skip
    valid("fleet.explain", to_json(story))


def test_a_member_that_is_well_says_until_when(office: Office) -> None:
    """Its image expires some day; there is nothing to do."""
    story = told(office, office.at.instance(ImageId=office.at.image(office.at.new)), days=1.5)
    assert (story.member.state, story.can_do) == ("within policy", ())
    assert any("its image expires" in line.what for line in story.next)
    assert next(iter(screen(story))).endswith("within policy")


def test_a_name_that_no_member_has_is_told_with_its_neighbours(office: Office) -> None:
    """As for every other name; where none runs, that is what is told."""
    with pytest.raises(ContentError, match="no member matches") as told_of:
        explain_member("shop/i-1", office.context)
    assert told_of.value.hint == "no member runs in shop"
    name = office.at.instance()
    with pytest.raises(ContentError, match="no member matches") as told_of:
        explain_member(f"shop/{name}x", office.context)
    assert name in told_of.value.hint


def test_a_name_that_no_place_that_was_read_has_may_be_in_another(office: Office) -> None:
    """In a region that lets nobody look there is no telling: that is no mistyped name."""
    office.at.instance()
    with (
        office.at.aws.faulty(Fault("denied", service="ec2", region="us-east-1")),
        pytest.raises(OutsideError, match="no member matches shop/i-elsewhere") as told_of,
    ):
        explain_member("shop/i-elsewhere", office.context)
    assert f"shop: {office.at.cloud.aws.account}/us-east-1: " in told_of.value.evidence


def test_a_member_that_no_rollout_replaces_says_why_and_is_offered_none(office: Office) -> None:
    """By the replacement, which is as old, or by its own label; one that has to be adopted is offered that."""
    at = office.at
    until = office.context.now + timedelta(days=3)
    key = "dev.goldsmith.do-not-disrupt-until"
    newest = at.instance(ImageId=at.image(at.new))
    protected = at.instance(tags={"app": "shop", key: until.isoformat()})
    foreign = at.instance(ImageId=image(at.aws, "foreign"))

    def said(name: str, days: float) -> tuple[str, list[str]]:
        story = told(office, name, days=days)
        line = next((one.what for one in story.next if "replaces it" in one.what), "")
        return line, [one for one in story.can_do if "roll.plan" in one]

    line, offered = said(newest, 40)
    assert line.startswith("no rollout replaces it: the replacement debian-server of ")
    assert offered == []
    line, offered = said(protected, 2)
    assert (line[:50], offered) == ("no rollout replaces it: it asks not to be disrupte", [])
    assert said(foreign, 2) == ("", [f"./goldsmith roll.plan shop --adopt {foreign}"])
    old = at.instance()
    assert said(old, 2) == ("", ["./goldsmith roll.plan shop"])
    written = office.file.read_text()
    for nodes, why in (
        ('nodes = 0, reasons = ["superseded"]', "limits.budgets[0] allows no member that is superseded"),
        ("nodes = 0", "limits.budgets[0] allows no member, with no end within a year"),
    ):
        office.file.write_text(f"{written}\n[limits]\nbudgets = [{{ {nodes} }}]\n")
        assert said(old, 2) == (f"no rollout replaces it: {why}", [])


def test_a_member_that_no_plan_reaches_says_what_refuses_the_plan(office: Office) -> None:
    """Too much of the fleet is unknown, or not all of it can be read: roll.plan says the same."""
    at = office.at
    old = at.instance()
    foreign = [at.instance(ImageId=image(at.aws, name)) for name in ("foreign", "alien")]

    def said(name: str) -> tuple[list[str], list[str]]:
        story = told(office, name)
        return [one.what for one in story.next if not one.at], [one for one in story.can_do if "roll.plan" in one]

    why = "2 of 3 members are unknown, more than max_violating_fraction.unknown 0.5"
    assert said(old) == ([f"no rollout replaces it: {why}"], [])
    adopting = f"./goldsmith roll.plan shop --adopt {foreign[0]}"
    assert said(foreign[0]) == ([f"no rollout replaces it: {why}"], [adopting])
    at.ec2.terminate_instances(InstanceIds=foreign)
    assert said(old) == (["a rollout waits for a second person"], ["./goldsmith roll.plan shop"])
    with at.aws.faulty(Fault("denied", service="ec2", region="us-east-1")):
        ((unread,), offered) = said(old)
    assert (unread.startswith("no rollout replaces it: not every "), offered) == (True, [])


def scanned(office: Office, *findings: Finding) -> None:
    """What the scanners say of the new release's content tonight."""
    office.at.cloud.ledger.record_scan(office.at.new.content, ScanRecord((REPORT,), findings), office.context.now)


def test_a_hole_that_is_known_overnight_makes_a_dated_violation(office: Office) -> None:
    """Of a member that was compliant the evening before: with its deadline, who acts, and what ends it."""
    name = office.at.instance(ImageId=office.at.image(office.at.new))
    scanned(office)
    evening = told(office, name, days=1.5).member
    assert (evening.state, evening.standing) == ("within policy", ())
    night = office.context.now + 2 * DAY
    scanned(office, Finding(**{**vars(HOLE), "fix_known_since": night}))
    morning = told(office, name, days=2.25)
    (one,) = morning.member.standing
    assert (morning.member.state, one.rule, one.since) == ("out of policy", "refused", night)
    assert one.deadline == night + timedelta(days=3)  # the policy's grace
    assert "CVE-2026-0001" in one.evidence[0]
    assert (one.side, one.repairs[0], one.acts) == ("base", "rebuild", "platform")


def test_a_hole_with_time_left_is_recorded_until_its_window_ends(office: Office) -> None:
    """What lacks a fix is known from the first night on, and refused after the last one."""
    name = office.at.instance(ImageId=office.at.image(office.at.new))
    night = office.context.now + 2 * DAY
    scanned(office, Finding(**{**vars(HOLE), "severity": Severity.MEDIUM, "scanners": (("trivy", Severity.MEDIUM),),
                               "fix_known_since": night}))  # fmt: skip
    early = told(office, name, days=3).member
    one = found(early, "vulnerable")
    assert (early.state, one.stands, one.since, one.deadline) == ("within policy", False, night, night + 7 * DAY)
    late = told(office, name, days=9.5).member
    assert [one.rule for one in late.standing] == ["refused"]
    assert late.standing[0].since == night + 7 * DAY


def test_what_was_changed_since_the_first_look_is_drift_with_its_moment(office: Office) -> None:
    """By the snapshots of earlier checks; the whole state says the same, as data."""
    at = office.at
    group = at.ec2.create_security_group(GroupName="shop", Description="shop", VpcId=at.vpc)["GroupId"]
    name = at.instance(SecurityGroupIds=[group])
    office.check(days=2)
    assert [one for one in told(office, name).member.violations if one.rule == "changed_settings"] == []
    at.ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
                                       "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )  # fmt: skip
    office.check(days=3)
    office.check(days=4)
    drift = found(told(office, name, days=5).member, "changed_settings")
    line = f"security group {group} (shop) was opened: it lets in tcp 22 from 0.0.0.0/0"
    assert (drift.evidence, drift.since) == ((line,), office.context.now + 3 * DAY)
    state = judged_state(office.context)
    (fleet,) = [one for one in state.fleets if one.name == "shop"]
    (member,) = [one for one in fleet.members if one.name == name]
    assert found(member, "changed_settings").evidence == (line,)
    assert found(member, "open_group").since == drift.since
    assert member.runs_as
    valid("data/snapshot", member.runs_as)
    valid("data/judged-state", to_json(state))
    assert len(at.cloud.ledger.snapshots("shop", [name])[name, name]) == 2


def test_an_instance_of_before_is_not_shown_as_how_a_member_runs(office: Office) -> None:
    """A member of the same name that was another instance has lines of its own."""
    name = office.at.instance()
    office.check(days=2)
    ledger, other = office.at.cloud.ledger, (name, "i-before")
    ledger.record_snapshots("shop", {other: {"kind": "instance", "type": "other"}}, office.context.now + 3 * DAY, {})
    (member,) = [one for fleet in judged_state(office.context).fleets for one in fleet.members if one.name == name]
    assert member.runs_as
    assert member.runs_as["type"] == "t3.micro"
