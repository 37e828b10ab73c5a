"""detect-secrets: tokens and keys in the files of the image's tree, by rules with a form of their own.

Its plugins that guess (entropy, words beside an assignment, public addresses) are left out: over a distribution they
name thousands of checksums. It does not tell how many files it read, and passes over files outside of where it runs
without a word. So it runs in a folder that has the tree and a key put beside it, and only an answer that names that key
proves a look. It sees the tree, not deleted files of lower layers: `trivy-secret` reads those.
"""

from __future__ import annotations

import json

from hardening.findings import FindingKind, ScanReport
from images.scan.base import ScanInputs, Scanner, ScanTarget, finding, report

NAME = "detect-secrets"
CANARY, TREE = "canary.pem", "tree"
_BEGIN = "-----BEGIN RSA PRIVATE"  # not in one piece here: this file is no secret either
GUESSING = ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector")
PACKAGES = rf"^{TREE}/(usr/(bin|sbin|lib|lib64|libexec|share|include)|var/lib/dpkg|var/cache)/"
"""What the distribution's packages bring, which takes minutes to read; `trivy-secret` reads it too."""
REMARKS = "detect_secrets.filters.allowlist.is_line_allowlisted"  # a remark in a file must not silence what is in it


def command(_target: ScanTarget, _inputs: ScanInputs) -> list[str]:
    """The argv over the work directory; nothing is asked over the network whether it is valid."""
    left_out = [f"--disable-plugin={name}" for name in GUESSING]
    rules = [f"--disable-filter={REMARKS}", f"--exclude-files={PACKAGES}", *left_out]
    return ["detect-secrets", "scan", "--all-files", "--no-verify", *rules, "."]


def within(target: ScanTarget, _inputs: ScanInputs) -> list[str]:
    """What it is run by: the image's tree is mounted in the work directory, for it alone."""
    return [
        "sh",
        "-c",
        f'mkdir {TREE} /dev/shm && mount -t tmpfs shm /dev/shm && mount --bind "$0" {TREE} && exec "$@"',
        str(target.tree),
    ]


def files(_target: ScanTarget, _inputs: ScanInputs) -> dict[str, str]:
    """The key that it must find."""
    return {CANARY: f"{_BEGIN} KEY-----\n"}


def parse(stdout: str, _target: ScanTarget, _inputs: ScanInputs) -> ScanReport:
    """Findings by file; evaluated is the number of its rules, where it found what was put there."""
    document = json.loads(stdout)
    rules = len(document["plugins_used"]) if document["results"].pop(CANARY, None) else 0
    lines: dict[tuple[str, str], list[int]] = {}
    for name, items in document["results"].items():
        if not name.startswith(f"{TREE}/"):
            raise ValueError(f"{name} is no file of the image")
        for item in items:
            rule = "-".join(item["type"].lower().split())
            lines.setdefault((rule, name.removeprefix(TREE)), []).append(int(item["line_number"]))
    findings = [
        finding(
            NAME, SCANNER.kind, rule, path, "high", installed=f"line {', '.join(map(str, sorted(set(numbers))))}",
            title=f"looks like a secret: {rule}",
        )
        for (rule, path), numbers in lines.items()
    ]  # fmt: skip
    nothing = "it did not find the key that was put there for it"
    return report(NAME, SCANNER.kind, findings, rules, nothing, version=document["version"])


SCANNER = Scanner(NAME, FindingKind.SECRET, "detect-secrets", command, parse, files=files, within=within)
