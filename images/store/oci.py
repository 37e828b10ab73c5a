"""The store: one OCI layout that all images share, addressed by content. A blob is there whole or not at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hardening.foundation import hashing
from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import canonical, hex_of
from hardening.foundation.limits import IMAGE_LAYERS, JSON_BYTES, parse_json, read_all
from images.artifact import Descriptor
from images.store import layers
from images.store.fields import ANOTHER, require_one_reading
from images.store.files import image_modes, link_or_copy, room_on
from images.store.tars import Allowance

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
# A machine image: its only layer holds the digests of its disk's blocks, whose own digest is the disk's linear one.
MACHINE_CONFIG = "application/vnd.dev.goldsmith.machine.config.v1+json"
DISK_BLOCKS = "application/vnd.dev.goldsmith.disk.blocks.v1"
# What lies beside the blobs, under the state directory: raw disks by linear digest, trees of images by key.
DISKS, TREES = "disks", "trees"


class Store:
    """Blobs under `path`/blobs/sha256. Safe for several threads and processes: same content, same name.

    With another store `below`, what that one has is seen too, and what is kept here stays here until it is adopted.
    """

    def __init__(self, path: Path, below: Store | None = None) -> None:
        self.path = path
        self.below = below
        self.blobs = path / "blobs" / "sha256"
        self.partial = path / "partial"

    def blob(self, digest: str) -> Path:
        """Where the blob `digest` lies, or would. Raises MalformedError for what is not a digest."""
        own = self.blobs / hex_of(digest)
        return own if self.below is None or own.exists() else self.below.blob(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self.blob(digest).exists()

    def put_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Keep `data`."""
        with self.incoming() as file:
            file.write(data)
            return self.keep(file, hashing.digest(data), media_type)

    def put_file(self, source: Path, media_type: str) -> Descriptor:
        """Keep a copy of the file `source`."""
        with self.incoming() as file, source.open("rb") as data:
            shutil.copyfileobj(data, seen := layers.Hashing(file), 1 << 20)
            return self.keep(file, seen.digest, media_type)

    def put_json(self, value: Any, media_type: str) -> Descriptor:
        """Keep a JSON value in its canonical form."""
        return self.put_bytes(canonical(value), media_type)

    def read_json(self, digest: str) -> Any:
        """The JSON blob `digest`. Raises OutsideError when the store does not hold it."""
        try:
            with self.blob(digest).open("rb") as file:
                found = parse_json(read_all(file, JSON_BYTES, digest), digest)
            require_one_reading(found, digest)
            return found
        except FileNotFoundError:
            raise OutsideError(
                f"{digest} is not in the store {self.path}", hint="build it again with --no-cache, or fetch it"
            ) from None

    def config(self, digest: str) -> dict[str, Any]:
        """The image configuration of the content manifest `digest`."""
        found: dict[str, Any] = self.read_json(self.read_json(digest)["config"]["digest"])
        return found

    @contextmanager
    def incoming(self) -> Iterator[IO[bytes]]:
        """A file to be filled and then given to `keep`; it disappears if it is not."""
        with room_on(self.path):
            self.blobs.mkdir(parents=True, exist_ok=True)
            self.partial.mkdir(exist_ok=True)
            _sweep(self.partial)
            name = self.partial / f"{os.getpid()}-{os.urandom(8).hex()}"
            try:
                with name.open("xb") as file:
                    yield file
            finally:
                name.unlink(missing_ok=True)

    def keep(self, file: IO[bytes], digest: str, media_type: str) -> Descriptor:
        """Give the filled incoming `file` its name for good."""
        file.flush()
        size = os.fstat(file.fileno()).st_size
        Path(file.name).replace(self.blobs / hex_of(digest))
        return Descriptor(media_type, digest, size)

    @property
    def bottom(self) -> Store:
        """The store under all: the one that stays."""
        return self if self.below is None else self.below.bottom

    def place(self, sort: str, name: str) -> Path:
        """Where something of `sort` beside the blobs (DISKS, or trees of images) lies, or would."""
        own = self.own_place(sort, name)
        return own if self.below is None or own.exists() else self.below.place(sort, name)

    def own_place(self, sort: str, name: str) -> Path:
        """Where this very store keeps something beside its blobs."""
        return self.path.parent / sort / name

    def disk(self, linear: str) -> Path:
        """Where the raw disk with the linear digest `linear` lies, or would."""
        return self.place(DISKS, f"{hex_of(linear)}.raw")

    def own_disk(self, linear: str) -> Path:
        """Where this very store keeps that disk."""
        return self.own_place(DISKS, f"{hex_of(linear)}.raw")

    def disk_of(self, digest: str) -> Path | None:
        """Where the disk of the machine image `digest` lies, or would; None for a container."""
        [*_, last] = self.read_json(digest)["layers"] or [{}]
        return self.disk(last["digest"]) if last.get("mediaType") == DISK_BLOCKS else None

    def whole(self, digest: str) -> bool:
        """Whether the image `digest` is there, and if it is a machine, its disk and its tree too."""
        disk = self.disk_of(digest) if self.has(digest) else None
        tree = self.place(TREES, hex_of(digest))
        return self.has(digest) and (disk is None or (disk.exists() and tree.exists()))

    def adopt(self, other: Store, digest: str) -> None:
        """Take over all that `other` keeps; the manifest `digest`, which makes an image of it, last."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        for source, target in ((other.own_place(sort, ""), self.own_place(sort, "")) for sort in (DISKS, TREES)):
            for item in sorted(source.iterdir()) if source.is_dir() else ():
                target.mkdir(mode=0o700, exist_ok=True)
                if not (target / item.name).exists():  # names stand for content: what is there already is the same
                    item.replace(target / item.name)
        last = hex_of(digest)
        for blob in sorted(other.blobs.iterdir(), key=lambda blob: blob.name == last):
            blob.replace(self.blobs / blob.name)

    def write_layer(self, entries: Iterable[layers.Entry], epoch: int) -> tuple[Descriptor, str]:
        """Keep a deterministic layer of `entries` (see `layers`); returns it and its uncompressed digest."""
        with self.incoming() as file:
            digest, diff_id = layers.write(entries, file, epoch)
            return self.keep(file, digest, LAYER), diff_id

    def write_image(
        self, config: dict[str, Any], layer_list: list[Descriptor], annotations: dict[str, str] | None = None,
        config_type: str = CONFIG,
    ) -> Descriptor:  # fmt: skip
        """Keep the configuration and, last, the manifest over `layer_list`."""
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": as_json(self.put_json(config, config_type)),
            "layers": [as_json(layer) for layer in layer_list],
            **({"annotations": annotations} if annotations else {}),
        }
        return self.put_json(manifest, MANIFEST)

    def layers_of(self, digest: str) -> list[Descriptor]:
        """The layers of the content manifest `digest`, lowest first."""
        found = self.read_json(digest)["layers"]
        return [Descriptor(_oci_type(item["mediaType"]), item["digest"], item["size"]) for item in found]

    def require_diff_ids(self, digest: str) -> None:
        """Raises OutsideError unless the layers of the image unpack to what its configuration names, and to no more.

        Engines find out by themselves how a layer is packed; what they unpack is then the same as here.
        """
        allowance = Allowance(f"the image {digest}")
        found = [layers.diff_id(self.blob(one.digest), one.media_type, allowance) for one in self.layers_of(digest)]
        try:
            named = self.config(digest)["rootfs"]["diff_ids"]
        except (LookupError, TypeError):
            named = None
        if found != named:
            raise OutsideError(f"{allowance.bytes.what} does not unpack to what its configuration names", hint=ANOTHER)

    def size_of(self, digest: str) -> int:
        """The bytes of an image as a registry keeps it: manifest, configuration and layers."""
        manifest = self.read_json(digest)
        blobs = [manifest["config"], *manifest["layers"]]
        return self.blob(digest).stat().st_size + sum(int(blob["size"]) for blob in blobs)

    def layout_for(self, digest: str, directory: Path, annotations: dict[str, str] | None = None) -> Path:
        """A layout of this one image in `directory`, hard-linked, for tools that read whole layouts."""
        with room_on(directory):
            manifest = self.read_json(digest)
            self.link(directory, (digest, *(blob["digest"] for blob in [manifest["config"], *manifest["layers"]])))
            root = Descriptor(manifest.get("mediaType", MANIFEST), digest, self.blob(digest).stat().st_size)
            return as_layout(directory, root, annotations)

    def link(self, directory: Path, digests: Iterable[str]) -> None:
        """Hard-link blobs into `directory`, where a layout has them."""
        (blobs := directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        for digest in digests:
            link_or_copy(self.blob(digest), blobs / hex_of(digest))

    def save_as_docker(self, digest: str, archive: Path) -> None:
        """Write the image to `archive` in the form of `docker save`, for tools that read nothing else."""
        manifest = self.read_json(digest)
        config, *others = (blob["digest"] for blob in (manifest["config"], *manifest["layers"]))
        names = {blob: f"blobs/{blob.replace(':', '/')}" for blob in (config, *others)}
        listed = [{"Config": names[config], "RepoTags": None, "Layers": [names[layer] for layer in others]}]
        with tarfile.open(archive, "w") as tar:
            text = json.dumps(listed).encode()
            described = tarfile.TarInfo("manifest.json")
            described.size = len(text)
            tar.addfile(described, io.BytesIO(text))
            for blob, name in names.items():
                tar.add(self.blob(blob), name, recursive=False)

    @image_modes()
    def unpack(self, digest: str, directory: Path) -> Path:
        """The filesystem of the content manifest `digest`, in `directory`: owners, modes, links and all. Needs root.

        Raises OutsideError, which names the limit, for an image that takes too much.
        """
        with room_on(directory):
            directory.mkdir(parents=True, exist_ok=True)
            allowance = Allowance(f"the image {digest}")
            found = self.layers_of(digest)
            IMAGE_LAYERS.require(len(found), allowance.bytes.what)
            for layer in found:
                layers.unpack(self.blob(layer.digest), layer.media_type, directory, allowance)
        return directory


def as_layout(directory: Path, root: Descriptor, annotations: dict[str, str] | None) -> Path:
    """Make `directory`, which holds blobs, an OCI layout of the image `root`, which `annotations` may name."""
    entry = {**as_json(root), **({"annotations": annotations} if annotations else {})}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    (directory / "index.json").write_bytes(canonical(index))
    (directory / "oci-layout").write_bytes(canonical({"imageLayoutVersion": "1.0.0"}))
    return directory


def as_json(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as manifests hold it."""
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _oci_type(media_type: str) -> str:
    """A layer's media type in OCI's words: upstream images may still use Docker's."""
    return "application/vnd.oci.image.layer.v1.tar+gzip" if media_type.endswith("rootfs.diff.tar.gzip") else media_type


def _sweep(partial: Path) -> None:
    """Remove what killed processes left behind."""
    for leftover in partial.iterdir():
        if Path("/proc", leftover.name.split("-")[0]).exists():
            continue
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
