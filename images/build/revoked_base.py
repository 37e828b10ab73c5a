"""What a build may not stand on: a base that was revoked, by the ledger or by a registry that others share."""

from __future__ import annotations

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError, RefusedError
from images.context import Context
from images.registry.releases import revocations_in
from images.release.revocations import revoked_base


def revoked_parent(context: Context, parent: str, content: str) -> RefusedError | None:
    """Why nothing may be built on `content` of the definition `parent`; None where it is not revoked.

    A registry that others write to is asked too. Where it cannot be, that is said: publication asks it again, and
    fails.
    """
    shared = context.settings.registry.address
    repository = f"{shared.rstrip('/')}/{parent}" if shared else parent
    try:
        ask = revocations_in(context.registry) if shared else None
        found = revoked_base(context.ledger, repository, content, ask)
    except OutsideError as error:
        say(f"whether {parent} was revoked elsewhere is not known: {error.message}")
        found = revoked_base(context.ledger, repository, content)
    if found is None:
        return None
    base, (_, reason) = found
    return RefusedError(
        f"its base {base.name} was revoked: {reason}",
        hint=f"change what is wrong in {base.name}; image.why {base.name} shows what would be built",
    )
