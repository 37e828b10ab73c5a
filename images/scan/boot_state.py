"""What a tree sets and starts at boot, for programs that ask before it has booted: /proc, mounts, services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hardening.foundation.process import run
from images.store.layers import small_text

UNIT_FOLDER = "systemd/system"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - its name, for a list of mounts
SYSTEMD = "usr/lib/systemd/systemd"
RESTRICTS = ("ro", "nosuid", "nodev", "noexec")
"""The options of a mount that keep something from being done in it."""


def write(tree: Path, target: Path) -> Path:
    """Lay out in the folder `target`, which it returns: `sys` with what the sysctl.d of `tree` sets, as systemd reads
    it; `environ`, the environment that a login as root gets there, as /proc shows a process's own; and `mounted`, a
    line with folder and options for each of its `mounts`.
    """
    (target / "sys").mkdir(parents=True)
    (target / "environ").write_text(root_path(tree / "etc/login.defs"))
    for name, value in parameters(_configuration(tree, "sysctl.d")).items():
        file = target / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    lines = [f"{folder} {','.join(options) or 'rw'}\n" for folder, options in sorted(mounts(tree).items())]
    (target / "mounted").write_text("".join(lines))
    return target


def _configuration(tree: Path, name: str) -> str:
    """The files of a configuration of the tree as systemd reads them, drop-ins last."""
    return run(["systemd-analyze", f"--root={tree}", "--no-pager", "cat-config", name], env={"LC_ALL": "C"}).stdout


def mounts(tree: Path) -> dict[str, tuple[str, ...]]:
    """Which folders the tree makes a mount of at boot, of memory or onto themselves, each with what of `RESTRICTS` it
    has: by units that local-fs.target wants, and by fstab. What depends on the machine's disks is passed over, and so
    is a folder that is a link, which systemd leaves alone.
    """
    found: dict[str, tuple[str, ...]] = {}
    if (tree / SYSTEMD).is_file():  # it mounts this before it reads anything; fstab's options come over it
        found[SHARED_MEMORY] = ("nosuid", "nodev")
    for name in _wanted(tree):
        said = unit_mount(_configuration(tree, f"{UNIT_FOLDER}/{name}"))
        found |= _mount(said.get("Where", ""), said.get("Type", ""), said.get("Options", ""))
    for folder, kind, options in _fstab(tree / "etc/fstab"):
        found.pop(folder, None)  # also where a disk is in its place
        found |= _mount(folder, kind, options)
    return {folder: options for folder, options in found.items() if not _is_linked(tree, folder)}


def unit_mount(text: str) -> dict[str, str]:
    """What `[Mount]` of a unit with all its drop-ins comes to: the last value of each key. Pure."""
    found: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"\s*(\[.*\])\s*|# /.*", line):
            section = heading[1] or ""
        elif section == "[Mount]" and (match := re.fullmatch(r"\s*([A-Za-z]+)\s*=\s*(.*?)\s*", line)):
            found[match[1]] = match[2]
    return found


def restricts(options: Iterable[str]) -> tuple[str, ...]:
    """Which of `RESTRICTS` these options of a mount come to; a later one takes an earlier one back. Pure."""
    kept: dict[str, None] = {}
    for option in options:
        opposite = "ro" if option == "rw" else f"no{option}"
        if option in RESTRICTS:
            kept[option] = None
        elif option == "defaults":
            kept.clear()
        else:
            kept.pop(opposite, None)
    return tuple(kept)


def _mount(folder: str, kind: str, options: str) -> dict[str, tuple[str, ...]]:
    given = options.split(",")
    plain = re.fullmatch(r"(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)+", folder)
    return {folder: restricts(given)} if plain and (kind == "tmpfs" or "bind" in given) else {}


def _fstab(file: Path) -> list[tuple[str, str, str]]:
    """Folder, type and options of each line of an fstab that is mounted at boot."""
    text = file.read_text(errors="replace") if file.is_file() and not file.is_symlink() else ""
    found = []
    for line in text.splitlines():
        match line.split():
            case [what, folder, kind, options, *_] if not what.startswith("#") and "noauto" not in options.split(","):
                found.append((folder, kind, options))
    return found


def _wanted(tree: Path) -> list[str]:
    """The names of the mount units that local-fs.target wants, without those that are masked."""
    links = {
        link.name: link
        for folder in ("usr/lib", "etc")
        for link in (tree / folder / UNIT_FOLDER / "local-fs.target.wants").glob("*.mount")
    }
    return sorted(
        name
        for name, link in links.items()
        if not _is_masked(link) and not _is_masked(tree / "etc" / UNIT_FOLDER / name)
    )


def _is_masked(link: Path) -> bool:
    return link.is_symlink() and str(link.readlink()) == "/dev/null"


def _is_linked(tree: Path, folder: str) -> bool:
    path = tree / folder.lstrip("/")
    return any(part.is_symlink() for part in (path, *path.parents) if part != tree and tree in part.parents)


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


UNITS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")  # the first that has it wins


def services_of(tree: Path) -> tuple[str, ...]:
    """The service units that targets of the system want, in order of name.

    Not those of the initrd, templates, what is masked, and what runs once and ends (`Type=oneshot`).
    """
    wanted = {
        link.name
        for folder in UNITS
        for how in ("wants", "requires", "upholds")
        for link in (tree / folder).glob(f"*.target.{how}/*.service")
        if not link.parent.name.startswith("initrd") and "@" not in link.name
    }
    return tuple(sorted(name for name in wanted if _stays(tree, name)))


def _stays(tree: Path, name: str) -> bool:
    unit = next((path for folder in UNITS if (path := tree / folder / name).is_symlink() or path.exists()), None)
    if unit is None:
        return False
    # Links are followed inside the tree, never onto the host; /dev/null, which masks a unit, is no file there.
    target = tree / str(unit.readlink()).lstrip("/") if unit.is_symlink() and unit.readlink().is_absolute() else unit
    if not target.is_file() or not target.resolve().is_relative_to(tree.resolve()):
        return False
    drop_ins = {path.name: path for folder in UNITS[::-1] for path in (tree / folder / f"{name}.d").glob("*.conf")}
    texts = [small_text(tree, path) for path in (target, *(drop_ins[one] for one in sorted(drop_ins)))]
    return re.findall(r"(?m)^[ \t]*Type[ \t]*=[ \t]*(\S*)", "\n".join(texts))[-1:] != ["oneshot"]
