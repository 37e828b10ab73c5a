"""The filesystems that controls are proved on: as packages leave them, and as each profile makes them."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from hardening import proof
from hardening.catalog import load_controls, load_profile, load_profiles
from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from hardening.model import Kind
from hardening.overlay import apply_to
from hardening.render import Overlay
from images.catalog import load_definitions

TODAY = date(2026, 1, 1)
CONTROLS = load_controls([ROOT])
STATIC_PACKAGES = ("base-files", "libc6", "tzdata", "ca-certificates")
MACHINE_PACKAGES = load_definitions((ROOT,))["debian-server"].definition.packages
CONTAINER_ENGINE = "docker.io"
LAYERS: dict[Path, str] = {}
"""What the overlay mounts of this process are made of, the uppermost first, as `lowerdir` has it."""
READY_MACHINE = "GOLDSMITH_TEST_MACHINE_TREE"
"""Names a machine tree that is there already, for quick trials; it is not changed."""


PROFILES = {name: proof.kind_of(profile, CONTROLS) for name, profile in load_profiles([ROOT]).items()}


def overlay_of(profile: str, *, only: str = "", params: dict[str, object] | None = None) -> Overlay:
    """The profile's overlay, or that of one of its controls alone."""
    whole = load_profile([ROOT], profile)
    return proof.overlay_of(whole, CONTROLS, TODAY, only=only, params=params)


@dataclass
class Trees:
    """Makes each tree when it is first asked for, and once: a bootstrap, or an overlay mount on another tree."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)
    mounted: list[Path] = field(default_factory=list)

    def of(self, profile: str, state: str) -> Path:
        """`unhardened`: what packages leave; `hardened`: with the profile applied. Not to be changed: `copy` it."""
        name = f"{profile}-{state}" if state == "hardened" else self._base(profile)
        if name not in self.made:
            self.made[name] = self._harden(profile) if state == "hardened" else self._make(name)
        return self.made[name]

    def copy(self, tree: Path, folder: Path) -> Path:
        """A copy to change: an overlay mount under `folder`, or a plain copy where the kernel has none.

        It lies on the layers of `tree` and not on its mount: the kernel stacks no third overlay.
        """
        for name in ("upper", "work", "merged"):
            (folder / name).mkdir(parents=True)
        merged, below = folder / "merged", LAYERS.get(tree, str(tree))
        options = f"lowerdir={below},upperdir={folder}/upper,workdir={folder}/work"
        try:
            run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)])
            self.mounted.append(merged)
            LAYERS[merged] = f"{folder}/upper:{below}"
        except OutsideError:
            run(["cp", "-a", f"{tree}/.", str(merged)])
        return merged

    def unmount(self) -> None:
        """Undo every mount, the last one first."""
        while self.mounted:
            run(["umount", str(self.mounted.pop())])

    def _base(self, profile: str) -> str:
        return {"container-static": "static", "container-host": "engine"}.get(profile, str(PROFILES[profile]))

    def _make(self, name: str) -> Path:
        tree = self.folder / name
        if name == "static":
            unpack_static(self.of("container-base", "unhardened"), tree)
        elif name == "engine":
            tree = self.copy(self.of("machine-base", "unhardened"), tree)
            unpack(CONTAINER_ENGINE, tree)
        elif name == Kind.MACHINE and (ready := os.environ.get(READY_MACHINE)):
            return Path(ready)
        else:
            bootstrap(tree, MACHINE_PACKAGES if name == Kind.MACHINE else ("ca-certificates",))
        return tree

    def _harden(self, profile: str) -> Path:
        tree = self.copy(self.of(profile, "unhardened"), self.folder / f"{profile}-hardened")
        apply_to(overlay_of(profile), tree, self.folder / f"overlay-{profile}")
        return tree


def bootstrap(tree: Path, packages: tuple[str, ...]) -> None:
    """A tree of this host's own suite, from where this host's apt has its packages."""
    suite = next(line for line in Path("/etc/os-release").read_text().splitlines() if "VERSION_CODENAME" in line)
    sources = sorted(str(path) for path in Path("/etc/apt").glob("sources.list*/*.*") if path.stat().st_size)
    if Path("/etc/apt/sources.list").is_file():
        sources.append("/etc/apt/sources.list")
    options = ["--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--include={','.join(packages)}"]
    if "linux-image-cloud-amd64" in packages:  # as much documentation as the builder of machines lets in
        options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale")]
        options.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
    env = {"INITRD": "No"}  # no test boots this tree, and an initial file system takes its time
    run(["mmdebstrap", *options, suite.partition("=")[2], str(tree), *sources], env=env, timeout=600)
    (tree / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").unlink(missing_ok=True)  # as the builder does


def unpack(package: str, tree: Path) -> None:
    """Add one package's files to a tree, with dpkg's list and checksums of them, and none of what it depends on."""
    folder = tree.parent / "packages"
    folder.mkdir(mode=0o777)
    run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=folder, timeout=600)
    for archive in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", str(archive), str(tree)])
        listed = [
            line.split(maxsplit=5)[5].partition(" -> ")[0]
            for line in run(["dpkg-deb", "-c", str(archive)]).stdout.splitlines()
        ]
        paths = [path.removeprefix(".").rstrip("/") or "/." for path in listed]
        info = tree / "var/lib/dpkg/info"
        (info / f"{package}.list").write_text("".join(f"{path}\n" for path in paths))
        run(["dpkg-deb", "-e", str(archive), str(folder / "control")])
        shutil.copyfile(folder / "control/md5sums", info / f"{package}.md5sums")


def unpack_static(base: Path, static: Path) -> None:
    """A tree of a few packages' files alone, as an image has that unpacks packages and configures none."""
    static.mkdir()
    info = base / "var/lib/dpkg/info"
    lists = [next(iter([*info.glob(f"{name}.list"), *info.glob(f"{name}:*.list")])) for name in STATIC_PACKAGES]
    paths = sorted({line.lstrip("/") for file in lists for line in file.read_text().splitlines()} - {".", ""})
    listing = static.parent / "static.list"
    listing.write_text("\n".join(["bin", "sbin", "lib", "lib64", *paths]) + "\n")
    archive = static.parent / "static.tar"
    run(["tar", "-C", str(base), "-cf", str(archive), "--no-recursion", "-T", str(listing)])
    run(["tar", "-C", str(static), "-xpf", str(archive)])
    for program in ("usr/bin/ldd", "usr/bin/tzselect"):
        (static / program).unlink(missing_ok=True)
