"""What stands between the command line and the flows: settings, locks and names that a host may lack."""

import getpass
from pathlib import Path

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.locks import only_one
from images.ledger import Ledger
from pipelines.wiring import actor


def test_the_audit_names_a_user_without_a_passwd_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may run as any number."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert actor().startswith("uid ")


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


def test_a_second_holder_is_refused_by_name(tmp_path: Path) -> None:
    """The first one goes on undisturbed."""
    lock = tmp_path / "lock"
    with only_one(lock, "a night"), pytest.raises(RefusedError, match="already running"), only_one(lock, "a night"):
        pass
