"""What is known is gathered from the ledger and from IAM, and told on a screen, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from markupsafe import escape

from hardening.foundation.console import out
from hardening.foundation.errors import ContentError, OutsideError, UsageError
from hardening.foundation.settings import ROOT
from images.aws.client import Client
from images.documents import to_json
from pipelines.blast_radius import gathering
from pipelines.blast_radius.gathering import gather
from pipelines.cli.blast_radius import blast_radius, recorded_radius, show_radius
from pipelines.cli.blast_radius_output import screen
from pipelines.cli.page import render_html
from pipelines.cli.report import gather_all as gather_report
from tests.pipelines.fleet.test_ec2_check import Office, office
from tests.pipelines.fleet.test_ec2_permissions import listening, told
from tests.strict_aws import ACCOUNT, Fault, StrictAws

__all__ = ["office"]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/web"


def trusting(service: str) -> str:
    allow = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}
    return json.dumps({"Version": "2012-10-17", "Statement": [allow]})


def allowing(*actions: str) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})


def rights(aws: StrictAws) -> None:
    """A role of instances that may make functions, one of functions that may read a bucket, and a user in a group."""
    iam = aws.client("iam")
    iam.create_role(RoleName="web", AssumeRolePolicyDocument=trusting("ec2"))
    iam.create_role(RoleName="job", AssumeRolePolicyDocument=trusting("lambda"))
    functions = allowing("iam:PassRole", "lambda:CreateFunction", "lambda:InvokeFunction")
    made = iam.create_policy(PolicyName="functions", PolicyDocument=functions)
    iam.attach_role_policy(RoleName="web", PolicyArn=made["Policy"]["Arn"])
    iam.put_role_policy(RoleName="job", PolicyName="data", PolicyDocument=allowing("s3:GetObject"))
    iam.create_instance_profile(InstanceProfileName="shop-web")
    iam.add_role_to_instance_profile(InstanceProfileName="shop-web", RoleName="web")
    iam.create_group(GroupName="people")
    iam.put_group_policy(GroupName="people", PolicyName="all", PolicyDocument=allowing("*"))
    iam.create_user(UserName="ann")
    iam.add_user_to_group(GroupName="people", UserName="ann")


@pytest.fixture
def town(office: Office) -> tuple[Office, str, str]:
    """Two instances of the shop, the first with a profile; checked."""
    rights(office.at.aws)
    one = office.at.instance(IamInstanceProfile={"Name": "shop-web"})
    other = office.at.instance()
    office.check()
    return office, one, other


def test_an_instance_goes_on_to_its_role_and_its_data(town: tuple[Office, str, str]) -> None:
    """By its profile, by a function that it may make, by what that may read; asking for what docs/aws.md says."""
    at, name, other = town
    with listening() as asked:
        found = blast_radius(f"shop/{name}", context=at.context)
    assert told(asked, "fleet.blast-radius") == ([], [])
    jsonschema.validate(to_json(found), json.loads((ROOT / "docs/schemas/fleet.blast-radius.json").read_text()))
    by_name = {one.name: one for one in found.reached}
    job, data = by_name[f"arn:aws:iam::{ACCOUNT}:role/job"], by_name[f"read s3 all of {ACCOUNT}"]
    assert (by_name[ROLE].sure, job.sure, data.sure) == ("certain", "certain", "certain")
    assert any("lambda-001" in line for line in job.path)
    assert data.path[-1].endswith("it may read s3")
    assert not [one for one in found.reached if "ann" in one.name]
    assert {one.kind for one in found.cuts} <= {"detach-profile", "deny"}
    assert found.cuts[0].what == f"take the instance profile off member shop/{name}"
    assert found.cuts[0].saves == found.size
    assert not [one for one in blast_radius(f"shop/{other}", context=at.context).reached if one.sure == "certain"]


def test_without_a_name_all_members_are_compared(town: tuple[Office, str, str]) -> None:
    """The greatest first, and no picture of them."""
    at, name, other = town
    found = blast_radius(context=at.context)
    assert [one.member for one in found.sizes] == [f"shop/{name}", f"shop/{other}"]
    assert (found.sizes[0].taken, found.sizes[1].taken) == (3, 0)
    assert next(screen(found)).startswith("2 members, by")
    assert next(screen(found.model_copy(update={"sizes": found.sizes[:1]}))).startswith("1 member, by")
    assert found.seen_at.keys() == {"shop"}, "how old it is, as for one member"
    with pytest.raises(UsageError, match="only the graph of"):
        blast_radius(output="all.svg", context=at.context)


@pytest.mark.needs("dot")
def test_the_report_shows_what_was_found_of_all_members(town: tuple[Office, str, str]) -> None:
    """With its date, what shrinks it, and the graph of the greatest, until all members are compared again."""
    at, name, _ = town
    assert recorded_radius(at.context) is None
    blast_radius(f"shop/{name}", context=at.context)
    assert recorded_radius(at.context) is None, "one member is not all of them"
    found = blast_radius(context=at.context)
    kept = recorded_radius(at.context)
    assert kept
    assert (kept.at, kept.members, kept.sizes, kept.cuts) == (at.context.now, 2, found.sizes, found.cuts)
    assert (kept.unread, kept.unseen) == (found.unread, found.unseen)
    report, state = gather_report(at.context)
    assert report.blast_radius == kept
    page = render_html(report, state)
    assert f"What is reached from shop/{name}" in page
    assert [one.what for one in kept.cuts if str(escape(one.what)) not in page] == []
    (at.context.settings.state_dir / "reports/blast-radius.json").write_text('{"of": "another version"}')
    assert recorded_radius(at.context) is None
    assert "Not evaluated yet" in render_html(*gather_report(at.context))


def test_nothing_known_is_an_error_and_no_empty_name_means_all(
    town: tuple[Office, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any member nothing was evaluated; what a script left empty is not taken for all members."""
    at, *_ = town
    with pytest.raises(UsageError, match="the name is empty"):
        blast_radius("", context=at.context)
    monkeypatch.setattr("pipelines.blast_radius.gathering.load_fleets", lambda _: {})
    for taken in (None, "web-1"):
        with pytest.raises(ContentError, match="no member of a fleet is known") as error:
            blast_radius(taken, context=at.context)
        assert "fleet.scan all" in error.value.hint
    assert recorded_radius(at.context) is None


def test_an_image_means_all_who_run_it(town: tuple[Office, str, str]) -> None:
    """By its name and by the beginning of its digest; the error for an unknown name lists the known ones."""
    at, name, other = town
    both = {f"shop/{name}", f"shop/{other}"}
    assert set(blast_radius("debian-server", context=at.context).members) == both
    assert set(blast_radius(at.at.old.digest[:14], context=at.context).members) == both
    with pytest.raises(ContentError, match="matches debian-serve") as error:
        blast_radius("debian-serve", context=at.context)
    assert "debian-server" in error.value.hint


def test_a_vulnerability_means_all_who_have_it(town: tuple[Office, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As image.affected says."""
    at, name, _ = town
    line: Any = type("Line", (), {"kind": "member", "name": f"shop/{name}"})
    said: Any = type("Said", (), {"lines": (line,)})
    monkeypatch.setattr("pipelines.cli.affected.who_is_affected", lambda *_: said)
    assert blast_radius("CVE-2026-0001", context=at.context).members == (f"shop/{name}",)
    said.lines = ()
    with pytest.raises(ContentError, match="no running member"):
        blast_radius("CVE-2026-0001", context=at.context)


def test_iam_that_does_not_answer_is_unread_and_the_exit_code_says_so(
    town: tuple[Office, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is reached without it is still told."""
    at, name, _ = town
    with at.at.aws.faulty(Fault("denied", operation="GetAccountAuthorizationDetails")):
        found = blast_radius(f"shop/{name}", context=at.context)
    assert any("iam:GetAccountAuthorizationDetails" in line for line in found.unread)
    assert any("profile shop-web" in line for line in found.unread)
    assert show_radius(found, as_json=True) == 4
    assert json.loads(capsys.readouterr().out)["unread"]
    assert show_radius(blast_radius(f"shop/{name}", context=at.context), as_json=False) == 0


def test_a_fleet_that_was_never_checked_is_unread(office: Office) -> None:
    """And it has no members."""
    world = gather(office.context)
    found = blast_radius(context=office.context)
    assert "no member of a fleet is known" in next(screen(found))
    assert show_radius(found, as_json=True) == 4
    assert (world.members, world.unread) == ((), ("fleet shop: it was never checked (./goldsmith fleet.scan shop)",))


def test_what_was_not_shown_is_unread_too(town: tuple[Office, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that IAM leaves out of its answer, and a place that the last look at a fleet could not read."""
    at, *_ = town
    real = Client.call

    def silent(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        return real(self, operation, **request) | {"Policies": []}

    with monkeypatch.context() as patched:
        patched.setattr(Client, "call", silent)
        assert any("policy/functions" in line for line in gather(at.context).unread)
    assert gather(at.context).unread == ()
    with at.at.aws.faulty(Fault("denied", operation="DescribeInstances")):
        at.check()
    assert any("could not be read" in line for line in gather(at.context).unread)


def test_all_pages_are_read_up_to_a_limit(town: tuple[Office, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two lines find the same; more pages than the limit are refused. The emulator knows no pages itself."""
    at, *_ = town
    whole, real = gathering.ask_account(at.context.cloud, ACCOUNT), Client.call

    def paged(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        first = int(request.pop("Marker", 0))
        answer = real(self, operation, **request)
        lines = [(key, one) for key in gathering.LISTS for one in answer[key]]
        more = {"IsTruncated": True, "Marker": str(first + 2)} if lines[first + 2 :] else {"IsTruncated": False}
        return {key: [one for of, one in lines[first : first + 2] if of == key] for key in gathering.LISTS} | more

    monkeypatch.setattr(Client, "call", paged)
    assert gathering.ask_account(at.context.cloud, ACCOUNT) == whole
    assert {one.arn.rpartition("/")[2] for one in whole.principals} == {"web", "job", "ann", "people"}
    monkeypatch.setattr(gathering, "IAM_PAGES", replace(gathering.IAM_PAGES, most=1))
    with pytest.raises(OutsideError, match=r"iam\.pages"):
        gathering.ask_account(at.context.cloud, ACCOUNT)


def test_the_screen_tells_what_falls_why_and_what_to_change(town: tuple[Office, str, str]) -> None:
    """In lines that a terminal shows."""
    at, name, _ = town
    text = "\n".join(screen(blast_radius(f"shop/{name}", context=at.context)))
    for part in (
        f"shop/{name}: if taken, 3 things",
        "certain (falls with it): 1 data, 2 roles",
        "lambda-001",
        "single changes that shrink it most",
        "as the fleets were last looked at, the first of them shop",
        "more may be reached by what is not known",
    ):
        assert part in text
    out().print(text)


@pytest.mark.needs("dot")
def test_the_graph_is_drawn_by_graphviz(town: tuple[Office, str, str], tmp_path: Path) -> None:
    """A well-formed picture with a node for each thing; as text where a .dot file is wanted; no other form."""
    at, name, _ = town
    target = tmp_path / "graph.svg"
    blast_radius(f"shop/{name}", str(target), at.context)
    root = ElementTree.parse(target).getroot()
    titles = {one.text for one in root.iter("{http://www.w3.org/2000/svg}title")}
    assert {f"member:shop/{name}", f"iam:{ROLE}"} <= titles
    blast_radius(f"shop/{name}", str(tmp_path / "graph.dot"), at.context)
    assert (tmp_path / "graph.dot").read_text().startswith("digraph")
    with pytest.raises(UsageError, match="ending"):
        blast_radius(f"shop/{name}", str(tmp_path / "graph.pdf"), at.context)
