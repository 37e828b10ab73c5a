"""Edge: gathers what is known: how members run from the ledger, and the rights of their accounts from IAM."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardening.foundation.asking import ask_each
from hardening.foundation.content import read_toml
from hardening.foundation.errors import GoldsmithError, understood
from hardening.foundation.limits import IAM_PAGES, IAM_PRINCIPALS
from hardening.running import UNREAD
from hardening.runtime import InstanceFacts
from images.aws.permissions import AUDITOR, permit
from pipelines.blast_radius.account import Account, read_account
from pipelines.blast_radius.escalation import Ways
from pipelines.blast_radius.member_steps import FleetMember
from pipelines.blast_radius.radius import KnownFacts
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.judged_state import last_checks
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.runtime_snapshots import facts_in
from pipelines.fleet.violations import CheckedMember

if TYPE_CHECKING:
    from images.aws.cloud import Cloud
    from images.context import Context
    from images.ledger import Ledger

PERMISSIONS = (permit("iam:GetAccountAuthorizationDetails", AUDITOR),)

HERE = Path(__file__).parent
PAGE = 1000
LISTS = ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies")
INSTANCE = "i-"
INSTANCES = {FleetKind.EC2, FleetKind.EKS}  # fleets whose members are instances
PLACE = "/*"  # how the id of a place ends that could not be read
NOT_READ = (
    "Lambda functions, tasks, builds and other workloads are not read: roles that their services may take are possible"
)
NOT_READ_OF = {
    FleetKind.KUBERNETES: "what the service accounts of its pods may do, in their cluster and by roles, is not read",
    FleetKind.ECS: "the roles, networks and variables of its tasks are not read",
    FleetKind.EKS: "which pods run on its nodes, and by which roles, is not read",
}


def load_ways() -> Ways:
    """The ways of escalation and the kinds of data, from the files beside this one."""
    return Ways.of(read_toml(HERE / "escalation_paths.toml"), read_toml(HERE / "data_actions.toml"))


def gather(context: Context) -> KnownFacts:
    """All that is known of all fleets, as they were last checked, and what IAM shows of their instances' accounts."""
    fleets, unread = load_fleets(context.settings.roots), list[str]()
    checks, members, unseen = last_checks(context, fleets), list[FleetMember](), list[str]()
    for name, fleet in sorted(fleets.items()):
        if name not in checks:
            unread.append(f"fleet {name}: it was never checked (./goldsmith fleet.scan {name})")
            continue
        members += _members(context.ledger, fleet, checks[name][1])
        unread += _places(name, checks[name][1])
        unseen += [f"fleet {name}: {NOT_READ_OF[fleet.kind]}"] if fleet.kind in NOT_READ_OF else []
    asked = sorted({one.account for one in members if isinstance(one.facts, InstanceFacts) and one.facts.profile})
    accounts, failed = read_accounts(context, asked)
    unseen += [NOT_READ, *(note for one in accounts for note in one.notes)] if accounts else []
    failed += [line for one in accounts for line in one.unread]
    return KnownFacts(
        tuple(members), accounts, load_ways(), _hosts(context, members, fleets),
        unread=(*unread, *failed), unseen=tuple(unseen),
        seen_at={name: at for name, (at, _) in checks.items()},
    )  # fmt: skip


def _members(ledger: Ledger, fleet: Fleet, known: Iterable[CheckedMember]) -> Iterable[FleetMember]:
    """The members of a fleet; groups and templates, which run nothing themselves, are left out."""
    machines, engine = fleet.kind in INSTANCES, fleet.kind is FleetKind.DOCKER
    mine = [
        one for one in known
        if (one.handle.startswith(INSTANCE) if machines else not one.id.endswith(PLACE))
    ]  # fmt: skip
    last = ledger.last_snapshots(fleet.name, [one.handle for one in mine])
    for one in mine:
        kept = last.get((one.name, one.handle))
        parts = (one.id or one.name).split("/")
        first, second = (*parts, "")[:2]
        host = f"{first}/{second}" if engine else "/".join(parts[:4]) if fleet.kind is FleetKind.ECS else first
        yield FleetMember(
            fleet.name, one.name, one.image, one.golden, one.release, facts_in(kept.facts) if kept else None,
            host="" if machines else host,
            account=first if machines else "", region=second if machines else "",
            instance=one.handle if machines else "", sure_host=engine or machines,
        )  # fmt: skip


def _places(fleet: str, known: Iterable[CheckedMember]) -> list[str]:
    """The places of a fleet that the last look could not read: what runs there is not among its members."""
    return [
        f"fleet {fleet}: {one.name}: {reason.what}"
        for one in known if one.id.endswith(PLACE) for reason in one.reasons if reason.rule == UNREAD
    ]  # fmt: skip


def _hosts(context: Context, members: Iterable[FleetMember], fleets: Mapping[str, Fleet]) -> dict[str, str]:
    """The engine's host, of which the settings say which instance it is; not those that fleets name themselves."""
    said = context.settings.docker.instance
    if not said:
        return {}
    hosts = {one.host for one in members if one.host and one.sure_host and not fleets[one.fleet].docker.hosts}
    return dict.fromkeys(sorted(hosts), said.rpartition("/")[2])


def read_accounts(context: Context, accounts: Iterable[str]) -> tuple[tuple[Account, ...], list[str]]:
    """What IAM shows of these accounts, asked side by side; and why some could not be read, a line each."""
    wanted = list(accounts)
    if not wanted:
        return (), []
    cloud = context.cloud
    answers = ask_each({one: partial(ask_account, cloud, one) for one in wanted}, cloud.aws.read_within)
    found, failed = list[Account](), list[str]()
    for one in wanted:
        answer = answers[one]
        if isinstance(answer, GoldsmithError):
            failed.append(f"IAM of the account {one}: {answer.message}")
        else:
            found.append(answer)
    return tuple(found), failed


@understood("IAM")
def ask_account(cloud: Cloud, account: str) -> Account:
    """The users, groups, roles and policies of an account. Raises OutsideError or DeniedError."""
    client, shown, marker = cloud.client("iam", account=account), defaultdict[str, list[Any]](list), ""
    for page in range(IAM_PAGES.most + 1):
        IAM_PAGES.require(page + 1, f"the account {account}")
        answer = client.call("GetAccountAuthorizationDetails", MaxItems=PAGE, **({"Marker": marker} if marker else {}))
        for name in LISTS:
            shown[name] += answer.get(name) or ()
        IAM_PRINCIPALS.require(sum(map(len, shown.values())), f"the account {account}")
        marker = answer.get("Marker", "") if answer.get("IsTruncated") else ""
        if not marker:
            break
    return read_account(account, shown)
