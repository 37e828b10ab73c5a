"""The boot gate's decisions: what goes into a machine, what comes back, and what that means."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.findings import CheckResult, Outcome
from hardening.foundation.errors import OutsideError
from hardening.foundation.limits import Limit
from hardening.foundation.process import Completed
from hardening.foundation.settings import ROOT
from hardening.model import Enforcement, Severity
from images.boot import flow, observations, qemu
from images.boot.guest import SMBIOS_LIMIT, Errand, credentials, live, parse, plain, script, smbios_and_files, tail
from images.boot.observations import WORST_FIRST, Boot, Level, judge_sockets, limits, merge_live
from tests.support.machines import AGAIN, FIRST, GOOD, OTHER, booted, check, line, report, silent

GUEST = (ROOT / "images/boot/guest.sh").read_text()
SS = (ROOT / "tests/support/samples/boot/ss.txt").read_text()
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
NAMES = list(GOOD)
DISK = qemu.Disk(Path("/w/d.raw"), "raw", "u-u-i-d")
MACHINE = qemu.VirtualMachine(DISK, "tcg", Path("/w/console"), Path("/w/report"))
texts = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=40)


def outcomes(results: tuple[CheckResult, ...]) -> dict[str, Outcome]:
    return {result.control: result.outcome for result in results}


def evidence(results: tuple[CheckResult, ...], control: str) -> str:
    return next(result.evidence for result in results if result.control == control)


# What goes in


def test_only_checks_that_ask_the_running_machine_are_run_in_it() -> None:
    """Those that mention LIVE; a longer word that holds it is another word."""
    asks, rests = check("asks", '[ "$LIVE" = 0 ] || echo'), check("rests", "echo $OLIVER_LIVES ALIVE")
    assert live([asks, rests]) == (asks,)


def test_long_credentials_go_over_fw_cfg_and_short_ones_over_smbios() -> None:
    """Each goes one way: too long an SMBIOS string is dropped by systemd, too long a name is refused by QEMU."""
    smbios, files = smbios_and_files({"short": "x", "long": "y" * SMBIOS_LIMIT})
    assert smbios == ("io.systemd.credential.binary:short=eA==",)
    assert list(files) == ["long"]


def test_the_gate_itself_plants_nothing() -> None:
    """A unit, what wants it, and the script: no more goes into a machine."""
    names = [
        "systemd.extra-unit.goldsmith-boot.service",
        "systemd.unit-dropin.basic.target",
        r"systemd.unit-dropin.dev-virtio\x2dports-goldsmith.device",
        "goldsmith.boot",
    ]
    assert list(credentials(GUEST, Errand())) == names


@given(st.lists(st.tuples(texts, texts), max_size=3))
def test_scripts_and_their_environment_arrive_as_they_are(given_: list[tuple[str, str]]) -> None:
    """Quotes, dollars and line ends in a check or in a param are no one's to interpret."""
    checks = tuple(check(f"c{number}", text, PARAM_A=value) for number, (text, value) in enumerate(given_))
    told = "check() { printf '%s\\0' \"$@\" >&2; }\nreport() { :; }\nobserve() { :; }\nfinish() { :; }\n"
    done = subprocess.run(["sh", "-c", script(told, Errand(checks))], capture_output=True, check=True)
    found = sorted(done.stderr.decode().split("\0")[:-1])
    assert found == sorted(
        part for one in checks for part in (one.control, "300", one.text, f"PARAM_A={one.env['PARAM_A']}")
    )


def test_a_report_has_a_record_for_every_look_and_every_check() -> None:
    """What the script reports is what is expected, also with cloud-init."""
    errand = Errand((check("a", "x"), check("b", "y"), check("c", "z")), cloud_init=True)
    told = "observe() { echo $1; }\nreport() { echo $1; }\ncheck() { :; }\nfinish() { :; }\n"
    done = subprocess.run(["sh", "-c", script(told, errand)], capture_output=True, check=True, text=True)
    assert tuple(done.stdout.split()) == errand.expected


def test_the_command_boots_what_ships_and_changes_nothing() -> None:
    """The firmware, the disk with writes thrown away, a network that leads nowhere, no defaults, no second try."""
    argv = qemu.command(replace(MACHINE, smbios=("a=b",), files={"opt/x": Path("/w/x")}))
    assert " ".join(argv) == (
        "qemu-system-x86_64 -machine q35,sata=off,smbus=off,i8042=off,vmport=off -accel tcg -cpu qemu64,-svm -smp 1 "
        "-m 1024 -nodefaults -no-user-config -no-reboot -display none -uuid u-u-i-d "
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny "
        "-chardev file,id=console,path=/w/console -serial chardev:console "
        "-device virtio-serial-pci -chardev file,id=report,path=/w/report "
        "-device virtserialport,chardev=report,name=goldsmith "
        "-netdev user,id=net,restrict=on -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci "
        "-drive if=none,id=disk,file=/w/d.raw,format=raw,snapshot=on,cache=unsafe "
        "-device virtio-blk-pci,drive=disk,bootindex=0 "
        "-drive if=pflash,format=raw,file=/usr/share/OVMF/OVMF_CODE_4M.fd,unit=0,readonly=on "
        "-drive if=pflash,format=raw,file=/usr/share/OVMF/OVMF_VARS_4M.fd,unit=1,snapshot=on "
        "-smbios type=11,value=a=b -fw_cfg name=opt/x,file=/w/x"
    )


@pytest.mark.parametrize("start", ["ec2e1916-9099", "45e12aec-dcd1"])
def test_a_machine_of_the_gate_is_never_taken_for_one_of_amazons(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By chance one in two thousand was: cloud-init looked for Amazon's metadata until the boot was ended."""
    drawn = UUID(f"{start}-4caf-bd21-012345abcdef")
    monkeypatch.setattr(flow, "uuid4", lambda: drawn)
    given_ = flow.a_uuid()
    assert UUID(given_).node == drawn.node
    assert not re.match("ec2|.{4}2.ec", given_)


def test_the_quick_level_starts_the_kernel_itself() -> None:
    """No firmware; the command line is one argument."""
    direct = qemu.Direct(Path("/w/linux"), "root=PARTUUID=1 rw")
    argv = qemu.command(replace(MACHINE, disk=replace(DISK, direct=direct)))
    assert argv[argv.index("-kernel") :] == ["-kernel", "/w/linux", "-append", "root=PARTUUID=1 rw"]
    assert not [part for part in argv if "pflash" in part]
    with_initrd = replace(DISK, direct=replace(direct, initrd=Path("/w/i")))
    assert argv[-4:] != qemu.command(replace(MACHINE, disk=with_initrd))[-4:]


def test_a_comma_in_a_path_is_no_end_of_it() -> None:
    """QEMU wants it twice."""
    disk = replace(DISK, path=Path("/w,o/d.raw"))
    assert any("file=/w,,o/d.raw,format" in part for part in qemu.command(replace(MACHINE, disk=disk)))


def test_the_shipped_command_line_is_kept_but_for_what_no_initrd_resolves() -> None:
    """Root by the partition's id; a panic ends the machine at once."""
    shipped = "root=LABEL=root rw console=ttyS0 panic=30 lsm=apparmor\0\0"
    assert qemu.command_line(shipped, "1-2", initrd=False) == (
        "root=PARTUUID=1-2 rw console=ttyS0 lsm=apparmor panic=1"
    )
    assert qemu.command_line(shipped, "1-2", initrd=True).startswith("root=LABEL=root rw")


def test_partitions_are_found_by_their_types() -> None:
    """Whatever their order; a disk without one of them is refused."""
    parts = [
        {"node": "d2", "start": 4096, "uuid": "R", "type": qemu.ROOT_TYPE},
        {"node": "d1", "start": 2048, "uuid": "E", "type": qemu.ESP_TYPE.lower()},
    ]
    table = {"partitiontable": {"sectorsize": 512, "partitions": parts}}
    assert qemu.partitions(json.dumps(table)) == (2048 * 512, "R")
    for lone in parts:
        with pytest.raises(OutsideError, match="has no EFI partition, or no root"):
            qemu.partitions(json.dumps({"partitiontable": {"partitions": [lone]}}))


@pytest.mark.needs(str(STUB))
def test_sections_of_a_real_kernel_stub_are_found() -> None:
    """systemd's own stub, whose section .sdmagic holds words that are known; anything else is no PE image."""
    data = STUB.read_bytes()
    offset, size = qemu.sections(data[: qemu.HEADERS_BYTES])[".sdmagic"]
    assert data[offset : offset + size].startswith(b"#### LoaderInfo: systemd-stub")
    for broken in (b"", b"MZ", b"MZ" + data[4:100], b"\0" + data[1 : qemu.HEADERS_BYTES]):
        with pytest.raises(OutsideError, match="no PE image"):
            qemu.sections(broken)


# What comes back


@given(st.dictionaries(st.sampled_from(["a", "b", "c-1"]), texts, min_size=1), st.data())
def test_a_report_that_is_cut_anywhere_is_not_whole(said: dict[str, str], data: st.DataObject) -> None:
    """The whole one is read back as it was; without so much as its last byte it is none."""
    whole = report(said)
    read = parse(whole, list(said))
    assert read.whole
    assert {name: record.stdout for name, record in read.records.items()} == said
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert not parse(whole[:cut], list(said)).whole


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "reported nothing"),
        (report({"a": "1"}), "missing, unexpected or doubled records: b"),
        (report({"a": "1", "b": "2", "c": "3"}), "missing, unexpected or doubled records: c"),
        (report({"a": "1"}).replace(b"end 1", b"") + report({"a": "1"}), "damaged"),
        ((line("a", "1") + line("b", "2") + line("b", "3") + "end 3\n").encode(), "doubled records: b"),
        ((line("a", "1") + line("b", "2") + "end 3\n").encode(), "damaged"),
        ((line("a", "1") + "record b 0 out=MQ= err=\nend 2\n").encode(), "damaged"),
        ((line("a", "1") + "record b  out= err=\nend 2\n").encode(), "damaged"),
        ((line("a", "1") + line("b", "2")).encode(), "breaks off after 2 of 2"),
    ],
)
def test_a_report_with_anything_amiss_is_not_whole(data: bytes, problem: str) -> None:
    """Missing, doubled, unexpected, garbled, or without its end: it says what."""
    assert problem in parse(data, ["a", "b"]).problem


def test_a_check_in_a_machine_is_judged_as_on_a_tree() -> None:
    """Silence, a complaint and another status are errors; a late one says so; words with 0, 1 and 2 are answers."""
    told = {
        "passes": ("seen", 0, ""), "fails": ("seen", 1, ""), "rests": ("none", 2, ""), "silent": ("", 0, ""),
        "moans": ("seen", 0, "denied"), "breaks": ("seen", 3, ""), "late": ("", 124, ""), "killed": ("", 137, ""),
    }  # fmt: skip
    checks = [check(name, "LIVE") for name in told]
    data = "".join(line(name, out, status, err) for name, (out, status, err) in told.items()) + f"end {len(told)}\n"
    results = observations.live_results(checks, replace(booted(), stream=parse(data.encode(), list(told))))
    assert [str(outcome) for outcome in outcomes(results).values()] == [
        "pass", "fail", "not-applicable", "error", "error", "error", "error", "error",
    ]  # fmt: skip
    assert "said nothing" in evidence(results, "silent")
    assert "did not finish within 300 s" in evidence(results, "late")
    assert "did not finish within 300 s" in evidence(results, "killed")


def test_a_machine_that_reports_nothing_passes_nothing() -> None:
    """It has not come up; of all else there was nothing to look at, which is no fault of a check."""
    checks = [check("a", "LIVE")]
    results = observations.live_results(checks, silent()) + observations.observed(silent(), (), cloud_init=True)
    assert outcomes(results) == {
        "a": Outcome.ERROR, "boot-completed": Outcome.FAIL, "boot-failed-units": Outcome.ERROR,
        "boot-listening": Outcome.ERROR, "boot-cloud-init": Outcome.ERROR,
    }  # fmt: skip
    assert "Kernel panic" in evidence(results, "boot-completed")
    assert "did not end within 540 s" in evidence(results, "boot-completed")
    assert not any(result.broke for result in results)


def test_a_good_boot_passes_with_what_was_seen() -> None:
    """Each observation says what it rests on."""
    results = observations.observed(booted(listening=f"kernel 4\n{SS}"), ["22/tcp", "5355/udp"], cloud_init=False)
    assert set(outcomes(results).values()) == {Outcome.PASS}
    assert evidence(results, "boot-completed") == "graphical.target reached after 11.5 s (tcg); state running"
    assert evidence(results, "boot-failed-units") == "180 units, none of them failed"


@pytest.mark.parametrize(
    "said",
    [
        "state starting\ntarget graphical.target inactive\nuptime 99\nwaiting 7 slow.service start running\n",
        "state running\ntarget graphical.target inactive\n",
        "state maintenance\ntarget graphical.target active\n",
        "state \ntarget graphical.target active\n",
        "state running\n",
        "",
    ],
)
def test_a_boot_that_does_not_reach_its_target_has_not_completed(said: str) -> None:
    """The console's last lines and what is still waited for are the evidence."""
    results = observations.observed(booted(completed=said, console="last words"), (), cloud_init=False)
    assert outcomes(results)["boot-completed"] is Outcome.FAIL
    assert "last words" in evidence(results, "boot-completed")
    assert ("slow.service" in said) == ("slow.service" in evidence(results, "boot-completed"))


def test_a_failed_unit_is_named_with_its_last_words() -> None:
    """A list without any unit at all is no list."""
    failed = observations.observed(booted(failed_units="units 9\nfailed x.service\nlog oh\n"), (), cloud_init=False)
    assert outcomes(failed)["boot-failed-units"] is Outcome.FAIL
    assert evidence(failed, "boot-failed-units") == "failed x.service\nlog oh"
    for nothing in ("units 0\n", "", "units \n"):
        empty = observations.observed(booted(failed_units=nothing), (), cloud_init=False)
        assert outcomes(empty)["boot-failed-units"] is Outcome.ERROR


def test_a_look_that_failed_is_an_error() -> None:
    """A status or a complaint of the command itself: whatever it printed, it may not have seen all."""
    for status, complaint in ((127, ""), (0, "denied")):
        records = {**GOOD, "observed.listening": ""}
        data = "".join(line(name, text) for name, text in records.items() if name != "observed.listening")
        data += line("observed.listening", f"kernel 0\n{SS}", status, complaint) + f"end {len(records)}\n"
        boot = replace(booted(), stream=parse(data.encode(), NAMES))
        assert outcomes(observations.observed(boot, ["22/tcp"], cloud_init=False))["boot-listening"] is Outcome.ERROR


# Units


def test_a_unit_that_failed_or_was_started_again_is_told(tmp_path: Path) -> None:
    """With its last words; all units are counted, and each is told once."""
    units = {"a.service": "active running", "b.service": "failed failed", "c.service": "activating auto-restart"}
    listed = "\n".join(f"{unit} loaded {state} Of a test" for unit, state in units.items())
    shown = "\n\n".join(f"Id={unit}\nNRestarts={count}" for count, unit in enumerate(["b.service", "d.service"]))
    functions = GUEST[GUEST.index("failed_units() {") : GUEST.index("listening() {")]
    told = (
        f"systemctl() {{ case $1 in list-units) echo '{listed}' ;; *) echo '{shown}' ;; esac; }}\n"
        f"journalctl() {{ echo words; }}\nresults=$PWD\n{functions}\nfailed_units"
    )
    done = subprocess.run(["sh", "-c", told], capture_output=True, check=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == [
        "units 3", "failed b.service failed", "log words", "failed c.service auto-restart", "log words",
        "failed d.service restarted 1 times", "log words",
    ]  # fmt: skip


def test_what_a_check_says_arrives_whole_or_cut_at_64_kib(tmp_path: Path) -> None:
    """Any bytes, its status and its complaints; its parameters are its own, and so is what it sets."""
    port, functions = tmp_path / "port", GUEST[GUEST.index("capture() {") : GUEST.index("completed() {")]
    script_ = """printf "$PARAM_A\\377 $LIVE $ROOT $0"; head -c 99999 /dev/zero; echo 'no "good' >&2; exit 7"""
    told = (
        f"results={tmp_path}\ncount=0\nmost_encoded=87380\n{functions}\nexec 3>{port}\n"
        f"check one 5 {quote(script_)} 'PARAM_A=two\nlines'\ncheck two 5 'echo ${{PARAM_A-none}}'\n"
        "check three 5 'exec cat /dev/zero'\nreport one\nreport two\nreport three\necho end $count >&3"
    )
    subprocess.run(["sh", "-c", told], capture_output=True, check=True, cwd=tmp_path)
    read = parse(port.read_bytes(), ["one", "two", "three"])
    one, two, three = read.records.values()
    assert (read.problem, one.status, one.stderr) == ("", 7, 'no "good\n')
    assert one.stdout.startswith("two\nlines\N{REPLACEMENT CHARACTER} 1 / one\0")
    assert len(one.stdout) == 65535
    assert (two.status, two.stdout, two.stderr) == (0, "none\n", "")
    assert three.status > 2, "one that says more than a shell can hold is ended"


def test_a_check_that_did_not_come_to_its_end_breaks_the_report(tmp_path: Path) -> None:
    """A lane of checks may be killed, as where memory is short: none of them passed by the status of the one before."""
    port, functions = tmp_path / "port", GUEST[GUEST.index("capture() {") : GUEST.index("completed() {")]
    kill = "echo looked; read -r _ _ _ lane _ </proc/$PPID/stat; kill -9 $lane; exit 1"
    told = (
        f"results={tmp_path}\ncount=0\nmost_encoded=87380\n{functions}\nexec 3>{port}\n"
        f"check one 5 'echo fine'\n{{ check two 5 '{kill}'; check three 5 'exit 1'; }} &\nwait\n"
        "report one\nreport two\nreport three\necho end $count >&3"
    )
    subprocess.run(["sh", "-c", told], capture_output=True, check=True, cwd=tmp_path)
    assert parse(port.read_bytes(), ["one", "two", "three"]).problem.startswith("the machine's report is damaged")


# Sockets


def test_sockets_that_nobody_named_are_open_doors() -> None:
    """With protocol, address and program; loopback and DHCP clients are not counted, and that is said."""
    outcome, said = judge_sockets(f"kernel 4\n{SS}", ["22/tcp"])
    assert outcome is Outcome.FAIL
    assert said.splitlines()[:2] == ["5355/udp on 0.0.0.0 (systemd-resolve)", "5355/udp on :: (systemd-resolve)"]
    assert "22/tcp" not in "".join(said.splitlines()[:2])
    assert "not counted: loopback, and DHCP clients" in said
    assert judge_sockets(f"kernel 4\n{SS}", ["22/tcp", "5355/udp"])[0] is Outcome.PASS


@pytest.mark.parametrize(
    ("line_", "outcome"),
    [
        ('udp UNCONN 0 0 0.0.0.0:68 0.0.0.0:* users:(("evil",pid=1,fd=1))', Outcome.FAIL),
        ('tcp LISTEN 0 0 10.0.2.15:68 0.0.0.0:* users:(("systemd-network",pid=1,fd=1))', Outcome.FAIL),
        ('udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:* users:(("systemd-network",pid=1,fd=1))', Outcome.PASS),
        ("udp UNCONN 0 0 *:111 *:*", Outcome.FAIL),
        ("tcp LISTEN 0 0 [::ffff:127.0.0.1]:8080 *:*", Outcome.PASS),
        ("tcp LISTEN 0 0 [::1]:25 [::]:*", Outcome.PASS),
        ("tcp LISTEN 0 0 [::]:25 [::]:*", Outcome.FAIL),
        ("tcp LISTEN 0 0 0.0.0.0%lo:25 0.0.0.0:*", Outcome.PASS),
        ("what is this", Outcome.ERROR),
        ("tcp LISTEN 0 0 nonsense:port 0.0.0.0:*", Outcome.ERROR),
    ],
)
def test_a_socket_is_judged_by_who_reaches_it(line_: str, outcome: Outcome) -> None:
    """Only what no other machine reaches, and a DHCP client by its program, may be open unasked."""
    assert judge_sockets(f"kernel 0\n{line_}\n", ["22/tcp"])[0] is outcome


def test_a_socket_that_ss_has_no_holder_of_yet_is_asked_for_again(tmp_path: Path) -> None:
    """A DHCP client that opens its socket while ss looks is no door; what nobody is ever found to hold stays one."""
    listening = GUEST[GUEST.index("listening() {") : GUEST.index("identity() {")]
    late = """[ ! -e seen ] || held='users:(("systemd-network",pid=1,fd=1))'; touch seen"""
    for holder, outcome in ((late, Outcome.PASS), (":", Outcome.FAIL)):
        ss = f'ss() {{ held=; {holder}; echo "udp UNCONN 0 0 10.0.2.15:68 0.0.0.0:* $held"; }}'
        told = f"{ss}\nsleep() {{ :; }}\n{listening}\nlistening"
        said = subprocess.run(["sh", "-c", told], capture_output=True, check=True, text=True, cwd=tmp_path).stdout
        _, *sockets = said.splitlines()
        assert judge_sockets("\n".join(["kernel 0", *sockets]), ["22/tcp"])[0] is outcome


@pytest.mark.parametrize("shown", [":", """echo 'tcp LISTEN 0 9 *:22 *:* users:(("sshd",pid=1,fd=3))'"""])
def test_a_machine_waits_for_no_holder_where_no_socket_lacks_one(tmp_path: Path, shown: str) -> None:
    """Least of all where nothing listens: it is asked once, and does not sleep."""
    listening = GUEST[GUEST.index("listening() {") : GUEST.index("identity() {")]
    told = f"ss() {{ echo ss >>done; {shown}; }}\nsleep() {{ echo sleep >>done; }}\n{listening}\nlistening"
    said = subprocess.run(["sh", "-c", told], capture_output=True, check=True, text=True, cwd=tmp_path).stdout
    assert (tmp_path / "done").read_text().split() == ["ss"]
    assert said.startswith("kernel ")


def test_listeners_that_ss_does_not_show_are_no_pass() -> None:
    """The kernel counts five, ss shows four, or nobody counted."""
    assert judge_sockets(f"kernel 5\n{SS}", ["22/tcp", "5355/udp"])[0] is Outcome.ERROR
    assert judge_sockets("kernel 1\n", [])[0] is Outcome.ERROR
    assert judge_sockets(SS, [])[0] is Outcome.ERROR
    assert judge_sockets("", [])[0] is Outcome.ERROR
    assert judge_sockets("kernel 0\n", [])[0] is Outcome.PASS


# cloud-init

RESULT = {"v1": {"datasource": "DataSourceNoCloud [seed=/dev/vdb]", "errors": []}}
STATUS = {"v1": {"stage": None, "init": {"errors": [], "recoverable_errors": {"DEPRECATED": ["old key"]}}}}


def cloud(result: object = RESULT, status: object = STATUS, instance: str = observations.INSTANCE) -> CheckResult:
    said = f"instance {instance}\nresult {json.dumps(result)}\nstatus {json.dumps(status)}\n"
    return observations.observed(booted(cloud_init=said), (), cloud_init=True)[-1]


def test_cloud_init_must_end_without_error_for_our_instance() -> None:
    """Errors, those it recovered from, another instance, and no end at all are failures; old keys are not."""
    warned = {"v1": {"init": {"errors": [], "recoverable_errors": {"WARNING": ["no resize2fs"]}}}}
    assert cloud().outcome is Outcome.PASS
    assert cloud(result={"v1": {"datasource": None, "errors": ["it broke"]}}).outcome is Outcome.FAIL
    assert cloud(status={"v1": {"init": {"errors": ["it broke"]}}}).outcome is Outcome.FAIL
    assert "no resize2fs" in cloud(status=warned).evidence
    assert cloud(status=warned).outcome is Outcome.FAIL
    assert cloud(instance="iid-other").outcome is Outcome.FAIL
    for said, outcome in (("absent\n", Outcome.NOT_APPLICABLE), ("instance i\nresult \n", Outcome.FAIL)):
        assert observations.observed(booted(cloud_init=said), (), cloud_init=True)[-1].outcome is outcome


# The second boot

SECOND = booted("second boot", identity=AGAIN)
ANOTHER = booted("another", identity=OTHER)


def test_a_second_boot_keeps_what_makes_the_machine_itself() -> None:
    """Up again, the same machine, and unlike any other."""
    result = observations.second(booted(identity=FIRST), SECOND, ANOTHER)
    assert result.outcome is Outcome.PASS
    assert "machine-id" in result.evidence


@pytest.mark.parametrize(
    ("first", "again", "other", "said"),
    [
        (FIRST, AGAIN.replace("aa", "cc"), OTHER, "not kept over a boot: machine-id"),
        (FIRST, "boot 2\nmachine-id aa\n", OTHER, "not kept over a boot: /etc/ssh"),
        (FIRST, AGAIN, OTHER.replace("f2", "f1"), "the same in two machines: /etc/ssh"),
        (FIRST, AGAIN, OTHER.replace("bb", "aa"), "the same in two machines: machine-id"),
        (FIRST, AGAIN, "boot 3\n", "not known of the other machine: machine-id"),
        (FIRST, FIRST, OTHER, "the first one's boot id"),
        ("boot 1\n", "boot 2\n", "boot 3\n", "no machine-id"),
    ],
)
def test_a_machine_that_does_not_stay_itself_is_named(first: str, again: str, other: str, said: str) -> None:
    """What changes with a boot, and what two machines share."""
    result = observations.second(
        booted(identity=first), booted("second boot", identity=again), booted("another", identity=other)
    )
    assert result.outcome is Outcome.FAIL
    assert said in result.evidence


def test_a_second_boot_must_be_as_good_as_the_first() -> None:
    """No report, a failed unit, a target not reached, a first boot that never ended, another that did not boot."""
    first = booted(identity=FIRST)
    bad = [
        (first, silent("second boot"), ANOTHER, "second boot: the machine reported nothing"),
        (first, booted("second boot", identity=AGAIN, failed_units="units 9\nfailed x\n"), ANOTHER, "failed x"),
        (first, booted("second boot", identity=AGAIN, completed="state starting\n"), ANOTHER, "is not reached"),
        (booted(identity=FIRST, late=True), SECOND, ANOTHER, "did not turn itself off"),
        (first, SECOND, silent("another"), "another: the machine reported nothing"),
    ]
    for *boots, said in bad:
        result = observations.second(*boots)
        assert result.outcome is Outcome.FAIL
        assert said in result.evidence


# Merging


def result_of(control: str, outcome: Outcome, said: str, enforcement: Enforcement = Enforcement.WARN) -> CheckResult:
    return CheckResult(control, "A title", Severity.LOW, enforcement, outcome, said)


@given(st.sampled_from(Outcome), st.sampled_from(Outcome))
def test_the_worse_of_tree_and_machine_wins_and_both_are_evidence(static: Outcome, shown: Outcome) -> None:
    """What decided stands first; how a failure is treated is the profile's to say."""
    [merged] = merge_live(
        [result_of("a", static, "the file says so")], [result_of("a", shown, "sshd says so", Enforcement.ENFORCE)]
    )
    assert merged.outcome is min(static, shown, key=WORST_FIRST.index)
    assert merged.enforcement is Enforcement.WARN
    assert f"on the tree: {static}: the file says so" in merged.evidence
    assert f"in the booted machine: {shown}: sshd says so" in merged.evidence
    assert merged.evidence.split(": ")[1] == merged.outcome


def test_a_failure_beats_every_other_outcome_and_a_pass_only_what_is_no_answer() -> None:
    """Nothing that was not looked at becomes a pass."""
    assert WORST_FIRST[0] is Outcome.FAIL
    assert WORST_FIRST[-2:] == (Outcome.PASS, Outcome.NOT_APPLICABLE)
    assert set(WORST_FIRST) == set(Outcome)


def test_what_only_one_side_saw_is_kept() -> None:
    """Static results in their order, then what only a machine can show."""
    static = [result_of("b", Outcome.PASS, "x"), result_of("a", Outcome.FAIL, "y")]
    seen = result_of("boot-listening", Outcome.FAIL, "z")
    assert merge_live(static, [seen]) == (*static, seen)


def test_no_machine_to_look_at_is_no_broken_check_after_merging_either() -> None:
    """The author of a check is not to blame for a disk that does not boot."""
    [dark] = observations.live_results([check("a", "LIVE")], silent())
    [merged] = merge_live([result_of("a", Outcome.PASS, "x")], [dark])
    assert merged.outcome is Outcome.ERROR
    assert not merged.broke


# Consoles and limits


def test_a_console_is_shown_without_what_moves_the_cursor() -> None:
    """Colours, titles and carriage returns go; the last lines that say something stay."""
    said = "\x1b[0;32m  OK  \x1b[0m] Started\r\n\x1b]0;title\x07\n\x1bc\x1b[?7hlogin: \n\n"
    assert plain(said) == "  OK  ] Started\n\nlogin: \n\n"
    assert tail("\n".join(str(number) for number in range(99)) + "\n\n").splitlines() == [str(n) for n in range(79, 99)]


@pytest.mark.parametrize("level", Level)
@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_a_machine_can_report_that_it_is_stuck_before_it_is_ended(level: Level, accelerator: str) -> None:
    """It stops waiting for its own boot two minutes before we stop waiting for it: time for checks and their words."""
    patience, machine = limits(level, accelerator)
    assert machine - patience >= 120


def test_the_boots_after_the_first_are_asked_only_what_is_judged_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look takes an emulated machine seconds; and that little is enough to judge them by."""
    asked: dict[str, tuple[str, ...]] = {}

    def run_boot(task: flow.BootTask, _among: object) -> Boot:
        asked[task.title] = task.errand.looks
        identity = {"observed.identity": AGAIN if task.title == "second boot" else OTHER}
        said = {name: {**GOOD, **identity}[name] for name in task.errand.expected}
        return replace(booted(task.title), stream=parse(report(said), list(said)))

    monkeypatch.setattr(flow, "run_boot", run_boot)
    disk = replace(DISK, disk_format="qcow2")
    errand = Errand((check("a", "x"),), cloud_init=True)
    result, boots = flow._second(flow.BootTask("first boot", disk, Level.FULL, errand, tmp_path), disk, booted())
    assert (result.outcome, len(boots)) == (Outcome.PASS, 2), result.evidence
    assert asked == {
        "second boot": ("completed", "failed-units", "identity"),
        "first boot of another machine": ("completed", "identity"),
    }


def test_an_accelerator_that_was_at_fault_is_waited_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent under KVM and well without: KVM broke. Where it is silent under both, nobody knows, and both are tried."""
    asked: list[str] = []
    well: set[str] = set()

    def once(task: flow.BootTask, work: Path, accelerator: str) -> Boot:
        asked.append(accelerator)
        return booted() if accelerator in well else silent()

    monkeypatch.setattr(flow, "_once", once)
    monkeypatch.setattr(flow, "_at_fault", set())
    task = flow.BootTask("boot", DISK, Level.QUICK, Errand(), tmp_path)
    backoff: list[list[str]] = []
    for number, now_well in enumerate(((), ("tcg",), ("tcg",))):
        well.update(now_well)
        report = flow.run_boot(replace(task, title=f"boot {number}"), ("kvm", "tcg"))
        assert report.stream.whole is bool(now_well)
        backoff.append(asked.copy())
        asked.clear()
    assert backoff == [["kvm", "tcg"], ["kvm", "tcg"], ["tcg"]]


@dataclass
class Machines:
    """In the place of QEMU: each machine says the next of these on its console, and reports nothing."""

    consoles: list[str]

    def __call__(self, argv: list[str], **_: object) -> Completed:
        """Write it where QEMU is told to."""
        console = next(part for part in argv if part.startswith("file,id=console")).partition("path=")[2]
        Path(console).write_text(self.consoles.pop(0))
        return Completed(tuple(argv), 0, "", "")


def test_a_kernel_without_a_timer_tells_nothing_of_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a crowded host QEMU may give it none: it begins once more, and twice in a row is no result of the image."""
    panic = "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug"
    machines = Machines([panic, "up", panic, panic])
    monkeypatch.setattr(flow, "run", machines)
    task = flow.BootTask("boot", DISK, Level.QUICK, Errand(), tmp_path)
    assert flow._attempt_again(task, tmp_path / "one", "tcg").console == "up"
    with pytest.raises(OutsideError, match="gave its kernel no timer") as error:
        flow._attempt_again(task, tmp_path / "two", "tcg")
    assert "IO-APIC + timer" in error.value.evidence
    assert machines.consoles == []


def test_what_a_machine_says_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's machine may write for as long as it is let run."""
    monkeypatch.setattr(flow, "run", Machines(["x" * 100]))
    monkeypatch.setattr(flow, "BOOT_OUTPUT", Limit("boot.output", 99))
    with pytest.raises(OutsideError, match=r"the console of a machine that was tried exceeds the limit boot\.output"):
        flow._attempt(flow.BootTask("boot", DISK, Level.QUICK, Errand(), tmp_path), tmp_path / "one", "tcg")


def test_a_machine_that_writes_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says would fill the disk until its time is up: only reading it had a limit."""
    program, lived = tmp_path / "bin/qemu", tmp_path / "lived"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        "for part; do case $part in file,id=report,*) head -c 2097152 /dev/zero > ${part#*path=} ;; esac; done\n"
        f"sleep 600; touch {lived}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(qemu, "PROGRAM", str(program))
    monkeypatch.setattr(flow, "BOOT_OUTPUT", Limit("boot.output", 1 << 20))
    monkeypatch.setattr(flow, "limits", lambda *_: (60, 900))
    with pytest.raises(OutsideError, match=r"the report of a machine that was tried exceeds the limit boot\.output"):
        flow._attempt(flow.BootTask("boot", DISK, Level.QUICK, Errand(), tmp_path), tmp_path / "one", "tcg")
    assert not lived.exists()
