"""Packages as apt sees them: a private apt root for each distribution; apt itself resolves, fetches and verifies."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from hardening.foundation.durations import header_date
from hardening.foundation.errors import ContentError, OutsideError, nearest
from hardening.foundation.hashing import DIGEST, digest_of
from hardening.foundation.limits import Limit
from hardening.foundation.locks import only_one
from hardening.foundation.process import NETWORK, Completed, failed, run
from hardening.foundation.retrying import retrying
from hardening.foundation.settings import Settings
from images.advisories import is_before
from images.artifact import Package
from images.model import Bootstrap
from images.packages import aptroot, debian, pool
from images.plan.cooldown import Offer
from images.store.files import file_digest, room_on

Value = TypeVar("Value")
HELPER = "/usr/lib/apt/apt-helper"
MINBASE = ("?essential", "?priority(required)", "apt")


class PackageIndex:
    """The package indexes of the distributions that definitions name, kept under the state directory.

    Every method takes the bootstrap whose suite it asks about. An index that was never fetched is fetched when first
    needed; after that only `refresh` fetches. With a `home` of its own it keeps nothing elsewhere; a `past` one reads
    archives of old days, whose signatures say that newer ones should have come.
    """

    def __init__(self, settings: Settings, home: Path | None = None, *, past: bool = False) -> None:
        self.settings = settings
        self.home = home or settings.state_dir / "apt"
        self.past = past
        self.architecture = settings.platform.removeprefix("linux/")

    def sources(self, bootstrap: Bootstrap) -> str:
        """The deb822 text that an image of this distribution holds. Raises ContentError when no archive is known."""
        return aptroot.sources_text(self.settings, bootstrap)

    def refresh(self, bootstrap: Bootstrap) -> None:
        """Fetch the index again. Raises OutsideError when any of its sources cannot be fetched or verified."""
        root = self._root(bootstrap)
        with only_one(root / "lock", "a refresh of the package index", wait_seconds=300), room_on(root):
            retrying(lambda: self._update(bootstrap), within=self.settings.retry_for)

    def is_fetched(self, bootstrap: Bootstrap) -> bool:
        """Whether questions are answered without fetching the index first."""
        return (self._root(bootstrap) / "fetched").exists()

    def state(self, bootstrap: Bootstrap) -> str:
        """A digest of the whole index as fetched: the signed release files of all sources, and the sources' names."""
        lists = self._fetched(bootstrap) / "var/lib/apt/lists"
        releases = sorted(path for path in lists.iterdir() if path.name.endswith("Release"))
        return digest_of([aptroot.sources_of(self.settings, bootstrap), [file_digest(path) for path in releases]])

    def resolve(
        self, bootstrap: Bootstrap, wanted: tuple[str, ...], installed: tuple[Package, ...] = (), image: str = "",
        held: Held = (),
    ) -> tuple[Package, ...]:  # fmt: skip
        """The packages that installing `wanted` on top of `installed` adds, as apt resolves it, in order of name.

        Nothing installed: the base set of the bootstrap's variant is added; a static one gets exactly `wanted`.
        `image` is the digest of the upstream image that told (`told_by`) what those without a hash are. `held`:
        packages by name and version that are not taken.
        What was resolved is kept for this state of the index. Raises ContentError for a name that the index does not
        have, or that cannot be installed.
        """
        request = [self.state(bootstrap), sorted(wanted), [vars(p) for p in sorted(installed)], bootstrap.variant]
        request += [image, *([held] if held else [])]
        cached = self._root(bootstrap) / "resolved" / digest_of(request).removeprefix("sha256:")
        if not cached.exists() or not all(self._entry_path(package).exists() for package in _read(cached)):
            found = self._resolve(bootstrap, wanted, installed, image, held)
            for package, stanza in found.items():
                write_atomically(self._entry_path(package), stanza)
            write_atomically(cached, json.dumps([asdict(package) for package in found]))
        return tuple(sorted(_read(cached)))

    def candidates(self, bootstrap: Bootstrap, names: Iterable[str]) -> dict[str, str]:
        """Name → the version that apt would take now, of all `names` in one question; those without any are left out.

        Kept for this state of the index.
        """
        asked = sorted(set(names))

        def ask() -> dict[str, str]:
            with self._apt(bootstrap) as apt:
                return debian.candidates(apt(["apt-cache", "policy", "--", *asked], (0,)).stdout)

        return self._told("candidates", bootstrap, asked, ask) if asked else {}

    def newest(self, bootstrap: Bootstrap, names: Iterable[str]) -> dict[str, str]:
        """Name → the newest version that any source offers; those without any are left out.

        Kept for this state of the index.
        """
        asked = sorted(set(names))

        def ask() -> dict[str, str]:
            with self._apt(bootstrap) as apt:
                shown = apt(["apt-cache", "madison", "--", *asked], (0,)).stdout
            offered = dict[str, str]()
            for name, version, _ in debian.listed(shown):
                if name not in offered or is_before(offered[name], version):
                    offered[name] = version
            return offered

        return self._told("newest", bootstrap, asked, ask) if asked else {}

    def upgrades(self, bootstrap: Bootstrap, status: str) -> dict[str, tuple[str, str, bool]]:
        """Name → (installed, newer, whether it is kept back), by apt's solver over a system with that dpkg status.

        Kept for this state of the index. Raises OutsideError where apt finds no way to upgrade it.
        """

        def ask() -> dict[str, tuple[str, str, bool]]:
            with self._apt(bootstrap, status) as apt:
                argv = ["apt-get", "-s", "-V", "-o", "Debug::NoLocking=1", "dist-upgrade"]
                return debian.upgrades(apt(argv, (0,)).stdout)

        return {name: (old, new, kept) for name, (old, new, kept) in
                self._told("upgrades", bootstrap, [status], ask).items()}  # fmt: skip

    def described(self, bootstrap: Bootstrap, versions: Mapping[str, str]) -> dict[str, Package]:
        """Name → the package of that name and version, as far as the index has it."""
        asked = [f"{name}={version}" for name, version in sorted(versions.items())]

        def ask() -> list[dict[str, Any]]:
            with self._apt(bootstrap) as apt:
                shown = apt(["apt-cache", "show", "--", *asked], (0, 100)).stdout
            return [asdict(debian.package_of(stanza)) for stanza in debian.stanzas(shown)]

        found = [Package(**one) for one in self._told("described", bootstrap, asked, ask)] if asked else []
        return {one.name: one for one in found if one.version == versions.get(one.name)}

    def offers(self, bootstrap: Bootstrap) -> tuple[Offer, ...]:
        """What the settings' extra sources have, but for what the distribution's archive has in the same version."""
        sources = aptroot.extra_sources(self.settings)
        if not sources:
            return ()

        def ask() -> list[dict[str, str]]:
            with self._apt(bootstrap, sources=sources) as apt:
                form = "$(FILENAME)|$(METAKEY)|$(BASE_URI)"
                lines = apt(["apt-get", "indextargets", "--format", form, "Created-By: Packages"], (0,)).stdout
                found = [one for line in lines.splitlines() for one in _offered(apt, *line.split("|", 2))]
            own = self.in_archive(bootstrap, {one["name"] for one in found})
            return [one for one in found if (one["name"], one["version"]) not in own]

        told, dates = self._told("offers", bootstrap, [sources], ask), not debian.may_be_unsigned(sources)
        return tuple(
            Offer(
                **{key: said for key, said in one.items() if key != "signed"},
                signed=header_date(one["signed"]) if dates else None,
            )
            for one in told
        )

    def in_archive(self, bootstrap: Bootstrap, names: Iterable[str]) -> set[tuple[str, str]]:
        """Name and version of those packages that the distribution's own archive has."""
        asked = sorted(names)
        self._fetched(bootstrap)
        with self._apt(bootstrap, sources=aptroot.archive_sources(self.settings, bootstrap)) as apt:
            listed = apt(["apt-cache", "madison", "--", *asked], (0,)).stdout if asked else ""
        return {(name, version) for name, version, _ in debian.listed(listed)}

    def _told(self, what: str, bootstrap: Bootstrap, asked: object, ask: Callable[[], Value]) -> Value:
        """What apt answers, kept for this state of the index; JSON."""
        key = digest_of([what, self.state(bootstrap), asked]).removeprefix("sha256:")
        cached = self._root(bootstrap) / "resolved" / f"{what}-{key}"
        if not cached.exists():
            write_atomically(cached, json.dumps(ask()))
        return cast(Value, json.loads(cached.read_text()))

    def stanzas(self, packages: Iterable[Package]) -> str:
        """The index entries of packages that were resolved before, as a Packages file holds them."""
        return "\n\n".join(self._entry(package) for package in packages) + "\n"

    def told_by(self, image: str, status: str) -> tuple[Package, ...]:
        """What the upstream image with the digest `image` has installed, by its own dpkg status.

        Its entries are kept under its digest alone: they tell apt what is there, for its children, and stand for no
        package of an archive. Raises OutsideError where an entry is not Debian's form.
        """
        found = debian.installed(status)
        for package, stanza in found.items():
            path = self._told_path(image, package)
            if not path.exists():
                write_atomically(path, stanza)
        return tuple(found)

    def download(self, bootstrap: Bootstrap, packages: Iterable[Package]) -> dict[Package, Path]:
        """The verified .debs of `packages`; only what the pool lacks, or holds otherwise, is fetched.

        Raises OutsideError.
        """
        paths = {package: self._pool_path(package) for package in packages}
        missing = [package for package, path in paths.items() if not pool.is_whole(package, path)]
        if missing:
            with room_on(self.home):
                retrying(lambda: self._download(bootstrap, missing), within=self.settings.retry_for)
        return paths

    def dated(self, package: Package) -> datetime | None:
        """The date that the .deb of a package says of itself, which its signed hash covers; None: it is not here."""
        try:
            return pool.dated(self._pool_path(package))
        except OutsideError:  # no archive told its hash
            return None

    def collect(self, bootstrap: Bootstrap, packages: Iterable[Package]) -> dict[Package, tuple[Path, str]]:
        """The verified .debs of `packages` with their index entries, as far as they are here or the archive has them.

        By their hashes alone, whoever resolved them; others are left out. Raises OutsideError without any index.
        """
        paths = {package: self._pool_path(package) for package in packages}
        missing = [package for package, path in paths.items() if not self._kept(package, path)]
        if missing:
            self._fetched(bootstrap)
            with room_on(self.home):
                self._download_known(bootstrap, missing)
        return {package: (path, self._entry(package)) for package, path in paths.items() if self._kept(package, path)}

    def _kept(self, package: Package, path: Path) -> bool:
        return self._entry_path(package).exists() and pool.is_whole(package, path)

    def _download_known(self, bootstrap: Bootstrap, missing: list[Package]) -> None:
        """Fetch those of `missing` that the index has in this very version, each with its entry."""
        wanted = {(package.name, package.version, package.sha256): package for package in missing}
        with self._apt(bootstrap) as apt, TemporaryDirectory(dir=self.home) as partial:
            names = sorted({package.name for package in missing})
            shown = apt(["apt-cache", "show", "--", *names], (0, 100)).stdout
            found = dict[Package, str]()
            for stanza in debian.stanzas(shown):
                told = debian.package_of(stanza)
                if package := wanted.get((told.name, told.version, told.sha256)):
                    found.setdefault(package, stanza)
            absent = [package for package in found if not pool.is_whole(package, self._pool_path(package))]
            if absent:
                versions = [f"{package.name}={package.version}" for package in absent]
                apt(["apt-get", "-q", "-o", "Acquire::Retries=2", "download", "--", *versions], (0, 100), Path(partial))
            for package in absent:
                file = Path(partial) / debian.pool_name(package)
                if pool.is_whole(package, file):
                    self._adopt(package, file)
                else:
                    del found[package]
            for package, stanza in found.items():
                write_atomically(self._entry_path(package), stanza)

    def fetch(self, bootstrap: Bootstrap, path: str, sha256: str, target: Path, most: Limit) -> None:
        """The file at `path` of the archive, which need stand in no index of this suite, as `target`; verified.

        Raises OutsideError where no archive of the distribution has that very file in at most `most` bytes.
        """
        refused: list[str] = []
        with self._apt(bootstrap) as apt:
            for address in aptroot.addresses(self.settings, bootstrap):
                argv = [HELPER, "-o", "Acquire::Retries=2", "download-file", f"{address}/{path}", str(target)]
                done = apt(aptroot.limited([*argv, f"SHA256:{sha256}"], most.most), (0, 100))
                if done.status == 0 and file_digest(target) == sha256:
                    return
                refused.append(aptroot.too_large(done.stderr, most) or done.stderr.strip() or done.stdout.strip())
                target.unlink(missing_ok=True)
        raise OutsideError(f"no archive has {path} (sha256 {sha256[:12]}…)", evidence="\n".join(refused)[-2000:])

    def _resolve(
        self,
        bootstrap: Bootstrap,
        wanted: tuple[str, ...],
        installed: tuple[Package, ...],
        image: str,
        held: Held = (),
    ) -> dict[Package, str]:
        """Package → index entry of what apt would fetch. Raises OutsideError where the two are not the same package."""
        static = bootstrap.variant == "static"
        names = wanted if static or installed else (*MINBASE, *wanted)
        if not names:
            return {}
        status = "\n\n".join(debian.as_installed(self._described(package, image)) for package in installed)
        verb = ["download"] if static else ["-y", "--no-remove", "install"]
        with self._apt(bootstrap, status, held=held) as apt:
            done = apt(
                ["apt-get", "-qq", "--print-uris", "-o", "Acquire::ForceHash=sha256", *verb, "--", *names], (0, 100)
            )
            if done.status:
                raise self._unresolved(bootstrap, done, apt)
            fetched = debian.parse_uris(done.stdout)
            shown = apt(["apt-cache", "show", "--no-all-versions", "--", *fetched], (0,)).stdout if fetched else ""
        found = {debian.package_of(stanza): stanza for stanza in debian.stanzas(shown)}
        if {f"{package.name}={package.version}": package.sha256 for package in found} != fetched:
            names_of = sorted(fetched.items() ^ {(f"{p.name}={p.version}", p.sha256) for p in found})
            raise OutsideError(
                f"apt would fetch other packages than it describes: {', '.join(name for name, _ in names_of[:5])}",
                hint="refresh the index and plan again; a base image may describe a package otherwise than the archive",
            )
        return found

    def _unresolved(self, bootstrap: Bootstrap, done: Completed, apt: Apt) -> ContentError:
        unknown = re.search(
            r"Unable to locate package (\S+)|Package '(\S+)' has no installation candidate", done.stderr
        )
        if unknown:
            name = unknown[1] or unknown[2]
            near = [known for known in apt(["apt-cache", "pkgnames"], (0,)).stdout.split() if known[:2] == name[:2]]
            hint = nearest(name, near) if near else ""
            return ContentError(
                f"no package {name} in {bootstrap.suite} ({', '.join(bootstrap.components)})",
                key="packages",
                hint=hint if hint.startswith("did you mean") else "the package index knows no name like it",
            )
        return ContentError(
            f"apt finds no way to install this in {bootstrap.suite}", key="packages", evidence=failed(done).evidence
        )

    def _update(self, bootstrap: Bootstrap) -> None:
        with self._apt(bootstrap) as apt:
            argv = aptroot.limited(["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"])
            done = apt(argv, (0, 100))
        if done.status:
            # What was fetched and not verified, from wherever the mirror sent us, does not stay.
            shutil.rmtree(self._root(bootstrap) / aptroot.UNVERIFIED, ignore_errors=True)
            raise OutsideError(
                f"the package index of {bootstrap.suite} could not be fetched",
                evidence="\n".join(line for line in done.stderr.splitlines() if line.strip())[-2000:],
                hint=aptroot.too_large(done.stderr)
                or "check the network, settings packages.mirror and packages.proxy, and that the keyring is current",
            )
        (self._root(bootstrap) / "fetched").touch()

    def _download(self, bootstrap: Bootstrap, packages: list[Package]) -> None:
        names = [f"{package.name}={package.version}" for package in packages]
        with self._apt(bootstrap) as apt, TemporaryDirectory(dir=self.home) as partial:
            apt(["apt-get", "-q", "download", "--", *names], (0,), Path(partial))
            for package in packages:
                self._adopt(package, Path(partial) / debian.pool_name(package))

    def _adopt(self, package: Package, file: Path) -> None:
        """Move a fetched .deb into the pool, if it is the very one that was resolved."""
        if not pool.is_whole(package, file):
            raise OutsideError(
                f"the mirror's {package.name} {package.version} is not the file that was planned",
                hint="the archive changed in between: refresh the index and plan again",
            )
        target = self._pool_path(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)

    @contextmanager
    def _apt(
        self, bootstrap: Bootstrap, status: str = "", *, sources: str = "", held: Held = ()
    ) -> Iterator[Apt]:  # fmt: skip
        """A runner of apt programs on the private root, with `status` as what is installed."""
        root = self._root(bootstrap)
        with TemporaryDirectory(dir=root) as scratch:
            config = aptroot.configure(
                self.settings, bootstrap, root, Path(scratch), status, sources=sources, held=held
            )  # fmt: skip
            if self.past:
                with config.open("a") as file:
                    file.write('Acquire::Check-Valid-Until "false";\n')
            env = {"APT_CONFIG": str(config), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}

            def apt(argv: list[str], ok: tuple[int, ...], cwd: Path | None = None) -> Completed:
                return run(
                    argv, env=env, passes=NETWORK, ok=ok, cwd=cwd, timeout=aptroot.LONGEST_SECONDS,
                    hint="apt answers from the index under the state directory",
                )  # fmt: skip

            yield apt

    def _fetched(self, bootstrap: Bootstrap) -> Path:
        root = self._root(bootstrap)
        if not self.is_fetched(bootstrap):
            self.refresh(bootstrap)
        return root

    def _root(self, bootstrap: Bootstrap) -> Path:
        """The private root for this distribution and these sources: other settings never see each other's index."""
        key = digest_of([aptroot.sources_of(self.settings, bootstrap), self.architecture])[7:19]
        root = self.home / f"{bootstrap.suite}-{self.architecture}-{key}"
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _entry(self, package: Package) -> str:
        """The kept index entry of `package`. Raises OutsideError where none is kept, or it describes another one."""
        try:
            stanza = self._entry_path(package).read_text()
        except FileNotFoundError:
            raise OutsideError(
                f"{package.name} {package.version} was never resolved on this machine",
                hint="build what it belongs to with --no-cache",
            ) from None
        found = debian.package_of(stanza)
        if (found.name, found.version, found.sha256) != (package.name, package.version, package.sha256):
            raise OutsideError(
                f"the kept entry of {package.name} {package.version} describes {found.name} {found.version}",
                hint=f"remove {self._entry_path(package)} and plan again",
            )
        return stanza

    def _described(self, package: Package, image: str) -> str:
        """What apt is told of an installed package: the archive's entry, or what the upstream `image` said of it."""
        told = self._told_path(image, package) if image and not package.sha256 else None
        return told.read_text() if told and told.exists() else self._entry(package)

    def _entry_path(self, package: Package) -> Path:
        return self.home / "entries" / _hash_of(package) / debian.pool_name(package)

    def _pool_path(self, package: Package) -> Path:
        return self.home / "pool" / _hash_of(package) / debian.pool_name(package)

    def _told_path(self, image: str, package: Package) -> Path:
        if not re.fullmatch(DIGEST, image):
            raise OutsideError(f"{image!r} is not the digest of an image")
        return self.home / "told" / image.removeprefix("sha256:") / debian.pool_name(package)


def _hash_of(package: Package) -> str:
    """The hash that an archive signed for `package`. Raises OutsideError where it has none."""
    if not package.sha256:
        raise OutsideError(
            f"{package.name} {package.version} was never resolved on this machine: no archive told its hash",
            hint="it is known from an upstream image alone; build what it belongs to with --no-cache",
        )
    debian.require({"SHA256": package.sha256})
    return package.sha256


Apt = Callable[..., Completed]
Held = tuple[tuple[str, str], ...]


def _offered(apt: Apt, file: str, key: str, source: str) -> Iterator[dict[str, str]]:
    """The packages of one fetched index of a source, and the date in its release file, which apt has verified."""
    path = Path(file)
    before = path.name.rpartition(key.replace("/", "_"))[0]
    releases = (path.with_name(before + name) for name in ("InRelease", "Release"))
    signed = next((debian.date_of(one.read_bytes().decode(errors="replace")) for one in releases if one.is_file()), "")
    for stanza in debian.stanzas(apt([HELPER, "cat-file", file], (0,)).stdout):
        told = debian.package_of(stanza)
        yield {
            "source": source, "name": told.name, "version": told.version, "sha256": told.sha256, "signed": signed,
            "built_from": told.source, "source_version": told.source_version,
        }  # fmt: skip


def _read(resolution: Path) -> list[Package]:
    return [Package(**item) for item in json.loads(resolution.read_text())]


def write_atomically(path: Path, text: str, mode: int | None = None) -> None:
    """Write by a temporary name that leads nowhere else, so that half a file is never read; `mode`: who may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    with temporary.open("x") as file:
        file.write(text)
    if mode is not None:
        temporary.chmod(mode)
    temporary.replace(path)
