"""trivy, over the artifact itself, with the database of `feeds.trivy`: four scanners of one program.

- `trivy`: vulnerabilities of a container's own layers or a machine's tree.
- `trivy-disk`: vulnerabilities of a machine's raw disk, its partitions and file systems: that is what ships. It reads
  raw disks only, not qcow2, and of a GPT only partitions with certain names (`Linux`, `primary`, `0` to `3`): of others
  it says nothing and ends with status 0. So the packages that it lists are the only proof that it looked. Source:
  `requiredDiskName` in trivy's pkg/fanal/walker/vm.go.
- `trivy-secret`: secrets in a machine's tree, or in every layer of a container, so that what a later one deleted is
  found too.
- `trivy-config`: misconfigurations of the image's own configuration, written down as the Dockerfile it amounts to.
  Trivy's own mode for image configurations answers nothing, with status 0, for images without a Dockerfile's history;
  and a rendered Dockerfile does not show what it inherits. The configuration is what runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hardening.disagreement import SIGNED_COPIES
from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.build.config import require_lines
from images.packages import debian
from images.scan.base import (
    NOT_RECOGNISED,
    ScanInputs,
    Scanner,
    ScanTarget,
    finding,
    other_system,
    purl_type,
    report,
)

NAME, DISK, SECRET, CONFIG = "trivy", "trivy-disk", "trivy-secret", "trivy-config"
NO_LAYER = "it opened no layer of the image"
STATUSES = {"will_not_fix": "no-dsa", "fix_deferred": "no-dsa"}  # of Debian's tracker, in trivy's words
IGNORES = ("undetermined", SIGNED_COPIES)
"""What its database leaves out of Debian's tracker: `skipStatuses` in trivy-db's pkg/vulnsrc/debian/debian.go; and what
it looks up by a name that no advisory has.
"""
NO_HEALTHCHECK = "DS-0026"  # https://avd.aquasec.com/misconfig/ds-0026

# Whatever could keep a finding out of the answer has its value here: no file of the host's and no default decides it.
EVERYTHING = (
    *("--config=", "--ignorefile=", "--ignore-policy=", "--severity=UNKNOWN,LOW,MEDIUM,HIGH,CRITICAL", "--skip-dirs="),
    *("--skip-files=", "--exit-code=0", "--skip-version-check", "--disable-telemetry", "--format=json", "--quiet"),
)
# No download, and nothing kept between runs.
QUIET = (
    *(*EVERYTHING, "--cache-backend=memory", "--ignore-unfixed=false", "--ignore-status=", "--vex="),
    *("--pkg-types=os,library", "--skip-db-update", "--skip-java-db-update", "--skip-vex-repo-update"),
    "--offline-scan",
)


def _over_image(target: ScanTarget, cache: Path, scanners: str) -> list[str]:
    """The argv over an image; a machine is read as a tree, since it has no layers."""
    over = ["image", f"--input={target.layout}"] if target.kind is Kind.CONTAINER else ["rootfs", str(target.tree)]
    return ["trivy", *over, f"--scanners={scanners}", f"--cache-dir={cache}", *QUIET, "--skip-check-update"]


def command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; `--list-all-pkgs` because the packages it saw prove that it looked at anything."""
    return [*_over_image(target, inputs.feeds[NAME].directory, "vuln"), "--list-all-pkgs"]


def disk_command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv over the raw disk."""
    cache = inputs.feeds[NAME].directory
    return ["trivy", "vm", str(target.disk), "--scanners=vuln", f"--cache-dir={cache}", *QUIET, "--list-all-pkgs"]


def secret_command(target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv: files of the layers and the image's configuration; of a machine, files of the tree."""
    more = "--list-all-pkgs" if target.kind is Kind.MACHINE else "--image-config-scanners=secret"
    return [*_over_image(target, inputs.work / SECRET, "secret"), "--secret-config=", more]


def config_command(_target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv over the Dockerfile in the work directory."""
    cache = f"--cache-dir={inputs.work / CONFIG}"
    return ["trivy", "config", cache, *EVERYTHING, "--skip-check-update", str(inputs.work / "Dockerfile")]


def dockerfile(image_config: Mapping[str, Any]) -> str:
    """The Dockerfile that an OCI image configuration amounts to; no value can break out of its line.

    Raises OutsideError where one tries to.
    """
    require_lines(image_config, "the image")
    config = image_config.get("config") or {}
    lines = ["FROM scratch"]
    for entry in config.get("Env") or []:
        key, _, value = entry.partition("=")
        lines.append(f"ENV {key}={json.dumps(value)}")
    lines += [f"EXPOSE {json.dumps(port)[1:-1]}" for port in sorted(config.get("ExposedPorts") or {})]
    for word, key in (("WORKDIR", "WorkingDir"), ("USER", "User")):
        if config.get(key):
            lines.append(f"{word} {json.dumps(config[key])[1:-1]}")
    test = (config.get("Healthcheck") or {}).get("Test") or []
    if test[:1] in (["CMD"], ["CMD-SHELL"]):
        lines.append(f"HEALTHCHECK CMD {json.dumps(test[1:])}")
    for word in ("Entrypoint", "Cmd"):
        if config.get(word):
            lines.append(f"{word.upper()} {json.dumps(config[word])}")
    return "\n".join(lines) + "\n"


def results(stdout: str) -> tuple[list[dict[str, Any]], str]:
    """The `Results` of trivy's JSON, and its version. Raises ValueError for what is not trivy's JSON."""
    document = json.loads(stdout)
    if not isinstance(document, dict) or "SchemaVersion" not in document:
        raise ValueError("not a report of trivy")
    return document.get("Results") or [], document.get("Trivy", {}).get("Version", "")


def parse(name: str, stdout: str, target: ScanTarget, inputs: ScanInputs) -> ScanReport:
    """Findings by binary package; evaluated are the operating-system packages that it lists."""
    found, version = results(stdout)
    system = json.loads(stdout).get("Metadata", {}).get("OS") or {}
    other = other_system(inputs, system.get("Family", ""), system.get("Name", ""))
    seen, expected = _packages_seen(found, target), len(target.packages) or len(debian.installed(inputs.status))
    return report(
        name, FindingKind.VULNERABILITY, _every(found, "Vulnerabilities", partial(_vulnerability, name)),
        0 if other else seen, other if seen else NOT_RECOGNISED, feed=inputs.feeds.get(NAME), expected=expected,
        version=version,
    )  # fmt: skip


def lists(stdout: str) -> list[str]:
    """The URLs of the packages of languages that it looked at."""
    found = (item for result in results(stdout)[0] for item in result.get("Packages") or [])
    return [str((item.get("Identifier") or {}).get("PURL", "")) for item in found]


def parse_secrets(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by file. Evaluated are the layers that the report proves it opened; of a machine, the packages."""
    found, version = results(stdout)
    if target.kind is Kind.MACHINE:
        seen, expected = _packages_seen(found, target), len(target.packages)
        nothing = "it recognised nothing in the tree"
    else:
        seen, nothing, expected = len(json.loads(stdout).get("Metadata", {}).get("DiffIDs") or []), NO_LAYER, 0
    secrets = _every(found, "Secrets", _secret)
    return report(SECRET, FindingKind.SECRET, secrets, seen, nothing, expected=expected, version=version)


def parse_config(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by rule; evaluated is the number of rules that trivy says it judged by.

    That there is no health check is no finding where the definition says why: the control `healthcheck` judges that.
    """
    found, version = results(stdout)
    config = [result for result in found if result.get("Class") == "config"]
    judged = sum(sum(result.get("MisconfSummary", {}).values()) for result in config)
    broken = _every(config, "Misconfigurations", _misconfiguration)
    findings = [one for one in broken if not (one.id == NO_HEALTHCHECK and target.no_healthcheck_because)]
    nothing = "it applied no rule to the image"
    return report(CONFIG, FindingKind.MISCONFIGURATION, findings, judged, nothing, version=version)


def _packages_seen(found: list[dict[str, Any]], target: ScanTarget) -> int:
    """How many operating-system packages the results list, of those that the target is known to hold: the proof that
    trivy looked at its filesystem. It passes over some that dpkg has, and takes others from elsewhere.
    """
    results = [result for result in found if result.get("Class") == "os-pkgs"]
    listed = [(item["Name"], item.get("Arch")) for result in results for item in result.get("Packages") or []]
    known = {(package.name, package.architecture) for package in target.packages}
    return len(known.intersection(listed)) if known else len(listed)


Item = dict[str, Any]


def _every(found: list[Item], key: str, as_finding: Callable[[Item, Item], Finding]) -> list[Finding]:
    """All items that the results list under `key`, each with the result that it stands in."""
    return [as_finding(result, item) for result in found for item in result.get(key) or []]


def _vulnerability(name: str, _result: Item, item: Item) -> Finding:
    status = item.get("Status", "")
    return finding(
        name, FindingKind.VULNERABILITY, item["VulnerabilityID"], item["PkgName"], item.get("Severity", ""),
        installed=item["InstalledVersion"], fixed=item.get("FixedVersion", ""), title=item.get("Title", ""),
        source=item.get("SeveritySource") or item.get("DataSource", {}).get("ID", ""),
        ecosystem=purl_type(item.get("PkgIdentifier", {}).get("PURL", "")), status=STATUSES.get(status, ""),
    )  # fmt: skip


def _secret(result: Item, item: Item) -> Finding:
    return finding(
        SECRET, FindingKind.SECRET, item["RuleID"],
        "/" + re.sub(r"^.*\.tar:", "", result.get("Target", "")).lstrip("/"), item.get("Severity", ""),
        installed=f"line {item['StartLine']}" if item.get("StartLine") else "", title=item.get("Title", ""),
    )  # fmt: skip


def _misconfiguration(_result: Item, item: Item) -> Finding:
    return finding(
        CONFIG, FindingKind.MISCONFIGURATION, item["ID"], "image configuration", item.get("Severity", ""),
        fixed=item.get("Resolution", ""), title=item.get("Title", ""),
    )  # fmt: skip


SCANNER = Scanner(
    NAME, FindingKind.VULNERABILITY, "trivy", command, partial(parse, NAME), feed=NAME, ignores=IGNORES,
    lists=lists,
)  # fmt: skip
DISK_SCANNER = Scanner(
    DISK, FindingKind.VULNERABILITY, "trivy", disk_command, partial(parse, DISK), kinds=(Kind.MACHINE,), feed=NAME,
    ignores=IGNORES, lists=lists,
    lacks=lambda target, _inputs: "" if target.disk else "the raw disk is not there",
)  # fmt: skip
SECRET_SCANNER = Scanner(SECRET, FindingKind.SECRET, "trivy", secret_command, parse_secrets)
CONFIG_SCANNER = Scanner(
    CONFIG, FindingKind.MISCONFIGURATION, "trivy", config_command, parse_config, kinds=(Kind.CONTAINER,),
    files=lambda _target, inputs: {"Dockerfile": dockerfile(inputs.image)},
)  # fmt: skip
SCANNERS = (SCANNER, CONFIG_SCANNER, DISK_SCANNER, SECRET_SCANNER)
