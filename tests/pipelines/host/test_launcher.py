"""`./goldsmith`: makes the environment once, from anywhere, and never takes a half-made one for finished."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT
from tests.support.checkouts import copy_checkout

INV = "import sys\n\ndef main():\n    print('inv {version}', *sys.argv[1:])\n"


class Checkout:
    """A checkout whose lock names one wheel, which prints the arguments of tasks.py, and one of another system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        shutil.copy(ROOT / "goldsmith", folder)
        (folder / "tasks.py").write_text("import tiny_inv\n\ntiny_inv.main()\n")
        self.lock("1")

    def lock(self, version: str) -> None:
        """Make requirements.lock ask for this version."""
        wheel = _wheel(self.folder, version)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        other = f"elsewhere==1 ; sys_platform == 'win32' --hash=sha256:{digest}\n"
        (self.folder / "requirements.lock").write_text(f"tiny-inv @ {wheel.as_uri()} --hash=sha256:{digest}\n{other}")

    def start(
        self, *arguments: str, cwd: Path | None = None, path: str = "", timeout: float | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the launcher, for so many seconds at most."""
        env = {**os.environ, "PATH": path or os.environ["PATH"], "PIP_NO_INDEX": "1", **env}
        return subprocess.run(
            [str(self.folder / "goldsmith"), *arguments], cwd=cwd, env=env, text=True, capture_output=True, check=False,
            timeout=timeout,
        )  # fmt: skip


def _wheel(folder: Path, version: str) -> Path:
    """A wheel of one module and one console script, without a network."""
    wheel, info = folder / f"tiny_inv-{version}-py3-none-any.whl", f"tiny_inv-{version}.dist-info"
    files = {
        "tiny_inv.py": INV.format(version=version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-inv\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ninv = tiny_inv:main\n",
    }
    hashes = {
        n: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).decode().rstrip("=") for n, t in files.items()
    }
    record = "".join(f"{name},sha256={hashes[name]},{len(text)}\n" for name, text in files.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(name, text)
    return wheel


@dataclass(frozen=True)
class Begun:
    """A checkout that was started for the first time twice at once, and what the two said and complained."""

    checkout: Checkout
    said: list[tuple[str, str]]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A checkout whose environment is made."""
    checkout = Checkout(tmp_path_factory.mktemp("launcher") / "check out")
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: checkout.start("--list"), range(2)))
    return Begun(checkout, [(done.stdout, done.stderr) for done in both])


@pytest.fixture
def ready(begun: Begun) -> Checkout:
    """That checkout."""
    return begun.checkout


@pytest.mark.slow
def test_a_task_runs_after_setup_from_anywhere(ready: Checkout, tmp_path: Path) -> None:
    """The task gets its arguments as they were typed, `setup` goes before it."""
    done = ready.start("image.build", "all", "--json", cwd=tmp_path)
    assert done.stdout == "inv 1 setup image.build all --json\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--list"],
        ["doctor", "--json"],
        ["lint"],
        ["control.list"],
        ["engine.show"],
        ["feed.update"],
        ["image.affected", "CVE-2026-0001"],
        ["control.show", "no-setuid"],
        ["waiver.new", "web", "no-setuid"],
        ["roll.status", "shop", "--watch"],
        ["report"],
        ["teardown", "--apply"],
    ],
)
def test_what_only_looks_changes_nothing_on_the_host(ready: Checkout, arguments: list[str]) -> None:
    """Help, listings, doctor and lint run without setup; `teardown` above all, which would else start an engine."""
    assert ready.start(*arguments).stdout.split()[2:] == arguments


def test_help_on_a_task_is_help(ready: Checkout) -> None:
    """`--help` after a task explains the task, and is not taken for an image's name."""
    assert ready.start("image.plan", "--help").stdout.endswith("--help image.plan\n")


def test_without_a_task_it_lists_them(ready: Checkout) -> None:
    """Typing the command alone shows what there is."""
    assert ready.start().stdout.rstrip().endswith("--list")


def test_it_works_through_a_link(ready: Checkout, tmp_path: Path) -> None:
    """A link in a folder on PATH finds the checkout."""
    (tmp_path / "goldsmith").symlink_to(ready.folder / "goldsmith")
    assert "setup nightly" in run([str(tmp_path / "goldsmith"), "nightly"]).stdout


def test_a_second_start_makes_nothing_and_waits_for_nobody(ready: Checkout) -> None:
    """Once made, the environment costs what it takes to see that it is: whoever makes one meanwhile has the lock."""
    made = {path: path.stat().st_mtime_ns for path in (ready.folder / ".venv").rglob("*")}
    with (ready.folder / ".venv.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ready.start("--list", timeout=600).stdout == "inv 1 --list\n"
    assert {path: path.stat().st_mtime_ns for path in (ready.folder / ".venv").rglob("*")} == made


@pytest.mark.slow
def test_a_changed_lock_is_installed_and_a_killed_install_does_not_look_finished(ready: Checkout) -> None:
    """The environment follows the lock, there and back; after kill -9 in the middle, the next start makes it anew."""
    assert ready.start("--list").stdout.startswith("inv 1")
    ready.lock("2")
    wheel = next(ready.folder.glob("*-2-*.whl"))
    kept = wheel.rename(wheel.with_suffix(".kept"))
    os.mkfifo(wheel)  # pip opens it and waits
    child = subprocess.Popen(
        [str(ready.folder / "goldsmith"), "--list"], start_new_session=True, stderr=subprocess.PIPE
    )
    with child:
        while not _is_read(wheel):
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
    kept.replace(wheel)
    assert not (ready.folder / ".venv/goldsmith-stamp").exists()
    again = ready.start("--list")
    assert again.stdout.startswith("inv 2")
    assert "installing" in again.stderr
    ready.lock("1")
    assert ready.start("--list").stdout.startswith("inv 1")


def _is_read(fifo: Path) -> bool:
    """Whether somebody waits to read from the pipe."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_the_first_start_says_how_far_it_is(begun: Begun) -> None:
    """Who waits for minutes sees that something happens; pip's own words are kept beside it."""
    told = "".join(complaint for _, complaint in begun.said)
    assert " of 2 packages fetched, " in told
    assert told.count("all installed; 1 of the lock are for other systems or Python versions") == 1
    assert "Successfully installed" in (begun.checkout.folder / ".venv/pip.log").read_text()


@pytest.mark.slow
def test_two_first_starts_at_once_both_work(begun: Begun) -> None:
    """One makes the environment, the other waits for it."""
    assert [said[:5] for said, _ in begun.said] == ["inv 1"] * 2
    assert sum("installing" in complaint for _, complaint in begun.said) == 1


def test_without_python_it_says_so_and_stops(tmp_path: Path) -> None:
    """No suitable Python: one line that says what to do, and exit code 4."""
    checkout = Checkout(tmp_path / "c")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "readlink", "sha256sum", "cat", "flock"):
        (programs / name).symlink_to(shutil.which(name) or "")
    done = checkout.start("--list", path=str(programs), PYTHON="absent")  # this machine's own cannot be hidden
    assert done.returncode == 4
    assert "needs Python 3.11 or newer" in done.stderr


def test_what_pip_complains_about_is_shown(begun: Begun) -> None:
    """One error, exit code 4, and the last lines; the environment does not look finished."""
    checkout = begun.checkout
    lock = checkout.folder / "requirements.lock"
    sound = lock.read_text()
    lock.write_text(sound.replace("sha256:", "sha256:0"))
    done = checkout.start("--list")
    lock.write_text(sound)
    assert done.returncode == 4
    assert "hash" in done.stderr.lower()
    assert done.stderr.endswith("goldsmith: could not install the Python packages\n")
    assert not (checkout.folder / ".venv/goldsmith-stamp").exists()


TINY = """from pathlib import Path

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT


def test_tiny() -> None:
    assert ROOT == Path(__file__).resolve().parents[1]
    assert "tasks.py" in run(["git", "ls-files"], cwd=ROOT).stdout
"""


@pytest.mark.slow
@pytest.mark.needs("root")
@pytest.mark.parametrize("place", ["below /tmp", "with a space", "of another user", "on another file system", "a link"])
def test_a_checkout_runs_its_tests_in_every_place(place: str) -> None:
    """`./goldsmith test` on one tiny test, whose temporary files lie in memory where there is enough."""
    elsewhere = {"on another file system": "/dev/shm", "of another user": "/var/tmp", "a link": "/var/tmp"}
    with tempfile.TemporaryDirectory(dir=elsewhere.get(place, "/tmp")) as folder:
        Path(folder).chmod(0o755)
        name = "check out" if place == "with a space" else "checkout"
        checkout = copy_checkout(Path(folder, name), leave_out=r"benchmarks/|tests/(?!conftest|support/)|\.venv/")
        (checkout / "tests/test_tiny.py").write_text(TINY)
        if place == "of another user":
            run(["chown", "-R", "nobody:", str(checkout)])
            run(["chmod", "-R", "go=", str(checkout)])
        if place == "a link":
            Path(folder, "link").symlink_to(checkout)
            checkout = Path(folder, "link")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("GOLDSMITH_", "PYTEST_"))}
        done = subprocess.run(
            ["./goldsmith", "test", "--fast"], cwd=checkout, env={**env, "PY_COLORS": "0"}, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 passed" in done.stdout
