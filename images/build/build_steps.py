"""The inputs and results of a build, and the steps that builders share: dates, files, cleaning, finishing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from hardening.foundation.confinement import change_tree
from hardening.foundation.content import read_small
from hardening.foundation.errors import ContentError, LateError, OutsideError, nearest
from hardening.foundation.limits import BUILD_SECONDS
from hardening.foundation.process import bound, pipe_from, run, which
from hardening.overlay import apply_to
from hardening.render import Overlay
from images.artifact import Descriptor, Package
from images.build.config import image_config, seconds
from images.catalog import files_of, mode_of
from images.model import Definition
from images.packages import debian
from images.packages.dpkg_tree import dpkg_status
from images.store import layers, tars
from images.store.oci import CONFIG, Store


@dataclass(frozen=True)
class BuildJob:
    """All inputs of a build. `work` is temporary and removed by the caller.

    `packages` are those to add, `debs` their files, `stanzas` their index entries; `sources` is the apt configuration
    that the image itself will hold, `archive` the state of what that names, where mkosi takes from it by itself.
    `parent` or `upstream` is the content digest, in the store, of what it stands on. `mounts`: overlays may be mounted
    in `work`, privately. `declared`: see ImageFacts.
    """

    name: str
    definition: Definition
    definition_folder: Path
    platform: str
    overlay: Overlay
    packages: tuple[Package, ...]
    debs: dict[Package, Path]
    stanzas: str
    sources: str
    parent: str | None
    upstream: str | None
    work: Path
    store: Store
    docker_host: str = ""
    archive: str = ""
    mounts: bool = False
    declared: tuple[str, ...] = ()

    @property
    def base(self) -> str | None:
        """The content digest this image stands on, whosever it is."""
        return self.parent or self.upstream

    @property
    def suite(self) -> str:
        """The suite of a base that is made from packages; empty on another image."""
        bootstrap = self.definition.base.bootstrap
        return bootstrap.suite if bootstrap else ""


@dataclass(frozen=True)
class Built:
    """A finished build: the content manifest's digest, all packages in it, and its unpacked filesystem in `work`."""

    digest: str
    packages: tuple[Package, ...]
    created: datetime
    tree: Path
    size_bytes: int
    dockerfile: Path | None = None


HERE = Path(__file__).parent


def mmdebstrap_version() -> str:
    """The version of mmdebstrap on this host, which has a say in the bytes of a tree."""
    script = which("mmdebstrap")
    found = re.search(r"VERSION = '([\d.]+)'", script.read_text()) if script else None
    return found[1] if found else "absent"


def epoch_of(job: BuildJob) -> int:
    """The image's date in seconds since 1970: that of the newest file among its inputs, never the clock's."""
    times = [newest_member(path) for path in job.debs.values()]
    if job.base:
        times.append(seconds(job.store.config(job.base).get("created", "1970-01-01T00:00:00Z")))
    return max(times, default=0)


def newest_member(deb: Path) -> int:
    """The newest time in an ar archive's member headers (name 16 bytes, time 12, …, size 10 at 48), in seconds."""
    newest, position, size = 0, 8, deb.stat().st_size
    with deb.open("rb") as file:
        while position + 60 <= size:
            file.seek(position)
            header = file.read(60)
            newest = max(newest, int(header[16:28]))
            length = int(header[48:58])
            position += 60 + length + length % 2
    return newest


def weigh(debs: Iterable[Path]) -> None:
    """Look through packages that dpkg is about to unpack. Raises OutsideError for one that is over a layer's limits."""
    for deb in debs:
        what = f"the package {deb.name}"

        def count(stream: IO[bytes], what: str = what, size: int = deb.stat().st_size) -> None:
            with tars.members(stream, what, size) as tar:
                for _ in tar:
                    pass

        pipe_from(["dpkg-deb", "--fsys-tarfile", str(deb)], count)


def put_files(job: BuildJob, tree: Path) -> None:
    """Put the definition's own files into a tree."""
    for copied in job.definition.files:
        target = layers.inside(tree, copied.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)  # a link would lead the text elsewhere
        put_file(job.definition, job.definition_folder, copied.source, target)
        uid, gid = copied.owner.split(":")
        layers.own(target, int(uid), int(gid), int(copied.mode, 8))


def put_file(definition: Definition, folder: Path, source: str, target: Path) -> None:
    """Write a file of the definition's folder as `target`; `.j2` is rendered first, with `definition`.

    Raises ContentError.
    """
    path = _file_of(folder, source)
    if path.suffix == ".j2":
        target.write_text(render(path, {"definition": definition}))
    else:
        shutil.copyfile(path, target)


def require_file(definition: Definition, folder: Path, source: str) -> None:
    """Raises ContentError where `put_file` would."""
    path = _file_of(folder, source)
    if path.suffix == ".j2":
        render(path, {"definition": definition})


def _file_of(folder: Path, source: str) -> Path:
    path = (folder / source).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ContentError(
            f"{source} is not a file in the definition's folder", file=folder / "image.toml", key="files.source",
            hint=nearest(source, files_of(folder)),
        )  # fmt: skip
    return path


def render(path: Path, values: dict[str, Any]) -> str:
    """A template with `values`; it may extend the templates shipped here. Raises ContentError naming the line."""
    from jinja2 import FileSystemLoader, TemplateError, TemplateSyntaxError

    from hardening.foundation import templating

    try:
        return templating.render(read_small(path), values, templating.Sandbox(FileSystemLoader([HERE])))
    except TemplateError as error:
        line = f"line {error.lineno}: " if isinstance(error, TemplateSyntaxError) else ""
        raise ContentError(f"{line}{error.message}", file=path, hint=f"values: {', '.join(sorted(values))}") from None


def copy_folder(folder: Path, target: Path, names: Collection[str] | None = None) -> Path:
    """Copy what is in the definition's folder, or these files of it: links as links, modes as the input digest knows
    them.
    """
    target.mkdir(parents=True)
    for name, path in ((name, path) for name, path in files_of(folder).items() if names is None or name in names):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copyfile(path, target / name, follow_symlinks=False)
        if not copy.is_symlink():
            copy.chmod(mode_of(path))
    for directory, _, _ in os.walk(target):
        Path(directory).chmod(0o755)
    return target


def run_bound(job: BuildJob, argv: Sequence[str], env: dict[str, str], hint: str, passes: Sequence[str] = ()) -> None:
    """Run the tool that builds `job`; it and its mounts die with us. `env` and `passes`: as of `process.run`.

    Raises OutsideError as `building` does.
    """
    with building(job, argv[0], hint):
        run(bound(argv), env=env, passes=passes, hint=hint, timeout=BUILD_SECONDS.most)


@contextmanager
def building(job: BuildJob, tool: str, hint: str) -> Iterator[None]:
    """Raise OutsideError that names the image where `tool` fails in the block, also where it takes too long."""
    try:
        yield
    except LateError:
        raise BUILD_SECONDS.exceeded(f"{tool}, which builds {job.name},") from None
    except OutsideError as error:
        raise OutsideError(f"{tool} could not build {job.name}", evidence=error.evidence, hint=hint) from None


def clean(tree: Path, epoch: int) -> None:
    """Remove from a tree what differs from day to day."""
    change_tree(tree, ["sh", str(HERE / "clean.sh")], {"EPOCH": str(epoch)}, reads=[HERE])


def installed_in(tree: Path) -> tuple[Package, ...]:
    """What the dpkg status of a tree says is installed."""
    return tuple(debian.installed(dpkg_status(tree)))


def verified(job: BuildJob, base: Iterable[Package], tree: Path) -> tuple[Package, ...]:
    """The packages of the built tree. Raises OutsideError unless they are the base's and the planned ones."""
    found = {(p.name, p.architecture): p for p in installed_in(tree)}
    planned = {(p.name, p.architecture): p for p in (*base, *job.packages)}
    versions = {
        key: [packages[key].version if key in packages else "none" for packages in (planned, found)]
        for key in sorted(found.keys() | planned.keys())
    }
    wrong = [f"{name}: planned {plan}, built {made}" for (name, _), (plan, made) in versions.items() if plan != made]
    if wrong:
        hint = "the index changed between plan and build, or a step installed something itself; plan again"
        raise OutsideError(f"{job.name} holds other packages than planned", evidence="\n".join(wrong[:20]), hint=hint)
    return tuple(planned[key] for key in sorted(planned))


def finish_tree(job: BuildJob, tree: Path, epoch: int, step: str) -> Built:
    """Put the definition's files into a tree of packages, harden it, and write it as an image of one layer."""
    put_files(job, tree)
    apply_to(job.overlay, tree, job.work / "overlay")
    clean(tree, epoch)
    layer = job.store.write_layer(layers.tree_entries(tree), epoch)
    return finish(job, tree, layer, (), epoch, step)


def finish(
    job: BuildJob, tree: Path, layer: tuple[Descriptor, str], base: Iterable[Package], epoch: int, step: str
) -> Built:
    """Verify the tree and write the image over its new layer; the manifest, which makes it an image, comes last."""
    packages = verified(job, base, tree)
    descriptor, diff_id = layer
    parent = job.store.config(job.base) if job.base else None
    config = image_config(job.definition, job.platform, parent, [diff_id], epoch, step)
    below = job.store.layers_of(job.base) if job.base else []
    digest = write_image(job, config, [*below, descriptor], CONFIG)
    return Built(digest, packages, datetime.fromtimestamp(epoch, UTC), tree, job.store.size_of(digest))


def write_image(job: BuildJob, config: dict[str, Any], layer_list: list[Descriptor], config_type: str) -> str:
    """Keep configuration and manifest, which names what the image stands on; the manifest's digest."""
    annotations = {"org.opencontainers.image.base.digest": job.base} if job.base else None
    return job.store.write_image(config, layer_list, annotations, config_type).digest


def fresh(folder: Path) -> Path:
    """`folder`, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
