"""trivy, misconfigurations: over the image's own configuration, written down as the Dockerfile it amounts to.

Trivy's own mode for image configurations answers nothing, with status 0, for images without a Dockerfile's history;
and a rendered Dockerfile does not show what it inherits. The configuration is what runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hardening.findings import Finding, FindingKind, ScanReport
from hardening.model import Kind
from images.build.config import require_lines
from images.scan.base import ScanInputs, Scanner, ScanTarget, report, severity
from images.scan.trivy import EVERYTHING, results

NAME = "trivy-config"
NO_HEALTHCHECK = "DS-0026"  # https://avd.aquasec.com/misconfig/ds-0026


def command(_target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv over the Dockerfile in the work directory."""
    return [
        "trivy",
        "config",
        f"--cache-dir={inputs.work / NAME}",
        *EVERYTHING,
        "--skip-check-update",
        str(inputs.work / "Dockerfile"),
    ]


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
    if config.get("WorkingDir"):
        lines.append(f"WORKDIR {json.dumps(config['WorkingDir'])[1:-1]}")
    if config.get("User"):
        lines.append(f"USER {json.dumps(config['User'])[1:-1]}")
    test = (config.get("Healthcheck") or {}).get("Test") or []
    if test[:1] in (["CMD"], ["CMD-SHELL"]):
        lines.append(f"HEALTHCHECK CMD {json.dumps(test[1:])}")
    for word in ("Entrypoint", "Cmd"):
        if config.get(word):
            lines.append(f"{word.upper()} {json.dumps(config[word])}")
    return "\n".join(lines) + "\n"


def parse(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by rule; evaluated is the number of rules that trivy says it judged by.

    That there is no health check is no finding where the definition says why: the control `healthcheck` judges that.
    """
    found, version = results(stdout)
    config = [result for result in found if result.get("Class") == "config"]
    judged = sum(sum(result.get("MisconfSummary", {}).values()) for result in config)
    items = [item for result in config for item in result.get("Misconfigurations") or []]
    findings = [_finding(i) for i in items if not (i["ID"] == NO_HEALTHCHECK and target.no_healthcheck_because)]
    return report(NAME, SCANNER.kind, findings, judged, "it applied no rule to the image", version=version)


def _finding(item: dict[str, Any]) -> Finding:
    how_bad = severity(item.get("Severity", ""))
    return Finding(
        kind=FindingKind.MISCONFIGURATION,
        id=item["ID"],
        package="image configuration",
        installed="",
        fixed=item.get("Resolution", ""),
        severity=how_bad,
        scanners=((NAME, how_bad),),
        title=item.get("Title", ""),
    )


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "trivy",
    command,
    parse,
    kinds=(Kind.CONTAINER,),
    files=lambda _target, inputs: {"Dockerfile": dockerfile(inputs.image)},
)
