"""A fleet over the accounts of an organisation: found by ListAccounts, each by a role of one name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.settings import Aws
from images.aws.client import Client, Clients
from images.aws.cloud import Cloud
from pipelines.cli.rollout import check_fleets, plan_roll, show_fleets
from pipelines.fleet.ec2 import accounts
from pipelines.fleet.ec2.accounts import accounts_of
from pipelines.fleet.ec2.members import read_fleet
from tests.pipelines.fleet.test_ec2_check import Office, office
from tests.pipelines.fleet.test_ec2_places import instance_of, late
from tests.strict_aws import ACCOUNT, REGION, Fault
from tests.support.cloud import PARTNER
from tests.support.ec2 import fleet

__all__ = ["office"]

ALL = fleet(ec2={"accounts": "organization", "regions": [REGION]})
CLOSED, SHUT = "333333333333", "444444444444"


def by_role(office: Office, **more: Any) -> Cloud:
    """The office's cloud with a role of one name in every account."""
    cloud = office.at.cloud
    aws = Aws.model_validate(cloud.aws.model_dump() | {"organization_role": "audit/goldsmith"} | more)
    return replace(cloud, settings=cloud.settings.model_copy(update={"aws": aws}), clients=Clients(aws))


def test_the_active_accounts_are_read_by_their_roles(office: Office) -> None:
    """In pages; who is suspended, closed or on the way there is not asked. Our own needs no role."""
    at = office.at
    at.aws.members({ACCOUNT: "ACTIVE", CLOSED: "CLOSED", PARTNER: "ACTIVE", SHUT: "SUSPENDED"})
    at.aws.limit_pages(1)
    own, theirs = at.instance(), instance_of(office)
    at.aws.limit_pages(1000)
    cloud = by_role(office)
    at.aws.limit_pages(1)
    assert accounts_of(ALL, cloud) == tuple(sorted((ACCOUNT, PARTNER)))
    assert len(at.aws.calls("organizations", "ListAccounts")) == 4
    at.aws.limit_pages(1000)
    found = read_fleet(ALL, cloud)
    assert {one.where: one.shown.id for one in found.instances} == {
        f"{ACCOUNT}/{REGION}": own, f"{PARTNER}/{REGION}": theirs,
    }  # fmt: skip
    assert not found.unread
    (asked,) = at.aws.calls("sts", "AssumeRole", effect=True)
    assert asked["params"]["RoleArn"] == f"arn:aws:iam::{PARTNER}:role/audit/goldsmith"
    assert len(at.aws.calls("organizations", "ListAccounts")) == 4, "asked once"


def test_an_account_whose_role_cannot_be_assumed_is_unread_and_named(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are judged; exit code 4; nothing is planned."""
    at = office.at
    at.aws.members({ACCOUNT: "ACTIVE", PARTNER: "ACTIVE"})
    at.aws.guard(f"arn:aws:iam::{PARTNER}:role/audit/goldsmith", "shop-7")
    own, cloud = at.instance(), by_role(office)
    office.file.write_text(office.file.read_text() + 'accounts = "organization"\n')
    office.context.__dict__.update(cloud=cloud)
    found, errors = check_fleets("shop", context=office.context)
    states = {line.member.rpartition("/")[2]: line.state for line in found["shop"]}
    assert (states[own] != "unread", states["*"]) == (True, "unread")
    told = [(line.member, line.state, line.runs) for line in found["shop"]]
    assert {member for member, state, _ in told if state == "unread"} == {
        f"{PARTNER}/{region}/*" for region in ("eu-central-1", "us-east-1")
    }, told
    assert show_fleets((found, errors), as_json=False) == 4
    assert "AWS denies sts:AssumeRole" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(OutsideError, match="not every region of the fleet can be read"):
        plan_roll("shop", context=office.context)


def test_an_account_without_any_role_is_unread(office: Office) -> None:
    """No role is known, and our own credentials are not taken for another account."""
    office.at.aws.members({PARTNER: "ACTIVE"})
    found = read_fleet(ALL, by_role(office, organization_role=""))
    assert [(one.id, one.why) for one in found.unread] == [
        (f"{PARTNER}/{REGION}", f"aws.roles: no role to look into account {PARTNER}")
    ]


@pytest.mark.parametrize("managing", [PARTNER, ""])
def test_who_may_not_list_is_told_to_name_the_accounts(office: Office, managing: str) -> None:
    """A member of the organisation that is not its management account, and an account that is in none."""
    if managing:
        office.at.aws.members({ACCOUNT: "ACTIVE"}, managing)
    with pytest.raises(OutsideError, match="the accounts of the organisation cannot be found") as refused:
        read_fleet(ALL, by_role(office))
    assert ("AWS denies organizations:ListAccounts" in refused.value.message) == bool(managing)
    assert refused.value.hint.startswith("name them in the fleet's file")
    assert refused.value.exit_code == 4


def test_a_listing_that_hangs_is_given_up(office: Office) -> None:
    """Within the time that a region has."""
    office.at.aws.members({ACCOUNT: "ACTIVE"})
    with (
        office.at.aws.faulty(Fault("hang", operation="ListAccounts")),
        late(REGION),
        pytest.raises(OutsideError, match="cannot be found: no answer within 2m"),
    ):
        accounts_of(ALL, by_role(office))


def test_too_many_accounts_are_refused_and_nonsense_too(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the pages is not even asked for."""
    office.at.aws.members({f"{number:012}": "ACTIVE" for number in range(60)})
    monkeypatch.setattr(accounts, "MOST_ACCOUNTS", 20)
    before = {one["number"] for one in office.at.aws.calls("organizations", "ListAccounts")}  # one that hung, perhaps
    with pytest.raises(RefusedError, match="more than 20 active accounts"):
        accounts_of(ALL, by_role(office))
    assert len({one["number"] for one in office.at.aws.calls("organizations", "ListAccounts")} - before) == 2
    monkeypatch.setattr(Client, "pages", lambda *_, **_more: iter([{"Id": "../etc", "State": "ACTIVE"}]))
    with pytest.raises(OutsideError, match="not the id of an account"):
        accounts_of(ALL, by_role(office))


def test_an_answer_of_before_is_understood(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status, where there is no State, which counts otherwise; the same account twice is one."""
    told = [
        {"Id": ACCOUNT, "Status": "ACTIVE"},
        {"Id": PARTNER, "Status": "SUSPENDED"},
        {"Id": f"{7:012}", "State": "SUSPENDED", "Status": "ACTIVE"},
        {"Id": ACCOUNT, "Status": "ACTIVE"},
    ]
    monkeypatch.setattr(Client, "pages", lambda *_, **_more: iter(told))
    assert accounts_of(ALL, by_role(office)) == (ACCOUNT,)


def test_a_role_of_the_settings_stands_before_the_common_one(office: Office) -> None:
    """And the name of a role is not an ARN."""
    cloud = by_role(office, roles={PARTNER: f"arn:aws:iam::{PARTNER}:role/own"})
    assert cloud.clients._role(None, PARTNER, REGION) == f"arn:aws:iam::{PARTNER}:role/own"
    with pytest.raises(ValueError, match="organization_role"):
        by_role(office, organization_role="arn:aws:iam::1:role/x")


def test_only_that_word_stands_for_accounts() -> None:
    """Anything but a list of accounts is refused when the file is read."""
    with pytest.raises(ValueError, match="organization"):
        fleet(ec2={"accounts": "organisation"})
    assert fleet(ec2={"accounts": [ACCOUNT]}).ec2.named_accounts == (ACCOUNT,)


def test_an_account_of_a_state_that_nobody_knows_is_an_error(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, whatever runs there would pass unseen."""
    real = Client.pages

    def pages(self: Client, operation: str, key: str, **request: Any) -> Any:
        found = real(self, operation, key, **request)
        return ({**one, "State": "FROZEN", "Status": "FROZEN"} for one in found) if key == "Accounts" else found

    office.at.aws.members({ACCOUNT: "ACTIVE"})
    monkeypatch.setattr(Client, "pages", pages)
    with pytest.raises(OutsideError, match="says that 123456789012 is in the unknown state 'FROZEN'"):
        accounts_of(ALL, by_role(office))
