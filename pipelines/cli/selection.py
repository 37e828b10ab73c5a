"""Which images a NAME argument means on this machine."""

from __future__ import annotations

from hardening.foundation.console import say
from hardening.foundation.content import select
from hardening.foundation.errors import ContentError
from hardening.model import Kind
from images.context import Context
from pipelines.host.provision import lacking_for_machines


def named(context: Context, pattern: str) -> list[str]:
    """The definitions that a NAME argument means. Raises ContentError with the nearest names.

    A name means itself. `all` and globs mean what this machine is for (`kinds` in the settings) and can build: where
    it lacks what machine images need, those are left out, and it says so.
    """
    chosen = select(pattern, {*context.definitions, *context.unsound}, "image")
    if chosen == [pattern]:
        return chosen
    of_kind = {kind: [name for name in chosen if _kind(context, name) is kind] for kind in Kind}
    left_out = {name for kind, names in of_kind.items() if kind not in context.settings.kinds for name in names}
    if machines := set(of_kind[Kind.MACHINE]) - left_out:
        left_out |= _unbuildable(machines)
    if left_out == set(chosen):
        raise ContentError(
            f"{pattern} means only images that are left out here: {', '.join(chosen)}",
            hint="name one, or see `kinds` in goldsmith.toml, and ./goldsmith setup --machines",
        )
    return [name for name in chosen if name not in left_out]


def publishable(context: Context, pattern: str) -> list[str]:
    """What a NAME argument means where images are published: as `named`, and machines only where AWS is set.

    A name means itself here too: publishing it then says what the settings lack.
    """
    chosen = named(context, pattern)
    machines = [name for name in chosen if _kind(context, name) is Kind.MACHINE]
    if chosen == [pattern] or context.settings.aws.region or not machines:
        return chosen
    say(
        f"left out: {', '.join(machines)}; machine images are published to AWS, and aws.region is not set (docs/aws.md)"
    )
    if machines == chosen:
        raise ContentError(f"{pattern} means only images that are left out here", key="aws.region", hint="docs/aws.md")
    return [name for name in chosen if name not in machines]


def _kind(context: Context, name: str) -> Kind | None:
    loaded = context.definitions.get(name)
    return loaded.definition.kind if loaded else None


def _unbuildable(machines: set[str]) -> set[str]:
    """The machines, where this host lacks what they need; it says what."""
    if not (lacking := lacking_for_machines()):
        return set()
    say(f"left out: {', '.join(sorted(machines))}; this machine lacks {lacking} (./goldsmith setup --machines)")
    return machines
