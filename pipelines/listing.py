"""What the listings and flows print, as contract lines, and their tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hardening.foundation.console import err, print_json, print_table
from hardening.foundation.errors import GoldsmithError
from images.build import BuildOutcome
from images.context import Context
from images.plan import BuildPlan
from pipelines.contract import BuildLine, DefinitionLine, Line, PlanLine


def show(lines: Line | Sequence[Line], columns: dict[str, str], *, as_json: bool) -> None:
    """Print contract lines: as JSON for programs, else as a table whose `columns` map headings to field names."""
    if as_json:
        many = not isinstance(lines, Line)
        print_json([line.model_dump(mode="json") for line in lines] if many else lines.model_dump(mode="json"))
        return
    rows = [lines] if isinstance(lines, Line) else lines
    print_table(list(columns), [[_cell(getattr(row, field)) for field in columns.values()] for row in rows])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, tuple | list):
        return "\n".join(str(item) for item in value)
    text = str(value)
    return text[:19] if text.startswith("sha256:") else text


def definition_lines(context: Context) -> list[DefinitionLine]:
    """One line for each definition."""
    lines = []
    for name, loaded in sorted(context.definitions.items()):
        definition = loaded.definition
        artifact = context.ledger.latest_artifact(name, context.settings.platform)
        release = next((r for r in context.ledger.releases(name) if not r.pruned_at), None)
        base = definition.base
        boot = base.bootstrap and f"{base.bootstrap.family} {base.bootstrap.suite}"
        lines.append(
            DefinitionLine(
                name=name, title=definition.title, kind=definition.kind, profile=definition.profile,
                base=str(boot or base.golden or base.image), policy=definition.policy,
                digest=artifact.digest if artifact else "", stable=release.digest if release else "",
                expires_at=release.expires_at if release else None,
            )
        )  # fmt: skip
    return lines


def plan_line(plan: BuildPlan) -> PlanLine:
    """What would happen to one image."""
    return PlanLine(
        name=plan.name, platform=plan.platform, action=plan.action, why=plan.why, changes=plan.changes,
        input_digest=plan.input_digest,
    )  # fmt: skip


def build_line(outcome: BuildOutcome) -> BuildLine:
    """What became of one image."""
    return BuildLine(
        name=outcome.name, action=outcome.action, digest=outcome.digest, input_digest=outcome.input_digest,
        reasons=outcome.reasons, seconds=outcome.seconds,
    )  # fmt: skip


def finish(errors: Iterable[GoldsmithError | None]) -> int:
    """Print each distinct error on standard error; the exit code: the highest of their families, 0 without any."""
    distinct = {str(error): error for error in errors if error is not None}
    for text in distinct:
        err().print(text, markup=False, style="red")
    return max((error.exit_code for error in distinct.values()), default=0)
