"""What `iam.policy` calls: the policies of one of our roles, as files."""

from __future__ import annotations

import json
from importlib import import_module

from hardening.foundation.console import say
from hardening.foundation.errors import UsageError, nearest
from hardening.foundation.settings import load_settings
from images.aws.permissions import NETWORK, REAPER, ROLES, Permission
from pipelines.cli.rendering import RenderedLine, rendered_lines
from pipelines.fleet.catalog import load_fleets
from pipelines.network.catalog import load_network
from pipelines.role_facts import installation
from pipelines.role_policies import EDGES, FORMS, policies
from pipelines.wiring import image_context


def render_policies(role: str, *, form: str, account: str, output: str, force: bool) -> list[RenderedLine]:
    """Render the policies of a role by settings, fleets and the network, with `output` write them into that folder.

    Raises UsageError for an unknown role, form or account, ContentError for what the settings lack, RefusedError for
    more than a role of AWS may hold.
    """
    if role not in ROLES:
        raise UsageError(f"{role} is not a role", hint=nearest(role, ROLES))
    if form not in FORMS:
        raise UsageError(f"--form: {form} is unknown", hint=f"there are {', '.join(FORMS)}")
    settings = load_settings()
    if account and account not in (settings.aws.account, *settings.aws.roles) and not settings.aws.organization_role:
        hint = "roles of [aws] name the others"
        raise UsageError(f"--account: {account} is not an account of the settings", hint=hint)
    of_network = role == NETWORK
    fleets = () if of_network else load_fleets(settings.roots).values()
    groups = load_network(settings.roots).groups if of_network else ()
    regions = image_context(settings, looks=True).cloud.regions() if role == REAPER else ()  # former ones too
    found = policies(role, permissions(), installation(settings, fleets, account, groups, regions))
    if not found:
        say(f"the {role} asks nothing of AWS there: it needs no policy")
        return []
    files = {name: f"{json.dumps(document, indent=2)}\n" for name, document in FORMS[form](found).items()}
    return rendered_lines({form: files}, output, force=force)


def permissions() -> list[Permission]:
    """What all edges declare."""
    return [one for edge in EDGES for one in import_module(edge).PERMISSIONS]
