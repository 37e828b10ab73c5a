"""What `adopt` does: drafts the fleet of an existing service, and its definition; changes nothing else."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from pathlib import Path

from hardening.foundation.console import out, print_json, print_table, print_text, say
from hardening.foundation.content import parse, read_small
from hardening.foundation.errors import ContentError, OutsideError, RefusedError, UsageError, nearest
from hardening.foundation.settings import Settings
from hardening.foundation.text import one_line
from hardening.running import under
from images.catalog import sound_definitions
from images.context import Context
from images.documents import to_json
from images.engine import engine as client_of
from images.model import Definition
from images.registry.references import qualified, split
from images.store.files import content_modes
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.fleet.docker import container_spec
from pipelines.fleet.docker.container_spec import COMPOSE_FILES, COMPOSE_PROJECT, COMPOSE_SERVICE, Json
from pipelines.fleet.docker.drafts import (
    Unadopted,
    definition_draft,
    dockerfile_draft,
    fitting,
    fleet_draft,
    undrafted,
)
from pipelines.fleet.docker.images import Images
from pipelines.fleet.docker.inventory import find, outside
from pipelines.fleet.docker.written import compose_services, image_of, installed, last_stage, unpacked_container
from pipelines.fleet.drafting import Draft, is_tag, slug
from pipelines.fleet.members import OLD, managed_by, repository
from pipelines.fleet.model import Fleet, FleetKind
from pipelines.fleet.violations import BARE_ID
from pipelines.host.provision import existing_engine
from pipelines.wiring import image_context, person, root_for

YAML = (".yaml", ".yml")
DOCKERFILES = ("dockerfile", "containerfile")
CLOUDS = "ec2:", "asg:", "kubernetes:", "ecs:", "eks:"  # how what is meant in a cloud begins
TAGS, GROUP, KUBERNETES, ECS, EKS = CLOUDS
SHORTEST_ID = 4
ONE_OFF = "com.docker.compose.oneoff"
FOUND = {"member": "member", "place": "place", "runs": "image", "group": "group"}  # who is left alone is to do


class FoundLine(Line):
    """What a fleet would have in a cloud: an instance or a group. `runs`: its golden release, or its image if that is
    not ours; for a group, what it starts members from. `left_alone`: why no rollout would replace it.
    """

    member: str
    place: str
    runs: str
    group: str = ""
    left_alone: str = ""

    @property
    def image(self) -> str:
        """What it runs, in a table."""
        return self.runs.partition(" (sha256:")[0]


class AdoptLine(Line):
    """`adopt`: one service. `members`: what it was drafted from. `todo`: what a person has to fill in or change;
    `next`: what to type then, in order. In a cloud, `found` is what the fleet would have; `text` is the file while it
    is not `written`.
    """

    fleet: str
    source: str
    members: tuple[str, ...]
    files: tuple[str, ...]
    todo: tuple[str, ...]
    next: tuple[str, ...]
    found: tuple[FoundLine, ...] = ()
    written: bool = True
    text: str = ""


def adopt(
    what: Sequence[str], *, name: str = "", replacement: str = "", definition: bool = False, content: str = "",
    engine: str = "", follow: bool = False, context: Context | None = None,
) -> list[AdoptLine]:  # fmt: skip
    """Draft a fleet's file for each service that `what` means: containers, a compose file or a Dockerfile.

    With `definition` also that of its image; with `follow` it runs an image of others, by its tag. All files are
    written, or none; none over another. Raises UsageError, ContentError, RefusedError for what is a member already, and
    OutsideError.
    """
    if not what:
        raise UsageError(
            "adopt: nothing was named",
            hint="./goldsmith adopt CONTAINER…, ./goldsmith adopt compose.yaml or Dockerfile",
        )
    if follow and definition:
        raise UsageError("--follow uses somebody else's image, but --definition makes your own", hint="give one")
    context = context or image_context(looks=True)
    root = root_for(context.settings, content)
    look = cache(lambda: _look(context.settings, engine))
    found = [one for names in _sorted(what) for one in _found(names, look)]
    if name and len(found) > 1:
        services = ", ".join(one.name for one in found)
        raise UsageError(f"--name names one fleet, and these are {len(found)}: {services}", hint="adopt one by one")
    notes = _elsewhere(context.settings, engine)
    found = [replace(one, name=name or one.name, notes=(*one.notes, *notes)) for one in found]
    drafted = [_draft(one, context, root, replacement, definition, follow=follow) for one in found]
    paths = [path for _, files in drafted for path in files]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UsageError(f"two drafts would be {twice}", hint="adopt one by one, each with --name")
    taken = load_fleets(context.settings.roots).keys() & {one.name for one in found}
    if taken and not any(path.exists() for path in paths):
        raise UsageError(f"the fleet {min(taken)} exists already", hint="--name gives this one another name")
    write_new({path: text for _, files in drafted for path, text in files.items()})
    return [line for line, _ in drafted]


def in_cloud(what: Sequence[str], *, definition: bool, engine: str, follow: bool = False) -> bool:
    """Whether machines at EC2 or pods are meant. Raises UsageError where that is mixed with what an engine has."""
    found = [one for one in what if one.startswith(CLOUDS)]
    if found and (len(found) < len(what) or definition or engine or follow):
        of = {KUBERNETES: "pods", ECS: "ECS services", EKS: "node groups"}.get(
            f"{found[0].partition(':')[0]}:", "machines"
        )
        raise UsageError(
            f"adopt {found[0]} is about {of}, and the others, --definition, --follow and --engine about containers",
            hint="adopt one by one",
        )
    return bool(found)


def show_adopted(lines: Sequence[AdoptLine], *, as_json: bool) -> None:
    """Print what was written, what a person has to do, and what to type then."""
    if as_json:
        print_json(to_json(tuple(lines)))
        return
    for line in lines:
        print_text([f"{line.fleet}: from {line.source}"])
        if line.found:
            shown = {head: key for head, key in FOUND.items() if any(getattr(one, key) for one in line.found)}
            rows = [[getattr(one, key) for key in shown.values()] for one in line.found]
            print_table(list(shown), rows, whole=["member"])
        _print_whole(line.text.splitlines())
        _print_whole(f"  {'written' if line.written else 'to be written'}: {file}" for file in line.files)
        print_text([f"  to do: {todo}" for todo in line.todo])
        _print_whole(f"  {'then' if number else 'next'}: {step}" for number, step in enumerate(line.next))
    waits = not all(line.written for line in lines)
    say("nothing was written; --apply writes the file" if waits else "nothing was changed that runs")


def _print_whole(lines: Iterable[str]) -> None:
    """Print lines that somebody copies, unfolded."""
    for line in lines:
        out().print(one_line(line), soft_wrap=True)


@dataclass(frozen=True)
class OnEngine:
    """The containers of an engine as `inspect` shows them, and by their ids their images. No `host`: none runs."""

    host: str
    containers: tuple[Json, ...]
    images: Mapping[str, Json]


# -- what is there -----------------------------------------------------------------------------------------------------


def _sorted(what: Sequence[str]) -> list[list[str]]:
    """The files, each alone, and the names of containers, together."""
    files = [one for one in what if _is_file(one)]
    names = [one for one in what if one not in files]
    return [*([one] for one in files), *([names] if names else [])]


def _is_file(what: str) -> bool:
    return "/" in what or Path(what).suffix in YAML or _is_dockerfile(Path(what))


def _is_dockerfile(path: Path) -> bool:
    return path.name.lower().startswith(DOCKERFILES) or path.suffix.lower().endswith(DOCKERFILES)


def _fleets_engine(settings: Settings) -> str:
    """The engine that fleets run on; empty where none runs."""
    answers = existing_engine(settings, for_builds=False)
    return answers.host if answers else ""


def _elsewhere(settings: Settings, engine: str) -> tuple[str, ...]:
    """What the settings must say for an engine that is not the fleets' one."""
    if engine in ("", _fleets_engine(settings)):
        return ()
    return (f'fleets run on another engine: set host = "{engine}" in [docker] of goldsmith.toml',)


def _look(settings: Settings, engine: str) -> OnEngine:
    """The engine that fleets run on, or the named one, with its containers."""
    if engine and "://" not in engine:
        raise UsageError(f"--engine: {engine} has no scheme", hint=f"a socket is unix://{engine}, a machine ssh://…")
    if not (host := engine or _fleets_engine(settings)):
        return OnEngine("", (), {})
    with outside("reading containers", host):
        api = client_of(host).api
        everything = [one for listed in api.containers(all=True) if (one := find(api, listed["Id"]))]
        images = Images(api, lambda _reference: None)
        return OnEngine(host, tuple(everything), {one["Id"]: _image(images, one) for one in everything})


def _image(images: Images, container: Json) -> Json:
    """A container's image; empty, with the reason as `Unknown`, where the engine has lost it."""
    try:
        return images.of(container)
    except RefusedError as error:
        return {"Unknown": f"{error.message}: {error.hint}"}


def _found(names: list[str], look: Callable[[], OnEngine]) -> list[Unadopted]:
    """The services that a file or names of containers mean."""
    if not _is_file(names[0]):
        return _running(names, look())
    file = Path(names[0])
    text = read_small(file)
    if file.suffix in YAML:
        found = compose_services(text, file.absolute())
        return [one for service, container in found.items() for one in _composed(service, container, file, look())]
    if _is_dockerfile(file):
        return [_from_dockerfile(file, text)]
    raise ContentError("neither a compose file (.yaml) nor a Dockerfile", file=file)


def _running(names: Sequence[str], at: OnEngine) -> list[Unadopted]:
    """One service for each compose service or image among the named containers."""
    if not at.host:
        raise OutsideError("no Docker Engine runs here", hint="./goldsmith doctor shows which one is missing")
    chosen: dict[str, Json] = {}
    for name in names:
        matched = [one for one in at.containers if _is_called(one, name)]
        if not matched:
            known = [container_spec.name(one) for one in at.containers]
            hint = nearest(name, known) if known else "no container is there"
            raise ContentError(f"no container named {name} on the engine {at.host}", hint=hint)
        chosen |= {one["Id"]: one for one in matched}
    containers = sorted(chosen.values(), key=lambda one: (_service(one), container_spec.name(one)))
    return [_service_of(list(group), at) for _, group in groupby(containers, _service)]


def _is_called(container: Json, name: str) -> bool:
    own = container_spec.name(container)
    return fnmatchcase(own, name) or (len(name) >= SHORTEST_ID and container["Id"].startswith(name))


def _service(container: Json) -> tuple[str, ...]:
    labels = container_spec.labels_of(container)
    if COMPOSE_PROJECT in labels:
        return labels[COMPOSE_PROJECT], labels.get(COMPOSE_SERVICE, "")
    return (repository(container["Config"]["Image"]),)


def _compose_files(container: Json) -> list[str]:
    """The files that a container was made by, whatever the project was called on the command line."""
    return container_spec.labels_of(container).get(COMPOSE_FILES, "").split(",")


def _is_aside(container: Json) -> bool:
    """Whether it is one that a rollout keeps, or that compose made for a single command."""
    return OLD in container_spec.name(container) or container_spec.labels_of(container).get(ONE_OFF) == "True"


def _service_of(containers: list[Json], at: OnEngine) -> Unadopted:
    names = [container_spec.name(one) for one in containers]
    for one in containers:
        if manager := managed_by(container_spec.labels_of(one)):
            raise RefusedError(
                f"{container_spec.name(one)} belongs to {manager}, which would undo its replacement",
                hint=f"give the new image to {manager} itself",
            )
    image = at.images[containers[0]["Id"]]
    service = _service(containers[0])
    own = names[0].rstrip("0123456789").rstrip("-_.")
    shared = "-".join(service) if len(service) > 1 else own if all(one.startswith(own) for one in names) else service[0]
    others = tuple(one for one in at.containers if one not in containers and not _is_aside(one))
    return Unadopted(
        name=slug(shared.rpartition("/")[2]) or "service",
        source=f"the container{'s' if len(names) > 1 else ''} {', '.join(names)}",
        containers=tuple(containers),
        image={} if "Unknown" in image else image,
        runs=True,
        others=others,
        notes=(image["Unknown"],) if "Unknown" in image else (),
    )


def _composed(service: str, container: Json, file: Path, at: OnEngine) -> list[Unadopted]:
    """A service of a compose file: by its containers where it runs, else by the file alone."""
    labels = container_spec.labels_of(container)
    ours = (labels[COMPOSE_PROJECT], labels[COMPOSE_SERVICE])
    where = f"the service {service} in {file}"
    dockerfile = container["Build"]
    built, missing = None, f"compose builds it from {dockerfile}, which is not there"
    if Path(dockerfile).is_file():
        try:
            built = _from_dockerfile(Path(dockerfile), read_small(Path(dockerfile)))
        except ContentError as error:  # the others, and what runs of it, can be drafted without it
            missing = f"compose builds it, but {error.message}"
    notes = (missing,) if dockerfile and not built else ()
    made = [one for one in at.containers if _service(one)[1:] == ours[1:] and not _is_aside(one)]
    by_file = [one for one in made if str(file.absolute()) in _compose_files(one)]
    if running := by_file or [one for one in made if _service(one) == ours]:
        one = _service_of(running, at)
        one = replace(one, source=f"{where}, by {one.source}", notes=(*one.notes, *notes))
    else:
        unset = "it does not run, so what its image sets is not known: look at health, user and ports here"
        name, notes = slug("-".join(ours)) or "service", notes if built else (unset, *notes)
        if built:  # what compose leaves open, the image sets
            set_here = {key: value for key, value in container["Config"].items() if value}
            container = {**container, "Config": {**built.image["Config"], **set_here}}
        image = built.image if built else {}
        one = Unadopted(name, where, (container,), image, runs=False, others=at.containers, notes=notes)
    return [replace(one, stands_on=built.stands_on, steps=built.steps, packages=built.packages) if built else one]


def _from_dockerfile(file: Path, text: str) -> Unadopted:
    base, steps = last_stage(text, file)
    image = image_of(steps)
    name = slug(file.absolute().parent.name) or "service"
    return Unadopted(
        name, f"the Dockerfile {file}", (unpacked_container(name, image),), image, runs=False,
        stands_on=base, steps=tuple(steps), packages=installed(steps),
    )  # fmt: skip


# -- the drafts --------------------------------------------------------------------------------------------------------


def _draft(
    found: Unadopted, context: Context, root: Path, replacement: str, definition: bool, *, follow: bool = False
) -> tuple[AdoptLine, dict[Path, str]]:
    """What is told of one service, and its files."""
    _refuse_member(found, context.settings)
    known = {name: one.definition for name, one in sound_definitions(context.settings.roots)[0].items()}
    owner = person(context.actor)
    files: dict[Path, str] = {}
    if follow and found.steps:
        raise UsageError(f"{found.source} is built, and --follow uses somebody else's image", hint="leave it out")
    own = definition or bool(found.steps)
    if own:
        becomes, because = replacement or found.name, "The definition that was drafted with this file."
        drafted, files = _image_files(found, root, becomes, owner, known)
        known[becomes] = _parsed(drafted, root, becomes)
    else:
        called = replacement or ("" if follow else fitting(found.called, known) or found.name)
        becomes = _followed(called or found.called, known) if follow else called
        because = _because(found, becomes, replacement, known, follow=follow)
        drafted = Draft()
    fleet = fleet_draft(found, owner, becomes, because, known, follow=follow)
    path = root / "pipelines/fleets" / f"{found.name}.toml"
    parsed = parse(tomllib.loads(fleet.text), Fleet, path, name=found.name)
    files[path] = fleet.text
    todo = (*drafted.todo, *fleet.todo, *_unapproved(context, parsed), *settings_todo(context.settings, root))
    line = AdoptLine(
        fleet=found.name,
        source=found.source,
        members=tuple(container_spec.name(one) for one in found.containers) if found.runs else (),
        files=tuple(str(file) for file in files),
        todo=tuple(dict.fromkeys(todo)),
        next=steps_after(
            context, found.name, becomes, None if found.steps and not found.runs else "" if follow else "--adopt all"
        ),
    )
    return line, files


def _followed(image: str, known: Mapping[str, Definition]) -> str:
    """The tag to follow, in full. Raises UsageError for an image that no tag names, or that a definition makes."""
    named, _, digest = image.partition("@")
    if (digest and not split(named)[1]) or BARE_ID.fullmatch(image):
        raise UsageError(
            f"--follow needs a tag, and {image} is not one", hint="--replacement docker.io/library/nginx:1.27 names one"
        )
    if image in known:
        raise UsageError(f"--follow uses somebody else's image, but {image} is your own definition", hint="give one")
    return qualified(named if split(named)[1] else f"{named}:latest")


def _unapproved(context: Context, fleet: Fleet) -> list[str]:
    """What its policy must say, where that approves registries and not that of the image which the fleet follows."""
    rule = context.policy_named(fleet.policy).running.approved_source
    image = fleet.replacement.follow
    if not image or not rule or any(under(image, prefix) for prefix in rule.prefixes):
        return []
    return [
        f"the policy {fleet.policy} approves other registries only: let a policy of yours name {repository(image)} in "
        "`prefixes` under [running.approved_source], and this file that policy"
    ]


def _because(found: Unadopted, becomes: str, replacement: str, known: Mapping[str, Definition], *, follow: bool) -> str:
    if replacement:
        return "As --replacement says."
    if follow:
        return f"As --follow says: it keeps running {found.called}, which others make."
    if becomes in known:
        return f"It runs {found.called}, and {becomes} is the one definition of that name."
    return f"It runs {found.called}, which no definition is called after."


def _image_files(
    found: Unadopted, root: Path, name: str, owner: str, known: Mapping[str, Definition]
) -> tuple[Draft, dict[Path, str]]:
    if name in known:
        raise UsageError(f"the definition {name} exists already", hint="--replacement gives the new one another name")
    folder = root / "images/definitions" / name
    drafted = definition_draft(found, owner, known)
    files = {folder / "image.toml": drafted.text}
    if steps := dockerfile_draft(found):
        files[folder / "Dockerfile.j2"] = steps
        drafted.todo.append(f"copy what COPY in its Dockerfile.j2 names into {folder}; its steps have no network")
        drafted.todo += undrafted(found)
    return drafted, files


def _parsed(drafted: Draft, root: Path, name: str) -> Definition:
    """The definition as it will load. Raises ContentError for what its image sets and no definition may say."""
    return parse(tomllib.loads(drafted.text), Definition, root / f"images/definitions/{name}/image.toml", name=name)


def _refuse_member(found: Unadopted, settings: Settings) -> None:
    """Raise RefusedError where a fleet selects the service already."""
    for fleet in load_fleets(settings.roots).values():
        taken = [one for one in found.containers if fleet.selects(container_spec.labels_of(one))]
        if fleet.kind is FleetKind.DOCKER and taken:
            which = ", ".join(map(container_spec.name, taken)) if found.runs else found.source
            raise selected(fleet.name, which)


def selected(fleet: str, what: str) -> RefusedError:
    """The refusal of what is in a fleet already."""
    return RefusedError(f"the fleet {fleet} selects {what} already", hint=f"./goldsmith fleet.check {fleet} shows it")


def settings_todo(settings: Settings, root: Path) -> list[str]:
    """What the settings must say for a root that they do not name."""
    if root.resolve() in {one.resolve() for one in settings.roots}:
        return []
    return [f'goldsmith.toml must name the content root: content = ["{root}"], and in [judging] roots = ["{root}"]']


def steps_after(context: Context, fleet: str, becomes: str, adopt: str | None) -> tuple[str, ...]:
    """What to type then: the release that members become comes first, where there is none. `adopt`: the flags that take
    members over; None where nothing runs that could be planned for.
    """
    releases = context.ledger.releases(becomes)
    stable = any(context.ledger.moves(place, "stable") for place in {one.repository for one in releases})
    publish = (
        ()
        if stable or is_tag(becomes)
        else (f"./goldsmith image.publish {becomes}", f"./goldsmith image.promote {becomes}")
    )
    plan = () if adopt is None else (f"./goldsmith roll.plan {fleet} {adopt}".rstrip(),)
    return (*publish, f"./goldsmith fleet.check {fleet}", *plan)


def write_new(files: Mapping[Path, str]) -> None:
    """Write all files, or take back those that were written. Raises UsageError where one is there, and OutsideError."""
    for path in files:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists already", hint="--name gives the new one another name")
    made = list[Path]()
    try:
        with content_modes():
            for path, text in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:  # never over what came meanwhile
                    made.append(path)
                    file.write(text)
    except OSError as error:
        for written in made:
            written.unlink()
        hint = "--content DIR drafts into a folder of your own"
        raise OutsideError(f"{path} cannot be written: {error.strerror}", hint=hint) from None
