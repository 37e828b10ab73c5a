"""What the host must offer: Debian packages and a Docker Engine. `setup` provides what is missing, naming it first."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal

from hardening.foundation.asking import ask_within
from hardening.foundation.console import say
from hardening.foundation.content import read_toml
from hardening.foundation.engine_address import without_password
from hardening.foundation.errors import NOT_UNDERSTOOD, LateError, OutsideError
from hardening.foundation.limits import JSON_BYTES, read_all
from hardening.foundation.process import ENGINE, NETWORK, Completed, run, which
from hardening.foundation.settings import Settings
from pipelines.host.private_engine import PrivateEngine

DEFAULT_HOST = "unix:///var/run/docker.sock"
CONTAINERD_STORE = "io.containerd.snapshotter.v1"
BUILDX_FOLDERS = ("/usr/libexec/docker", "/usr/lib/docker", "/usr/local/lib/docker", str(Path.home() / ".docker"))
ASK_SECONDS = 60
# Their programs are wanted, not what Debian starts at boot.
UNWANTED_SERVICES = {"cron", "docker-registry", "nginx", "postgresql"}
SERVICE_POLICY = Path(__file__).with_name("policy-rc.d.sh")


@dataclass(frozen=True)
class Tool:
    """Something that the host must have: a program or, if it begins with a slash, a file.

    `package` brings it on Debian and Ubuntu; `costs` is what stops working without it. `need`: who needs it; who builds
    no machine images does without those for machines. `library`: the package of a library that it is bound to, version
    by version.
    """

    name: str
    package: str
    costs: str
    need: Literal["always", "machines", "tests"] = "always"
    library: str = ""

    def present(self) -> bool:
        """Whether the host has it, and its library in the version that it needs."""
        if "/" in self.name:
            return any(map(Path.exists, _places(self.name)))
        if which(self.name) is None or not self.library:
            return which(self.name) is not None
        # It cannot be bound to its library where a host holds another one than its dpkg knows of.
        return run([self.name, "--version"], env={"LD_BIND_NOW": "1"}, ok=range(256)).status == 0

    @property
    def packages(self) -> tuple[str, ...]:
        """What is installed where it lacks."""
        return (self.package, self.library) if self.library else (self.package,)


TABLES: dict[Any, list[dict[str, str]]] = read_toml(Path(__file__).with_name("tools.toml"))
TOOLS = tuple(Tool(**row, need=need) for need, rows in TABLES.items() for row in rows)


@dataclass(frozen=True)
class Engine:
    """A Docker Engine that answers."""

    host: str
    version: str
    containerd_store: bool

    def suits(self, for_builds: bool) -> bool:
        """Fleets run on any engine. Builds need the containerd image store: without it layers are not reproducible."""
        return self.containerd_store or not for_builds


def setup(settings: Settings, *, for_tests: bool = False, for_machines: bool = False) -> None:
    """Install what the host lacks and see that the engines run. Quick, and silent, where nothing is missing.

    What machine images need is installed only with `for_machines`, what only tests need only with `for_tests`, which
    means both.

    Raises OutsideError naming what is missing where it cannot be installed.
    """
    needs = {"always", "machines" if for_machines or for_tests else "", "tests" if for_tests else ""}
    if lacking := missing(tool for tool in TOOLS if tool.need in needs):
        install(lacking)
    for for_builds in (False, True):
        docker_host(settings, for_builds)


def missing(tools: Iterable[Tool] = TOOLS) -> list[Tool]:
    """The tools that this host lacks."""
    return [tool for tool in tools if not tool.present()]


def lacking_for_machines() -> str:
    """What this host lacks to build machine images, in words; empty where it can."""
    return ", ".join(Path(tool.name).name for tool in missing(tool for tool in TOOLS if tool.need == "machines"))


def install(lacking: list[Tool]) -> None:
    """Install the packages of `lacking`, each named before. Raises OutsideError where it may not or cannot."""
    packages = sorted({package for tool in lacking for package in tool.packages})
    prefix = _as_root()
    if which("apt-get") is None or prefix is None:
        hint = f"install the equivalents of the Debian packages {' '.join(packages)}, or run this as root on Debian"
        raise OutsideError(f"this host lacks {', '.join(tool.name for tool in lacking)}", hint=hint)
    say(f"installing Debian packages: {' '.join(packages)}")
    run([*prefix, "apt-get", "update", "-q"], passes=NETWORK, hint="is the package mirror reachable?")
    known = [package for package in packages if run(["apt-cache", "show", package], ok=range(256)).status == 0]
    with _no_new_services(prefix, known):
        run([*prefix, *apt_install(known)], env={"DEBIAN_FRONTEND": "noninteractive"}, passes=NETWORK)
    if still := missing(lacking):
        lacks = f"installed {' '.join(known)}, and still lack {', '.join(tool.name for tool in still)}"
        raise OutsideError(lacks, hint="this distribution packages them otherwise: install them by hand")


def apt_install(packages: list[str]) -> list[str]:
    """The command that installs `packages`, once more where they are there: something of them lacks all the same.

    Nothing recommended, and waiting for another apt to finish.
    """
    options = ["-y", "-q", "--reinstall", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    return ["apt-get", "install", *options, *packages]


def docker_host(settings: Settings, for_builds: bool) -> str:
    """The engine, as DOCKER_HOST, that fleets run on or, with `for_builds`, that builds use.

    The configured engine, else the host's own, where it suits; else a private one, started when it does not run.
    Raises OutsideError.
    """
    found, private = existing_engine(settings, for_builds), PrivateEngine(settings)
    if found and found.host == private.host:
        private.close_socket()
    return found.host if found else private.ensure()


def existing_engine(settings: Settings, for_builds: bool) -> Engine | None:
    """The engine that `docker_host` would choose, as far as one runs. Starts nothing.

    Raises OutsideError where a configured engine does not answer or cannot build. The private one, configured by its
    own address, is none of these: where it does not run, `docker_host` starts it.
    """
    private, build_host = PrivateEngine(settings), settings.docker.build_host if for_builds else ""
    configured = build_host or settings.docker.host or os.environ.get("DOCKER_HOST", "")
    if configured != private.host:
        engine = _answering(configured) if configured else probe(DEFAULT_HOST)
        if engine and engine.suits(for_builds):
            return engine
        if engine and build_host:
            where = without_password(engine.host)
            lacks = f"the Docker Engine at {where} (docker.build_host) lacks the containerd image store"
            hint = 'set "features": {"containerd-snapshotter": true} in its daemon.json, or leave build_host empty'
            raise OutsideError(lacks, hint=hint)
    # One whose data was removed under it still answers, and can do nothing: it is started again.
    return probe(private.host) if private.data.exists() else None


def configured_host(settings: Settings) -> str:
    """The engine of fleets that the settings or the environment name, as DOCKER_HOST; empty where neither does."""
    return settings.docker.host or os.environ.get("DOCKER_HOST", "")


def probe(host: str) -> Engine | None:
    """The engine at `host`, or None where none answers. Starts nothing."""
    socket = host.removeprefix("unix://")
    if which("docker") is None or (socket != host and not Path(socket).exists()):
        return None
    return parse_info(host, _info(host).stdout)


def parse_info(host: str, info: str) -> Engine | None:
    """The engine that `docker info --format '{{json .}}'` describes, or None where it describes none."""
    try:
        value = json.loads(info)
        store = dict(value.get("DriverStatus") or []).get("driver-type")
    except NOT_UNDERSTOOD:
        return None
    if not value.get("ServerVersion"):
        return None
    return Engine(host, value["ServerVersion"], store == CONTAINERD_STORE)


def _answering(host: str) -> Engine:
    done = _info(host)
    if found := parse_info(host, done.stdout):
        return found
    hint = "start it, or change DOCKER_HOST or docker.host and docker.build_host in goldsmith.toml"
    if "://" not in host:
        hint = f"a socket is named unix://{host}, a machine ssh://USER@HOST: change DOCKER_HOST"
    shown = without_password(host)
    said = done.stderr.strip().replace(host, shown)
    raise OutsideError(f"the Docker Engine at {shown} does not answer", evidence=said, hint=hint)


def _info(host: str) -> Completed:
    argv = ["docker", "--host", host, "info", "--format", "{{json .}}"]
    hint = f"is the Docker Engine at {without_password(host)} healthy?"
    # A socket is asked by ourselves: docker would start each of its plugins first, and ask it too.
    if host.startswith("unix://") and (said := _said(host.removeprefix("unix://"), hint)):
        return Completed(tuple(argv), 0, said, "")
    return run(argv, passes=ENGINE, ok=range(256), timeout=ASK_SECONDS, hint=hint)


class _Local(HTTPConnection):
    """HTTP over the socket at `path`. The package docker has that too; its import costs as much as `docker info`."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=ASK_SECONDS)
        self.path = path

    def connect(self) -> None:
        """Connect to the path, and to no host of that name."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _said(path: str, hint: str) -> str:
    """What the engine behind a socket says of itself; empty where it says nothing, and docker may say why.

    Raises LateError where all of it takes too long, also where it comes letter by letter.
    """
    try:
        return ask_within(lambda: _answered(path), timedelta(seconds=ASK_SECONDS))
    except (TimeoutError, LateError):
        raise LateError(f"{path} did not answer within {ASK_SECONDS} s", hint=hint) from None


def _answered(path: str) -> str:
    with closing(_Local(path)) as connection:
        try:
            connection.request("GET", "/info")
            answer = connection.getresponse()
            return read_all(answer, JSON_BYTES, path).decode() if answer.status == HTTPStatus.OK else ""
        except TimeoutError:
            raise
        except (OSError, HTTPException, ValueError, OutsideError):
            return ""


def _places(name: str) -> list[Path]:
    """Where a file may be: a star is any version, keyrings end in .gpg or .pgp, plugins of Docker have many folders."""
    if "*" in name:
        return list(Path("/").glob(name.removeprefix("/")))
    if name.startswith("/"):
        return [Path(name + ending) for ending in (("",) if Path(name).suffix else (".gpg", ".pgp"))]
    return [Path(folder) / name for folder in BUILDX_FOLDERS]


def _as_root() -> list[str] | None:
    """The prefix that makes a command run as root; None where we may not."""
    if os.geteuid() == 0:
        return []
    if which("sudo") and run(["sudo", "-n", "true"], ok=range(256)).status == 0:
        return ["sudo", "-n"]
    return None


@contextmanager
def _no_new_services(prefix: list[str], packages: list[str]) -> Iterator[None]:
    """While `packages` install, let no service start but Docker's own, and that only under an init system.

    A registry open to all on port 5000 is not what anyone asked for. Debian asks /usr/sbin/policy-rc.d
    (invoke-rc.d(8)); a host that has one of its own keeps it.
    """
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    run([*prefix, "install", "-m", "755", str(SERVICE_POLICY), str(policy)])
    try:
        yield
    finally:
        run([*prefix, "rm", "-f", str(policy)])
        unwanted = sorted(UNWANTED_SERVICES.intersection(packages))
        if unwanted and Path("/run/systemd/system").exists():
            run([*prefix, "systemctl", "disable", *unwanted], ok=range(256))
