"""`doctor`: what this machine has, what it lacks, and what does not work without it. It changes and starts nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from hardening.foundation.addresses import is_loopback
from hardening.foundation.console import print_json, print_table
from hardening.foundation.errors import GoldsmithError
from hardening.foundation.process import run, which
from hardening.foundation.settings import DEBIAN, DOWNLOAD, NONE, ROOT, Settings
from images.catalog import load_definitions
from images.feeds import KEV, TRACKER, trivy_place
from images.feeds.download import OURS
from images.feeds.indexed import EPSS, TRACKER_JSON, places_of
from images.feeds.oci_files import changed_artifact, is_artifact
from images.model import Bootstrap
from images.packages import debian
from images.packages.index import PackageIndex
from images.scan import MORE
from pipelines.contract import DoctorLine
from pipelines.fleet.catalog import load_fleets
from pipelines.host import embedded_registry, provision
from pipelines.host.private_engine import PrivateEngine
from pipelines.wiring import clock, other_states, said_by

NEEDED_BYTES = 5 * 1024**3
ANSWER_SECONDS = 10
RIGHTS = {
    "publisher": "image.publish of machines", "scanner": "fleet.check at AWS", "roller": "rollouts at AWS",
    "reaper": "image.prune and image.reap at AWS",
}  # fmt: skip
SHOWN = 3
SAMPLE = "only the sample that ships"
SCANNERS = {"trivy": "the scanner trivy", "syft": "software bills of materials", "hadolint": "checks of Dockerfiles"}


def examine(settings: Settings) -> list[DoctorLine]:
    """Every line of the report."""
    return [
        _line("python", True, platform.python_version(), "everything"),
        _line("root", os.geteuid() == 0, f"user id {os.geteuid()}", "builds of images and a private engine"),
        *_tools(settings),
        *_engines(settings),
        _registry(settings),
        *(archive(settings, bootstrap) for bootstrap in _bootstraps(settings)),
        _state_directory(settings),
        _disk(settings),
        *(_feed(settings, bootstrap) for bootstrap in _bootstraps(settings)),
        *_rights(settings),
    ]


def show(lines: list[DoctorLine], *, as_json: bool) -> int:
    """Print the report: JSON for programs, or a table in 80 columns whose missing things say what they cost.

    The exit code: 0 where everything essential is there, else 4.
    """
    if as_json:
        print_json([line.model_dump() for line in lines])
    else:
        rows = [[line.what, _state(line), _explained(line).splitlines()] for line in lines]
        print_table(["what", "state", "detail"], rows)
    return 4 if any(line.essential and not line.present for line in lines) else 0


def _state(line: DoctorLine) -> str:
    return "ok" if line.present else "MISSING" if line.essential else "missing"


def _explained(line: DoctorLine) -> str:
    lack = "" if line.present else f"without it: no {line.costs}"
    return "; ".join(filter(None, (line.detail, lack)))


def _line(what: str, present: bool, detail: str, costs: str, *, essential: bool = True) -> DoctorLine:
    return DoctorLine(what=what, present=present, detail=detail, costs=costs, essential=essential)


def _tools(settings: Settings) -> Iterator[DoctorLine]:
    versions = _package_versions([tool.package for tool in provision.TOOLS])
    for tool in provision.TOOLS:
        present = tool.present()
        detail = versions.get(tool.package, "not by a package") if present else f"package {tool.package}"
        yield _line(Path(tool.name).name, present, detail, tool.costs, essential=tool.need == "always")
    for name, costs in SCANNERS.items():
        place = which(name)
        yield _line(name, place is not None, str(place or "extra `scanners`"), costs, essential=False)
    for name in settings.scanners:
        place = which(MORE[name].program)
        yield _line(name, place is not None, str(place or "docs/feeds.md"), f"the scanner {name}", essential=False)


def _package_versions(packages: list[str]) -> dict[str, str]:
    if which("dpkg-query") is None:
        return {}
    done = run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *packages], ok=range(256))
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def _engines(settings: Settings) -> Iterator[DoctorLine]:
    for what, for_builds in (("engine for fleets", False), ("engine for builds", True)):
        costs = "builds on other images" if for_builds else "Docker fleets"
        try:
            found = provision.existing_engine(settings, for_builds)
        except GoldsmithError as error:
            yield _line(what, False, str(error), costs)
            continue
        able = found is not None or (os.geteuid() == 0 and which("dockerd") is not None)
        detail = f"a private one, started when needed in {PrivateEngine(settings).folder}"
        if found:
            store = "containerd" if found.containerd_store else "classic"
            detail = f"{found.version} ({store} image store) at {found.host}"
        yield _line(what, able, detail if able else "none answers, and none can be started", costs)


def _registry(settings: Settings) -> DoctorLine:
    address = settings.registry.address
    if not address:
        state = "running" if embedded_registry.running(settings) else "started when needed"
        present = which("docker-registry") is not None
        return _line("registry", present, f"embedded, on loopback, {state}", "publishing")
    scheme = "http" if settings.registry.insecure or is_loopback(address) else "https"
    status = _status(f"{scheme}://{address.partition('/')[0]}/v2/", verify=settings.registry.ca_file)
    return _line("registry", status.isdecimal(), f"{address}: {status}", "publishing")


def _bootstraps(settings: Settings) -> list[Bootstrap]:
    """One bootstrap of each suite that definitions name, or none where the definitions do not load."""
    try:
        definitions = load_definitions(settings.roots).values()
    except GoldsmithError:
        return []
    found = {base.suite: base for item in definitions if (base := item.definition.base.bootstrap)}
    return [found[suite] for suite in sorted(found)]


def archive(settings: Settings, bootstrap: Bootstrap) -> DoctorLine:
    """Whether the archive of `bootstrap`'s suite can be reached."""
    what, costs = f"archive of {bootstrap.suite}", "builds of base images and news of updates"
    try:
        sources = list(debian.sources_of(PackageIndex(settings).sources(bootstrap)))
    except GoldsmithError as error:
        return _line(what, False, str(error), costs)
    answers = [_reached(settings, uri, source.suites[0]) for source in sources for uri in source.uris]
    return _line(what, bool(answers) and all(ok for ok, _ in answers), "\n".join(text for _, text in answers), costs)


def _reached(settings: Settings, uri: str, suite: str) -> tuple[bool, str]:
    folder = f"{uri.rstrip('/')}/{suite}" if suite.endswith("/") else f"{uri.rstrip('/')}/dists/{suite}/"
    if uri.startswith(("file:", "copy:")):
        present = Path(folder.partition(":")[2]).is_dir()
        return present, f"{uri}: {'a folder' if present else 'no such folder'}"
    status = _status(f"{folder}InRelease", proxy=settings.packages.proxy)
    if status == "401":
        return True, f"{uri}: answers, but requires a login (apt's auth.conf.d)"
    return status == "200", f"{uri}: {'answers' if status == '200' else status}"


def _status(url: str, *, proxy: str = "", verify: Path | None = None) -> str:
    """The HTTP status of `url`, or what went wrong."""
    import requests

    proxies = {"http": proxy, "https": proxy} if proxy else None
    try:
        answer = requests.head(
            url, timeout=ANSWER_SECONDS, proxies=proxies, verify=str(verify) if verify else True, headers=OURS
        )
    except requests.RequestException as error:
        return f"does not answer ({type(error).__name__})"
    return str(answer.status_code)


def _state_directory(settings: Settings) -> DoctorLine:
    others = "".join(f"\nanother one, not used: {place}" for place in other_states(settings.state_dir))
    writable = os.access(_existing(settings.state_dir), os.W_OK | os.X_OK)
    said = f"{settings.state_dir} ({said_by()})" + ("" if writable else " cannot be written")
    return _line("state", writable, said + others, "builds, releases and rollouts")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _disk(settings: Settings) -> DoctorLine:
    folder = _existing(settings.state_dir)
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.0f} GiB free at {folder}"
    return _line("disk", free >= NEEDED_BYTES, detail, f"room for builds ({NEEDED_BYTES // 1024**3} GiB needed)")


def _rights(settings: Settings) -> Iterator[DoctorLine]:
    """What IAM allows of what each of our roles needs, where AWS is set; nothing that IAM was not asked is a pass."""
    from images.aws.client import Clients
    from pipelines.cli.iam import permissions
    from pipelines.own_rights import lacking
    from pipelines.role_facts import installation
    from pipelines.role_policies import statements

    aws = settings.aws
    for role, costs in RIGHTS.items() if aws.account and aws.region else ():
        try:
            needed = statements(role, permissions(), installation(settings, load_fleets(settings.roots).values()))
            found = lacking(Clients(aws.model_copy(update={"attempts": 2})), aws.region, needed)
        except GoldsmithError as error:
            detail = f"IAM was not asked what it allows: {error}"
            yield _line("AWS", False, detail, "answer about rights at AWS", essential=False)
            return
        few = f"{', '.join(found[:SHOWN])}{f' and {len(found) - SHOWN} more' if found[SHOWN:] else ''}"
        detail = f"./goldsmith iam.policy {role} renders what IAM does not surely allow: {few}" if found else "allowed"
        if needed:
            yield _line(f"AWS: {role}", not found, detail, costs, essential=False)


def _feed(settings: Settings, bootstrap: Bootstrap) -> DoctorLine:
    """Whether data to judge images of a suite can be had. One that does not answer is not essential: a copy may do."""
    given = settings.feeds
    judges = [
        ("debsecan", *_debsecan(settings, bootstrap.suite)),
        ("tracker", *_listed(settings, given.tracker, TRACKER_JSON, "tracker.json", SAMPLE)),
        ("trivy", *_trivy_feed(settings)),
    ]
    more = [
        ("kev", *_listed(settings, given.kev, KEV, "kev.json")),
        ("epss", *_listed(settings, given.epss, EPSS, "epss.csv.gz")),
    ]
    present = any(ok for _, ok, _ in judges)
    detail = "\n".join(f"{name}: {text}" for name, _, text in [*judges, *more])
    hint = "" if present else "\nset feeds.debsecan, feeds.tracker or feeds.trivy (docs/feeds.md)"
    return _line(
        f"advisories of {bootstrap.suite}", present, detail + hint, "publication by the default policy", essential=False
    )


def _debsecan(settings: Settings, suite: str) -> tuple[bool, str]:
    place = settings.feeds.debsecan
    if place == NONE:
        return False, SAMPLE
    address = place if is_artifact(place) else f"{TRACKER if place == DEBIAN else place.rstrip('/')}/{suite}"
    return _had(settings, address, address)


def _listed(settings: Settings, place: str, default: str, name: str, lacks: str = "none") -> tuple[bool, str]:
    """Whether a file can be had, which may also lie in a directory under this name; `lacks`: what there is without."""
    if place == NONE:
        return False, lacks
    address = default if place in (DEBIAN, DOWNLOAD) else place
    if any(path.is_file() for path in places_of(ROOT / address, name)):
        return True, address
    return _had(settings, address, address)


def _trivy_feed(settings: Settings) -> tuple[bool, str]:
    place = settings.feeds.trivy
    if place == NONE:
        return False, "none"
    if place != DOWNLOAD:
        return _had(settings, f"{place}/db/trivy.db", place)
    return _had(settings, f"https://{trivy_place().partition('/')[0]}/v2/", trivy_place())


def _artifact(settings: Settings, place: str) -> tuple[bool, str]:
    """Whether the registry has the artifact; asked once, with its logins and certificates."""
    try:
        changed_artifact(settings.model_copy(update={"retry_for": timedelta(0)}), place, "", clock())
    except GoldsmithError as error:
        return False, error.message
    return True, f"{place}: answers"


def _had(settings: Settings, place: str, shown: str) -> tuple[bool, str]:
    """Whether there is a file, or anything answers at an address."""
    if is_artifact(place):
        return _artifact(settings, place)
    if not place.startswith(("http://", "https://")):
        present = (ROOT / place).is_file()
        return present, f"{shown}{'' if present else f': there is no {Path(place).name} in it'}"
    status = _status(place)
    ok = status in ("200", "401")  # registries ask for a login first, which trivy gets by itself
    return ok, f"{shown}: {'answers' if ok else status}"
