"""What a machine's tree sets at boot, as a /proc for programs that ask before it has booted: parameters, root's PATH.

What the kernel has by default is left out. Whether the booted machine really has them, the boot gate asks that machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from hardening.foundation.process import run


def write(tree: Path, target: Path) -> Path:
    """Lay out in the folder `target`, which it returns: `sys` with what the sysctl.d of `tree` sets, as systemd reads
    it; and `environ`, the environment that a login as root gets there, as /proc shows a process's own.
    """
    (target / "sys").mkdir(parents=True)
    (target / "environ").write_text(root_path(tree / "etc/login.defs"))
    argv = ["systemd-analyze", f"--root={tree}", "--no-pager", "cat-config", "sysctl.d"]
    for name, value in parameters(run(argv, env={"LC_ALL": "C"}).stdout).items():
        file = target / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return target


def parameters(text: str) -> dict[str, str]:
    """The parameters that sysctl.d(5) text sets, by their path below /proc/sys; a later line wins.

    Patterns are passed over: what they set depends on what there is at boot. So is what is no path. Pure.
    """
    lines = (re.fullmatch(r"\s*-?([A-Za-z0-9_./:-]+?)\s*=\s*(.*?)\s*", line) for line in text.splitlines())
    found = {_path(match[1]): match[2] for match in lines if match}
    folders = {name[:at] for name in found for at, letter in enumerate(name) if letter == "/"}
    strange = {name for name in found if {"", ".", ".."} & set(name.split("/"))}
    return {name: value for name, value in found.items() if name not in folders | strange}


def root_path(login_defs: Path) -> str:
    """The line `PATH=…` that login.defs(5) gives root, ended as in /proc/PID/environ; empty where there is none."""
    text = login_defs.read_text(errors="replace") if login_defs.is_file() and not login_defs.is_symlink() else ""
    found = re.findall(r"^\s*ENV_SUPATH\s+(?:PATH=)?(\S+)", text, re.MULTILINE)
    return f"PATH={found[-1]}\0" if found else ""


def _path(name: str) -> str:
    """A parameter's path: the first separator tells which of the two spellings it is."""
    if re.match(r"[^./]*/", name):
        return name.strip("/")
    return name.translate(str.maketrans("./", "/."))
