"""`all` and globs mean what this machine is for and can build; a name always means itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from invoke import Context as Invoked
from invoke import Exit

import tasks
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import Feeds, Settings
from images.context import Context
from images.scan.judge import NotBuiltError
from pipelines.cli import export, image, reproduction, rollout, scanning, signing
from pipelines.cli.check_output import MemberLine, member_lines
from pipelines.cli.image import judgeable, means_several, named, one_of, publishable, subjects
from pipelines.cli.rollout import check_fleets, scan_fleets, show_fleets
from pipelines.cli.scanning import Scan, scan_images, show_scans
from pipelines.fleet.violations import Judged
from tests.support.fleets import judged
from tests.support.scanning import NO_FEEDS

MACHINES = {"bastion", "container-host", "debian-server"}


def context(folder: Path, *kinds: str) -> Context:
    """The shipped catalog on a machine that is for `kinds`."""
    settings = Settings.model_validate({"state": folder, "kinds": kinds} if kinds else {"state": folder})
    return Context(settings, datetime(2026, 6, 1, tzinfo=UTC), str, str)


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has what machine images need."""
    monkeypatch.setattr(image, "lacking_for_machines", lambda: "")


def test_all_is_everything_where_machines_can_be_built(tmp_path: Path) -> None:
    """Nothing has to be switched on."""
    assert {"debian-base", *MACHINES} <= set(named(context(tmp_path), "all"))


def test_all_leaves_machines_out_where_they_cannot_be_built_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever builds containers needs no QEMU for that, and learns what the rest would need."""
    monkeypatch.setattr(image, "lacking_for_machines", lambda: "ukify")
    assert "debian-base" in (found := named(context(tmp_path), "all"))
    assert not MACHINES.intersection(found)
    said = " ".join(capsys.readouterr().err.split())
    assert "left out: bastion, container-host, debian-server; this machine lacks ukify" in said
    assert "setup --machines" in said


def test_machines_that_nobody_has_the_data_to_judge_wait_for_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All else is built. Asked for alone they are refused, with every reason; by a trial's policy they are built."""
    bare = context(tmp_path)
    bare = replace(bare, settings=bare.settings.model_copy(update={"feeds": Feeds.model_validate(NO_FEEDS)}))
    assert judgeable(bare, ["debian-base", *MACHINES]) == ["debian-base"]
    [said] = capsys.readouterr().err.strip().splitlines()
    assert said.startswith("left out: ")
    assert "wait for data to judge them by (debsecan: judged by the sample of 2026-11-01, which this policy" in said
    assert "--policy demo" in said
    assert judgeable(bare, sorted(MACHINES)) == sorted(MACHINES)
    assert judgeable(replace(bare, policy="demo"), ["debian-base", *MACHINES]) == ["debian-base", *MACHINES]
    assert capsys.readouterr().err == ""


def test_a_name_means_itself_whatever_the_machine_is_for(tmp_path: Path) -> None:
    """Its build then says what is missing, which is better than that there is no such image."""
    assert named(context(tmp_path, "container"), "bastion") == ["bastion"]


def test_the_settings_say_what_a_machine_is_for(tmp_path: Path) -> None:
    """One builds containers every night, another one machines."""
    assert not MACHINES.intersection(named(context(tmp_path, "container"), "all"))
    assert set(named(context(tmp_path, "machine"), "all")) == MACHINES


def test_a_glob_that_means_nothing_else_is_an_error(tmp_path: Path) -> None:
    """Nothing done is no success."""
    with pytest.raises(ContentError, match=r"bastio\? means only images that are left out here: bastion"):
        named(context(tmp_path, "container"), "bastio?")


def test_machines_are_published_where_aws_is_set_and_else_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A night of containers needs no AWS and says what it leaves out; a name means itself."""
    assert not MACHINES.intersection(publishable(context(tmp_path), "all"))
    assert "aws.region is not set" in " ".join(capsys.readouterr().err.split())
    assert publishable(context(tmp_path), "bastion") == ["bastion"]
    with pytest.raises(ContentError, match=r"aws\.region"):
        publishable(context(tmp_path, "machine"), "all")
    settings = Settings.model_validate({"state": tmp_path, "aws": {"region": "eu-west-1"}})
    assert set(publishable(replace(context(tmp_path), settings=settings), "all")) >= MACHINES


def test_several_names_mean_each_of_them_once_in_their_order(tmp_path: Path) -> None:
    """Machines among them mean themselves, also where none can be published; a wrong one names the nearest."""
    assert named(context(tmp_path, "container"), "bastion debian-base bast*") == ["bastion", "debian-base"]
    assert publishable(context(tmp_path), "debian-base bastion") == ["debian-base", "bastion"]
    with pytest.raises(ContentError, match="no image is named debian-bse") as caught:
        named(context(tmp_path), "debian-static debian-bse")
    assert "did you mean debian-base" in caught.value.hint
    assert subjects(context(tmp_path), "debian-s* example.com/web:1 debian-static") == [
        "debian-server", "debian-static", "example.com/web:1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "several"),
    [
        ("all", True),
        ("a b", True),
        ("debian-*", True),
        ("debian-bas?", True),
        ("debian-base", False),
        ("[::1]:5000/x:1", False),
    ],
)
def test_a_glob_means_several_and_a_reference_one(argument: str, *, several: bool) -> None:
    """An address of IPv6 is no glob."""
    assert means_several(argument) is several


def test_what_acts_on_one_image_refuses_a_glob_that_means_several(tmp_path: Path) -> None:
    """The first one would be rolled back, and nobody asked for that one."""
    assert one_of(context(tmp_path), "debian-bas*") == "debian-base"
    with pytest.raises(ContentError, match="debian-\\* means 3 images: debian-base, debian-server, debian-static"):
        one_of(context(tmp_path), "debian-*")


ON_ONE: dict[str, Callable[[str], object]] = {
    "image.show": image.show_release,
    "image.revoke": lambda ref: image.revoke_release(ref, "leaked"),
    "image.verify-trust": lambda ref: signing.verify_trust(ref, ""),
    "image.reproduce": lambda ref: reproduction.reproduce_image(ref, ""),
    "image.boot": lambda ref: export.boot_image(ref, quick=False, full=False),
    "image.export": lambda ref: export.export_image(ref, "raw", "disk"),
}


@pytest.mark.parametrize("command", ON_ONE)
def test_what_takes_one_reference_names_the_images_of_a_glob(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No repository has such a name, and the first of them is not what the reader asked for."""
    for module in (image, signing, reproduction, export):
        monkeypatch.setattr(module, "image_context", lambda **_: context(tmp_path))
    said = "debian-\\* means 3 images: debian-base, debian-server, debian-static"
    with pytest.raises(ContentError, match=said) as caught:
        ON_ONE[command]("debian-*")
    assert (caught.value.hint, caught.value.exit_code) == ("name one of them", 2)


def test_of_several_images_one_that_cannot_be_scanned_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says why; as JSON it is a list, however many there are."""
    monkeypatch.setattr(scanning, "image_context", lambda policy: context(tmp_path, "container"))
    found = scan_images("debian-*")
    assert [str(error).partition(" on ")[0] for error in found[1]] == [
        "debian-base has not been built", "debian-static has not been built",
    ]  # fmt: skip
    assert show_scans("debian-*", found, form="json") == 2
    assert capsys.readouterr().out == "[]\n"
    with pytest.raises(ContentError, match="debian-base has not been built"):
        scan_images("debian-base")


def test_all_means_what_was_built_wherever_anything_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page recommends it, also where many definitions were never built; another failure stays one."""
    monkeypatch.setattr(scanning, "image_context", lambda policy: context(tmp_path, "container"))
    assert {type(error) for error in scan_images("all")[1]} == {NotBuiltError}, "nothing was built"
    real = scanning._scan

    def scan(context: Context, name: str) -> Scan:
        if name == "nginx-unprivileged":
            raise OutsideError("the disk is full")
        return cast(Scan, name) if name == "debian-base" else real(context, name)

    monkeypatch.setattr(scanning, "_scan", scan)
    scans, errors = scan_images("all")
    assert (scans, [str(error) for error in errors]) == (["debian-base"], ["the disk is full"])
    said = capsys.readouterr().err
    assert said.startswith("left out: debian-static, ")
    assert said.endswith("not built on this machine (./goldsmith image.build all)\n")


FLEET = (
    'title = "t"\nowner = "o"\nkind = "docker"\nselector = { app = "NAME" }\nreplacement = { tag = "r.example/x:1" }\n'
)


def with_fleets(folder: Path) -> Context:
    """A content root with three fleets."""
    (folder / "pipelines/fleets").mkdir(parents=True)
    for name in ("shop-a", "shop-b", "bank"):
        (folder / f"pipelines/fleets/{name}.toml").write_text(FLEET.replace("NAME", name))
    given = {"state": folder / "state", "content": [folder], "judging": {"roots": [folder]}}
    return replace(context(folder), settings=Settings.model_validate(given))


def test_fleets_are_checked_by_glob_and_by_another_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that cannot be read stops no other, and its exit code counts."""
    ours = with_fleets(tmp_path)
    asked = dict[str, str]()

    def one(fleet: str, by: Context) -> list[MemberLine]:
        asked[fleet] = by.policy_named("default").name
        if fleet == "shop-b":
            raise OutsideError("its engine does not answer")
        return member_lines([judged("web-1")])

    monkeypatch.setattr(rollout, "check_fleet", one)
    found = check_fleets("shop-*", "demo", context=ours)
    assert asked == {"shop-a": "demo", "shop-b": "demo"}
    assert {fleet: [line.fleet for line in lines] for fleet, lines in found[0].items()} == {"shop-a": ["shop-a"]}
    assert show_fleets(found, as_json=False) == 4
    said = capsys.readouterr()
    assert said.out.startswith("shop-a ─")
    assert "1 member(s) within policy" in said.out
    assert said.err.startswith("shop-b: its engine does not answer")
    assert show_fleets(check_fleets("bank", context=ours), as_json=True) == 0
    assert asked["bank"] == "default"


def test_a_fleet_that_cannot_be_scanned_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are listed, the error names the fleet, and its exit code counts."""
    ours = with_fleets(tmp_path)

    def one(at: str) -> list[Judged]:
        if at == "bank":
            raise OutsideError("its registry does not answer")
        return [judged("web-1")]

    monkeypatch.setattr(rollout, "fleet_session", lambda fleet, _context: nullcontext(fleet))
    monkeypatch.setattr(rollout, "check", one)
    monkeypatch.setattr(rollout, "image_context", lambda **_: ours)
    lines, errors = scan_fleets("all", ours)
    assert [line.fleet for line in lines] == ["shop-a", "shop-b"]
    assert [str(error) for error in errors] == ["bank: its registry does not answer"]
    with pytest.raises(Exit) as left:
        tasks.fleet_scan(Invoked(), "all")
    assert left.value.code == 4
    said = capsys.readouterr()
    assert "shop-b" in said.out
    assert said.err == "bank: its registry does not answer\n"
