"""The second builder: an mkosi configuration becomes a machine that is hardened, booted and judged like any other."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from hardening.check import run_checks
from hardening.findings import ImageFacts, Outcome
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import Judging, Settings
from images.artifact import Artifact
from images.build import build, mkosi
from images.machine import trees
from images.plan.build_plan import changes_between
from images.plan.planner import Planner
from pipelines.lint import content_problems
from tests.support.building import definition as parsed
from tests.support.loop import Goldsmith, definition
from tests.support.servers import NO_ENGINE, Workshop

BOOTSTRAP = 'base = { bootstrap = { family = "debian", suite = "trixie" } }\n'
HEAD = 'title = "Of a test"\nowner = "tests"\nkind = "machine"\nprofile = "m-small"\npolicy = "demo"\n'
TEXT = f"""{HEAD}{BOOTSTRAP}
files = [{{ source = "greeting", path = "/etc/greeting" }}]

[machine]
builder = "mkosi"
command_line = ["panic=30"]
"""
CONFIGURATION = """
[Content]
Packages=
    dbus
    e2fsprogs
    initramfs-tools
    iproute2
    kmod
    linux-image-cloud-amd64
    login
    passwd
    systemd
    systemd-sysv
    udev
    zstd
"""
CONTROLS = ("root-locked", "no-documentation", "no-swap")
PROFILE = f"""title = "T"
owner = "tests"
controls = [{", ".join(f'{{ control = "{name}" }}' for name in CONTROLS)}]
"""


def content(folder: Path, text: str = TEXT, **files: str) -> Path:
    """A content root with the machine `m-mkosi` and its profile."""
    root = definition(folder, "m-mkosi", text, greeting="hello\n", **files)
    profiles = root / "hardening/profiles"
    profiles.mkdir(parents=True)
    (profiles / "m-small.toml").write_text(PROFILE)
    return root


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mkosi", "systemd-repart", "ukify", "qemu-system-x86_64", "qemu-img")
def test_an_mkosi_configuration_becomes_a_machine_that_is_booted_and_judged(tmp_path: Path) -> None:
    """What mkosi installs, setuid and sticky bits too, with our files, controls and kernel parameters on top.

    `image.boot --quick --control` boots it: built as it stands now, asked for that one control, and kept nowhere.
    """
    root = content(tmp_path / "content", **{"mkosi.conf": CONFIGURATION})
    house = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root)
    with Workshop(house, (root,)).job("m-mkosi") as job:
        built = build(job)
        assert {"systemd", "linux-image-cloud-amd64"} <= {package.name for package in built.packages}
        results = run_checks(job.overlay, built.tree, ImageFacts())
        assert {check.control: check.outcome for check in results} == dict.fromkeys(CONTROLS, Outcome.PASS), results
        assert "panic=30" in job.store.config(built.digest)["command_line"]

        own, packages = trees.stack(job.store, trees.key_of(built.digest))
        assert (own / "etc/greeting").read_text() == "hello\n"
        modes = {name: (packages / name).stat().st_mode & 0o7777 for name in ("usr/bin/su", "usr/bin/mount", "tmp")}
        assert modes == {"usr/bin/su": 0o4755, "usr/bin/mount": 0o4755, "tmp": 0o1777}
        assert (packages / "etc/machine-id").read_text() == ""
        # mkosi unpacks essential packages by itself, without dpkg; a control takes their manuals out later.
        assert not (packages / "usr/share/man/man1/systemctl.1.gz").exists(), (
            "dpkg was not told what controls leave out"
        )
    before = sorted((house.state / "trees").iterdir())
    answer = house("image.boot", "m-mkosi", "--quick", "--control", "no-swap", "--json")
    assert answer.code == 0, answer.err
    checks = {check["control"]: check for check in answer.json[0]["checks"]}
    assert {name: check["outcome"] for name, check in checks.items()} == dict.fromkeys(
        ("no-swap", "boot-completed", "boot-failed-units", "boot-listening"), "pass"
    ), checks
    assert "in the booted machine and on the tree: pass: swap: none" in checks["no-swap"]["evidence"]
    assert "building for this boot alone" in answer.err
    assert answer.json[0]["digest"] == built.digest
    assert (sorted((house.state / "trees").iterdir()), house.blobs(), [*house.state.glob("disks/*")]) == (
        before, set(), [],
    )  # fmt: skip
    assert house.ledger.latest_artifact("m-mkosi", "linux/amd64") is None
    assert house.leftovers() == []
    assert house("image.boot", "m-mkosi", "--control", "no-swa").err.count("did you mean no-swap") == 1


@pytest.mark.needs("mirror", "mkosi")
def test_a_machine_of_mkosi_is_planned_again_when_the_archive_has_moved(tmp_path: Path) -> None:
    """No plan knows which packages mkosi takes, so that it counts which state of the archive there was."""
    shop = Workshop(
        Goldsmith(tmp_path / "state", NO_ENGINE), (content(tmp_path / "content", **{"mkosi.conf": CONFIGURATION}),)
    )
    first, again = (Planner(shop.context).plan_all(["m-mkosi"])[-1] for _ in range(2))
    assert (first.input_digest, first.inputs) == (again.input_digest, again.inputs)
    now = datetime.now(UTC)
    kept = Artifact("m-mkosi", "linux/amd64", first.input_digest, "sha256:0", first.inputs, (), now, now, 1)
    assert first.inputs["archive"].startswith("sha256:")
    moved = {**first.inputs, "archive": "sha256:of tomorrow"}
    assert list(map(str, changes_between(kept, moved, ()))) == ["archive changed"]


@pytest.mark.parametrize("also", ["packages", "base.golden"])
def test_what_mkosi_installs_is_said_in_one_place(also: str) -> None:
    """Packages of image.toml would be silently ignored, and so would a golden base."""
    text = f'packages = ["nginx"]\n{BOOTSTRAP}' if also == "packages" else 'base = { golden = "debian-server" }\n'
    with pytest.raises(ContentError, match=f"machine: {also} does not go with builder = .mkosi"):
        parsed(f'{text}machine = {{ builder = "mkosi" }}', kind="machine")


@pytest.mark.parametrize(
    ("text", "files", "told"),
    [
        (TEXT, {}, "m-mkosi/mkosi.conf: no such file"),
        (TEXT.replace('builder = "mkosi"', ""), {"mkosi.conf": CONFIGURATION}, "m-mkosi/mkosi.conf: unused"),
    ],
)
def test_a_configuration_without_a_builder_is_refused_and_a_builder_without_one(
    tmp_path: Path, text: str, files: dict[str, str], told: str
) -> None:
    """Before anything is fetched or made, and naming the file."""
    root = content(tmp_path / "content", text, **files)
    answer = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root)("image.build", "m-mkosi", "--json")
    assert answer.code == 2
    assert told in answer.err


def test_a_root_that_may_not_judge_builds_nothing_by_mkosi(tmp_path: Path) -> None:
    """An mkosi.conf reads any file of this host as root, and its scripts have the network; lint refuses it too."""
    root = content(tmp_path / "content", **{"mkosi.conf": CONFIGURATION})
    answer = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root, judging__roots="[]")("image.plan", "m-mkosi")
    assert answer.code == 2
    message = "m-mkosi/image.toml: machine.builder: mkosi.conf runs as root, with network, and the settings do not let"
    assert message in answer.err
    assert f'[judging] roots = ["{root}"]' in answer.err
    settings = Settings(content=(root,))
    [problem] = content_problems(settings.roots, date(2026, 12, 2), settings)
    assert message in str(problem)
    settings = Settings(content=(root,), judging=Judging(roots=(root,)))
    assert content_problems(settings.roots, date(2026, 12, 2), settings) == ()


@pytest.mark.parametrize("link", ["mkosi.skeleton", "mkosi.extra/etc/key", "mkosi.images/more", "mkosi.sandbox/etc"])
def test_no_link_gives_mkosi_files_of_this_host(link: str, tmp_path: Path) -> None:
    """It copies where links lead; refused in roots that may judge too, by lint and before a build begins."""
    (secret := tmp_path / "secret").mkdir()
    root = content(tmp_path / "content", **{"mkosi.conf": CONFIGURATION})
    place = root / "images/definitions/m-mkosi" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(secret, place.parent))
    message = f"{place}: a link out of the definition's folder, to {place.readlink()}"
    settings = Settings(content=(root,), judging=Judging(roots=(root,)))
    [problem] = content_problems(settings.roots, date(2026, 12, 2), settings)
    assert message in str(problem)
    answer = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root)("image.build", "m-mkosi", "--json")
    assert answer.code == 2
    assert message in answer.err


def test_nothing_stands_on_what_mkosi_made(tmp_path: Path) -> None:
    """What a child would bring depends on packages that no plan knows."""
    root = content(tmp_path / "content", **{"mkosi.conf": CONFIGURATION})
    definition(root, "m-child", HEAD + 'base = { golden = "m-mkosi" }\n')
    answer = Goldsmith(tmp_path / "state", NO_ENGINE).with_(root)("image.build", "m-child", "--json")
    assert answer.code == 2
    assert "base.golden: mkosi builds m-mkosi" in answer.err


def test_a_host_without_mkosi_is_told_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine is to be built by it; no other machine asks for it."""
    monkeypatch.setattr(mkosi, "which", lambda _: None)
    with pytest.raises(OutsideError, match="lacks mkosi") as error:
        mkosi.require_mkosi()
    assert error.value.hint == "apt-get install mkosi"
