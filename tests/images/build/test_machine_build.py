"""The build of machine images: reproducible, in layers that nobody changes, refused where the booted machine fails."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from hardening.findings import CheckResult, Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.process import run
from hardening.foundation.settings import Settings
from hardening.gate import explain
from images.build import BuildJob, Built, build, machine
from images.build.flow import BuildOutcome, _Builder
from images.build.workspace import sweep
from images.feeds import debsecan_format
from images.machine import trees
from images.machine.disk import digests_of
from images.machine.trees import private_mounts
from images.plan.build_plan import Action
from images.plan.planner import Planner
from tests.support.loop import Goldsmith, definition, kill_when, processes, until
from tests.support.scanning import LINUX
from tests.support.servers import NO_ENGINE, Workshop, fingerprint, left_by_build

NEEDS = ("root", "mirror", "mmdebstrap", "systemd-repart", "ukify", "qemu-system-x86_64", "qemu-img")
pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]

HEAD = 'title = "Of a test"\nowner = "tests"\nkind = "machine"\nprofile = "cis-level1"\npolicy = "machine"\n'
CHILD = f'{HEAD}base = {{ golden = "debian-server" }}\n'
OTHER_GROUP = '[profile_params.sshd-access]\ngroups = ["of-a-test"]\n'


PASSED_LIVE = re.compile("^in the booted machine( and on the tree)?: pass: ", re.MULTILINE)


@pytest.fixture
def fork(server: Goldsmith, tmp_path: Path) -> Goldsmith:
    """A state in which debian-server is built, to go its own way."""
    return server.fork(tmp_path / "state")


def content_of(house: Goldsmith, name: str) -> str:
    """The content digest of the newest artifact."""
    artifact = house.ledger.latest_artifact(name, "linux/amd64")
    assert artifact
    return artifact.digest


def layers(house: Goldsmith) -> set[str]:
    """The keys of all layers that a state holds."""
    return {path.name for path in (house.state / "trees").glob("*")}


def test_a_machine_is_kept_once_it_was_booted_scanned_and_judged(server: Goldsmith) -> None:
    """Checks of the running machine and the gate's verdict stand in the ledger; the disk is what its digest says."""
    content = content_of(server, "debian-server")
    checks = {check.control: check for check in server.ledger.checks(content)}
    for name in ("boot-completed", "boot-failed-units", "boot-listening", "boot-second"):
        assert checks[name].outcome is Outcome.PASS, checks[name].evidence
    kept = checks["boot-second"].evidence.partition("its own: ")[2].split(", ")
    assert {"/etc/ssh/ssh_host_ed25519_key.pub", "machine-id"} <= set(kept)
    assert any(PASSED_LIVE.search(check.evidence) for check in checks.values())
    scan = server.ledger.scan(content)
    assert scan
    assert {report.scanner for report in scan.reports} >= {"openscap", "trivy-disk", "debsecan"}
    config = server.store.config(content)
    disk = server.store.disk(config["disk"]["linear"])
    digests = digests_of(disk)
    assert digest(digests) == config["disk"]["linear"]
    assert server.store.blob(config["disk"]["linear"]).read_bytes() == digests
    assert disk.stat().st_size == config["disk"]["size_bytes"]
    assert config["listens"] == ["22/tcp"]
    assert {"root=LABEL=root", "panic=30"} <= set(config["command_line"].split())
    log = (server.state / "logs/debian-server.console.log").read_text()
    assert ("systemd[1]: " in log, log.count("Linux version"), log.count("efi: EFI v")) == (True, 3, 2)
    assert left_by_build(server) == []


def test_nothing_changed_builds_nothing(server: Goldsmith) -> None:
    """Also of a machine a build that is up to date costs a hash and a look."""
    answer = server("image.build", "debian-server", "--json")
    assert [line["action"] for line in answer.json] == ["unchanged"]


def test_a_machine_whose_disk_is_gone_is_built_again(fork: Goldsmith) -> None:
    """A manifest without its disk is no image."""
    [disk] = (fork.state / "disks").glob("*.raw")
    disk.unlink()
    [plan] = fork("image.plan", "debian-server", "--json").json
    assert (plan["action"], plan["why"]) == ("build", ["its content is not on this machine"])


def test_a_childs_package_is_a_layer_of_its_own_and_a_changed_control_changes_the_upper_layer_alone(
    fork: Goldsmith, tmp_path: Path
) -> None:
    """It is installed once, by apt of its parent's tree. What says more on top of that, a control's parameter or a word
    for the kernel, takes it as it is: nothing is installed again, and the layers below stay to the last byte.
    """
    before = layers(fork)
    text = CHILD.replace("base =", 'packages = ["tree"]\nbase =')
    root = definition(tmp_path / "content", "m-child", text)
    built = Workshop(fork, (root,)).build("m-child")
    _, packages = (key for key in trees.keys(fork.store, trees.key_of(built.digest)) if key not in before)
    assert (fork.state / "trees" / packages / "upper/usr/bin/tree").is_file()
    assert "tree" in {package.name for package in built.packages}
    assert not list((fork.state / "trees" / packages / "upper").rglob("policy-rc.d"))
    seen = {key: fingerprint(fork.state / "trees" / key) for key in layers(fork)}
    changed = f'{text}[machine]\ncommand_line = ["quiet"]\n{OTHER_GROUP}'
    (root / "images/definitions/m-child/image.toml").write_text(changed)
    again = Workshop(fork, (root,)).build("m-child")
    assert layers(fork) - seen.keys() == {trees.key_of(again.digest)}
    assert {key: fingerprint(fork.state / "trees" / key) for key in seen} == seen
    _, *below = trees.keys(fork.store, trees.key_of(built.digest))
    assert list(trees.keys(fork.store, trees.key_of(again.digest))[1:]) == below
    assert below == [packages, *trees.keys(fork.store, trees.key_of(content_of(fork, "debian-server")))]
    assert again.digest != built.digest
    upper = fork.state / "trees" / trees.key_of(again.digest) / "upper"
    assert "of-a-test" in (upper / "etc/ssh/sshd_config").read_text()
    assert not (upper / "usr/bin").exists()
    config, before_it = (fork.store.config(one.digest) for one in (again, built))
    assert config["command_line"] == before_it["command_line"].replace("panic=30", "panic=30 quiet")
    assert config["listens"] == ["22/tcp"]


def test_a_machine_that_nobody_here_can_judge_is_refused_before_it_is_built(server: Goldsmith, fork: Goldsmith) -> None:
    """Without a feed nothing would be evaluated, which is no pass; told in a second, not after minutes of boots."""
    answer = fork("image.build", "debian-server", "--no-cache", "--json")
    assert answer.code == 3, answer.err
    (line,) = answer.json
    assert (line["action"], line["digest"]) == ("refused", "")
    assert "nothing was evaluated" in answer.err
    assert "feeds.debsecan" in answer.err
    assert "building" not in answer.err


@pytest.mark.needs("oscap")
def test_a_vulnerable_package_alone_refuses_a_bastion_and_nothing_of_it_is_kept(
    fork: Goldsmith, tmp_path: Path
) -> None:
    """A feed in which every openssl of today has a hole: the gate names vulnerability, package and fix.

    The benchmark of the policy for machines it holds.
    """
    feed = tmp_path / "feed"
    feed.mkdir()
    (feed / "trixie").write_bytes(debsecan_format({**LINUX, "openssl": {"99.1-1": ["CVE-2099-0001"]}}))
    (feed / "metadata.json").write_text(f'{{"date": "{datetime.now(UTC):%Y-%m-%d}"}}')
    shop = Workshop(fork, (), {"debsecan": str(feed)})
    before = layers(fork), fork.blobs(), sorted((fork.state / "disks").iterdir())
    passed = fork.ledger.checks(content_of(fork, "debian-server"))
    assert passed
    with shop.job("bastion") as job:
        built = build(job)
        outcome = record(shop, job, built, tuple(passed))
    assert outcome.action is Action.REFUSED
    told = "\n".join(outcome.reasons)
    assert "openssl" in told
    assert "99.1-1" in told
    verdict, scanned = fork.ledger.verdict(built.digest), fork.ledger.scan(built.digest)
    assert verdict
    assert scanned
    assert {reason.rule for reason in verdict.refusals} == {"CVE-2099-0001"}, explain(verdict.refusals)
    assert "explanation-stale" not in {reason.rule for reason in verdict.reasons}
    [benchmark] = [report for report in scanned.reports if report.scanner == "openscap"]
    assert (benchmark.profile, benchmark.evaluated > 100) == ("cis_level1_server", True)
    assert fork.ledger.latest_artifact("bastion", "linux/amd64") is None
    assert (layers(fork), fork.blobs(), sorted((fork.state / "disks").iterdir())) == before


def record(shop: Workshop, job: BuildJob, built: Built, checks: tuple[CheckResult, ...]) -> BuildOutcome:
    """What the flow makes of a machine that was built and verified."""
    planner = Planner(shop.context)
    return _Builder(shop.context, planner)._record(planner.plan_all([job.name])[-1], job, built, checks)


@pytest.mark.parametrize(("program", "name"), [("dpkg", "debian-server"), ("mke2fs", "m-child"), ("ukify", "m-child")])
def test_a_build_that_is_killed_leaves_nothing(
    server: Goldsmith, fork: Goldsmith, tmp_path: Path, program: str, name: str
) -> None:
    """kill -9 while packages are installed or the disk is made: no process, no mount, no half layer, disk or image."""
    sample = server.state / "content"
    house = fork.with_(definition(tmp_path / "content", "m-child", CHILD), sample)
    if name == "debian-server":
        house = Goldsmith(tmp_path / "empty", NO_ENGINE).with_(sample)
        house.state.mkdir()
        (house.state / "apt").symlink_to(server.state / "apt")
    before = layers(house), house.blobs(), sorted((house.state / "disks").glob("*"))
    building = house.start("image.build", name, "--policy", "machine-sample")
    kill_when(building, lambda: processes(program, str(house.state / "work")), f"{program} at work")
    assert (layers(house), house.blobs(), sorted((house.state / "disks").glob("*"))) == before
    sweep(Settings(state=house.state), lambda: NO_ENGINE)
    until(lambda: house.leftovers() == [], f"the end of {program}")


@pytest.mark.parametrize(("foreseen", "said"), [(True, "is too full for m-child"), (False, "is full")])
def test_a_full_disk_is_told_and_leaves_nothing(
    fork: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool, said: str
) -> None:
    """Before anything is made, as far as that can be known; later it is one error, whichever tool meets it."""
    before = layers(fork)
    if not foreseen:
        monkeypatch.setattr(machine, "room_needed", lambda _job: 0)
    shop = Workshop(fork, (definition(tmp_path / "content", "m-child", CHILD),))
    with private_mounts():
        (fork.state / "work").mkdir(exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(fork.state / "work")])
        with pytest.raises(OutsideError, match=said) as caught, shop.job("m-child") as job:
            build(job)
    assert "image.prune" in caught.value.hint
    assert layers(fork) == before


def test_what_the_host_lacks_is_told_before_anything_is_fetched(server: Goldsmith, tmp_path: Path) -> None:
    """By the names of the tools, with the command that installs them."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dpkg", "apt-get", "apt-cache", "mount", "sh"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    house = replace(server.fork(tmp_path / "state"), settings={"PATH": str(tools)})
    answer = house("image.build", "debian-server", "--no-cache", "--json")
    assert answer.code == 4
    told = " ".join(answer.err.split())
    assert "this machine lacks systemd-repart, ukify, mcopy, which machine images need" in told
    assert "./goldsmith setup --machines" in told


def test_another_architecture_is_refused_at_once(server: Goldsmith, tmp_path: Path) -> None:
    """A definition says what it is made for."""
    answer = server.fork(tmp_path / "state").with_(platform="linux/arm64")("image.build", "debian-server", "--json")
    assert answer.code == 4
    assert "linux/arm64" in answer.err


def test_mounts_of_a_build_are_seen_by_nobody_else(tmp_path: Path) -> None:
    """They end with the block, the folder one stands in stays, and a second namespace within a first is its own."""
    place, here = tmp_path / "place", Path.cwd()
    place.mkdir()
    with private_mounts():
        run(["mount", "-t", "tmpfs", "none", str(place)])
        (place / "inner").touch()
        with private_mounts():
            run(["umount", str(place)])
            assert list(place.iterdir()) == []
        assert [path.name for path in place.iterdir()] == ["inner"]
        assert str(place) not in Path("/proc/1/mounts").read_text()
    assert list(place.iterdir()) == []
    assert Path.cwd() == here


def test_a_thread_that_outlives_the_mounts_does_not_keep_us_in_them(tmp_path: Path) -> None:
    """Threads share root and folder with the one that started them, until a moment after they are joined."""
    place, done = tmp_path / "place", Event()
    place.mkdir()
    thread = Thread(target=done.wait, daemon=True)
    with private_mounts():
        run(["mount", "-t", "tmpfs", "none", str(place)])
        thread.start()
    try:
        place.rmdir()
    finally:
        done.set()
        thread.join()
