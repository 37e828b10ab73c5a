"""The build of machine images: reproducible, in layers that nobody changes, refused where the booted machine fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from hardening.catalog import load_policy
from hardening.findings import CheckResult, Outcome
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.foundation.hashing import digest
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from hardening.gate import explain, judge_image
from hardening.model import Kind
from images.boot import Level, flow
from images.build import BuildJob, Built, build, machine
from images.build.flow import BuildOutcome, _Builder
from images.build.workspace import sweep
from images.feeds import debsecan_format
from images.machine import trees
from images.machine.disk import digests_of
from images.machine.trees import private_mounts
from images.plan.build_plan import Action
from images.plan.planner import Planner
from images.scan import SCANNERS
from images.scan.base import ScanTarget
from images.scan.flow import scan
from images.scan.verify import verify
from images.store.files import file_digest
from pipelines.cli.export import export_image
from tests.images.build.test_build_flow import TOMORROW
from tests.support.loop import Goldsmith, definition, kill_when, processes, until
from tests.support.machines import check
from tests.support.servers import NO_ENGINE, Exported, Workshop, fingerprint, left_by_build

NEEDS = ("root", "mirror", "mmdebstrap", "systemd-repart", "ukify", "qemu-system-x86_64", "qemu-img")
pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]

HEAD = 'title = "Of a test"\nowner = "tests"\nkind = "machine"\nprofile = "cis-level1"\npolicy = "machine"\n'
CHILD = f'{HEAD}base = {{ golden = "debian-server" }}\n'
OTHER_GROUP = '[profile_params.sshd-access]\ngroups = ["of-a-test"]\n'
FAULTY = """
title = "An agent that a company wants everywhere"
severity = "low"
applies_to = ["machine"]
owner = "tests"
rationale = "So that there is a machine with faults."
cost = "All of the hardening."

[references]
nist-sp-800-53 = ["CM-7"]
"""
PLANT = r"""
set -eu
cd "$ROOT"
hash=$(printf '%s' toor | openssl passwd -6 -stdin)
sed -i "s|^root:[^:]*:|root:$hash:|" etc/shadow
sed -i 's/^[Pp]ermit[Rr]oot[Ll]ogin .*/PermitRootLogin yes/' etc/ssh/sshd_config
sed -i '/hook input/s/policy drop/policy accept/' etc/nftables.conf
cd etc/systemd/system
printf '[Service]\nType=oneshot\nExecStart=/bin/sh -c "echo words; exit 3"\n' >planted.service
printf '[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=300\n' >looping.service
printf '[Socket]\nListenStream=0.0.0.0:8080\nAccept=yes\n' >open.socket
printf '[Service]\nExecStart=/bin/cat\nStandardInput=socket\n' >open@.service
mkdir -p multi-user.target.d
printf '[Unit]\nWants=planted.service looping.service open.socket\n' >multi-user.target.d/planted.conf
"""
COMPANY = """
title = "Of a company"
owner = "tests"
extends = "cis-level2"
controls = [{ control = "planted" }]
"""
SCRIPT = """
import sys
from pathlib import Path
from datetime import datetime
from tests.support.loop import Goldsmith
from tests.support.servers import NO_ENGINE, Workshop
print(datetime.now().date(), Workshop(Goldsmith(Path(sys.argv[1]), NO_ENGINE)).build("debian-server").digest)
"""


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
    assert any("in the booted machine: pass" in check.evidence for check in checks.values())
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
    assert ("login:" in log, log.count("Linux version"), "efi: EFI" in log) == (True, 3, True)
    assert left_by_build(server) == []


@pytest.mark.needs("oscap")
def test_a_container_host_holds_the_benchmark_of_the_policy_for_machines(fork: Goldsmith) -> None:
    """Measured on its tree; it is booted once too, without firmware, for what Docker must not undo.

    Nobody is asked about its packages here, and that alone refuses it.
    """
    shop, name = Workshop(fork), "container-host"
    with shop.job(name) as job:
        built = build(job)
        target = ScanTarget(
            name, None, built.tree, packages=built.packages, kind=Kind.MACHINE, digest=built.digest,
            created=job.store.config(built.digest)["created"], benchmark="cis_level1_server",
        )  # fmt: skip
        result = scan(target, shop.context.settings, {"openscap": SCANNERS["openscap"]})
        checks = verify(
            job.definition, job.overlay, tree=built.tree, digest=built.digest, store=job.store,
            work=job.work, docker_host="", level=Level.QUICK,
        )  # fmt: skip
    verdict = judge_image(
        load_policy((ROOT,), "machine"), name, checks, result.reports, result.findings, (), datetime.now(UTC)
    )
    assert [reason.rule for reason in verdict.refusals] == ["judges"], explain(verdict.refusals)
    assert "explanation-stale" not in {reason.rule for reason in verdict.reasons}
    booted = {check.control for check in checks if "in the booted machine: pass" in check.evidence}
    assert booted >= {"container-daemon", "firewall", "sysctl-network"}
    console = (fork.state / "logs/container-host.console.log").read_text()
    assert "root=PARTUUID=" in console
    assert "efi: EFI" not in console, "a quick boot went through firmware"


def test_nothing_changed_builds_nothing(server: Goldsmith) -> None:
    """Also of a machine a build that is up to date costs a hash and a look."""
    answer = server("image.build", "debian-server", "--json")
    assert [line["action"] for line in answer.json] == ["unchanged"]


def test_a_machine_whose_disk_is_gone_is_built_again(fork: Goldsmith) -> None:
    """A manifest without its disk is no image."""
    [disk] = (fork.state / "disks").glob("*.raw")
    disk.unlink()
    [plan] = fork("image.plan", "debian-server", "--json").json
    assert (plan["action"], plan["why"]) == ("build", ["its content is no longer on this machine"])


@pytest.mark.needs("faketime")
def test_the_same_inputs_give_the_same_disk_on_any_day(server: Goldsmith, tmp_path: Path) -> None:
    """From empty caches, a day later: nothing of the clock, of this host or of the first build is in it."""
    empty = tmp_path / "state"
    empty.mkdir()
    (empty / "apt").symlink_to(server.state / "apt")
    argv = [*TOMORROW, sys.executable, "-c", SCRIPT, str(empty)]
    done = subprocess.run(argv, cwd=ROOT, env=server.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    day, digest = done.stdout.split()
    today = run(["date", "+%F"]).stdout.strip()
    assert day > today, "the clock was not moved"
    assert digest == content_of(server, "debian-server")


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
    (feed / "trixie").write_bytes(debsecan_format({"openssl": {"99.1-1": ["CVE-2099-0001"]}}))
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


PLANTED = {
    "root-locked": "root has a password",
    "sshd-no-root-login": "permitrootlogin is yes",
    "firewall": "chain input: policy is accept",
    "boot-failed-units": "failed planted.service",
    "boot-listening": "8080/tcp",
}
ASKS = check(
    "asks",
    '[ "$LIVE" = 0 ] && echo a tree || echo "LIVE=$LIVE ROOT=$ROOT $PARAM_A; $(systemctl is-active ssh)"',
    PARAM_A="two\nlines",
)
FAILS = check("fails", "echo 'LIVE: it is open'; exit $LIVE")
SILENT = check("silent", '[ "$LIVE" = 1 ] || echo a tree')
STATIC = check("static", "echo only of a tree")


def test_each_fault_that_is_planted_is_refused_by_its_control_and_nothing_of_it_is_kept(
    fork: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's own control undoes the hardening: each fault is told by control and evidence, what is good passes.

    One boot shows it all, of a machine at level 2 of the benchmark: as private clouds start it, from a qcow2, through
    firmware, until cloud-init has found its seed and ended. What it said on its console is kept as evidence too. Its
    first accelerator is none that QEMU has, which is not the image's fault.
    """
    monkeypatch.setattr(flow, "accelerators", lambda: ("none-such", "tcg"))
    root = definition(tmp_path / "content", "m-faulty", CHILD.replace("cis-level1", "of-a-company") + OTHER_GROUP)
    plant(root)
    before = layers(fork), fork.blobs(), sorted((fork.state / "disks").iterdir())
    shop = Workshop(fork, (root,))
    with shop.job("m-faulty") as job:
        built = build(job)
        disk = as_qcow2(job.store.disk(job.store.config(built.digest)["disk"]["linear"]))
        whole = file_digest(disk)
        asked = replace(job.overlay, checks=(*job.overlay.checks, ASKS, FAILS, SILENT, STATIC))
        checks = verify(
            job.definition, asked, tree=built.tree, digest=built.digest, store=job.store,
            work=job.work, docker_host="", level=Level.FULL, twice=False,
        )  # fmt: skip
        assert file_digest(disk) == whole
        outcome = record(shop, job, built, checks)
    said = {check.control: check for check in checks}
    console = (fork.state / "logs/m-faulty.console.log").read_text()
    good = dict.fromkeys(("asks", "sshd-access", "boot-completed", "boot-cloud-init"), Outcome.PASS)
    assert {name: said[name].outcome for name in good} == good, console[-3000:]
    assert "in the booted machine: pass: LIVE=1 ROOT=/ two\nlines; active" in said["asks"].evidence
    assert "groups that may log in: of-a-test" in said["sshd-access"].evidence
    assert "NoCloud" in said["boot-cloud-init"].evidence
    assert (said["fails"].outcome, said["silent"].outcome) == (Outcome.FAIL, Outcome.ERROR)
    assert "in the booted machine: fail: LIVE: it is open" in said["fails"].evidence
    assert "said nothing" in said["silent"].evidence
    assert said["static"].evidence == "only of a tree"
    units = said["boot-failed-units"].evidence.splitlines()
    assert [unit for unit in units if unit.startswith("failed")] == [
        "failed looping.service auto-restart", "failed planted.service failed",
    ]  # fmt: skip
    assert "log words" in units
    assert "efi: EFI" in console
    assert "planted" in console
    assert (outcome.action, type(outcome.error)) == (Action.REFUSED, RefusedError)
    told = {reason.partition(":")[0]: reason for reason in outcome.reasons}
    assert told.keys() >= PLANTED.keys(), outcome.reasons
    assert {control: words in told[control] for control, words in PLANTED.items()} == dict.fromkeys(PLANTED, True), told
    assert (layers(fork), fork.blobs(), sorted((fork.state / "disks").iterdir())) == before
    assert fork.leftovers() == []


def as_qcow2(disk: Path) -> Path:
    """The raw `disk` as a qcow2 in its place."""
    made = disk.with_suffix(".qcow2")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(made)])
    return made.replace(disk)


def plant(root: Path) -> None:
    """A control that plants faults, and a profile that ends with it."""
    control = root / "hardening/controls/planted"
    profiles = root / "hardening/profiles"
    for folder in (control, profiles):
        folder.mkdir(parents=True)
    (control / "control.toml").write_text(FAULTY)
    (control / "cases.toml").write_text("")
    (control / "apply.sh").write_text(PLANT)
    (control / "check.sh").write_text("echo there is nothing to ask for\n")
    (profiles / "of-a-company.toml").write_text(COMPANY)


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


def test_an_exported_disk_is_the_disk(server: Goldsmith, qcow2: Exported, tmp_path: Path) -> None:
    """Raw it is the same bytes, with its holes; from qcow2 the same bytes come back. Nothing else stays behind."""
    config = server.store.config(content_of(server, "debian-server"))
    kept = server.store.disk(config["disk"]["linear"])
    raw, back = tmp_path / "disk.raw", tmp_path / "back.raw"
    answer = server("image.export", "debian-server", "--output", str(raw), "--form", "raw", "--json")
    for file, told in ((raw, answer), (qcow2.file, qcow2.forced)):
        assert told.code == 0, told.err
        [line] = told.json
        assert (line["file"], line["size_bytes"]) == (str(file), file.stat().st_size)
        assert list(file.parent.iterdir()) == [file]
    assert digest(digests_of(raw)) == config["disk"]["linear"]
    assert raw.stat().st_blocks <= kept.stat().st_blocks
    raw.unlink()
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(qcow2.file), str(back)])
    assert digest(digests_of(back)) == config["disk"]["linear"]
    back.unlink()
    assert qcow2.file.stat().st_size < kept.stat().st_blocks * 512


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("debian-server", "--form", "vmdk", "--output", "x"), 1, "--form: no format is named vmdk"),
        (("debian-server", "--output", "/nonexistent/x.raw"), 1, "--output: /nonexistent/x.raw would stand"),
        (("debian-server", "--output", "/tmp"), 1, "--output: /tmp is a folder"),
        (("debian-server", "--output", "/dev/null", "--force"), 1, "--output: /dev/null is no file"),
        (("debian-base", "--output", "x"), 2, "kind: debian-base is a container, which has no disk"),
        (("debian-serve", "--output", "x"), 2, "did you mean debian-server"),
        (("bastion", "--output", "x"), 2, "bastion has not been built on this machine"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    server: Goldsmith, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Wrong words are the caller's, with what would be right."""
    answer = server.here("image.export", *arguments, "--json")
    assert answer.code == code
    assert said in " ".join(answer.err.split())


def test_an_export_writes_over_nothing_unless_it_is_told_to(server: Goldsmith, qcow2: Exported, tmp_path: Path) -> None:
    """Not over a file, and not over a link that leads nowhere; the hint names the flag. What is there stays whole."""
    link = tmp_path / "link.qcow2"
    link.symlink_to(tmp_path / "nowhere")
    answer = server("image.export", "debian-server", "--form", "qcow2", "--output", str(link), "--json")
    for file, refused in ((link, answer), (qcow2.file, qcow2.refused)):
        assert refused.code == 1, refused.err
        assert f"--output: {file} is there already hint: --force" in " ".join(refused.err.split())
    assert list(tmp_path.iterdir()) == [link]
    assert qcow2.untouched
    assert (qcow2.forced.code, qcow2.forced.json[0]["size_bytes"]) == (0, qcow2.file.stat().st_size)
    run(["qemu-img", "check", str(qcow2.file)])


def test_a_forced_export_that_fails_leaves_what_was_there(server: Goldsmith, tmp_path: Path) -> None:
    """It writes beside it and takes its place at the end, so that a full disk costs nobody the old one."""
    shop = Workshop(server)
    with private_mounts():
        run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(tmp_path)])
        for form in ("raw", "qcow2"):
            disk = tmp_path / f"disk.{form}"
            disk.write_text("the one before")
            with pytest.raises(OutsideError):
                export_image("debian-server", form, str(disk), force=True, context=shop.context)
            assert disk.read_text() == "the one before"
        assert {path.name for path in tmp_path.iterdir()} == {"disk.raw", "disk.qcow2"}


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
