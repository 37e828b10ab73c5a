"""Runs every control's check against a filesystem, side by side and shut in. Edge."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from hardening.findings import (
    TIME_LIMIT_SECONDS,
    CheckResult,
    ImageFacts,
    Outcome,
    nothing_to_look_at,
    outcome_of,
    result_of,
)
from hardening.foundation.confinement import MOUNTS, run_confined
from hardening.foundation.content import find_content
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.limits import CHECK_ANSWER, CHECK_MEMORY
from hardening.render import Check, Overlay

LAST_LINES = 10
HERE = Path(__file__).parent
TIMED_OUT = 124  # timeout(1)
CHECKS, IMAGE = "/checks", "/image"  # where run-checks.sh shows them


def run_checks(overlay: Overlay, tree: Path, facts: ImageFacts) -> tuple[CheckResult, ...]:
    """What each check of `overlay` says of the filesystem at `tree`, in the profile's order.

    They run shut in, each apart from the others (run-checks.sh): they see the tree and their facts, and change nothing.
    Fails closed: a tree without `usr` and `etc` is nothing to look at, a check that passes without saying what it saw
    saw nothing, and one that complains (of missing rights, say), breaks or runs over 60 s is an ERROR.
    """
    if reason := no_filesystem(tree):
        return tuple(nothing_to_look_at(check, reason) for check in overlay.checks)
    with tempfile.TemporaryDirectory(prefix="goldsmith-checks-") as place:
        checks, work = Path(place).resolve() / "checks", Path(place).resolve() / "work"
        checks.mkdir()
        work.mkdir()
        own = {"ROOT": IMAGE, "LIVE": "0", "LC_ALL": "C", "HOME": "/tmp", "TMPDIR": "/tmp", "BROUGHT_IN": "/brought/in"}  # noqa: S108
        env = _environment(facts, checks) | own
        for number, check in enumerate(overlay.checks):
            (checks / f"{number}.sh").write_text(_script(check, env))
        lanes = 2 * (os.cpu_count() or 1)
        limits = str(lanes), f"{TIME_LIMIT_SECONDS:g}"
        ours = HERE / "run-checks.sh", HERE / "functions/packages.sh"
        argv = ["sh", str(ours[0]), str(checks), str(tree.resolve()), *limits, str(ours[1])]
        most = (TIME_LIMIT_SECONDS + 10) * (1 + math.ceil(len(overlay.checks) / lanes))
        try:
            run_confined(
                argv, reads=[*ours, checks, tree.resolve()], work=work, keeps=MOUNTS,
                memory=CHECK_MEMORY.most, timeout=most,
            )  # fmt: skip
        except OutsideError as error:
            why = f"{error.message}\n{error.evidence}"
            return tuple(result_of(check, Outcome.ERROR, why) for check in overlay.checks)
        return tuple(_result(check, work / str(number)) for number, check in enumerate(overlay.checks))


def broken(refused: Sequence[CheckResult], roots: Sequence[Path]) -> ContentError | None:
    """The error where checks broke that would have to pass: the file of the first and its last lines, for its author.

    None where another one among `refused` really failed: the image is refused then, whatever else broke. None, too,
    where what broke is no control's, but was seen of a booted machine.
    """
    if not refused or not all(result.broke for result in refused):
        return None
    folders = find_content(roots, "hardening/controls", "*/")
    first = next((result for result in refused if result.control in folders), None)
    if first is None:
        return None
    said, *lines = first.evidence.splitlines()
    others = [f"{result.control}: {result.evidence.splitlines()[0]}" for result in refused if result is not first]
    return ContentError(
        said, file=folders[first.control] / "check.sh",
        evidence="\n".join([*lines[-LAST_LINES:], *others]),
        hint="a check says what it saw and ends with 0 (pass), 1 (fail) or 2 (not applicable), within "
        f"{TIME_LIMIT_SECONDS} s; it complains on standard error only if it fails",
    )  # fmt: skip


def _script(check: Check, env: dict[str, str]) -> str:
    exports = [f"export {name}={quote(value)}" for name, value in {**env, **check.env}.items()]
    return "\n".join([*exports, f"exec sh -c {quote(check.text)} {check.control}", ""])


def _result(check: Check, noted: Path) -> CheckResult:
    """The result of a check by the files in which run-checks.sh has kept its status and what it printed."""
    status, out, err = (noted.with_suffix(f".{name}") for name in ("status", "out", "err"))
    try:
        code = int(status.read_text())
    except (OSError, ValueError):  # the disk is full, or it was ended from outside
        return result_of(check, Outcome.ERROR, "it was ended before its end, and has no status")
    if code == TIMED_OUT:
        return result_of(check, Outcome.ERROR, f"sh did not finish within {TIME_LIMIT_SECONDS:g} s")
    if out.stat().st_size + err.stat().st_size > CHECK_ANSWER.most:
        return result_of(check, Outcome.ERROR, f"it prints more than {CHECK_ANSWER}")
    return result_of(check, *outcome_of(code, *(path.read_text(errors="replace") for path in (out, err))))


def no_filesystem(tree: Path) -> str:
    """Why `tree` cannot be checked; empty when it can. Links at the top could lead the checks out of the tree."""
    for name in ("usr", "etc", "var", "home", "root", "tmp", "opt", "srv"):
        if (tree / name).is_symlink():
            return f"/{name} is a link, which may lead out of the image"
    if not (tree / "usr").is_dir() or not (tree / "etc").is_dir():
        return f"{tree} has no directories usr and etc"
    return ""


def _environment(facts: ImageFacts, folder: Path) -> dict[str, str]:
    """The image's facts as check scripts see them; long ones are files in `folder`."""
    texts = {
        "IMAGE_CONFIG": json.dumps(facts.config, sort_keys=True, indent=1),
        "IMAGE_HISTORY": "".join(f"{line}\n" for line in facts.history),
        "RUN_LOG": facts.run_log,
        "DECLARED_FILES": "".join(f"{path}\n" for path in facts.declared),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    config = facts.config.get("config") or {}
    return {
        **{name: f"{CHECKS}/{name}" for name in texts},
        "IMAGE_USER": facts.user,
        "IMAGE_HEALTHCHECK": facts.healthcheck,
        "IMAGE_HEALTHCHECK_REASON": facts.healthcheck_reason,
        "IMAGE_ENTRYPOINT": " ".join([*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]),
        "RUN_STATUS": "" if facts.run_status is None else str(facts.run_status),
    }
