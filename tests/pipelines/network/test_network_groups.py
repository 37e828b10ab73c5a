"""Security groups follow the network on the strict AWS: step by step, killed or not, and no way is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT, Aws, Settings
from images.aws.client import Client
from images.context import Context
from pipelines.cli.network import apply_network, check_network, render_network
from pipelines.network.comparing import Openness
from pipelines.network.security_groups import GroupRule, as_request, read_group
from tests.pipelines.network.sample import HEAD, ROLES
from tests.strict_aws import ACCOUNT, REGION, StrictAws
from tests.strict_aws.faults import Fault

KIND = "security-groups"
FIRST = """
[[rules]]
from = "world"
to = "a"
ports = ["443/tcp"]
reason = "r"

[[rules]]
from = "a"
to = "b"
ports = ["5432/tcp", "53/udp"]
reason = "r"

[[rules]]
from = "198.51.100.0/24"
to = "b"
ports = ["22/tcp"]
reason = "r"
"""
SECOND = """
[[rules]]
from = "world"
to = "a"
ports = ["443/tcp", "8000-8010/tcp"]
reason = "r"

[[rules]]
from = "a"
to = "b"
ports = ["5432/tcp"]
reason = "r"

[[rules]]
from = "c"
to = "b"
ports = ["5432/tcp"]
reason = "r"

[[rules]]
from = "fd00::/8"
to = "b"
ports = ["22/tcp"]
reason = "r"
"""


class Cloud:
    """An account with a group for each role, and a content root whose network names them."""

    def __init__(self, aws: StrictAws, folder: Path, **more: Any) -> None:
        self.aws, self.root, self.state, self.more = aws, folder / "content", folder / "state", more
        self.account: dict[str, str] = {}
        self.ec2 = aws.client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.groups = {
            name: self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"]
            for name in ROLES
        }
        (self.root / "network").mkdir(parents=True)
        self.write(FIRST)

    def write(self, rules: str) -> None:
        """Say other rules between the same roles."""
        roles = "".join(
            f'[roles.{name}]\nwhat = "w"\naddresses = ["10.0.{number}.0/24"]\n'
            f'security_groups = [{{ id = "{group}", region = "{REGION}", account = "{self.account.get(name, "")}" }}]\n'
            for number, (name, group) in enumerate(self.groups.items())
        )
        (self.root / "network/n.toml").write_text(HEAD + roles + rules)

    def move(self, name: str, account: str) -> None:
        """Give a role a group in another account."""
        ec2 = self.aws.client("ec2", account=account)
        vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self.groups[name] = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
        self.account[name] = account

    @contextmanager
    def open(self) -> Iterator[Context]:
        """A context, as each command has its own."""
        aws = Aws(**{"account": ACCOUNT, "region": REGION, **self.more})
        settings = Settings(state=self.state, content=(self.root,), aws=aws)
        context = Context(settings, datetime.now(UTC), lambda: "", lambda: "", actor="ann@host")
        with closing(context.ledger):
            yield context

    def apply(self, *, apply: bool = True) -> tuple[list[str], list[Any]]:
        """The steps of a command, and what went wrong."""
        with self.open() as context:
            lines, errors = apply_network(KIND, apply=apply, context=context)
        return [f"{line.action} {line.where.rpartition('/')[2]} {line.done}" for line in lines], errors

    def rules(self) -> dict[str, frozenset[GroupRule]]:
        """The rules that each group has now."""
        shown = self.ec2.describe_security_groups(GroupIds=[*self.groups.values()])["SecurityGroups"]
        return {one["GroupId"]: read_group(one) for one in shown}

    def audit(self) -> list[tuple[str, str]]:
        """What the audit says of networks: subject and detail, the oldest first."""
        with self.open() as context:
            lines = context.ledger.audit_lines()
        return [(line.subject, line.detail) for line in lines if line.action == "network"]

    def check(self) -> set[tuple[Openness, str]]:
        with self.open() as context:
            return {(line.verdict, line.what) for line in check_network(KIND, context=context)}


@pytest.fixture
def at(aws: StrictAws, tmp_path: Path) -> Cloud:
    return Cloud(aws, tmp_path)


@contextmanager
def after_each_change(look: Any) -> Iterator[list[str]]:
    """Call `look` after each call that changes a group; the operations, in order."""
    real, done = Client.call, list[str]()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        answer = real(self, operation, **request)
        if operation.startswith(("Authorize", "Revoke")):
            done.append(operation)
            look(len(done))
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        yield done


def flows(at: Cloud, rules: dict[str, frozenset[GroupRule]]) -> set[tuple[str, str, str, int]]:
    """Which ways between members of groups, and from and to the outside, the groups let pass."""
    found = set()
    outside = {"office": "198.51.100.0/24", "home": "fd00::/8", "anybody": "0.0.0.0/0"}
    for source, target in product([*ROLES, *outside], [*ROLES, *outside]):
        for protocol, port in product(("tcp", "udp"), (22, 53, 443, 5432, 8005)):
            out = source in outside or passes(rules[at.groups[source]], "egress", at, target, protocol, port)
            into = target in outside or passes(rules[at.groups[target]], "ingress", at, source, protocol, port)
            if out and into and (source in ROLES or target in ROLES):
                found.add((source, target, protocol, port))
    return found


def passes(rules: Any, direction: str, at: Cloud, other: str, protocol: str, port: int) -> bool:
    peers = {"office": ("198.51.100.0/24", "0.0.0.0/0"), "home": ("fd00::/8", "::/0"), "anybody": ("0.0.0.0/0",)}
    mine = peers.get(other) or (at.groups[other], "0.0.0.0/0")
    return any(
        one.direction == direction and one.peer in mine and one.protocol in (protocol, "-1")
        and (one.protocol == "-1" or one.first <= port <= one.last)
        for one in rules
    )  # fmt: skip


def test_groups_become_what_the_network_says_and_stay_so(at: Cloud) -> None:
    """The plan changes nothing; a second run has nothing to do; each step is in the audit."""
    before = at.rules()
    planned, errors = at.apply(apply=False)
    assert errors == []
    assert {line.rpartition(" ")[2] for line in planned} == {"False"}
    assert at.rules() == before
    done, errors = at.apply()
    assert errors == []
    assert [line.rpartition(" ")[0] for line in done] == [line.rpartition(" ")[0] for line in planned]
    assert {line.rpartition(" ")[2] for line in done} == {"True"}
    assert ("a", "b", "tcp", 5432) in flows(at, at.rules())
    assert ("b", "a", "tcp", 5432) not in flows(at, at.rules())
    assert at.apply() == ([], [])
    assert at.check() == set()
    told = [detail for _, detail in at.audit()]
    assert told[0] == f"{len(done)} steps begin"
    began = [line.removeprefix("begins: ") for line in told if line.startswith("begins: ")]
    ended = [line.removeprefix("done: ") for line in told if line.startswith("done: ")]
    assert began == ended
    assert (len(ended), len(told)) == (len(done), 2 * len(done) + 1)
    assert all("→ " in line for line in ended)


def test_no_call_cuts_what_both_networks_allow_and_all_is_authorized_before_anything_is_revoked(at: Cloud) -> None:
    """Read from EC2 after each call of a change from one network to another."""
    at.apply()
    old = at.rules()
    at.write(SECOND)
    seen = list[dict[str, frozenset[GroupRule]]]()
    with after_each_change(lambda _: seen.append(at.rules())) as done:
        assert at.apply()[1] == []
    new = at.rules()
    must = flows(at, old) & flows(at, new)
    assert must >= {("a", "b", "tcp", 5432), ("anybody", "a", "tcp", 443)}
    assert ("office", "b", "tcp", 22) in flows(at, old) - flows(at, new)
    assert ("home", "b", "tcp", 22) in flows(at, new) - flows(at, old)
    for rules in seen:
        assert must <= flows(at, rules)
        assert all(rules[group] <= old[group] | new[group] for group in rules), "opened by neither"
    kinds = [re.match("Authorize|Revoke", operation)[0] for operation in done]  # type: ignore[index]
    assert kinds == sorted(kinds)
    assert {"Authorize", "Revoke"} == {*kinds}


@pytest.mark.parametrize("killed", range(1, 8))
def test_whenever_a_run_is_killed_the_next_one_ends_it(at: Cloud, killed: int) -> None:
    """What must flow flows in between, what is done is in the audit, and after it all is as the network says."""
    at.apply()
    old, audited = at.rules(), len(at.audit())
    at.write(SECOND)

    class Killed(BaseException):
        """What no handler of ours catches."""

    def die(number: int) -> None:
        if number == killed:
            raise Killed

    with after_each_change(die) as done:
        try:
            at.apply()
        except Killed:
            assert len(done) == killed
    between = at.rules()
    for group, rules in between.items():
        said = [detail for subject, detail in at.audit()[audited:] if group in subject and "begins: " in detail]
        for one in rules ^ old[group]:
            assert any(str(one.opening(group)) in detail for detail in said), "done, and not in the audit"
    assert at.apply()[1] == []
    assert flows(at, old) & flows(at, at.rules()) <= flows(at, between)
    assert at.apply() == ([], [])
    assert at.check() == set()


@pytest.mark.usefixtures("at_once")
def test_a_lost_answer_is_no_failure(at: Cloud) -> None:
    """The call is made again, and EC2 says that the rule is there, or gone, already."""
    lost = ("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupEgress")
    with at.aws.faulty(*(Fault("lost", operation=one, times=1) for one in lost)):
        assert at.apply()[1] == []
    assert at.check() == set()


def test_a_rule_that_somebody_else_has_just_made_stops_none_of_the_others(at: Cloud) -> None:
    """EC2 refuses the whole request then: its rules are authorized one by one."""
    group, real = at.groups["b"], Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        if (
            operation == "AuthorizeSecurityGroupIngress"
            and request["GroupId"] == group
            and len(request["IpPermissions"]) > 1
        ):
            at.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=request["IpPermissions"][:1])
        return real(self, operation, **request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        assert at.apply()[1] == []
    assert at.check() == set()


def test_a_change_that_was_not_taken_is_an_error(at: Cloud) -> None:
    """A group of a default VPC answers without a word: what was asked is read back."""
    real = Client.call

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        return {} if operation.startswith("Revoke") else real(self, operation, **request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        _, (error,) = at.apply()
    assert "something still differs from the network" in error.message
    assert "revoke" in error.evidence


def test_where_a_group_has_no_room_for_both_nothing_is_revoked(at: Cloud) -> None:
    """New rules come before old ones go, and EC2 takes sixty."""
    at.apply()
    full = [GroupRule("ingress", "tcp", port, port, "198.51.100.0/24") for port in range(1000, 1053)]
    at.ec2.authorize_security_group_ingress(GroupId=at.groups["b"], IpPermissions=as_request(full, ACCOUNT))
    before = at.rules()
    at.write(FIRST.replace('"53/udp"]', '"53/udp", "80/tcp", "81/tcp", "82/tcp"]'))
    _, (error,) = at.apply()
    assert "RulesPerSecurityGroupLimitExceeded" in error.message
    assert all(before[group] <= rules for group, rules in at.rules().items())


def test_without_a_permission_nothing_is_revoked(at: Cloud) -> None:
    """The first step that fails ends the change: what was there stays."""
    before = at.rules()
    with at.aws.faulty(Fault("denied", operation="AuthorizeSecurityGroupEgress")):
        lines, (error,) = at.apply()
    assert "ec2:AuthorizeSecurityGroupEgress" in error.message
    assert error.exit_code == 3
    _, last = at.audit()[-1]
    assert last.startswith("failed: authorize: ")
    assert "AWS denies ec2:AuthorizeSecurityGroupEgress" in last
    assert {line.rpartition(" ")[2] for line in lines} == {"True", "False"}
    assert all(before[group] <= rules for group, rules in at.rules().items())


def test_a_group_that_cannot_be_read_stops_the_change_and_is_unknown_to_the_check(at: Cloud) -> None:
    """Unread is never compliant."""
    at.apply()
    text = (at.root / "network/n.toml").read_text()
    (at.root / "network/n.toml").write_text(text.replace(at.groups["c"], "sg-00000000000000000"))
    (lines, (error,)) = at.apply()
    assert lines == []
    assert "there is no such group" in error.evidence
    assert (Openness.UNKNOWN, "there is no such group") in at.check()
    with at.aws.faulty(Fault("denied", operation="DescribeSecurityGroups")):
        found = at.check()
    assert {verdict for verdict, _ in found} == {Openness.UNKNOWN}
    assert len({what for _, what in found}) == 1


def test_what_somebody_changed_is_found(at: Cloud) -> None:
    """A rule of one's own, and one that is gone; a range within another that is open is not called closed."""
    at.apply()
    one, other = at.groups["a"], at.groups["b"]
    wide = [GroupRule("ingress", "tcp", 22, 22, "198.0.0.0/8"), GroupRule("ingress", "icmp", -1, -1, "0.0.0.0/0")]
    at.ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=as_request(wide, ACCOUNT))
    gone = [
        GroupRule("ingress", "tcp", port, port, peer) for port, peer in ((443, "0.0.0.0/0"), (22, "198.51.100.0/24"))
    ]
    at.ec2.revoke_security_group_ingress(GroupId=one, IpPermissions=as_request(gone[:1], ACCOUNT))
    at.ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=as_request(gone[1:], ACCOUNT))
    found = at.check()
    assert (Openness.TOO_CLOSED, f"0.0.0.0/0 → {one} 443/tcp") in found
    assert (Openness.TOO_OPEN, f"0.0.0.0/0 → {other} all/icmp") in found
    assert (Openness.TOO_OPEN, f"198.128.0.0/9 → {other} 22/tcp") in found
    assert not [what for verdict, what in found if verdict is Openness.TOO_CLOSED and "22/tcp" in what]
    at.apply()
    assert at.check() == set()


def test_the_groups_of_other_accounts_and_regions_are_told_apart(at: Cloud) -> None:
    """A peer of another account is named with it; one of another region by its addresses alone."""
    text = (at.root / "network/n.toml").read_text()
    theirs = f'{{ id = "{at.groups["a"]}", region = "{REGION}", account = "222222222222" }}'
    text = text.replace(f'{{ id = "{at.groups["a"]}", region = "{REGION}", account = "" }}', theirs)
    (at.root / "network/n.toml").write_text(
        text.replace(f'{at.groups["c"]}", region = "{REGION}"', f'{at.groups["c"]}", region = "eu-west-1"') + SECOND
    )
    with at.open() as context:
        files = {line.file: line.text for line in render_network(KIND, output="", force=False, context=context)}
    into = files[f"{at.groups['b']}.json"]
    assert '"UserId": "222222222222"' in into
    assert at.groups["c"] not in into
    assert '"CidrIp": "10.0.2.0/24"' in into


def test_a_peer_that_no_group_can_name_is_an_error_with_its_place(at: Cloud) -> None:
    """It has neither addresses nor a group there."""
    text = (at.root / "network/n.toml").read_text()
    more = '\n[roles.d]\nwhat = "d"\n[[rules]]\nfrom = "d"\nto = "a"\nports = ["1/tcp"]\nreason = "r"\n'
    (at.root / "network/n.toml").write_text(text + more)
    with at.open() as context, pytest.raises(ContentError, match=r"n\.toml: rules\[3\]: the role d has no addresses"):
        check_network(KIND, context=context)


def test_members_in_another_region_that_no_group_can_name_are_unknown(
    at: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """EC2 takes no group of another region as a peer: without addresses nothing here tells them."""
    there = at.aws.client("ec2", "eu-west-1")
    vpc = there.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    far = there.create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
    text = (at.root / "network/n.toml").read_text()
    near = f'{{ id = "{at.groups["a"]}", region = "{REGION}", account = "" }}'
    both = text.replace(near, f'{near}, {{ id = "{far}", region = "eu-west-1" }}')
    (at.root / "network/n.toml").write_text(both)
    assert at.apply()[1] == []
    assert at.check() == set(), "its addresses tell its members, wherever they are"
    (at.root / "network/n.toml").write_text(both.replace('addresses = ["10.0.0.0/24"]', ""))
    assert at.apply()[1] == []
    assert f"note: {ACCOUNT}/{REGION}/{at.groups['b']}: {(what := f'members of a by {far} in eu-west-1')}" in (
        capsys.readouterr().err
    )
    assert {verdict for verdict, told in at.check() if told.startswith(what)} == {Openness.UNKNOWN}
    with at.open() as context:
        render_network(KIND, output="", force=False, context=context)
    assert what in capsys.readouterr().err


def test_a_member_with_the_groups_of_two_roles_is_too_open_and_one_with_a_strangers_group_unknown(at: Cloud) -> None:
    """Both have rules that their role does not; interfaces that have none of the groups are not looked at."""
    at.apply()
    subnet = at.ec2.create_subnet(VpcId=at.vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    stranger = at.ec2.create_security_group(GroupName="x", Description="x", VpcId=at.vpc)["GroupId"]

    def interface(*groups: str) -> str:
        made = at.ec2.create_network_interface(SubnetId=subnet, Groups=list(groups))["NetworkInterface"]
        return str(made["NetworkInterfaceId"])

    one, other = at.groups["a"], at.groups["b"]
    interface(one)
    interface(stranger)
    assert at.check() == set()
    both = [interface(one, other) for _ in range(2)]
    more = interface(other, stranger)
    assert at.check() == {
        (Openness.TOO_OPEN, f"{min(both)} and 1 more have the groups of the roles a, b: a member has one role"),
        (Openness.UNKNOWN, f"{more} has {stranger} too, which no role names: its rules are not compared"),
    }
    with at.aws.faulty(Fault("denied", operation="DescribeNetworkInterfaces")):
        ((verdict, what),) = at.check()
    assert (verdict, what.partition(": ")[0]) == (Openness.UNKNOWN, "who has which group was not read")


def test_an_account_is_needed_only_by_groups_that_name_none(at: Cloud) -> None:
    """The error names the setting."""
    at.more = {"account": ""}
    with at.open() as context:
        with pytest.raises(ContentError, match="security groups are in an account, and none is set"):
            render_network(KIND, output="", force=False, context=context)
        at.account = dict.fromkeys(ROLES, ACCOUNT)
        at.write(FIRST)
        assert len(render_network(KIND, output="", force=False, context=context)) == len(ROLES)


ROWS = re.findall(r"^\| `(network\.[^`]+)` \| (.+) \|$", (ROOT / "docs/aws.md").read_text(), re.MULTILINE)
ACTIONS = {task: set(re.findall(r"`(\w+:\w+)`", cell)) for task, cell in ROWS}


def test_each_task_asks_for_the_permissions_that_the_documents_name(at: Cloud) -> None:
    """Both ways: nothing is missing, and nothing is too much."""
    real, asked = Client.call, set[str]()

    def call(self: Client, operation: str, **request: Any) -> dict[str, Any]:
        asked.add(self.permission(operation))
        return real(self, operation, **request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Client, "call", call)
        at.check()
        assert asked == ACTIONS["network.check"]
        asked.clear()
        at.apply()
        at.write(SECOND)
        at.apply()
    assert asked == ACTIONS["network.apply"]
