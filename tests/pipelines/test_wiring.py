"""What stands between the command line and the flows: settings, locks and names that a host may lack."""

import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.locks import only_one
from hardening.foundation.settings import REHEARSAL, Aws, Registry, Settings
from images.ledger import Ledger
from pipelines import wiring
from pipelines.cli import auto_roll, image, rollout, rollout_watch
from pipelines.cli.signing import rotate_keys, show_keys
from pipelines.cli.waiving import new_waiver
from pipelines.nightly.command import run_nightly
from pipelines.rollout.state import Command
from pipelines.wiring import actor, image_context


def test_the_audit_names_a_user_without_a_passwd_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as any number."""
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert actor() == f"uid 987654@{socket.gethostname()}"


def test_who_logged_in_is_the_kernels_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is root writes SUDO_UID as he likes; two people who share an account are told apart by their logins."""
    login, daemon, host = tmp_path / "loginuid", pwd.getpwnam("daemon"), socket.gethostname()
    monkeypatch.setattr(wiring, "LOGIN", login)
    login.write_text(str(daemon.pw_uid))
    monkeypatch.setenv("SUDO_UID", str(pwd.getpwnam("bin").pw_uid))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert actor() == f"root (sudo by daemon)@{host}"
    monkeypatch.setattr(os, "getuid", lambda: pwd.getpwnam("games").pw_uid)
    assert actor() == f"games (sudo by daemon)@{host}"
    monkeypatch.setattr(os, "getuid", lambda: daemon.pw_uid)
    assert actor() == f"daemon@{host}"
    login.write_text(str(2**32 - 1))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert actor() == f"root (sudo by bin)@{host}"


def test_the_audit_names_the_user_of_the_process_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOGNAME and its like are what a caller writes; root by sudo is named with who called it, and nobody else is."""
    monkeypatch.setattr(wiring, "LOGIN", tmp_path / "absent")
    me = pwd.getpwuid(os.getuid()).pw_name
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER"):
        monkeypatch.setenv(name, "mallory")
    monkeypatch.delenv("SUDO_UID", raising=False)
    host = socket.gethostname()
    assert actor() == f"{me}@{host}"
    daemon = pwd.getpwnam("daemon")
    monkeypatch.setenv("SUDO_UID", str(daemon.pw_uid))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert actor() == f"root (sudo by daemon)@{host}"
    for odd in ("mallory", "0", "", "-1", "9" * 40):
        monkeypatch.setenv("SUDO_UID", odd)
        assert "mallory" not in actor()
    monkeypatch.setenv("SUDO_UID", str(pwd.getpwnam("bin").pw_uid))
    monkeypatch.setattr(os, "getuid", lambda: daemon.pw_uid)
    assert actor() == f"daemon@{host}"


def test_a_moved_clock_is_for_rehearsals_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only looks may see another day anywhere; what acts, only in a state directory made for it."""
    monkeypatch.setenv("GOLDSMITH_NOW", "2030-01-01T12:00Z")
    settings = Settings(state=tmp_path)
    assert image_context(settings, looks=True).now.year == 2030
    with pytest.raises(RefusedError, match="GOLDSMITH_NOW moves the clock for rehearsals") as error:
        image_context(settings)
    assert f"{tmp_path}/rehearsal is not there" in str(error.value)
    (tmp_path / REHEARSAL).touch()
    assert image_context(settings).now.year == 2030
    shared = [
        {"database": "postgresql://db/x"}, {"registry": Registry(address="r.example.com/golden")},
        {"aws": Aws(region="eu-central-1")},
    ]  # fmt: skip
    for one in shared:
        with pytest.raises(RefusedError, match="which others use too"):
            image_context(settings.model_copy(update=one))
    monkeypatch.delenv("GOLDSMITH_NOW")
    assert image_context(Settings(state=tmp_path / "other")).now.year < 2030


ACTS: list[tuple[str, Callable[[], object]]] = [
    ("publish", lambda: image.publish_images("all")),
    ("promote", lambda: image.promote_images("all")),
    ("rollback", lambda: image.rollback_image("debian-base")),
    ("revoke", lambda: image.revoke_release("sha256:0", "why")),
    ("prune", lambda: image.prune_images(apply=True)),
    ("rebuild", image.rebuild_ledger),
    ("key.show", show_keys),
    ("key.rotate", rotate_keys),
    ("waiver.new", lambda: new_waiver("debian-base", "CVE-2026-0001", reason="why", approver="ann")),
    ("nightly", run_nightly),
    ("roll.start", lambda: rollout.roll_fleet("web", apply=True)),
    ("roll.rollback", lambda: rollout.roll_back("web", "why", apply=True)),
    ("roll.auto", lambda: auto_roll.auto_roll("all", apply=True)),
    ("roll.plan --output", lambda: rollout.plan_roll("web", output="plan.json")),
    ("roll.approve --plan", lambda: rollout.approve("web", "plan.json")),
    ("roll.approve", lambda: rollout_watch.command("web", Command.APPROVE)),
]


@pytest.mark.parametrize("act", [act for _, act in ACTS], ids=[name for name, _ in ACTS])
def test_nothing_that_acts_takes_a_moved_clock(
    act: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused before it asks anything of a registry, an engine or the ledger."""
    monkeypatch.setenv("GOLDSMITH_NOW", "2030-01-01T12:00Z")
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    with pytest.raises(RefusedError, match="GOLDSMITH_NOW moves the clock for rehearsals"):
        act()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("url", ["foo://x", "not an address", "postgresql+nodriver://host/name"])
def test_a_database_that_cannot_be_reached_this_way_is_named(url: str) -> None:
    """One error with the key and the two forms that work."""
    with pytest.raises(ContentError, match="database") as error:
        Ledger.open(url)
    assert "sqlite:////" in str(error.value)


def test_a_lock_that_cannot_be_written_is_the_outside_worlds_failure(tmp_path: Path) -> None:
    """A state directory below a file, or another user's."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutsideError, match="cannot be written"), only_one(tmp_path / "file" / "lock", "a night"):
        pass
    with pytest.raises(OutsideError, match="cannot be written"), only_one(Path("/proc/x"), "it", wait_seconds=600):
        pass


def test_a_second_holder_is_refused_by_name(tmp_path: Path) -> None:
    """The first one goes on undisturbed."""
    lock = tmp_path / "lock"
    with only_one(lock, "a night"), pytest.raises(RefusedError, match="already running"), only_one(lock, "a night"):
        pass


def made(folder: Path) -> Path:
    """A state directory in which something has happened."""
    folder.mkdir(parents=True)
    (folder / "ledger.sqlite").touch()
    return folder


def test_a_second_state_is_found_and_told_with_the_one_that_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the unit of earlier versions, of goldsmith.toml: what is in it would be missed, and nobody would know why."""
    monkeypatch.setattr(wiring, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(wiring, "OF_UNIT", tmp_path / "of-unit")
    monkeypatch.delenv("GOLDSMITH_STATE", raising=False)
    file, used = tmp_path / "checkout/goldsmith.toml", made(tmp_path / "checkout/.goldsmith")
    assert (wiring.said_by(), wiring.other_states(used)) == ("the default", [])
    unit = made(tmp_path / "of-unit")
    assert wiring.other_states(used) == [unit]
    wiring.tell_of_others(used)
    assert f"using the state in {used} (the default); there is another one in {unit}" in capsys.readouterr().err
    assert wiring.other_states(used / "demo") == [unit], "the demo's lies in it, and is meant"
    file.write_text(f'state = "{unit}"\n')
    assert (wiring.said_by(), wiring.other_states(unit)) == ("goldsmith.toml", [used])
    monkeypatch.setenv("GOLDSMITH_STATE", str(used))
    assert (wiring.said_by(), wiring.other_states(used)) == ("GOLDSMITH_STATE", [unit])


def test_who_names_a_state_by_the_variable_means_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the place of the default is then no second one; nor is a link to the same."""
    monkeypatch.setattr(wiring, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(wiring, "OF_UNIT", tmp_path / "of-unit")
    default, other = made(tmp_path / "checkout/.goldsmith"), made(tmp_path / "other")
    monkeypatch.setenv("goldsmith_state", str(other))
    assert (wiring.said_by(), wiring.other_states(other)) == ("GOLDSMITH_STATE", [])
    monkeypatch.delenv("goldsmith_state")
    (tmp_path / "of-unit").symlink_to(default)
    assert wiring.other_states(default) == []
