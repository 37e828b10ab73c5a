"""Upstream bases: a tag that people write, the digest `images.lock.toml` pins it to, and the image in the store."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory
from typing import Annotated

from hardening.catalog import judging_roots
from hardening.foundation.console import say
from hardening.foundation.content import Content, load_toml, require_inside
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.hashing import DIGEST, digest_of, hex_of
from hardening.foundation.settings import Settings
from hardening.foundation.wording import matching
from images.advisories import is_before
from images.artifact import Package
from images.catalog import LoadedDefinition
from images.documents import from_json, to_json
from images.model import Bootstrap
from images.packages import debian
from images.packages.dpkg_tree import STATUS_PLACES, dpkg_status
from images.packages.index import PackageIndex, write_atomically
from images.registry.answers import Platform, parsed
from images.registry.client import Manifest, RegistryClient
from images.registry.references import split
from images.registry.release_trust import (
    require_base_allowed,
    require_upstream_trusted,
    trust_of,
    upstream_rule,
)
from images.store import layers
from images.store.files import room_on
from images.store.oci import CONFIG, MANIFEST, Store
from images.trust.verification import Fault, UntrustedError

OS_RELEASE = "usr/lib/os-release"
PLACES = (OS_RELEASE, *STATUS_PLACES)
LOCK = Path("images/definitions/images.lock.toml")
READABLE = 0o644
Digest = Annotated[str, matching(DIGEST, "a digest: sha256: and 64 hexadecimal digits")]


class Pin(Content):
    """What a tag named when it was locked: the digest of its index, and of the manifest of each platform."""

    digest: Digest
    platforms: dict[str, Digest]


class LockFile(Content):
    """The committed file of pins: tag → pin."""

    images: dict[str, Pin] = {}


@dataclass(frozen=True)
class Texts:
    """What an image says of itself: its os-release, and its dpkg status with the files beside it."""

    os_release: str
    status: str


def pins(roots: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Pin]]]:
    """The lock file of each root that has one, and its pins; read when it is reached. Raises ContentError."""
    return ((file, _load(file).images) for root in roots if (file := root / LOCK).exists())


class Upstream:
    """The upstream images of all content roots. A pin never moves by itself: `lock` moves it.

    `now` is the flow's one reading of the clock, by which keys of upstream images count. `definitions`: those that may
    stand on them.
    """

    def __init__(
        self, settings: Settings, store: Store, now: datetime, definitions: Iterable[LoadedDefinition] = ()
    ) -> None:
        self.settings, self.now = settings, now
        self.definitions = tuple(definitions)
        self.store = store
        self.index = PackageIndex(settings)

    def lock(self, reference: str, root: Path | None = None, digest: str = "") -> Pin:
        """Pin `reference` to what its tag names now, or to `digest`, in the lock file of the content root `root` (else
        the one that already pins it, else the checkout's). Raises OutsideError or ContentError when the registry has no
        such tag or digest.
        """
        require_base_allowed(self.settings, reference)
        found = self._registry(reference).get(f"{split(reference)[0]}@{digest}" if digest else reference)
        if not self._require_trusted(reference, found.digest):
            say(f"{reference}: trusted on first use, for no rule in trust.upstream of the policy says who signs it")
        pin = Pin(digest=found.digest, platforms=self._platforms(reference, found))
        file = root / LOCK if root else self._found(reference)[0]
        pins = {**_load(file).images, reference: pin} if file.exists() else {reference: pin}
        mode = S_IMODE(file.stat().st_mode) if file.exists() else READABLE
        write_atomically(file, render_lock(pins))
        file.chmod(mode)  # it is content, which others read too, and no state: the mask of commands is not for it
        return pin

    def locked(self, reference: str) -> str:
        """The pinned digest of `reference` for the platform of the settings, without any network. Raises RefusedError
        for a base that nothing may be built on.
        """
        require_base_allowed(self.settings, reference)
        return self._of_platform(reference, self._pin(reference).platforms, self._found(reference)[0])

    def pinned(self, reference: str) -> str:
        """The digest that `reference` is pinned to, of all platforms; empty where nothing is pinned."""
        _, pin = self._found(reference)
        return pin.digest if pin else ""

    def _pin(self, reference: str) -> Pin:
        """What is pinned. Raises ContentError where nothing is."""
        file, pin = self._found(reference)
        if pin is None:
            raise ContentError(f"{reference} is not pinned", file=file, hint="./goldsmith image.lock NAME pins it")
        return pin

    def fetch(self, reference: str) -> str:
        """The pinned image of `reference`, brought into the store if it is not there; its content digest."""
        content = self.locked(reference)
        self._require_part(reference, self._pin(reference).digest, content)
        return self.bring_exactly(reference, content)

    def _require_part(self, reference: str, pinned: str, content: str) -> None:
        """Raise UntrustedError unless what is pinned is signed as a rule says, and lists the content for the platform.

        A record beside the store keeps what was verified, for this reference and rule: others bring images there too.
        """
        rule, platform = upstream_rule(trust_of(self.settings), reference), self.settings.platform
        if rule is None:
            return
        checked = digest_of([reference, pinned, platform, rule.model_dump(mode="json")])
        record = self.store.path / "verified" / hex_of(content) / hex_of(checked)
        if record.exists():
            return
        self._require_trusted(reference, pinned)
        if content != pinned:
            found = self._registry(reference).get(f"{split(reference)[0]}@{pinned}")
            if (platform, content) not in [(str(child.platform), child.digest) for child in found.index.manifests]:
                key = f'{self._found(reference)[0]}: images."{reference}".platforms'
                why = f"{key}: {content} is pinned for {platform}, and {pinned}, which is signed, does not list it so"
                raise UntrustedError(Fault.OTHER_SUBJECT, reference, why)
        write_atomically(record, "")

    def _require_trusted(self, reference: str, digest: str) -> bool:
        """Whether a rule says who signs `reference`. Raises UntrustedError where the digest is not signed so."""
        return require_upstream_trusted(self._registry(reference), reference, digest, self.now)

    def bring(self, reference: str) -> str:
        """What a registry holds at `reference`, put into the store, for the settings' platform; its content digest."""
        platforms = self._platforms(reference, self._registry(reference).get(reference))
        return self.bring_exactly(reference, self._of_platform(reference, platforms))

    def digest_of(self, reference: str) -> str:
        """What the tag `reference` names now, by its manifest. Raises as `lock`."""
        return self._registry(reference).get(reference).digest

    def _of_platform(self, reference: str, platforms: dict[str, str], file: Path | str = "") -> str:
        wanted = self.settings.platform
        if wanted not in platforms:
            hint = f"it has {', '.join(sorted(platforms))}"
            raise ContentError(f"{reference} has no {wanted}", file=file, hint=hint)
        return platforms[wanted]

    def bring_exactly(self, reference: str, digest: str) -> str:
        """The one image with the digest `digest` from the repository of `reference`, put into the store; its digest."""
        if self.store.has(digest):
            return digest
        self.store.path.mkdir(parents=True, exist_ok=True)
        with room_on(self.store.path), TemporaryDirectory(dir=self.store.path) as directory:
            repository, _ = split(reference)
            self._registry(reference).download(f"{repository}@{digest}", Path(directory))
            self._import(Path(directory), digest)
        return digest

    def bootstrap(self, reference: str) -> Bootstrap:
        """The distribution of the image: its children's packages come from there. ContentError if not Debian.

        Raises OutsideError where its name of the release is none.
        """
        return self.bootstrap_of(self.fetch(reference), reference)

    def bootstrap_of(self, digest: str, reference: str) -> Bootstrap:
        """The distribution of an image in the store, which `reference` names in errors; as `bootstrap`."""
        release = debian.os_release(self._texts(digest).os_release)
        if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
            raise ContentError(f"{reference} is not Debian, and other distributions are not supported")
        return Bootstrap(family="debian", suite=debian.suite(release["VERSION_CODENAME"], reference))

    def packages(self, reference: str) -> tuple[Package, ...]:
        """What is installed in the image, by its own dpkg status. Raises OutsideError where that is none."""
        digest = self.fetch(reference)
        try:
            return self.index.told_by(digest, self.status(digest))
        except OutsideError as error:
            where = f"{reference}: var/lib/dpkg/status in the image: {error.message}"
            hint = "the image was made by something else than dpkg: build on another one"
            raise OutsideError(where, evidence=error.evidence, hint=hint) from None

    def _platforms(self, reference: str, found: Manifest) -> dict[str, str]:
        """Platform → digest of the manifest: those of an index, or the one that a single manifest is for.

        Of several for a platform an engine chooses: that one is left out. Raises MalformedError where it is ours.
        """
        if found.is_index:
            names = Counter(str(item.platform) for item in found.index.manifests if item.platform)
            if self.settings.platform in names:
                found.content(self.settings.platform)
            once = {str(item.platform): item.digest for item in found.index.manifests if item.platform}
            return {name: once[name] for name in sorted(names) if names[name] == 1 and "unknown" not in name}
        config = self.store.config(self.bring_exactly(reference, found.digest))
        return {str(parsed(Platform, config, reference)): found.digest}

    def _import(self, directory: Path, digest: str) -> None:
        """Take a downloaded image into the store. Raises OutsideError when it is another one, or unpacks to another."""
        taken = Store(directory / "store", below=self.store)
        for blob in directory.iterdir():
            if re.fullmatch(r"[0-9a-f]{64}", blob.name):
                taken.put_file(blob, CONFIG)
        found = taken.put_file(directory / "manifest.json", MANIFEST)
        if found.digest != digest:
            raise OutsideError(f"the registry gave {found.digest} for {digest}", hint="is something between us and it?")
        taken.require_diff_ids(digest)
        self.store.adopt(taken, digest)

    def _registry(self, reference: str) -> RegistryClient:
        return RegistryClient(split(reference)[0].rpartition("/")[0], self.settings)

    def _found(self, reference: str) -> tuple[Path, Pin | None]:
        """The lock file that pins `reference`, and the pin; the checkout's, and no pin, where none does.

        Those of roots that may judge come first, and are the only ones where a definition of such a root stands on it.
        Later ones, which may be broken, are not read.
        """
        judging = judging_roots(self.settings)
        users = [user.folder.parents[2] for user in self.definitions if user.definition.base.image == reference]
        roots = judging if {*users} & {*judging} else dict.fromkeys((*judging, *self.settings.roots))
        pinned = ((file, images[reference]) for file, images in pins(roots) if reference in images)
        return next(pinned, (self.settings.roots[0] / LOCK, None))

    def status(self, digest: str) -> str:
        """The dpkg status of an image in the store, with what stands beside it; empty where there is none."""
        return self._texts(digest).status

    def _texts(self, digest: str) -> Texts:
        """What the image says of itself, kept beside the store once found."""
        kept = self.store.path / "texts" / f"{digest.removeprefix('sha256:')}.json"
        if not kept.exists():
            with room_on(self.store.path), TemporaryDirectory(dir=self.store.path) as folder:
                tree = Path(folder, "tree")
                image = [(self.store.blob(one.digest), one.media_type) for one in self.store.layers_of(digest)]
                layers.unpack_places(image, f"the image {digest}", tree, PLACES)
                found = Texts(layers.small_text(tree, tree / OS_RELEASE), dpkg_status(tree))
            write_atomically(kept, json.dumps(to_json(found)))
        return from_json(Texts, json.loads(kept.read_bytes()))


def not_offered(packages: Iterable[Package], newest: Mapping[str, str]) -> tuple[str, ...]:
    """The packages, each with the reason, that no archive can have had: `newest` is what it offers, by name.

    An older version was offered before. Pure.
    """
    return tuple(
        f"{one.name} {one.version}: "
        + (f"newer than {newest[one.name]}, the newest that is offered" if one.name in newest else "not offered at all")
        for one in packages
        if one.name not in newest or is_before(newest[one.name], one.version)
    )


def _load(file: Path) -> LockFile:
    return load_toml(require_inside(file, file.parent), LockFile)


def render_lock(pins: dict[str, Pin]) -> str:
    """The text of the lock file."""
    lines = ["# Upstream images and the digests they are pinned to. Moved by `./goldsmith image.lock`, not by hand.\n"]
    for reference, pin in sorted(pins.items()):
        platforms = ", ".join(f'"{name}" = "{digest}"' for name, digest in sorted(pin.platforms.items()))
        lines.append(f'\n[images."{reference}"]\ndigest = "{pin.digest}"\nplatforms = {{ {platforms} }}\n')
    return "".join(lines)
