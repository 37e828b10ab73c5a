"""Locks of upstream images, and packages from outside the archive: what is new waits; a grave fix does not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import Judging, Settings
from images.context import Context
from images.model import Bootstrap
from images.plan import locking
from images.plan.cooldown import SOURCE
from images.plan.locking import move_locks, nightly_upstreams
from images.plan.planner import Planner
from images.plan.upstream import LOCK, Upstream
from pipelines.cli.outdated import show_outdated, what_is_outdated
from pipelines.nightly.model import NightOrder
from pipelines.nightly.stages import WorldStages
from tests.images.plan.test_upstream import STATUS, debian, publish
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog, entry
from tests.support.loop import definition
from tests.support.publishing import running_registry

DAY, HOUR, COOLDOWN = timedelta(days=1), timedelta(hours=1), timedelta(days=3)
CVE = "CVE-2026-0001"
DIGEST = "sha256:" + "d" * 64
BOOTSTRAP = 'bootstrap = { family = "debian", suite = "trixie" }'
pytestmark = pytest.mark.needs("docker-registry", "skopeo", "apt-get", "gpg")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return distribution(tmp_path_factory.mktemp("distribution"))


def distribution(folder: Path) -> Archive:
    """An archive that stands for the distribution's."""
    made = Archive(folder / "archive")
    made.add("base-files", control="Essential: yes\nPriority: required")
    made.add("apt", control="Depends: base-files")
    made.add("libc6", "2.41-13")
    made.publish()
    return made


class Tag:
    """A definition on a tag that is pinned, and that moves."""

    def __init__(
        self, folder: Path, address: str, archive: Archive, *, without_dpkg: bool = False, **settings: object
    ) -> None:
        self.folder, self.reference, self.pushed = folder, f"{address}/{folder.name}:13", 0
        self.without_dpkg = without_dpkg
        self.catalog = Catalog(folder / "catalog", archive, **settings)
        self.catalog.define("web", f'image = "{self.reference}"')
        self.first = self.move()
        moves, _ = move_locks(self.catalog.context(), [self.reference])
        assert moves[self.reference].action == "pinned"

    def move(self, status: str = STATUS) -> str:
        """Let the tag name another image, which claims to be of 2001; its digest."""
        self.pushed += 1
        files = debian(number=str(self.pushed)) | {"var/lib/dpkg/status": status}
        if self.without_dpkg:
            package, _, _ = files.pop("var/lib/dpkg/status").partition("\n\n")
            files["var/lib/dpkg/status.d/libc6"] = package.replace("Status: install ok installed\n", "") + "\n"
        return publish(self.folder / str(self.pushed), self.reference, files, created="2001-01-01T00:00:00Z")

    def lock(self, after: timedelta = timedelta(0), because: str = "") -> tuple[str, str]:
        """What became of the pin, and to what."""
        moves, errors = move_locks(self.catalog.context(NOW + after), [self.reference], now_because=because)
        assert not errors
        return moves[self.reference].action, moves[self.reference].digest


@pytest.fixture
def tag(tmp_path: Path, registry: str, archive: Archive) -> Tag:
    return Tag(tmp_path, registry, archive)


def test_a_moved_tag_is_found_by_head_and_waits_although_it_is_backdated(tag: Tag) -> None:
    """`image.outdated` says until when, and fetches nothing; `image.plan` says it too; then the lock moves."""
    second = tag.move()
    context = tag.catalog.context(NOW + HOUR)
    (line,) = [one for one in what_is_outdated("web", context)[0].lines if one.kind == "upstream"]
    assert (line.urgency, line.old, line.new, line.waits_until) == ("waits", tag.first, second, NOW + HOUR + COOLDOWN)
    assert not context.store.has(second), "no manifest and no layer was fetched"
    assert tag.lock(2 * HOUR) == ("waits", tag.first)
    (plan,) = Planner(tag.catalog.context(NOW + DAY)).plan_all(["web"])
    assert plan.waits == (f"{tag.reference} {second[:19]} waits out its cooldown until 2026-11-28 13:00 UTC",)
    assert tag.lock(COOLDOWN) == ("waits", tag.first)
    assert tag.lock(COOLDOWN + HOUR) == ("moved", second)
    assert second in (tag.catalog.root / LOCK).read_text()


@pytest.mark.parametrize("without_dpkg", [False, True])
def test_a_fix_of_a_known_exploited_hole_does_not_wait(
    tmp_path: Path, registry: str, archive: Archive, without_dpkg: bool
) -> None:
    """It is looked into for that, also where each package has a file of its own; one that leaves the hole waits."""
    tag = Tag(tmp_path, registry, archive, without_dpkg=without_dpkg)
    tag.catalog.tell({"glibc": {CVE: entry("2.41-13")}}, [CVE])
    tag.move()
    assert tag.lock(HOUR)[0] == "waits"
    fixed = tag.move(STATUS.replace("2.41-12", "2.41-13"))
    (line,) = [
        one for one in what_is_outdated("web", tag.catalog.context(NOW + HOUR))[0].lines if one.kind == "upstream"
    ]
    assert (line.urgency, line.fixes, line.waits_until) == ("exploited", (CVE,), None)
    assert tag.lock(2 * HOUR) == ("moved", fixed)


@pytest.mark.parametrize(
    "claim",
    [
        "", STATUS.replace("install ok installed", "deinstall ok config-files"), STATUS.replace("2.41-12", "9999"),
        STATUS.replace("Source: glibc", "Source: other").replace("2.41-12", "2.41-13"),
        STATUS.replace("libc6", "libc7").replace("2.41-12", "2.41-13"),
    ],
    ids=["none", "removed", "beyond the archive", "of another source", "of another name"],
)  # fmt: skip
def test_what_an_image_says_of_itself_proves_no_fix(tag: Tag, claim: str) -> None:
    """Only a version that the distribution's own archive has, of the source package that had the hole."""
    tag.catalog.tell({"glibc": {CVE: entry("2.41-13")}}, [CVE])
    tag.move(claim)
    assert tag.lock(HOUR) == ("waits", tag.first)


def test_a_fix_that_cannot_be_looked_into_waits(tag: Tag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as by a registry that ends in the middle of it: nothing proves that it is one."""
    tag.catalog.tell({"glibc": {CVE: entry("2.41-13")}}, [CVE])
    tag.move(STATUS.replace("2.41-12", "2.41-13"))

    def gone(*_: object) -> None:
        raise OutsideError("the registry does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Upstream, "bring", gone)
        assert tag.lock(HOUR) == ("waits", tag.first)
    assert tag.lock(HOUR)[0] == "moved"


def test_a_tag_that_is_looked_at_by_a_moved_clock_was_not_seen(tag: Tag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wait begins with the first real look."""
    second = tag.move()
    with monkeypatch.context() as patched:
        patched.setenv("GOLDSMITH_NOW", "2026-11-25T13:00Z")
        what_is_outdated("web", tag.catalog.context(NOW + HOUR))
    assert [tag.lock(after)[0] for after in (2 * DAY, 4 * DAY)] == ["waits"] * 2
    assert tag.lock(2 * DAY + COOLDOWN) == ("moved", second)


def test_a_person_need_not_wait_and_the_audit_says_why(tag: Tag) -> None:
    """`image.lock --now --reason`."""
    second = tag.move()
    assert tag.lock(HOUR, "the old one does not start") == ("moved", second)
    (*_, line) = tag.catalog.context().ledger.audit_lines(subject=tag.reference)
    assert (line.action, line.detail) == (
        "lock", f"{tag.first} → {second}: without waiting: the old one does not start"
    )  # fmt: skip


def test_a_definition_may_wait_for_longer_and_one_pin_waits_for_all(tag: Tag) -> None:
    """`lifecycle.cooldown`; the longest of what stands on the tag counts."""
    tag.catalog.define("slow", f'image = "{tag.reference}"', more='lifecycle = { cooldown = "10d" }\n')
    second = tag.move()
    assert [tag.lock(after)[0] for after in (HOUR, 4 * DAY, 9 * DAY)] == ["waits"] * 3
    (plan,) = Planner(tag.catalog.context(NOW + 9 * DAY)).plan_all(["web"])
    assert plan.waits == (f"{tag.reference} {second[:19]} waits out its cooldown until 2026-12-05 13:00 UTC",)
    assert tag.lock(11 * DAY) == ("moved", second)


def test_a_tag_that_moves_too_often_is_no_longer_said_to_wait(tag: Tag) -> None:
    """By itself its lock would never move: a person has to act."""
    said = []
    for day in (1, 3, 5, 7):
        tag.move()
        found, _ = what_is_outdated("web", tag.catalog.context(NOW + day * DAY))
        said += [(one.urgency, one.todo.partition(" --reason")[0]) for one in found.lines if one.kind == "upstream"]
    assert said == [("waits", "wait")] * 3 + [("normal", "./goldsmith image.lock web --now")]
    assert tag.lock(7 * DAY) == ("waits", tag.first)


def night(tag: Tag, after: timedelta) -> list[str]:
    """What a night says of the tag; nothing of it fails the night."""
    stages = WorldStages(tag.catalog.context())
    part = stages.lock(NightOrder(f"night {after}", NOW + after), tag.reference)
    assert part.failure is None
    return [line.status for line in part.lines]


def test_a_night_looks_at_every_tag_and_moves_locks_only_where_the_settings_let_it(
    tmp_path: Path, registry: str, archive: Archive
) -> None:
    """By default a person moves them; the wait has begun by then."""
    manual = Tag(tmp_path / "manual", registry, archive)
    auto = Tag(tmp_path / "auto", registry, archive, locks="auto", cooldown="0s")
    assert night(manual, HOUR) == []
    second = manual.move()
    auto.move()
    assert nightly_upstreams(manual.catalog.context(NOW + HOUR)) == (manual.reference,)
    assert [night(manual, after) for after in (2 * HOUR, COOLDOWN + 2 * HOUR)] == [["waits"], ["newer"]]
    assert second not in (manual.catalog.root / LOCK).read_text()
    assert manual.lock(COOLDOWN + 2 * HOUR) == ("moved", second)
    assert night(auto, HOUR) == ["moved"]


def test_a_registry_that_is_down_is_said_and_not_fresh(tmp_path: Path, archive: Archive) -> None:
    """What is pinned stays."""
    with running_registry(tmp_path / "registry") as address:
        tag = Tag(tmp_path / "tag", address, archive)
        what_is_outdated("web", tag.catalog.context())
    found, _ = what_is_outdated("web", tag.catalog.context(NOW + HOUR))
    assert [line.what for line in found.unasked] == [f"the tag {tag.reference}"]
    moves, errors = move_locks(tag.catalog.context(NOW + HOUR), [tag.reference])
    assert (moves, list(errors)) == ({}, [tag.reference])
    assert night(tag, HOUR) == ["unasked"]


# -- packages from outside the distribution's archive ------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path, archive: Archive) -> tuple[Catalog, Archive]:
    """A definition with a package of an extra source, built; what the source had at the first look need not wait."""
    extra = Archive(tmp_path / "extra")
    extra.add("agent")
    extra.publish(date="Wed, 25 Nov 2026 11:00:00 UTC")
    catalog = Catalog(tmp_path / "catalog", archive, extra)
    catalog.define("web", BOOTSTRAP, ["agent"])
    catalog.settle()
    extra.add("agent", "2.0")
    extra.publish(date="Wed, 25 Nov 2026 12:30:00 UTC")
    return catalog, extra


def versions(catalog: Catalog, after: timedelta) -> tuple[str, tuple[str, ...]]:
    """Which agent would be built in, and what waits."""
    planner = Planner(catalog.context(NOW + after))
    planner.refresh(["web"])
    (plan,) = planner.plan_all(["web"])
    return next(one.version for one in plan.packages if one.name == "agent"), plan.waits


def test_a_package_from_outside_waits_and_the_plan_says_until_when(outside: tuple[Catalog, Archive]) -> None:
    """`image.outdated` too; the distribution's own archive does not wait."""
    catalog, _ = outside
    found, _ = what_is_outdated("web", catalog.context(NOW + HOUR))
    (line,) = found.lines
    assert (line.what, line.old, line.new, line.urgency) == ("agent", "1.0", "2.0", "waits")
    waits = "agent 2.0 waits out its cooldown until 2026-11-28 12:30 UTC"
    assert versions(catalog, DAY) == ("1.0", (waits,))
    assert versions(catalog, COOLDOWN + HOUR) == ("2.0", ())


def test_a_package_that_closes_a_grave_hole_does_not_wait(outside: tuple[Catalog, Archive]) -> None:
    """By the advisories and CISA's list."""
    catalog, _ = outside
    catalog.tell({"agent-source": {CVE: entry("2.0")}}, [CVE])
    assert versions(catalog, HOUR) == ("2.0", ())


def test_a_date_that_no_key_signs_does_not_count(outside: tuple[Catalog, Archive]) -> None:
    """Of a source that apt trusts without a signature; a first sight counts."""
    catalog, extra = outside
    with extra.sources().open("a") as file:
        file.write("Trusted: yes\n")
    assert versions(catalog, DAY) == ("1.0", ("agent 2.0 waits out its cooldown until 2026-11-29 12:00 UTC",))


def test_a_package_that_has_only_to_wait_is_not_called_unknown(outside: tuple[Catalog, Archive]) -> None:
    """Whoever wants what was published just now is told until when."""
    catalog, extra = outside
    extra.add("newcomer")
    extra.publish(date="Wed, 25 Nov 2026 12:30:00 UTC")
    catalog.define("web", BOOTSTRAP, ["agent", "newcomer"])
    with pytest.raises(ContentError, match=r"newcomer 1\.0 waits out its cooldown until 2026-11-28 12:30"):
        versions(catalog, HOUR)
    assert versions(catalog, COOLDOWN + HOUR) == ("2.0", ())


def test_a_clock_that_is_moved_for_a_look_keeps_nothing(
    outside: tuple[Catalog, Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen on a day that somebody only rehearses is not seen."""
    catalog, _ = outside
    monkeypatch.setenv("GOLDSMITH_NOW", "2026-12-25T12:00Z")
    assert versions(catalog, 30 * DAY) == ("2.0", ())
    (source,) = {one.source for one in catalog.context().index.offers(Bootstrap(family="debian", suite="trixie"))}
    of_its_index = f"{source} trixie {catalog.settings.platform}"
    assert catalog.context().ledger.sights(SOURCE, of_its_index).looked == NOW


def with_agent(folder: Path) -> tuple[Archive, Archive, Catalog]:
    """The distribution's archive, an extra one that has `agent`, and an image with it that is built."""
    own, extra = distribution(folder), Archive(folder / "extra")
    extra.add("agent")
    extra.publish(date="Wed, 25 Nov 2026 11:00:00 UTC")
    catalog = Catalog(folder / "catalog", own, extra)
    catalog.define("web", BOOTSTRAP, ["agent"])
    catalog.settle()
    return own, extra, catalog


def test_what_the_archive_has_too_does_not_wait(tmp_path: Path) -> None:
    """Nobody outside can keep a fix of the distribution's away by offering the same version."""
    own, extra, catalog = with_agent(tmp_path)
    for each, date in ((extra, "Wed, 25 Nov 2026 12:30:00 UTC"), (own, "Thu, 26 Nov 2026 00:00:00 UTC")):
        each.add("apt", "2.0", control="Depends: base-files")
        each.publish(date=date)
    planner = Planner(catalog.context(NOW + HOUR))
    planner.refresh(["web"])
    (plan,) = planner.plan_all(["web"])
    assert {one.version for one in plan.packages if one.name == "apt"} == {"2.0"}


def test_what_the_archive_has_itself_is_not_fixed_from_outside(tmp_path: Path) -> None:
    """Whatever version an extra source claims."""
    _, extra, catalog = with_agent(tmp_path)
    catalog.tell({"apt-source": {CVE: entry("2.0")}}, [CVE])
    extra.add("apt", "9999", control="Depends: base-files")
    extra.publish(date="Wed, 25 Nov 2026 12:30:00 UTC")
    planner = Planner(catalog.context(NOW + HOUR))
    planner.refresh(["web"])
    (plan,) = planner.plan_all(["web"])
    assert {one.version for one in plan.packages if one.name == "apt"} == {"1.0"}


# -- an image that others made -----------------------------------------------------------------------------------------

FOREIGN = """\
Package: base-files
Essential: yes
Status: install ok installed
Source: base-files-source
Version: 1.0
Architecture: all

Package: apt
Status: hold ok installed
Source: apt-source
Version: 0.9
Architecture: all
Depends: base-files"""


def test_an_image_of_others_is_asked_by_its_reference(tmp_path: Path, registry: str, archive: Archive) -> None:
    """Its packages by its own dpkg status, its holes, and the end of its distribution; nothing of it is built."""
    catalog = Catalog(tmp_path / "catalog", archive)
    catalog.tell({"apt-source": {CVE: entry("1.0", "high")}}, [])
    reference = f"{registry}/team/app:1"
    publish(tmp_path / "app", reference, debian() | {"var/lib/dpkg/status": FOREIGN})
    found, errors = what_is_outdated(reference, catalog.context())
    (line,) = found.lines
    assert (found.images, errors, found.unasked) == ((reference,), [], ())
    assert (line.what, line.old, line.new, line.fixes, line.urgency) == ("apt", "0.9", "1.0", (CVE,), "high")
    assert "held back" in line.reason
    catalog.tell({"apt-source": {CVE: entry("2.0", "high")}}, [])
    late, _ = what_is_outdated(reference, catalog.context(NOW + 1400 * DAY))
    assert [one.urgency for one in late.lines if one.kind == "end-of-life"] == ["critical"]
    assert {one.kind for one in late.lines} == {"package", "vulnerability", "end-of-life"}
    assert {one.todo for one in (*found.lines, *late.lines)} == {"ask the maker of the image"}, "it is not ours to mend"


def test_a_base_that_has_moved_is_found_by_the_annotations(tmp_path: Path, registry: str, archive: Archive) -> None:
    """Those that tools such as BuildKit write: the base's name, and its digest then."""
    base, reference = f"{registry}/team/base:1", f"{registry}/team/on-it:1"
    named = {f"org.opencontainers.image.base.{key}": said for key, said in (("name", base), ("digest", DIGEST))}
    now = publish(tmp_path / "base", base, debian())
    files = debian() | {"var/lib/dpkg/status": STATUS.replace("2.41-12", "2.41-13")}
    publish(tmp_path / "on-it", reference, files, annotations=named)
    found, _ = what_is_outdated(reference, Catalog(tmp_path / "catalog", archive).context())
    assert [(one.kind, one.what, one.old, one.new) for one in found.lines] == [("parent", base, DIGEST, now)]


def test_an_image_of_another_distribution_is_not_called_fresh(
    tmp_path: Path, registry: str, archive: Archive, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its packages are none that our index knows."""
    reference = f"{registry}/team/alien:1"
    publish(tmp_path / "app", reference, {"usr/lib/os-release": "ID=alien\n"})
    found, errors = what_is_outdated(reference, Catalog(tmp_path / "catalog", archive).context())
    assert [line.what for line in found.unasked] == [f"the packages of {reference}"]
    assert show_outdated(found, errors, as_json=False) == 4
    assert "nothing newer is known" in capsys.readouterr().out


def test_a_new_pin_stands_in_the_root_of_the_definition_that_needs_it(tmp_path: Path) -> None:
    """The checkout's lock file is somebody else's; the checkout's own definitions are pinned there."""
    ours, theirs = tmp_path / "checkout", tmp_path / "theirs"
    text = 'title = "t"\nowner = "o"\nkind = "container"\nprofile = "p"\nbase = {{ image = "{}" }}\n'
    definition(ours, "one", text.format("r.example.com/both:1"))
    definition(theirs, "two", text.format("r.example.com/both:1"))
    definition(theirs, "three", text.format("r.example.com/theirs:1"))
    settings = Settings(state=tmp_path / "state").over((ours, theirs))
    context = Context(settings, NOW, str, str)
    assert locking._root_for(context, "r.example.com/theirs:1") == theirs
    assert locking._root_for(context, "r.example.com/both:1") == ours
    assert locking._root_for(context, "r.example.com/nobody:1") is None
    judged = Settings(state=tmp_path / "state", content=(theirs, ours), judging=Judging(roots=(ours,)))
    assert locking._root_for(Context(judged, NOW, str, str), "r.example.com/both:1") == ours, "the one that may judge"
