"""What another machine built of the same inputs and published: it is brought here from the registry that they share."""

from __future__ import annotations

from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from images.context import Context
from images.plan.build_plan import BuildPlan
from images.plan.upstream import Upstream
from images.registry.answers import NotFoundError


def brought(context: Context, upstream: Upstream, plan: BuildPlan) -> bool:
    """Whether the content that `plan` would build was brought here, so that nothing has to be built.

    So a child can be built where its parent was not. Machines are built again: their trees are in no registry; and so
    is what a Dockerfile made, whose text is scanned too. Where the registry lacks it or fails, it is built as well.
    """
    address = context.settings.registry.address.rstrip("/")
    if plan.artifact or not address or not plan.input_digest or context.definitions[plan.name].definition.is_machine:
        return False
    known = context.ledger.artifact_by_input(plan.name, plan.platform, plan.input_digest)
    if known is None or known.dockerfile or context.store.has(known.digest):
        return False
    try:
        upstream.bring_exactly(f"{address}/{plan.name}:published", known.digest)
    except (OutsideError, NotFoundError) as error:
        say(f"{plan.name}: another machine built it, and its content is not to be had: {error.message}")
        return False
    say(f"{plan.name}: brought from {address}, where another machine published it")
    return True
