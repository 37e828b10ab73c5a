"""What `image.reproduce` calls and prints: a release, rebuilt from its provenance."""

from __future__ import annotations

from dataclasses import replace

from hardening.foundation.console import out, print_json
from images.build.reproduce import reproduce
from images.documents import to_json
from images.store.differences import Difference
from pipelines.cli.image import one_reference
from pipelines.contract import Line
from pipelines.wiring import image_context


class ReproduceOutput(Line):
    """`image.reproduce`: whether a rebuild has the published content; else the first difference.

    `release` is the index, `content` what was published in it; `published_with` and `rebuilt_with` are the builders.
    """

    ref: str
    name: str
    release: str
    content: str
    rebuilt: str
    same: bool
    published_with: str
    rebuilt_with: str
    difference: Difference | None


def reproduce_image(ref: str, policy: str) -> ReproduceOutput:
    """Rebuild what `ref` is a release of, from its provenance alone."""
    context = replace(image_context(policy=policy), lenient=True)
    return ReproduceOutput.of(reproduce(context, one_reference(context, ref), policy), ref=ref)


def show_reproduced(found: ReproduceOutput, *, as_json: bool) -> int:
    """Print what became of a rebuild; exit code 1 where it is not what was published."""
    if as_json:
        print_json(to_json(found))
        return 0 if found.same else 1
    if found.same:
        out().print(f"{found.name}: the same, rebuilt from its provenance\n  {found.content}")
        return 0
    out().print(f"{found.name}: not the same{_changed(found.content, found.rebuilt)}")
    if one := found.difference:
        where = f"layer {one.layer}" if one.layer else "configuration"
        told = f"first difference, {where}: {one.path or 'all of it'}: {one.what}"
        out().print(told + _changed(one.published, one.rebuilt))
    if found.published_with != found.rebuilt_with:
        out().print(f"the builders differ{_changed(found.published_with, found.rebuilt_with)}")
    return 1


def _changed(was: str, now: str) -> str:
    """Two lines that stand below what they are about; a digest fits into 80 columns."""
    return f"\n  was {was}\n  now {now}"
