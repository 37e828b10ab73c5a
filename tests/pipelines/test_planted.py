"""A key and a password in our environment, through the whole loop: afterwards they stand nowhere, whoever looked."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url

from hardening.foundation.settings import Settings
from images.ledger import Ledger
from images.registry.login import login_file
from pipelines.host import embedded_registry
from tests.support.loop import HEAD, Answer, Goldsmith, definition
from tests.support.postgres import Server

pytestmark = [
    pytest.mark.slow, pytest.mark.needs("root", "docker", "mmdebstrap", "mirror", "docker-registry", "skopeo")
]  # fmt: skip
KEY, PASSWORD = "planted-key-4711", "planted-password-4712"
LABEL = "goldsmith-planted"
IMAGE = HEAD.replace("container-base", "tells") + (
    'packages = ["ca-certificates"]\nuser = "65532:65532"\ncommand = ["sleep", "600"]\nsmoke = ["env"]\n'
    '[base]\nbootstrap = { family = "debian", suite = "trixie" }\n'
    '[healthcheck]\nnone_because = "a test runs nothing by itself"\n'
)
CONTROL = 'title = "T"\nseverity = "low"\napplies_to = ["container"]\nowner = "us"\nrationale = "r"\ncost = "c"\n'
FLEET = f"""title = "Of a test"
owner = "tests"
kind = "docker"
policy = "demo"
selector = {{ "{LABEL}" = "yes" }}
replacement = {{ definition = "planted" }}
health = {{ kind = "exec", command = ["true"] }}
"""


def content(root: Path) -> Path:
    """An image whose control tells in the image, and in its evidence, what environment its scripts see."""
    definition(root, "planted", IMAGE)
    control = root / "hardening/controls/tells"
    control.mkdir(parents=True)
    (control / "control.toml").write_text(CONTROL)
    (control / "apply.sh").write_text("{ env; tr '\\0' '\\n' </proc/$PPID/environ; } >\"$ROOT/opt/seen\"\n")
    (control / "check.sh").write_text("env\n")
    (control / "cases.toml").write_text('[[proof]]\ntitle = "t"\nevidence = "e"\n')
    (root / "hardening/profiles").mkdir()
    profile = 'title = "T"\nowner = "us"\nextends = "container-base"\ncontrols = [{ control = "tells" }]\n'
    (root / "hardening/profiles/tells.toml").write_text(profile)
    (root / "pipelines/fleets").mkdir(parents=True)
    (root / "pipelines/fleets/planted.toml").write_text(FLEET)
    return root


@contextmanager
def watched() -> Iterator[set[str]]:
    """The argument lists, of any process that runs meanwhile, that hold what was planted."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        before = {entry.name for entry in os.scandir("/proc")}  # what ran already is none of what is watched
        while not over.wait(0.05):
            now = {entry.name for entry in os.scandir("/proc")}
            before &= now
            for process in filter(str.isdigit, now - before):
                try:
                    line = Path("/proc", process, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:  # it ended in this moment
                    continue
                if KEY in line or PASSWORD in line:
                    seen.add(line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def files_with(folder: Path) -> list[Path]:
    """The files below `folder` that hold what was planted, also in what is compressed."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            data = file.read_bytes()
            data += gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""
            if KEY.encode() in data or PASSWORD.encode() in data:
                found.append(file)
    return found


def rows_with(url: str) -> list[str]:
    """The rows of any table that hold it."""
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        assert {"artifacts", "releases"} <= set(tables)
        rows = [str(row) for table in tables for row in connection.execute(text(f'SELECT t::text FROM "{table}" t'))]
    engine.dispose()
    return [row for row in rows if KEY in row or PASSWORD in row]


def docker(host: str, *words: str) -> str:
    done = subprocess.run(["docker", "-H", host, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def planted(tmp_path: Path, docker_host: str, running_postgres: Server) -> Iterator[Goldsmith]:
    """Goldsmith with both in its environment, and a ledger that asks for the password."""
    url = make_url(running_postgres.new_database()).set(password=PASSWORD).render_as_string(hide_password=False)
    settings = {"AWS_SECRET_ACCESS_KEY": KEY, "AWS_ACCESS_KEY_ID": KEY, "GOLDSMITH_DATABASE": url}
    made = Goldsmith(tmp_path / "state", docker_host, (content(tmp_path / "content"),), settings)
    try:
        yield made
    finally:
        for container in docker(docker_host, "ps", "-aq", "--filter", f"label={LABEL}").split():
            docker(docker_host, "rm", "-f", container)
        address = embedded_registry.known_address(Settings(state=made.state))
        for image in set(docker(docker_host, "images", "-q", f"{address}/*").split()):
            docker(docker_host, "rmi", "-f", image)
        embedded_registry.stop(Settings(state=made.state))


def test_what_is_planted_in_the_environment_is_found_nowhere_after_the_whole_loop(
    planted: Goldsmith, tmp_path: Path
) -> None:
    """Neither in state, layers, logs, rows and reports, nor in what was printed, nor in any argument list meanwhile."""
    answers: list[Answer] = []

    def do(*words: str) -> Answer:
        answers.append(planted(*words))
        return answers[-1]

    with watched() as lines:
        assert do("image.build", "planted", "--json").code == 0, answers[-1].err
        assert do("image.publish", "planted", "--policy", "demo", "--json").code == 0, answers[-1].err
        own = Settings(state=planted.state)
        image, login = f"{embedded_registry.known_address(own)}/planted:candidate", str(login_file(own).parent)
        docker(planted.docker_host, "--config", login, "pull", image)
        docker(planted.docker_host, "run", "-d", "--network", "none", "--label", f"{LABEL}=yes", image)
        assert do("fleet.check", "planted", "--json").code in (0, 3), answers[-1].err
        for words in (("image.scan", "planted", "--policy", "demo"), ("image.rebuild",), ("report",), ("doctor",)):
            do(*words)
    url = str(planted.environment["GOLDSMITH_DATABASE"])
    nowhere = make_url(url).set(port=1).render_as_string(hide_password=False)
    answers.append(planted.with_(database=nowhere)("image.list"))
    assert answers[-1].code == 4
    ledger = Ledger.open(url)
    [artifact] = ledger.artifacts("planted")
    checks = ledger.checks(artifact.digest)
    ledger.close()
    tree = planted.store.unpack(artifact.digest, tmp_path / "tree")
    assert "PATH=" in (tree / "opt/seen").read_text()  # it did look
    [told] = [result for result in checks if result.control == "tells"]
    assert "ROOT=" in told.evidence
    assert lines == set()
    assert [a for a in answers if KEY in a.out + a.err or PASSWORD in a.out + a.err] == []
    assert files_with(planted.state) == []
    assert files_with(tree) == []
    assert rows_with(url) == []


def test_the_environment_of_the_test_itself_is_not_what_is_looked_for() -> None:
    """Else it would prove nothing."""
    assert KEY not in os.environ.values()
