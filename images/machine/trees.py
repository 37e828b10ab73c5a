"""Trees as layers: a bootstrap's packages below, then each image's changes; mounted privately. Edge."""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from hardening.foundation.confinement import change_tree
from hardening.foundation.console import say
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest_of
from hardening.foundation.limits import BUILD_SECONDS, STEP_MEMORY
from hardening.foundation.locks import only_one
from hardening.foundation.process import run
from hardening.overlay import apply_to
from images.build import bootstrap, build_steps
from images.build.build_steps import BuildJob
from images.packages.pool import write_repository
from images.store import layers
from images.store.files import unshared
from images.store.oci import TREES, Store

_LIBC = ctypes.CDLL(None, use_errno=True)
# sched.h; Python has unshare and setns only since 3.12
CLONE_NEWNS, CLONE_FS = 0x00020000, 0x00000200

# What a layer holds must mean the same on another day, under other layers: no feature that ties it to those below.
PLAIN = "index=off,xino=off,redirect_dir=off,metacopy=off"


@contextmanager
def private_mounts() -> Iterator[None]:
    """A mount namespace of this thread's own for the block: whatever is mounted in it is gone afterwards.

    Processes and threads that are started inside see it too. However this process ends, the kernel takes all away.
    Raises OutsideError where that is not allowed, such as without root.
    """
    before, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), os.open(".", os.O_RDONLY)
    try:
        unshared(partial(_call, "unshare", CLONE_NEWNS))
        try:
            run(["mount", "--make-rprivate", "/"])
            yield
        finally:
            # A thread that was started inside shares our root and folder until it is wholly gone, which is a moment
            # after its join; with those shared, setns is refused.
            _call("unshare", CLONE_FS)
            _call("setns", before, CLONE_NEWNS)
            os.fchdir(folder)
    finally:
        os.close(before)
        os.close(folder)


@contextmanager
def mounts_where_possible(room: Path) -> Iterator[bool]:
    """The same, and whether overlays can be mounted in it over what lies beside `room`, a folder that it makes."""
    with ExitStack() as stack:
        try:
            stack.enter_context(private_mounts())
            overlay([build_steps.fresh(room)], room / "at", upper=room / "upper", work=room / "work")
            possible = True
        except OutsideError:
            possible = False
        yield possible


def overlay(lowers: Sequence[Path], at: Path, *, upper: Path | None = None, work: Path | None = None) -> Path:
    """Mount `lowers`, uppermost first, at `at`: to be read only, or with what changes in it kept in `upper`."""
    at.mkdir(parents=True, exist_ok=True)
    # The kernel wants two layers at least: beside a single one stands the empty place itself.
    layers = [*lowers, at] if len(lowers) == 1 and not upper else lowers
    options = [f"lowerdir={':'.join(map(_escaped, layers))}", PLAIN]
    if upper and work:
        for folder in (upper, work):
            folder.mkdir(parents=True, exist_ok=True)
        options += [f"upperdir={_escaped(upper)}", f"workdir={_escaped(work)}"]
    # The mount program hands over each option by itself, and then they may be no longer than 256 bytes.
    arguments = [part.encode() for part in ("goldsmith", str(at), "overlay")]
    if problem := _failed("mount", *arguments, 0, ",".join(options).encode()):
        hint = "`state` in goldsmith.toml must lie on a file system such as ext4 or xfs, and not on an overlay"
        raise OutsideError(f"no overlay can be mounted at {at}: {problem}", hint=hint)
    return at


def unmount(at: Path) -> None:
    """Take away what is mounted at `at`."""
    run(["umount", "--recursive", str(at)])


def _escaped(path: Path) -> str:
    """A path as mount options have it."""
    return "".join(f"\\{letter}" if letter in "\\:," else letter for letter in str(path))


def _failed(name: str, *arguments: int | bytes) -> str:
    """Call the C library's `name`; why it failed, or nothing."""
    return os.strerror(ctypes.get_errno()) if getattr(_LIBC, name)(*arguments) else ""


def _call(name: str, *arguments: int) -> None:
    if problem := _failed(name, *arguments):
        hint = "machines are built, and controls proved, as root; in a container only with the capability SYS_ADMIN"
        raise OutsideError(f"no mounts of our own: {name}: {problem}", hint=hint)


def key_of(digest: str) -> str:
    """The key of an image's own layer, given its content digest."""
    return digest.removeprefix("sha256:")


def has(store: Store, key: str) -> bool:
    """Whether the layer `key` and all below it are there."""
    return all(_folder(store, one).is_dir() for one in (key, *_below(store, key)))


def stack(store: Store, key: str) -> tuple[Path, ...]:
    """The folders that make up the file system of the layer `key`, uppermost first. Raises OutsideError without it."""
    if not has(store, key):
        hint = "build what it belongs to with --no-cache"
        raise OutsideError(f"the tree {key[:12]} is no longer on this machine", hint=hint)
    return tuple(_content(_folder(store, one)) for one in (key, *_below(store, key)))


def keys(store: Store, key: str) -> tuple[str, ...]:
    """The layer `key` and those that it stands on, uppermost first."""
    return (key, *_below(store, key))


def keep(store: Store, key: str, folder: Path, below: Sequence[str] = ()) -> None:
    """Give the finished layer in `folder` (its `tree` or `upper`) its place for good; one that is there already stays.

    The rename comes last, so that a layer is there whole or not at all.
    """
    (folder / "below").write_text("".join(f"{one}\n" for one in below))
    target = store.own_place(TREES, key)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)


def used(store: Store, key: str) -> None:
    """Mark a layer and those below as used now, so that nobody takes them for old."""
    for one in keys(store, key):
        os.utime(_folder(store, one))


@contextmanager
def mounted(store: Store, key: str, at: Path) -> Iterator[Path]:
    """The file system of the layer `key`, to be read at `at` for the block; within `private_mounts`."""
    overlay(stack(store, key), at)
    try:
        yield at
    finally:
        unmount(at)


def _folder(store: Store, key: str) -> Path:
    return store.place(TREES, key)


def _below(store: Store, key: str) -> tuple[str, ...]:
    try:
        return tuple((_folder(store, key) / "below").read_text().split())
    except FileNotFoundError:
        return ()


def _content(folder: Path) -> Path:
    whole = folder / "tree"
    return whole if whole.is_dir() else folder / "upper"


HERE = Path(__file__).parent
VERSION = "4"  # changes whenever the same packages would become another tree
DPKG_OPTIONS, LEAVES_OUT = "/etc/dpkg/dpkg.cfg.d/", re.compile(r"path-(?:exclude|include)[= ]/[^\n]*")
WAIT_SECONDS = 1800.0

FSTAB = "LABEL=root / ext4 defaults,errors=remount-ro 0 1\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
RESOLVER = "../run/systemd/resolve/stub-resolv.conf"
# The first console is a screen where there is one; the last is where boot messages and a login prompt go.
ROOT_WORDS = "root=LABEL=root rw console=tty0 console=ttyS0"


def packages_layer(job: BuildJob, epoch: int) -> str:
    """The key of the layer that holds the packages, made if it is not there yet: a bootstrap, or those of a child."""
    parent = key_of(job.parent) if job.parent else ""
    if parent and not job.packages:
        return parent

    def make(layer: Path) -> None:
        say(f"{job.name}: {'installing' if parent else 'bootstrapping'} {len(job.packages)} packages")
        (install_layer if parent else bootstrap_layer)(job, layer, epoch)

    return made_once(job, packages_key(job), make, parent)


def made_once(job: BuildJob, key: str, make: Callable[[Path], object], parent: str = "") -> str:
    """`key`, once the layer by that key is there: `make` makes it, in a folder of its own, if it was not.

    It enters the shared store at once: it holds nothing but what an archive published, or an image of the store.
    """
    store = job.store.bottom
    with only_one(store.own_place("locks", f"tree-{key[:16]}"), f"the tree of {job.name}", wait_seconds=WAIT_SECONDS):
        if not has(store, key):
            layer = build_steps.fresh(job.work / "packages")
            make(layer)
            keep(store, key, layer, keys(store, parent) if parent else ())
        used(store, key)
    return key


def of_base(job: BuildJob, digest: str) -> Path:
    """The file system of the container image that `job` builds on, in its `work`, for it to change.

    Its tree is unpacked once and kept, and each build's changes lie over it; where no overlay can be mounted, it is
    unpacked for each build.
    """
    tree = job.work / "tree"
    if not job.mounts:
        return job.store.unpack(digest, tree)
    key = made_once(job, key_of(digest), lambda layer: job.store.unpack(digest, layer / "tree"))
    return overlay(stack(job.store, key), tree, upper=job.work / "changes", work=job.work / "changes.work")


def packages_key(job: BuildJob) -> str:
    """What a layer of packages is a function of."""
    base = job.parent or job.definition.base.model_dump(mode="json")
    packages = [[package.purl, package.sha256] for package in sorted(job.packages)]
    inputs = [VERSION, build_steps.mmdebstrap_version(), base, packages, job.platform, dpkg_options(job)]
    return digest_of(inputs).removeprefix("sha256:")


def dpkg_options(job: BuildJob) -> str:
    """What the controls tell dpkg to leave out, so that it never comes in; a child's tree holds it already.

    Nothing else of theirs is passed on: dpkg has options that run programs, and it runs on this host as root.
    """
    if job.parent:
        return ""
    texts = [file.content for file in job.overlay.files if file.path.startswith(DPKG_OPTIONS)]
    lines = (line for text in texts for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if LEAVES_OUT.fullmatch(line))


def bootstrap_layer(job: BuildJob, layer: Path, epoch: int) -> None:
    """A distribution's packages as a whole tree."""
    options = job.work / "dpkg.cfg"
    options.write_text(dpkg_options(job))
    drivers = f'--setup-hook=sh {shlex.quote(str(HERE / "initramfs.sh"))} "$1"'
    bootstrap.make_tree(job, layer / "tree", epoch, (f"--dpkgopt={options}", drivers))
    clean(layer / "tree", epoch)


def install_layer(job: BuildJob, layer: Path, epoch: int) -> None:
    """A child's packages on its parent's tree, by apt of that tree; scripts of packages see and change it alone."""
    with changing(job, key_of(str(job.parent)), layer) as tree:
        write_repository(debs := job.work / "debs", "goldsmith", job.debs, job.stanzas)
        shutil.copy(build_steps.HERE / "install.sh", debs)
        argv = ["chroot", str(tree), "sh", "/run/goldsmith/install.sh", *job.definition.packages]
        with build_steps.building(job, "apt", "the lines above are what apt and dpkg said"):
            change_tree(
                tree, argv, {"SOURCE_DATE_EPOCH": str(epoch), "HOME": "/root"}, reads=[HERE, debs],
                within=["sh", str(HERE / "mounts.sh"), str(tree), str(debs)], seconds=BUILD_SECONDS.most,
                memory=STEP_MEMORY.most,
            )  # fmt: skip
        clean(tree, epoch)


@contextmanager
def changing(job: BuildJob, below: str, layer: Path) -> Iterator[Path]:
    """The tree of the layer `below`, writable for the block; what changes ends up in `layer`/upper."""
    lowers = stack(job.store, below)
    tree = overlay(lowers, job.work / "changing", upper=layer / "upper", work=layer / "work")
    try:
        yield tree
    finally:
        unmount(tree)
    shutil.rmtree(layer / "work")


def definition_layer(job: BuildJob, below: str, layer: Path, epoch: int) -> None:
    """What the definition, its files and its controls change on the packages; the order is that of containers."""
    with changing(job, below, layer) as tree:
        if not job.parent:
            _settle(job, tree)
        if job.definition.machine and job.definition.machine.command_line:
            words = " ".join(job.definition.machine.command_line)
            _write(tree, f"etc/kernel/cmdline.d/10-{job.name}.conf", f"{words}\n")
        build_steps.put_files(job, tree)
        apply_to(job.overlay, tree, job.work / "overlay")
        _write(tree, "etc/kernel/cmdline", f"{command_line(tree)}\n")
        clean(tree, epoch)


def _settle(job: BuildJob, tree: Path) -> None:
    """What makes a machine of a bootstrap: its root, its names, its package sources."""
    _write(tree, "etc/fstab", FSTAB)
    _write(tree, "etc/hosts", HOSTS)
    _write(tree, "etc/apt/sources.list.d/debian.sources", job.sources)
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    if (tree / "usr/lib/systemd/systemd-resolved").exists():
        (tree / "etc/resolv.conf").unlink(missing_ok=True)  # systemd-tmpfiles may have made it, for mkosi
        (tree / "etc/resolv.conf").symlink_to(RESOLVER)


def _write(tree: Path, name: str, text: str) -> None:
    """Write a file of the tree, in the place of any link of the image, which would lead to a file of this host."""
    target = layers.inside(tree, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.write_text(text)


def command_line(tree: Path) -> str:
    """The kernel's command line: ours, then the words of `/etc/kernel/cmdline.d/*.conf` in order of those names."""
    words = ROOT_WORDS.split()
    folder = layers.inside(tree, "etc/kernel/cmdline.d/words").parent
    for file in sorted(folder.glob("*.conf"), key=lambda path: path.name):
        lines = layers.small_text(tree, file).splitlines()
        words += [word for line in lines if not line.startswith("#") for word in line.split()]
    return " ".join(words)


def clean(tree: Path, epoch: int) -> None:
    """Take out of a machine's tree what differs from day to day; no file is newer than `epoch`."""
    build_steps.clean(tree, epoch)
    change_tree(tree, ["sh", str(HERE / "clean.sh")], {}, reads=[HERE])
    run(["find", str(tree), "-xdev", "-newermt", f"@{epoch}", "-exec", "touch", "-hd", f"@{epoch}", "--", "{}", "+"])
    mark_updated(tree)


def mark_updated(tree: Path) -> None:
    """Say to systemd that the caches which depend on /usr are those of this /usr (systemd-update-done.service(8))."""
    for folder in ("etc", "var"):
        if (mark := layers.inside(tree, f"{folder}/.updated")).is_symlink():
            mark.unlink()
        run(["touch", f"--reference={tree / 'usr'}", str(mark)])
