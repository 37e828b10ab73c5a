"""Any package of any image gets newer in a signed archive: the night builds exactly the images that hold it.

Everything is real but for the bytes of an image: apt's solver and its index, the plans, the night's flow and its build
stage, the ledger and the store. An image is a list of packages here, as dpkg keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from images.build import flow as building
from images.build.build_steps import BuildJob, Built
from images.context import Context
from images.documents import from_json, to_json
from images.packages import debian
from images.plan.freshness import NewerKind
from pipelines.cli.image import why_image
from pipelines.cli.outdated import OutdatedLine, what_is_outdated
from pipelines.nightly.flow import flows
from pipelines.nightly.model import NIGHT, ImageAnswer, ImageJob, NightPart, NightRecord
from pipelines.nightly.stages import WorldStages
from tests.pipelines.cli.test_outdated import ADDED, BOOTSTRAP, archive_in
from tests.simulation.memory import Memory
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog, image_of
from tests.support.nights import ended, order_of

WANTED = ("tool", "library", "editor", "postman")
CONTROL = {
    "base-files": "Essential: yes\nPriority: required",
    "apt": "Depends: base-files",
    "tool": "Depends: library, mail-agent",
    "postman": "Provides: mail-agent",
}
ANY = ("base-files", "apt", "library", "tool", "postman", "editor", "added")
"""Of the base system; wanted by name; a dependency; what provides a virtual one; what a Dockerfile adds and holds."""
Image = tuple[int, frozenset[str], bool]
IMAGES = st.lists(
    st.tuples(st.integers(-1, 2), st.frozensets(st.sampled_from(WANTED)), st.booleans()), min_size=2, max_size=4
)


LINE: list[Image] = [
    (-1, frozenset(), False), (0, frozenset({"tool"}), False), (1, frozenset({"editor"}), True),
    (-1, frozenset({"library"}), False),
]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive in which packages get newer from example to example."""
    return archive_in(tmp_path_factory.mktemp("shared"))


def catalog_of(images: list[Image], archive: Archive, folder: Path) -> tuple[Catalog, dict[str, str]]:
    """A catalog of images, each on an earlier one or on nothing; and what Dockerfiles add, which they hold."""
    made, added = Catalog(folder, archive), dict[str, str]()
    for number, (parent, wanted, by_dockerfile) in enumerate(images):
        base = f"image-{parent}" if 0 <= parent < number else BOOTSTRAP
        at = made.define(f"image-{number}", base, sorted(wanted))
        if by_dockerfile and base != BOOTSTRAP:
            (at / "Dockerfile.j2").write_text('{% extends "Dockerfile.j2" %}\n')
            added[at.name] = ADDED
    return made, added


class Stages(WorldStages):
    """A night's own stages up to the build; nothing is scanned, published or reported."""

    def judge(self, job: ImageJob, built: ImageAnswer) -> ImageAnswer:
        """Let it pass."""
        return built

    def publish(self, job: ImageJob, judged: ImageAnswer) -> ImageAnswer:
        """Only what was built."""
        return replace(judged, action="published") if judged.built else judged

    def promote(self, job: ImageJob, published: ImageAnswer) -> ImageAnswer:
        """Leave the channels."""
        return published

    def report(self, record: NightRecord) -> NightPart:
        """Write none."""
        return NightPart()


@contextmanager
def as_lists_of_packages(context: Context, added: Mapping[str, str]) -> Iterator[list[str]]:
    """Within the block images are built as dpkg's list of what they hold; their names, in the order of their builds."""
    order, lists = list[str](), dict[str | None, tuple[str, ...]]()

    def build(job: BuildJob) -> Built:
        order.append(job.name)
        stanzas = [debian.as_installed(one) for one in debian.stanzas(job.stanzas)]
        parts = (*lists.get(job.parent, held_by(context, job.parent)), *stanzas, *filter(None, [added.get(job.name)]))
        digest = image_of(context, job.name, "\n\n".join(parts))
        lists[digest] = parts
        job.store.blobs.mkdir(parents=True, exist_ok=True)
        below = [one for one in context.ledger.artifacts() if one.digest == job.parent]
        return Built(digest, tuple(sorted({*(below[0].packages if below else ()), *job.packages})), NOW, job.work, 1)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(building, "build_image", build)
        patched.setattr(building, "_verify", lambda *_: ())
        yield order


def held_by(context: Context, digest: str | None) -> tuple[str, ...]:
    """The stanzas in an image of an earlier night."""
    from images.plan.planner import Planner

    return (Planner(context).upstream.status(digest),) if digest else ()


def night(catalog: Catalog) -> NightRecord:
    """A whole night over the catalog."""
    context = replace(catalog.context(), lenient=True)
    order, memory = order_of(context), Memory()
    memory.process("night", flows(Stages(context))).start(NIGHT, order.id, to_json(order))
    return from_json(NightRecord, ended(memory, order.id))


def told(catalog: Catalog) -> list[OutdatedLine]:
    """What `image.outdated` says."""
    found, errors = what_is_outdated("all", catalog.context())
    assert (errors, found.unasked) == ([], ())
    return list(found.lines)


def line_of(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """An image, and all that it stands on."""
    parent = parents[name]
    return [name, *(line_of(parent, parents) if parent else [])]


@pytest.mark.needs("apt-get", "gpg")
@settings(max_examples=3)
@example(LINE, "base-files")
@example(LINE, "postman")
@example(LINE, "added")
@given(images=IMAGES, newer=st.sampled_from(ANY))
def test_any_newer_package_of_any_image_rebuilds_exactly_the_right_ones(
    archive: Archive, images: list[Image], newer: str
) -> None:
    """Parents first; `image.why` names the package, and `image.outdated` says so before the night and nothing after.

    What a Dockerfile adds is in no plan, and no rebuild would bring it: that one is told of, before and after.
    """
    with TemporaryDirectory() as folder:
        catalog, added = catalog_of(images, archive, Path(folder))
        catalog.settle(added=added)
        before = catalog.context()
        held = {
            name: {one.name for one in artifact.packages}
            for name in before.parents
            if (artifact := before.ledger.latest_artifact(name, "linux/amd64"))
        }
        right = {name for name, packages in held.items() if newer in packages}
        version = f"{2 + len(list(archive.directory.glob(f'{newer}_*')))}.0"
        archive.add(newer, version, control=CONTROL.get(newer, ""))
        archive.publish()

        first = told(catalog)
        beside = {name for name in held if newer == "added" and {*line_of(name, before.parents)} & added.keys()}
        assert {line.image for line in first if (line.kind, line.what) == (NewerKind.PACKAGE, newer)} == right | beside
        for name in held:
            changes = {change.name for change in why_image(name, catalog.context()).changes}
            assert (newer in changes) == (name in right)
        with as_lists_of_packages(catalog.context(), added) as order:
            record = night(catalog)
            assert record.errors == ()
            assert {image.name for image in record.images} == held.keys()
            assert {image.name for image in record.images if image.built} == {*order} == right
            assert len(order) == len(right)
            for name in right:
                assert all(
                    order.index(one) < order.index(name) for one in line_of(name, before.parents)[1:] if one in right
                )
            for name in right:
                artifact = before.ledger.latest_artifact(name, "linux/amd64")
                assert artifact
                assert {one.version for one in artifact.packages if one.name == newer} == {version}
            added_by_hand = {(line.image, line.what) for line in first if line.what == "added"}
            assert {(line.image, line.what) for line in told(catalog)} == added_by_hand
            night(catalog)
            assert len(order) == len(right), "the next night builds nothing"
