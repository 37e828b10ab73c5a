"""Another user of the build host: what the state directory, the engine, the registry and a running build show them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from hardening.catalog import load_controls, load_policies, load_profiles, load_waivers
from hardening.foundation.errors import ContentError, OutsideError
from hardening.foundation.settings import ROOT, Settings, load_settings
from images.catalog import files_of, load_definitions
from images.registry.login import login_file
from pipelines.fleet.catalog import load_fleets
from pipelines.host import embedded_registry
from pipelines.host.daemon import Daemon
from pipelines.host.private_engine import PrivateEngine
from pipelines.network.catalog import load_network
from pipelines.wiring import keep_private
from tests.support.loop import Goldsmith, definition, until

# Prints each path of standard input that its user can read, write or execute.
ALLOWED = (
    'while IFS= read -r path; do if [ -r "$path" ] || [ -w "$path" ] || [ -x "$path" ]; then echo "$path"; fi; done'
)
SLEEPS = 'RUN ["/bin/sh", "-c", "sleep 60"]'


def as_nobody(script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`script` as the user nobody runs it."""
    argv = ["su", "nobody", "-s", "/bin/sh", "-c", script]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, cwd="/")


def open_to_nobody(paths: list[Path]) -> list[str]:
    """Those of `paths` that nobody can read, write or execute."""
    done = as_nobody(ALLOWED, "".join(f"{path}\n" for path in paths))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def tree(*tops: Path) -> list[Path]:
    """All files and folders at and below `tops`."""
    return [path for top in tops for path in (top, *top.rglob("*"))]


def descendants(pid: int) -> list[int]:
    """The process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in descendants(int(child)))]


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can enter, such as /srv; where states can be forked to, by hard links."""
    folder = Path(tempfile.mkdtemp(prefix="goldsmith-public-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_the_state_directory_is_its_owners_alone(public: Path) -> None:
    """A new one is made so, and one that an older version left open is closed."""
    state = public / "deep/state"
    keep_private(state)
    assert stat.filemode(state.stat().st_mode) == "drwx------"
    state.chmod(0o775)
    keep_private(state)
    assert stat.filemode(state.stat().st_mode) == "drwx------"


@pytest.mark.needs("root")
def test_the_state_directory_of_another_user_is_refused(public: Path) -> None:
    """Its owner could plant packages and images that we would publish."""
    state = public / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    with pytest.raises(OutsideError, match="belongs to user id 65534") as caught:
        keep_private(state)
    assert "chown" in caught.value.hint
    shown = Goldsmith(state, "unix:///absent")("image.plan", "debian-base")
    assert (shown.code, "belongs to user id 65534" in shown.err) == (4, True)
    assert not list(state.iterdir())


@contextmanager
def being_nobody() -> Iterator[None]:
    """The rights of the user nobody, for this process."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o700, 0o600, 0o744])
@pytest.mark.parametrize(
    ("load", "room", "closed"),
    [
        (load_fleets, "pipelines/fleets", "."),
        (load_fleets, "pipelines/fleets", "shop.toml"),
        (load_waivers, "hardening/waivers", "."),
        (load_policies, "hardening/policies", "."),
        (load_profiles, "hardening/profiles", ".."),
        (load_controls, "hardening/controls", "."),
        (load_controls, "hardening/controls", "../.."),
        (load_definitions, "images/definitions", "."),
        (load_definitions, "images/definitions", "shop"),
        (load_network, "network", "."),
    ],
)
def test_content_of_another_user_that_cannot_be_read_is_not_taken_for_none(
    public: Path, load: Callable[[tuple[Path, ...]], object], room: str, closed: str, mode: int
) -> None:
    """Without the waivers or fleets that are there, images would be judged by other rules."""
    (public / room).mkdir(parents=True)
    if room == "images/definitions":
        definition(public, "shop")
    else:
        (public / room / "shop.toml").write_text("")
    place = (public / room / closed).resolve()
    place.chmod(mode if place.is_dir() else mode & 0o700)
    with being_nobody(), pytest.raises(ContentError, match="cannot be read: Permission denied") as caught:
        load((public,))
    assert caught.value.message.startswith(str(place))
    assert "chmod a+rX" in caught.value.hint


@pytest.mark.needs("root")
def test_a_content_root_that_cannot_be_entered_is_an_error_of_the_settings(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no disk that failed."""
    (public / "closed/content").mkdir(parents=True)
    (public / "closed").chmod(0o700)
    monkeypatch.setenv("GOLDSMITH_CONTENT", f'["{public}/closed/content"]')
    with being_nobody(), pytest.raises(ContentError, match="closed/content: cannot be read: Permission denied"):
        load_settings(public / "goldsmith.toml")


@pytest.mark.needs("root")
@pytest.mark.parametrize("closed", ["files", "files/deep"])
def test_files_of_a_definition_that_cannot_be_read_are_not_left_out(public: Path, closed: str) -> None:
    """An image would lack what another user sees."""
    (public / "files/deep").mkdir(parents=True)
    (public / closed).chmod(0o700)
    with being_nobody(), pytest.raises(ContentError, match=f"{closed}: cannot be read: Permission denied"):
        files_of(public)


def test_a_directory_that_others_work_in_is_not_closed_to_them(public: Path) -> None:
    """`state = "/tmp"` or "/srv" would else lock everybody out of it; a state of an older version is closed."""
    for name, mode, holds in (("tmp", 0o1777, ""), ("srv", 0o755, "www")):
        (shared := public / name).mkdir()
        shared.chmod(mode)
        if holds:
            (shared / holds).mkdir()
        with pytest.raises(OutsideError, match="open to other users and holds what is not ours") as caught:
            keep_private(shared)
        assert (stat.S_IMODE(shared.stat().st_mode), str(shared / "goldsmith") in caught.value.hint) == (mode, True)
    (public / "srv/locks").mkdir()
    keep_private(public / "srv")
    assert stat.S_IMODE((public / "srv").stat().st_mode) == 0o700


def test_what_a_command_writes_is_its_users_alone(public: Path) -> None:
    """Also inside the state directory, should that be opened one day."""
    state = public / "state"
    assert Goldsmith(state, "unix:///absent")("image.list", "--json").code == 0
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in tree(state)}
    assert (state / "ledger.sqlite").exists()
    assert modes == {0}


@pytest.mark.slow
@pytest.mark.needs("root", "mirror", "mmdebstrap", "docker", "dockerd", "docker-registry", "su")
def test_nobody_sees_nothing_of_a_build_an_engine_a_registry_and_a_ledger(house: Goldsmith, public: Path) -> None:
    """While a build runs, the user nobody can read, write and execute nothing of it, and use no service of ours."""
    state, temporary = public / "state", public / "tmp"
    temporary.mkdir(mode=0o777)
    temporary.chmod(0o1777)
    house.fork(state)
    settings = Settings(state=state)
    engine, registry = PrivateEngine(settings), Daemon("docker-registry", state / "registry")
    content = definition(public / "content", "sleeper", steps=SLEEPS)
    try:
        embedded_registry.registry_address(settings)
        own = Goldsmith(state, engine.ensure(), (content,), {"TMPDIR": str(temporary)})
        assert stat.filemode(engine.socket.stat().st_mode) == "srw-------"
        building = own.start("image.build", "sleeper")
        until(lambda: list((state / "work").glob("*/changes")), "the tree of the build")
        processes = [*descendants(building.pid), registry.pid() or 0, engine.daemon.pid() or 0]
        inside = [
            Path(f"/proc/{pid}/{name}") for pid in processes for name in ("environ", "mem", "root/", "cwd/", "fd")
        ]
        seen = [*tree(state, engine.runtime, *temporary.iterdir()), *inside]
        assert {state / "ledger.sqlite", login_file(settings), engine.runtime / "docker.sock"} <= set(seen)
        assert open_to_nobody(seen) == []
        assert as_nobody(f"docker --host {engine.host} version").returncode != 0
        assert open_to_nobody([public / "content"]) == [str(public / "content")], "the probe itself works"
        building.send_signal(signal.SIGINT)
        assert building.wait() == 130
        assert [*(state / "work").glob("*")] == []
        assert own.ledger.latest_artifact("sleeper", settings.platform) is None
    finally:
        engine.stop()
        embedded_registry.stop(settings)


def test_workflows_pin_their_actions_and_keep_no_credentials() -> None:
    """Each action by commit, permissions named job by job, and no token left in the checkout."""
    files = [*(ROOT / ".github/workflows").glob("*.yml")]
    assert files
    for file in files:
        workflow = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {}, file.name
        for job in workflow["jobs"].values():
            assert job["permissions"]
            for step in job["steps"]:
                action = step.get("uses", "")
                assert not action or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action), f"{file.name}: {action}"
                if action.startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False
