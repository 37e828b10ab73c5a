"""Fixtures of every test, and the rule for what a host lacks: skipped with a reason, failed where CI is set."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from filelock import FileLock
from hypothesis import Phase, settings

from hardening.foundation.process import which
from tests.support.edges import pytest_sessionfinish, pytest_testnodedown, recorded

__all__ = ["pytest_sessionfinish", "pytest_testnodedown"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.aws.cloud import Cloud
    from tests.strict_aws import StrictAws
    from tests.support.loop import Goldsmith
    from tests.support.postgres import Server
    from tests.support.publishing import Begin, SharedRegistry
    from tests.support.servers import Exported
    from tests.support.trees import Layers
    from tests.support.yards import Yard

os.environ.setdefault("COLUMNS", "80")  # as a terminal has; without it, output in a pipe is one line a row
settings.register_profile("goldsmith", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("goldsmith")
settings.register_profile("fast", deadline=None, max_examples=25)  # of each property; the whole run tries 100
settings.register_profile(
    "mutation", deadline=None, database=None, derandomize=True, max_examples=15, phases=(Phase.explicit, Phase.generate)
)  # each of thousands of mutants costs one run
POSTGRES = "/usr/lib/postgresql/*/bin/postgres"
AT_ONE_SERVER = ("test_machine_build", "test_machine_booted", "test_machine_published", "test_machine_export")
LONG_AND_FAST = frozenset(
    {
        *("test_architecture", "test_leases_real", "test_lint_content", "test_loop", "test_night_killed"),
        *("test_one_truth", "test_role_policies", "test_rollout_groups", "test_rollout_run", "test_simulation"),
    }
)
"""Files that take longest where those that need Docker or a build are left out."""
HEAVY = frozenset({"aws", "cloud", "database", "docker_host", "house", "layers", "own_engine", "server", "yard"})
"""Fixtures that start what costs seconds: an engine, an emulator, a database server, a build."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


def _lacking(need: str) -> str:
    """Why `need` is not met on this host; empty when it is."""
    if need == "root":
        return "" if os.geteuid() == 0 else "needs root"
    if need == "docker":
        return "" if which("docker") else "needs a Docker Engine"
    if need == "mirror":
        return "" if _mirror_answers() else "needs the package archive that this host's apt uses"
    found = any(Path("/").glob(need[1:])) if need.startswith("/") else which(need)
    return "" if found else f"needs {need}"


@cache
def _mirror_answers() -> bool:
    """Whether the archive answers that `doctor` would ask."""
    from hardening.foundation.settings import load_settings
    from images.model import Bootstrap
    from pipelines.host.doctor import archive

    return archive(load_settings(), Bootstrap(family="debian", suite="trixie")).present


# jsonschema would import it for a format that no schema here has, and it compiles 38 grammars: seconds of each worker.
sys.modules["rfc3987_syntax"] = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`: what `./goldsmith test --fast` runs."""
    parser.addoption("--fast", action="store_true", help="only tests that need no Docker, QEMU, network or build")


def _is_fast(item: pytest.Item) -> bool:
    """Whether a test needs nothing of the host, neither by its markers nor by what its fixtures start."""
    marked = any(item.get_closest_marker(name) for name in ("slow", "needs"))
    return not marked and HEAVY.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that were asked for, in the order in which workers take files.

    Long ones first, so that no worker is left with one in the end; of those that use what the first of them builds,
    that one at the beginning and the others after all long ones, so that none waits.
    """
    if config.getoption("--fast"):
        left_out = [item for item in items if not _is_fast(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _is_fast(item)]
    long = {item.path for item in items if item.get_closest_marker("slow") or item.path.stem in LONG_AND_FAST}

    def rank(item: pytest.Item) -> int:
        if item.path.stem in AT_ONE_SERVER:
            return 2 if AT_ONE_SERVER.index(item.path.stem) else 0
        return 1 if item.path in long else 3

    items.sort(key=rank)


def pytest_configure(config: pytest.Config) -> None:
    """Fewer examples where `--fast` asks for less; nothing that is collected is garbage; and Ctrl-C means what it does
    at a terminal: who starts tests in the background lets it be ignored.
    """
    if config.getoption("--fast") and not config.getoption("--hypothesis-profile"):
        settings.load_profile("fast")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collector of garbage look neither at the thousands of collected tests nor at each little: it took a
    seventh of the processor time of what tests do in this process.
    """
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


PUBLIC = (
    "security-tracker.debian.org", "mirror.gcr.io", "ghcr.io", "www.cisa.gov", "epss.empiricalsecurity.com",
    "osv-vulnerabilities.storage.googleapis.com", "reproduce.debian.net",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def no_public_feed() -> Iterator[None]:
    """No test asks the default feeds: its settings name their own, or `none`."""
    ask = socket.getaddrinfo

    def here(host: Any, *more: Any, **named: Any) -> Any:
        assert host not in PUBLIC, f"a test asks {host}: let its settings say which feeds it has"
        return ask(host, *more, **named)

    with patch("socket.getaddrinfo", here):
        yield


@pytest.fixture(autouse=True, scope="session")
def recorded_edges() -> Iterator[None]:
    """No module asks AWS for what it does not declare."""
    with recorded():
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_files() -> Iterator[None]:
    """Ledgers in files cost little."""
    from tests.support.ledgers import compiled_once, unsynced, worded_once

    unsynced()
    with worded_once(), compiled_once():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    os.umask(0o022)  # commands that ran in this process have closed it, and dpkg-deb refuses folders of mode 0700
    for marker in item.iter_markers("needs"):
        for need in marker.args:
            if reason := _lacking(need):
                (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{reason}; ./goldsmith setup installs it")


@pytest.fixture
def advisories() -> Path:
    """Real advisory data beside the checkout; the test is skipped where there is none."""
    if not (SHARED / "data" / "README.md").exists():
        pytest.skip("the advisory data is not on this machine")
    return SHARED / "data"


@contextmanager
def _shared(factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """A state directory that all workers share, for one of them at a time."""
    base = factory.getbasetemp()
    state = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(state.with_suffix(".lock")):
        yield state


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Goldsmith:
    """The shipped catalog, built once for all workers through the command line. Not to be changed: tests `fork` it."""
    from tests.support.loop import build_all

    with _shared(tmp_path_factory, "house") as state:
        return build_all(state, docker_host)


@pytest.fixture(scope="session")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    """The packages of debian-base and debian-server as installed, once for all workers. Not to be changed."""
    from tests.support.trees import make_layers

    with _shared(tmp_path_factory, "layers") as state:
        return make_layers(state)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, layers: Layers) -> Goldsmith:
    """debian-server, built once for all workers through the command line. Not to be changed: tests `fork` it."""
    from tests.support.servers import build_server

    with _shared(tmp_path_factory, "server") as state:
        return build_server(state, layers)


@pytest.fixture(scope="session")
def qcow2(tmp_path_factory: pytest.TempPathFactory, server: Goldsmith) -> Exported:
    """debian-server's disk as qcow2, exported once for all workers through the command line. Not to be changed."""
    from tests.support.servers import export_qcow2

    with _shared(tmp_path_factory, "qcow2") as folder:
        return export_qcow2(server, folder)


@pytest.fixture(scope="session")
def docker_host() -> str:
    """The engine that tests run containers on: GOLDSMITH_TEST_DOCKER, else what fleets would use."""
    if given := os.environ.get("GOLDSMITH_TEST_DOCKER") or os.environ.get("DOCKER_HOST"):
        return given
    from hardening.foundation.settings import load_settings
    from pipelines.host.provision import docker_host as find

    return find(load_settings(), for_builds=False)


@pytest.fixture(scope="session")
def own_engine(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine for tests of rollouts, which all call their containers by the same names: one of this process alone,
    where it may start one and none was given; else they take turns at that of all.
    """
    from hardening.foundation.settings import Settings
    from pipelines.host.private_engine import PrivateEngine
    from tests.support.engines import forget_kept

    if os.environ.get("GOLDSMITH_TEST_DOCKER") or _lacking("root") or _lacking("dockerd"):
        yield docker_host
        forget_kept(docker_host)
        return
    own = PrivateEngine(Settings(state=tmp_path_factory.mktemp("engine")))
    yield own.ensure()
    own.stop()


@pytest.fixture
def yard(own_engine: str, tmp_path: Path) -> Iterator[Yard]:
    """A Docker Engine with what tests of rollouts start their containers from."""
    from tests.support.yards import yards

    yield from yards(own_engine, tmp_path)


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRegistry]:
    """A registry for all tests of this process, with what they begin with."""
    from tests.support.publishing import SharedRegistry, running_registry

    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder) as address:
        yield SharedRegistry(folder, address)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry for the tests of one file."""
    from tests.support.publishing import running_registry

    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def begin(shared_registry: SharedRegistry, tmp_path: Path) -> Iterator[Begin]:
    """Gives a publisher of releases that has taken some steps at an empty registry, and what each of them made."""
    with ExitStack() as begun:

        def after(take: Any = None, *steps: tuple[Any, ...]) -> Any:
            to, made = shared_registry.after(tmp_path, take, *steps)
            begun.callback(to.ledger.close)
            return to, made

        yield after


@pytest.fixture(scope="session")
def running_postgres() -> Iterator[Server]:
    """A PostgreSQL of the tests' own, one for all tests of this process."""
    from tests.support.postgres import running

    with running("-F") as server:  # nothing here outlives the machine
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs(POSTGRES))])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: a file of SQLite's, and a real PostgreSQL. What uses it runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/ledger.sqlite"
    server: Server = request.getfixturevalue("running_postgres")
    return server.new_database()


@pytest.fixture(scope="session")
def running_aws() -> Iterator[StrictAws]:
    """The strict AWS emulator, one for all tests of this process."""
    from tests.strict_aws import in_process

    with in_process() as aws:
        yield aws


@pytest.fixture
def aws(running_aws: StrictAws, monkeypatch: pytest.MonkeyPatch) -> StrictAws:
    """The emulator as freshly started, and an environment that leads every client to it."""
    from images.aws.client import Clients
    from tests.support.cloud import made_once

    running_aws.reset()
    for name, value in running_aws.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Clients, "_make", made_once(Clients._make))
    return running_aws


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore asks again without its pauses, of which nothing that is asked depends."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of three regions to publish machine images to, with an empty ledger."""
    from tests.support.cloud import cloud_for, settings_at

    made = cloud_for(settings_at(aws, tmp_path))
    yield made
    made.ledger.close()
