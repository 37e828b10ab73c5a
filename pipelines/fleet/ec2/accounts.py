"""Edge: the accounts that a fleet is in: those that its file names, or the active ones of our organisation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial

from hardening.foundation.asking import ask_within
from hardening.foundation.errors import OutsideError, RefusedError
from images.aws.client import Clients
from images.aws.cloud import Cloud
from images.aws.permissions import LOOKING, REAPER, ResourcePattern, permit
from pipelines.fleet.model import ORGANIZATION, Fleet

PERMISSIONS = (permit("organizations:ListAccounts", REAPER, *LOOKING, on=ResourcePattern(each="organization")),)

MOST_ACCOUNTS = 1000
STATES = ("ACTIVE", "PENDING_ACTIVATION", "SUSPENDED", "PENDING_CLOSURE", "CLOSED")
IDENTIFIER = re.compile(r"[0-9]{12}")
NAME_THEM = 'name them in the fleet\'s file, as ec2.accounts = ["123456789012"], or allow organizations:ListAccounts'


def accounts_of(fleet: Fleet, cloud: Cloud) -> tuple[str, ...]:
    """The accounts that a fleet may be in; by default the one that owns the images.

    Raises OutsideError where those of the organisation cannot be found, RefusedError where there are too many.
    """
    if fleet.ec2.accounts != ORGANIZATION:
        return fleet.ec2.named_accounts or (cloud.aws.account,)
    return _organization(cloud.clients, cloud.home)


@lru_cache(maxsize=2)
def _organization(clients: Clients, region: str) -> tuple[str, ...]:
    """The active accounts, sorted; asked once by one process: an account that joins meanwhile is found by the next."""
    try:
        answer = ask_within(partial(_active, clients, region), clients.settings.read_within)
    except (RefusedError, OutsideError) as error:
        why = f"the accounts of the organisation cannot be found: {error.message}"
        raise OutsideError(why, hint=NAME_THEM, evidence=error.evidence) from None
    if len(answer) > MOST_ACCOUNTS:
        why = f"the organisation has more than {MOST_ACCOUNTS} active accounts, too many for one fleet"
        raise RefusedError(why, hint="name those of the fleet: ec2.accounts")
    return answer


def _active(clients: Clients, region: str) -> tuple[str, ...]:
    return tuple(sorted(_listed(clients, region)))


def _listed(clients: Clients, region: str) -> Iterator[str]:
    """The accounts that are active, no more than it takes to see that they are too many."""
    seen = set[str]()
    for one in clients.client("organizations", region).pages("ListAccounts", "Accounts"):
        state = one.get("State") or one.get("Status")  # the former is to take the latter's place
        name = str(one.get("Id", ""))
        if not IDENTIFIER.fullmatch(name):
            raise OutsideError(
                f"organizations:ListAccounts names an account {name!r}, which is not the id of an account"
            )
        if state not in STATES:
            raise OutsideError(f"organizations:ListAccounts says that {name} is in the unknown state {state!r}")
        if state == "ACTIVE" and name not in seen:
            seen.add(name)
            yield name
        if len(seen) > MOST_ACCOUNTS:
            return
