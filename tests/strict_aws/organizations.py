"""The accounts of an organisation, listed as its management account and delegated administrators may."""

from __future__ import annotations

from typing import Any

from tests.strict_aws.errors import AwsError
from tests.strict_aws.listing import part
from tests.strict_aws.wire import Call
from tests.strict_aws.world import World

MOST = 20  # accounts of a page, and as many where none is asked for


def list_accounts(world: World, call: Call) -> dict[str, Any]:
    """In pages; a page may be empty while others follow, as the API's reference warns."""
    if not world.members:
        raise AwsError("AWSOrganizationsNotInUseException", "Your account is not a member of an organization.", 400)
    if call.account not in world.managing:
        raise AwsError("AccessDeniedException", "You don't have permissions to access this resource.", 400)
    shown, more = part(
        [_shown(name, state) for name, state in world.members.items()], call.params.get("NextToken"),
        min(call.params.get("MaxResults", MOST), MOST, world.page_at_most),
    )  # fmt: skip
    return {"Accounts": shown, **more}


def _shown(name: str, state: str) -> dict[str, Any]:
    """With Status, which State is to replace, where it has the word."""
    arn = f"arn:aws:organizations::111111111111:account/o-abcdefghij/{name}"
    old = {"Status": state} if state in ("ACTIVE", "SUSPENDED", "PENDING_CLOSURE") else {}
    return {"Id": name, "Arn": arn, "Name": f"account {name}", "State": state, **old}


RULES = {"ListAccounts": list_accounts}
