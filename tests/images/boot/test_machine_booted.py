"""Machines that were built, booted once: one with Docker in it holds the benchmark, one with faults is told apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.catalog import load_policy
from hardening.findings import Outcome
from hardening.foundation.errors import RefusedError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from hardening.gate import explain, judge_image
from hardening.model import Kind
from images.boot import Level, flow
from images.build import build
from images.plan.build_plan import Action
from images.scan import SCANNERS
from images.scan.base import ScanTarget
from images.scan.flow import scan
from images.scan.verify import verify
from images.store.files import file_digest
from pipelines.cli.network import apply_network
from tests.images.build.test_machine_build import CHILD, NEEDS, OTHER_GROUP, PASSED_LIVE, layers, record
from tests.support.loop import Goldsmith, definition
from tests.support.machines import check
from tests.support.servers import Workshop

pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]

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
printf '[Service]\nExecStart=/bin/sleep infinity\n' >nginx.service
mkdir -p multi-user.target.d
printf '[Unit]\nWants=planted.service looping.service open.socket nginx.service\n' >multi-user.target.d/planted.conf
"""
NETWORK = """
title = "Of a company"
owner = "tests"
review_by = 2027-01-01

[roles.agent]
what = "the machine with faults"
definitions = ["m-faulty"]
outgoing = "any"

[[rules]]
from = "world"
to = "agent"
ports = ["22/tcp"]
reason = "its people"

[[rules]]
from = "10.1.0.0/24"
to = "agent"
ports = ["5432/tcp", "9100-9104/tcp"]
reason = "its peers"
"""
COMPANY = """
title = "Of a company"
owner = "tests"
extends = "cis-level2"
controls = [{ control = "planted" }]
"""


@pytest.mark.needs("oscap")
def test_a_container_host_holds_the_benchmark_of_the_policy_for_machines(server: Goldsmith, tmp_path: Path) -> None:
    """Measured on its tree; it is booted once too, without firmware, for what Docker must not undo.

    Nobody is asked about its packages here, and that alone refuses it.
    """
    fork, name = server.fork(tmp_path / "state"), "container-host"
    shop = Workshop(fork)
    with shop.job(name) as job:
        built = build(job)
        target = ScanTarget(
            name, None, built.tree, packages=built.packages, kind=Kind.MACHINE, digest=built.digest,
            created=job.store.config(built.digest)["created"], benchmark="cis_level1_server",
        )  # fmt: skip
        result = scan(target, shop.context.settings, {"openscap": SCANNERS["openscap"]})
        checks = verify(
            job.definition, job.overlay, tree=built.tree, digest=built.digest, store=job.store,
            work=job.work, docker_host="", declared=job.declared, level=Level.QUICK,
        )  # fmt: skip
    verdict = judge_image(
        load_policy((ROOT,), "machine"), name, checks, result.reports, result.findings, (), datetime.now(UTC)
    )
    assert [reason.rule for reason in verdict.refusals] == ["judges"], explain(verdict.refusals)
    assert "explanation-stale" not in {reason.rule for reason in verdict.reasons}
    booted = {check.control for check in checks if PASSED_LIVE.search(check.evidence)}
    assert booted >= {
        "audit-rules", "container-daemon", "container-files", "containers-confined", "firewall", "sysctl-network",
    }  # fmt: skip
    console = (fork.state / "logs/container-host.console.log").read_text()
    assert "root=PARTUUID=" in console
    assert "efi: EFI" not in console, "a quick boot went through firmware"


PLANTED = {
    "root-locked": "root has a password",
    "sshd-no-root-login": "permitrootlogin is yes",
    "firewall": "chain input: policy is accept",
    "no-unneeded-services": "nginx.service runs",
    "boot-failed-units": "failed planted.service",
    "boot-listening": "8080/tcp",
}
ASKS = check(
    "asks",
    '[ "$LIVE" = 0 ] && echo a tree || echo "LIVE=$LIVE ROOT=$ROOT $PARAM_A; $(systemctl is-active ssh)"\n'
    '[ "$LIVE" = 0 ] || nft list table inet filter | grep "saddr .* accept"',
    PARAM_A="two\nlines",
)
FAILS = check("fails", "echo 'LIVE: it is open'; exit $LIVE")
SILENT = check("silent", '[ "$LIVE" = 1 ] || echo a tree')
STATIC = check("static", "echo only of a tree")


def test_each_fault_that_is_planted_is_refused_by_its_control_and_nothing_of_it_is_kept(
    server: Goldsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's own control undoes the hardening: each fault is told by control and evidence, what is good passes.

    Its firewall follows the network of the company, whose rules are in it as they are written. The controls that it
    leaves as they were are asked in the machines of other tests.
    One boot shows it all, of a machine at level 2 of the benchmark: as private clouds start it, from a qcow2, through
    firmware, until cloud-init has found its seed and ended. What it said on its console is kept as evidence too. Its
    first accelerator is none that QEMU has, which is not the image's fault.
    """
    monkeypatch.setattr(flow, "accelerators", lambda: ("none-such", "tcg"))
    fork = server.fork(tmp_path / "state")
    root = definition(tmp_path / "content", "m-faulty", CHILD.replace("cis-level1", "of-a-company") + OTHER_GROUP)
    plant(root)
    (root / "network").mkdir()
    (root / "network/company.toml").write_text(NETWORK)
    before = layers(fork), fork.blobs(), sorted((fork.state / "disks").iterdir())
    shop = Workshop(fork, (root,))
    (written,), errors = apply_network("nftables", apply=True, context=shop.context)
    assert (written.done, errors) == (True, [])
    with shop.job("m-faulty") as job:
        built = build(job)
        disk = as_qcow2(job.store.disk(job.store.config(built.digest)["disk"]["linear"]))
        whole = file_digest(disk)
        told_apart = tuple(one for one in job.overlay.checks if one.control in {*PLANTED, "sshd-access"})
        asked = replace(job.overlay, checks=(*told_apart, ASKS, FAILS, SILENT, STATIC))
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
    for rule in ("5432", "9100-9104"):  # as the network says, and as the live check knows it
        assert f"ip saddr 10.1.0.0/24 tcp dport {rule} accept" in said["asks"].evidence
    assert "not a reviewed rule" not in said["firewall"].evidence
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
