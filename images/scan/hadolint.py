"""hadolint: the rendered Dockerfile of an image that has one."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

from hardening.findings import FindingKind, ScanReport
from hardening.model import Kind
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME = "hadolint"


def command(_target: ScanTarget, inputs: ScanInputs) -> list[str]:
    """The argv; no configuration file of the host's or the checkout's may silence a rule, and no remark in the file."""
    return [
        "hadolint", "--no-color", "--config=/dev/null", "--disable-ignore-pragma", "--failure-threshold=style",
        "--format=json", str(inputs.work / "Dockerfile"),
    ]  # fmt: skip


def without_remarks(dockerfile: str) -> str:
    """The Dockerfile with every remark to hadolint or ShellCheck made a plain comment; lines stay where they are.

    `--disable-ignore-pragma` leaves two kinds: `# hadolint shell=…` says that steps are for another shell, which ends
    all checks of theirs, and `# shellcheck disable=…` in a step is ShellCheck's own.
    """
    return re.sub(r"(?i)#(\s*)(hadolint|shellcheck)\b", r"#\1no \2", dockerfile)


def parse(stdout: str, target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by rule; lines of the same rule are one finding that names them all."""
    found = defaultdict[tuple[str, str], list[Any]](list)
    for item in json.loads(stdout):
        found[item["code"], item["level"]].append(item)
    findings = [
        finding(NAME, SCANNER.kind, code, "Dockerfile", level, installed=_lines(items), title=items[0]["message"])
        for (code, level), items in found.items()
    ]
    return report(NAME, SCANNER.kind, findings, 1 if target.dockerfile else 0, "there is no Dockerfile")


def _lines(items: list[Any]) -> str:
    return f"line {', '.join(map(str, sorted(item['line'] for item in items)))}"


SCANNER = Scanner(
    NAME,
    FindingKind.MISCONFIGURATION,
    "hadolint",
    command,
    parse,
    kinds=(Kind.CONTAINER,),
    spares=lambda target: "" if target.dockerfile else "no Dockerfile made it",
    ok=(0, 1),
    files=lambda _target, inputs: {"Dockerfile": without_remarks(inputs.dockerfile)},
)
