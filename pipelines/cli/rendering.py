"""What `pipeline.render` and `fleet.render` call: files for schedulers and clusters, printed or written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from hardening.foundation.console import out, print_json, say
from hardening.foundation.durations import duration, shown
from hardening.foundation.errors import OutsideError, UsageError, nearest
from hardening.foundation.settings import ROOT, load_settings
from images.documents import to_json
from images.release.lifecycle import Status, status
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleet
from pipelines.fleet.model import FleetKind
from pipelines.schedules import COMMANDS, OF_IMAGE, STAYING, TARGETS, ScheduledRun, rendered
from pipelines.serve.moments import Schedule
from pipelines.wiring import image_context

WORD = re.compile(r"[A-Za-z0-9._*?/@:=,+-]+")  # nothing that a shell, cron, systemd or YAML takes for more than text
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?")
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/@+-]+")
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(hours=23)  # a daily run that takes longer would meet the next
BUILDS = "images are built by root, with an engine: in this task, which has neither, only what needs no build is done"


class RenderedLine(Line):
    """`pipeline.render`, `fleet.render`, `iam.policy`: one file; `path`: where it was written; empty: printed."""

    target: str
    file: str
    path: str
    text: str


class OwnImageLine(Line):
    """`pipeline.image`: the definition that was written, from which commit, into which folder."""

    name: str
    commit: str
    folder: str


IMAGE_COLUMNS = {"image": "name", "of commit": "commit", "folder": "folder"}


def write_image(output: str, *, force: bool) -> list[OwnImageLine]:
    """Write the definition of our own image into the content root `output`, and say how it is built.

    Raises UsageError where it is there already unless `force`, OutsideError where a package cannot be had.
    """
    from pipelines.own_image import NAME, write_definition

    root = Path(output).absolute()
    commit, folder = write_definition(root, force=force)
    say(f"next: name {root} in `content` of goldsmith.toml, then ./goldsmith image.publish {NAME}")
    return [OwnImageLine(name=NAME, commit=commit, folder=str(folder))]


def render_schedule(
    target: str, command: str, *, at: str, zone: str, limit: str, image: str, output: str, force: bool,
    check: Callable[[Sequence[str]], None],
) -> list[RenderedLine]:  # fmt: skip
    """Render the schedule of `command` for `target`, and with `output` write its files into that folder.

    `check` raises UsageError for a command line that does not exist. Raises UsageError for all that cannot be rendered,
    and for a file that is there already unless `force`.
    """
    if target not in TARGETS:
        raise UsageError(f"unknown target: {target}", hint=f"there are {', '.join(TARGETS)}")
    words = _words(command or ("fleet.check all" if target in OF_IMAGE else "nightly"))
    check(words)
    if words[0] in STAYING and target != "systemd":
        hint = f"./goldsmith pipeline.render systemd --run {words[0]}; in a container it is the command to run"
        raise UsageError(f"--run: {words[0]} keeps running, but {target} runs only jobs that end", hint=hint)
    settings = load_settings()
    if words[0] == "serve":
        Schedule.of(settings.serve)  # else the unit is found to end when it starts
    folder, state = _plain(ROOT), _plain(settings.state_dir)
    run = ScheduledRun(words, _time(at), _zone(zone), _limit(limit), folder, state, _image(target, image))
    lines = rendered_lines({target: rendered(target, run)}, output, force=force)
    if target in OF_IMAGE and words[0] == "nightly":
        say(f"note: {BUILDS}")
    return lines


def render_manifests(name: str, *, output: str, force: bool) -> list[RenderedLine]:
    """Render what a cluster is given for a Kubernetes fleet, and with `output` write the files into that folder.

    Raises UsageError for a fleet of another kind, and for a file that is there already unless `force`.
    """
    from images.registry.release_trust import trust_of
    from images.trust.keys import own_keys
    from pipelines.fleet.kubernetes.manifests import fleet_manifests

    settings = load_settings()
    fleet = load_fleet(settings.roots, name)
    if fleet.kind is not FleetKind.KUBERNETES:
        raise UsageError(f"{name} is a fleet of kind {fleet.kind}", hint="only a Kubernetes fleet needs manifests")
    trust, address = trust_of(settings, fleet.policy), settings.registry.address
    definition = fleet.replacement.definition
    keys = [key.public for key in trust.keys or own_keys(settings) if not key.revoked]
    repository = f"{address}/{definition}" if address and definition else ""
    if not repository or not keys:
        why = (
            "no registry.address is set" if not address else
            "its replacement is a tag, whose images others sign" if not definition else "no release was signed yet"
        )  # fmt: skip
        say(f"note: no policy for Kyverno: {why}")
    files = fleet_manifests(fleet, repository, keys, trust.required)
    return rendered_lines({"kubernetes": files}, output, force=force)


def show_rendered(lines: Sequence[RenderedLine], *, as_json: bool) -> None:
    """Print the files, or where they were written."""
    if as_json:
        print_json(to_json(tuple(lines)))
        return
    for line in lines:
        if line.path:
            say(f"written: {line.path}")
        else:
            heading = f"# {line.file}\n" if lines[1:] else ""
            out().out(heading + line.text, highlight=False, end="")


def _words(command: str) -> tuple[str, ...]:
    """The command line as words. Raises UsageError for another command, or for what a schedule cannot hold."""
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--run: {error}: {command}") from None
    if not words or words[0] not in COMMANDS:
        hint = f"there are {', '.join(COMMANDS)}, with their arguments: --run 'nightly --only debian-*'"
        raise UsageError(f"--run: {command} is not what a schedule runs", hint=hint)
    if strange := next((word for word in words if not WORD.fullmatch(word)), None):
        hint = "letters, digits and . _ * ? / @ : = , + - mean the same to every scheduler"
        raise UsageError(f"--run: a schedule cannot contain {strange!r}", hint=hint)
    return words


def _time(at: str) -> time:
    try:
        return datetime.strptime(at, "%H:%M").time()  # noqa: DTZ007 - a time of day, in any zone
    except ValueError:
        raise UsageError(f"--at: {at} is not a time of day", hint="such as 02:17") from None


def _zone(zone: str) -> str:
    known = available_timezones()
    if zone not in known:
        raise UsageError(f"--zone: unknown time zone: {zone}", hint=nearest(zone, known))
    return ZoneInfo(zone).key


def _limit(text: str) -> timedelta:
    try:
        limit: timedelta = duration(text)
    except ValueError as error:
        raise UsageError(f"--limit: {error}") from None
    if not SHORTEST <= limit <= LONGEST:
        raise UsageError(f"--limit: {text} is not between {shown(SHORTEST)} and {shown(LONGEST)}")
    return limit


def _plain(folder: Path) -> Path:
    if not PLAIN_PATH.fullmatch(str(folder)):
        raise UsageError(f"a schedule cannot name {folder}", hint="use a path of letters, digits and . _ / @ + - alone")
    return folder


def _image(target: str, image: str) -> str:
    """The image that the target runs: the one given, else our own that `stable` names, by digest."""
    if target not in OF_IMAGE:
        if image:
            raise UsageError(
                f"--image: {target} runs this checkout", hint=f"images are run by {' and '.join(OF_IMAGE)}"
            )
        return ""
    if image and not IMAGE.fullmatch(image):
        raise UsageError(
            f"--image: {image} is not an image's name", hint="such as registry.example.com/golden/goldsmith@sha256:…"
        )
    if image and "@" not in image:
        say(f"note: {image} is a tag, which moves: name it by digest, as ./goldsmith image.show prints it")
    return image or _stable_own()


def _stable_own() -> str:
    from pipelines.own_image import NAME

    context = image_context(looks=True)
    known = context.ledger.releases(NAME)
    moves = [move for place in {one.repository for one in known} for move in context.ledger.moves(place, "stable")]
    last = sorted(moves, key=lambda move: move.at)[-1:]
    stands = {one.digest: one for one in known if status(one, context.now) in {Status.CURRENT, Status.WARN}}
    if not last or not (stable := stands.get(last[0].digest)):
        hint = (
            f"--image registry.example.com/goldsmith@sha256:…, or ./goldsmith image.promote {NAME}; "
            "./goldsmith pipeline.image --help says how it is made"
        )
        raise UsageError("--image: which image of Goldsmith, and no release of it stands as `stable` here", hint=hint)
    say(f"note: it runs {stable.digest[:19]} until it is rendered again: do that after each image.promote {NAME}")
    return f"{stable.repository}@{stable.digest}"


def rendered_lines(found: Mapping[str, Mapping[str, str]], output: str, *, force: bool) -> list[RenderedLine]:
    """A line for each file of each target. With `output` all are written into that folder, none where one is there
    already unless `force`. Raises UsageError and OutsideError.

    The folder is made, but not what it stands in: that would be a slip.
    """
    folder = Path(output)
    lines = [
        RenderedLine(target=target, file=name, path=str(folder / name) if output else "", text=text)
        for target, files in found.items()
        for name, text in files.items()
    ]
    if not output:
        return lines
    if not folder.absolute().parent.is_dir():
        hint = f"mkdir -p {shlex.quote(str(folder))} makes it"
        raise UsageError(f"--output: {folder} is in a folder that does not exist", hint=hint)
    for path in (Path(line.path) for line in lines):
        if path.is_dir():
            raise UsageError(f"--output: {path} is a folder")
        if path.is_symlink() or (path.exists() and not force):
            raise UsageError(f"--output: {path} exists already", hint="--force puts the new one in its place")
    try:
        folder.mkdir(exist_ok=True)
        for line in lines:
            Path(line.path).write_text(line.text)
    except OSError as error:
        raise OutsideError(f"{folder} cannot be written: {error.strerror}") from None
    return lines
