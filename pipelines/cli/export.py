"""What the tasks on machine images call: export a disk for another cloud, boot one and check it."""

from __future__ import annotations

import os
from pathlib import Path

from hardening.catalog import load_waivers
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError, UsageError
from hardening.foundation.process import interruptible, run
from images.artifact import Artifact
from images.boot import Level
from images.build.flow import dev_build
from images.context import Context
from images.machine.disk import convert_to_qcow2
from images.scan.judge import latest, reverify
from images.store.files import room_on
from pipelines.cli.image import one_of, verify_line
from pipelines.contract import Line, VerifyLine
from pipelines.wiring import image_context

FORMATS = ("raw", "qcow2")
EXPORT_COLUMNS = {"image": "name", "format": "format", "file": "file", "bytes": "size_bytes", "digest": "digest"}


class ExportLine(Line):
    """`image.export`: the disk of a machine image as a file; its size in bytes on disk."""

    name: str
    digest: str
    format: str
    file: str
    size_bytes: int


def export_image(
    name: str, form: str, output: str, *, force: bool = False, context: Context | None = None
) -> list[ExportLine]:
    """Write the disk of the newest artifact of `name` to the file `output`, whole or not at all.

    Raises UsageError without `output`, for a place that is no file's, for a file that is there already unless `force`,
    and for another format, ContentError for a container.
    """
    context = context or image_context()
    if form not in FORMATS:
        raise UsageError(f"--form: unknown format: {form}", hint=f"there are {' and '.join(FORMATS)}")
    if not output:
        raise UsageError("--output says which file to write", hint=f"--output {name}.{form}")
    target = Path(output).absolute()
    _refuse_place(target, output, f"{name}.{form}", force=force)
    artifact, disk = _machine(context, name)
    say(f"{name}: writing {target}")
    with room_on(target.parent):
        _copy(disk, target) if form == "raw" else convert_to_qcow2(disk, target)
    size = target.stat().st_size
    return [ExportLine(name=name, digest=artifact.digest, format=form, file=str(target), size_bytes=size)]


def _refuse_place(target: Path, output: str, example: str, *, force: bool) -> None:
    """Raises UsageError where no file can be, and where one is that nobody said to write over."""
    why = ""
    if target.is_dir():
        why = "is a folder"
    elif not target.parent.is_dir():
        why = "is in a folder that does not exist"
    elif target.exists() and not target.is_file():
        why = "is not a regular file, and would be replaced"
    if why:
        raise UsageError(f"--output: {output} {why}", hint=f"give a file, such as {example}")
    if os.path.lexists(target) and not force:
        raise UsageError(f"--output: {output} exists already", hint="--force puts the new disk in its place")


def _machine(context: Context, name: str) -> tuple[Artifact, Path]:
    """The newest artifact of a machine and its disk. Raises ContentError for a container."""
    artifact = latest(context, _machine_name(context, name))
    disk = context.store.disk_of(artifact.digest)
    assert disk is not None  # noqa: S101 - what `latest` found is whole
    return artifact, disk


def _machine_name(context: Context, name: str) -> str:
    """The name of the one machine that `name` selects. Raises ContentError for a container."""
    only = one_of(context, name)
    if not context.definitions[only].definition.is_machine:
        folder = context.definitions[only].folder
        raise ContentError(f"{only} is a container, which has no disk", file=folder / "image.toml", key="kind")
    return only


def _copy(disk: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        run(["cp", "--sparse=always", "--reflink=auto", "--", str(disk), str(part)])
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@interruptible()
def boot_image(
    name: str, *, quick: bool, full: bool, control: str = "", context: Context | None = None
) -> list[VerifyLine]:
    """Boot `name` as it stands now and check it: as it ships, quickly without firmware, or with a cloud's answer.

    Where it has changed since it was built, it is built for this boot alone. With `control`, only that one is asked.
    Raises UsageError where both other ways are asked for at once, ContentError for a container or an unknown control.
    """
    if quick and full:
        raise UsageError("give --quick or --full, not both")
    context = context or image_context()
    only, waivers = _machine_name(context, name), load_waivers(context.settings.roots)
    level = Level.QUICK if quick else Level.FULL if full else Level.RELEASE
    checked = dev_build(context, only, level, control) or reverify(context, only, control, level)
    return [verify_line(only, *checked, waivers, context.now)]
