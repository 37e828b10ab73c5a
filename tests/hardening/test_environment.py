"""What children see of our environment: the listed variables, and no login, no address of a database, no tool's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from hardening.foundation.process import ENGINE, NETWORK, REGISTRY, allowed, pipe_from, pipe_to, run, spawn
from hardening.foundation.settings import Notify, Settings
from pipelines.rollout.state import Event
from tests.support.loop import until

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "planted-1", "AWS_SESSION_TOKEN": "planted-2", "AWS_PROFILE": "planted-3",
    "GOLDSMITH_DATABASE": "postgresql://u:planted-4@h/d", "PGPASSWORD": "planted-5", "GITHUB_TOKEN": "planted-6",
    "TRIVY_SEVERITY": "LOW", "SYFT_EXCLUDE": "planted-7", "HADOLINT_IGNORE": "planted-8", "PYTHONPATH": "/planted",
    "LD_LIBRARY_PATH": "/planted", "BASH_ENV": "/planted", "ENV": "/planted", "APT_CONFIG": "/planted",
    "GNUPGHOME": "/planted", "VAULT_TOKEN": "planted-9", "OSCAP_PROBE_ROOT": "/planted",
}  # fmt: skip


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that no child may see, and some that it may."""
    for name, value in {**SECRETS, "LANG": "C.UTF-8", "HTTPS_PROXY": "http://proxy", "DOCKER_CONFIG": "/login"}.items():
        monkeypatch.setenv(name, value)


def _run(_folder: Path) -> str:
    return run(["env"]).stdout


def _pipe_from(_folder: Path) -> str:
    said: list[bytes] = []
    pipe_from(["env"], lambda stream: said.append(stream.read()))
    return said[0].decode()


def _pipe_to(folder: Path) -> str:
    def feed(sink: IO[bytes]) -> None:
        sink.write(b"x")

    pipe_to(["sh", "-c", f"env >{folder}/said; cat"], feed)
    return (folder / "said").read_text()


def _spawn(folder: Path) -> str:
    spawn(["sh", "-c", "env; echo end"], log=folder / "said")
    until(lambda: (folder / "said").exists() and "end\n" in (folder / "said").read_text(), "its words")
    return (folder / "said").read_text()


@pytest.mark.parametrize("start", [_run, _pipe_from, _pipe_to, _spawn])
def test_a_child_sees_the_plain_variables_and_no_other(start: Callable[[Path], str], tmp_path: Path) -> None:
    """However it is started: no login, nothing that decides what a tool does, and no proxy unless it is asked for."""
    said = start(tmp_path)
    seen = dict(line.partition("=")[::2] for line in said.splitlines() if "=" in line)
    assert seen["LANG"] == "C.UTF-8"
    assert "/usr/bin" in seen["PATH"]
    assert not {*SECRETS, "HTTPS_PROXY", "DOCKER_CONFIG"} & seen.keys()
    assert "planted" not in said


def test_a_child_that_needs_the_network_sees_proxies_and_one_that_logs_in_where_the_login_lies() -> None:
    """Each group holds the one before; none holds a secret."""
    assert run(["sh", "-c", 'echo "$HTTPS_PROXY $DOCKER_CONFIG"'], passes=NETWORK).stdout == "http://proxy \n"
    assert run(["sh", "-c", 'echo "$HTTPS_PROXY $DOCKER_CONFIG"'], passes=REGISTRY).stdout == "http://proxy /login\n"
    assert set(NETWORK) < set(REGISTRY) < set(ENGINE)
    assert not set(ENGINE) & SECRETS.keys()


def test_what_a_caller_gives_outweighs_our_own() -> None:
    """Its own value of a plain variable, and a variable that is not on any list."""
    assert run(["sh", "-c", 'echo "$LANG $AWS_PROFILE"'], env={"LANG": "C", "AWS_PROFILE": "x"}).stdout == "C x\n"
    assert allowed({"LANG": "C", "SECRET": "x", "no_proxy": "h"}) == {"LANG": "C"}


def test_a_program_that_is_told_of_a_rollout_sees_no_secret(tmp_path: Path) -> None:
    """It may reach out, and so sees proxies; what it logs in with it finds in files of its own."""
    from datetime import UTC, datetime

    from pipelines.rollout.notify import Message, notifier

    argv = ("sh", "-c", f"cat >/dev/null; env >{tmp_path}/said")
    settings = Settings(state=tmp_path, notify=Notify(command=argv))
    notifier(settings)(Message(next(iter(Event)), "fleet", "rollout", "text", datetime(2026, 11, 26, tzinfo=UTC)))
    said = (tmp_path / "said").read_text()
    assert "HTTPS_PROXY=http://proxy" in said
    assert "planted" not in said
