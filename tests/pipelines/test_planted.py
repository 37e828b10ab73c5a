"""Secrets in our environment and in files that settings name, through the whole loop: afterwards they stand nowhere
else, whoever looked.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
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
HOOK = "whsec_cGxhbnRlZC1ob29rLTQ3MTMtb2YtMzItYnl0ZXMtaW4tYWxs"
TOKEN, MAIL, CHAT, LOGIN = (f"planted-{what}" for what in ("token-4714", "mail-4715", "chat-4716", "login-4717"))
PLANTED = {one.encode() for one in (KEY, PASSWORD, HOOK, TOKEN, MAIL, CHAT, LOGIN)}
PLANTED |= {b64encode(f"ann:{LOGIN}".encode()), b64encode(f"\0ann\0{MAIL}".encode())}  # as they are sent
NOWHERE = "127.0.0.1:1"
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
    (root / "pipelines/fleets/unseen.toml").write_text(FLEET)  # never checked, which a digest tells
    return root


@contextmanager
def watched(also: Callable[[], set[bytes]]) -> Iterator[set[str]]:
    """The argument lists, of any process that runs meanwhile, that hold what was planted or what `also` gives."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        before = {entry.name for entry in os.scandir("/proc")}  # what ran already is none of what is watched
        while not over.wait(0.05):
            now = {entry.name for entry in os.scandir("/proc")}
            before &= now
            for process in filter(str.isdigit, now - before):
                try:
                    line = Path("/proc", process, "cmdline").read_bytes().replace(b"\0", b" ")
                except OSError:  # it ended in this moment
                    continue
                if holds(line, also()):
                    seen.add(line.decode(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def holds(data: bytes, also: set[bytes] = frozenset()) -> bool:  # type: ignore[assignment]
    return any(one in data for one in PLANTED | also)


def files_with(folder: Path, also: set[bytes]) -> list[Path]:
    """The files below `folder` that hold what was planted, or one of those, also in what is compressed."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            data = file.read_bytes()
            data += gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""
            if holds(data, also):
                found.append(file)
    return found


def rows_with(url: str, also: set[bytes]) -> list[str]:
    """The rows of any table that hold it."""
    engine = create_engine(url)
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        assert {"artifacts", "releases"} <= set(tables)
        rows = [str(row) for table in tables for row in connection.execute(text(f'SELECT t::text FROM "{table}" t'))]
    engine.dispose()
    return [row for row in rows if holds(row.encode(), also)]


def secret_files(folder: Path) -> dict[str, str]:
    """Settings that name files with a secret each; nothing answers where they would be sent."""
    said = {"hook": HOOK, "token": TOKEN, "mail": f"ann\n{MAIL}", "chat": f"https://{NOWHERE}/{CHAT}"}
    login = {"auths": {"other.example.com": {"auth": b64encode(f"ann:{LOGIN}".encode()).decode()}}}
    folder.mkdir(mode=0o700)
    for name, secret in {**said, "auth.json": json.dumps(login)}.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)
    channel = {"ann": {"mail": ["ann@example.com"], "webhook_file": str(folder / "chat")}}
    smtp = {"server": NOWHERE, "sender": "ann@example.com", "tls": "implicit", "login_file": str(folder / "mail")}
    return {
        "GOLDSMITH_SERVE__WEBHOOK_SECRET_FILE": str(folder / "hook"),
        "GOLDSMITH_GITHUB__REPOSITORY": "ann/shop",
        "GOLDSMITH_GITHUB__TOKEN_FILE": str(folder / "token"),
        "GOLDSMITH_GITHUB__API": f"https://{NOWHERE}",
        "GOLDSMITH_NOTIFY__WEBHOOK_FILE": str(folder / "chat"),
        "GOLDSMITH_DIGEST": json.dumps({"channels": channel, "smtp": smtp}),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
    }


def made_by_us(state: Path) -> dict[bytes, Path]:
    """The secrets that Goldsmith makes itself, each with the one file that holds it: keys, and its registry's login."""
    keys = {file: file.read_bytes() for file in (state / "keys").rglob("*") if b"PRIVATE" in file.read_bytes()[:64]}
    body = {b"".join(pem.splitlines()[1:-1])[-32:]: file for file, pem in keys.items()}
    login = login_file(Settings(state=state))
    (entry,) = json.loads(login.read_text())["auths"].values()
    password = b64decode(entry["auth"]).partition(b":")[2]
    return {**body, entry["auth"].encode(): login, password: login}


def docker(host: str, *words: str) -> str:
    done = subprocess.run(["docker", "-H", host, *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def planted(tmp_path: Path, docker_host: str, running_postgres: Server) -> Iterator[Goldsmith]:
    """Goldsmith with both in its environment, and a ledger that asks for the password."""
    url = make_url(running_postgres.new_database()).set(password=PASSWORD).render_as_string(hide_password=False)
    settings = {"AWS_SECRET_ACCESS_KEY": KEY, "AWS_ACCESS_KEY_ID": KEY, "GOLDSMITH_DATABASE": url}
    settings |= secret_files(tmp_path / "secrets")
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
    """Neither in state, layers, logs, rows and reports, nor in what was printed, nor in any argument list meanwhile.

    What Goldsmith makes itself stands in its own file alone.
    """
    answers: list[Answer] = []
    own_secrets = set[bytes]()

    def do(*words: str) -> Answer:
        answers.append(planted(*words))
        return answers[-1]

    with watched(lambda: own_secrets) as lines:
        assert do("image.build", "planted", "--json").code == 0, answers[-1].err
        assert do("image.publish", "planted", "--policy", "demo", "--json").code == 0, answers[-1].err
        own = Settings(state=planted.state)
        made = made_by_us(planted.state)
        assert len(made) == 3  # a signing key, and a login in two forms
        own_secrets |= {*made}
        image, login = f"{embedded_registry.known_address(own)}/planted:candidate", str(login_file(own).parent)
        docker(planted.docker_host, "--config", login, "pull", image)
        docker(planted.docker_host, "run", "-d", "--network", "none", "--label", f"{LABEL}=yes", image)
        assert do("fleet.check", "planted", "--json").code in (0, 3), answers[-1].err
        for words in (("image.scan", "planted", "--policy", "demo"), ("image.rebuild",), ("report",), ("doctor",)):
            do(*words)
        assert do("digest", "--json").json["targets"]
        assert {one["outcome"] for one in answers[-1].json["targets"]} == {"failed"}  # nothing answers there
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
    assert [a for a in answers if holds((a.out + a.err).encode(), own_secrets)] == []
    assert set(files_with(planted.state, own_secrets)) == {*made.values()}
    assert files_with(tree, own_secrets) == []
    assert rows_with(url, own_secrets) == []


def test_the_environment_of_the_test_itself_is_not_what_is_looked_for() -> None:
    """Else it would prove nothing."""
    assert KEY not in os.environ.values()
