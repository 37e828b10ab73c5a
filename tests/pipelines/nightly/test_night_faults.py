"""Whole nights in a world that fails: registry, mirror, feed, disk. The rest goes on; the next night does what is left.

Nothing is faked: real builds, scans and verdicts, a real registry, the real workflow engine.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.process import run
from images import scan
from images.machine.trees import private_mounts
from pipelines.durable.dbos import system_database
from pipelines.nightly.stages import WorldStages
from tests.support.durable import fill
from tests.support.publishing import running_registry
from tests.support.towns import MATCHER, NEEDS, Town, status, told

pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture(autouse=True, scope="module")
def only_our_matcher() -> Iterator[None]:
    """In this process."""
    with patch.dict(scan.SCANNERS, MATCHER, clear=True):
        yield


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town that has not had its first night, whose registry does not run. Its tests tell one story, in order."""
    folder = tmp_path_factory.mktemp("town")
    with running_registry(folder / "registry") as address:
        pass
    with served(folder / "catalog/data") as feeds:
        yield Town.founded(folder, address, "egg", "ham", tracker=f"{feeds}/tracker.json")


def test_without_a_registry_all_is_built_and_the_next_night_publishes_it(town: Town) -> None:
    """Exit code 4; what was built and judged is not built again."""
    night, failures = town.night()
    assert night.exit_code == 4, told(failures)
    assert (night.published, status(night)) == ((), {"with-egg": "failed", "with-ham": "failed"})
    assert town.address in told(failures)
    with town.registry():
        town.ends_well(published=("with-egg", "with-ham"))


def test_what_the_mirror_lost_fails_alone_and_a_corrupt_feed_leaves_its_last_good_copy(town: Town) -> None:
    """A package that only the index names, as while a mirror is filled; and half a file where the tracker's data was.

    Exit code 4, for whoever runs these; the other image is published by the data of before.
    """
    town.newer("egg")
    lost = town.newer("ham")
    hidden, tracker = lost.rename(town.folder / "hidden.deb"), town.catalog.data / "tracker.json"
    tracker.write_text(tracker.read_text()[:20])
    with town.registry():
        night, failures = town.night()
        assert night.exit_code == 4, told(failures)
        assert (night.built, night.published) == (("with-egg",), ("with-egg",))
        assert status(night) == {"with-egg": "published", "with-ham": "failed"}
        assert status(night, "feeds")["trixie"] == "kept"
        assert "feeds trixie" in next(one.parts for one in night.must_act if one.exit_code == 4)
        assert {"no newer data: tracker"} < {error.message for error in failures}
        assert "ham" in told(failures)
        hidden.rename(lost)
        town.says_of_holes()
        town.ends_well(built=("with-ham",), published=("with-ham",))


def test_without_the_list_of_what_is_exploited_nothing_passes_for_judged(town: Town) -> None:
    """A corrupt file without a last good copy: exit code 4. What was built then is published once it is mended."""
    town.newer("ham")
    shutil.rmtree(town.catalog.settings.state_dir / "feeds/kev")
    (town.catalog.data / "kev.json").write_text("[")
    with town.registry():
        night, failures = town.night()
        assert night.exit_code == 4, told(failures)
        assert night.published == ()
        assert "exploited" in told(failures)
        town.says_of_holes()
        town.ends_well(published=("with-ham",))


# -- a full disk -------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_on_the_disk_fails_alone_and_is_built_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 and the folder; nothing of it lies around. Without any room, and without an end to that, the night
    itself ends so, and the next one goes on with it.
    """
    monkeypatch.setattr(system_database, "PATIENCE", timedelta())
    with running_registry(tmp_path / "registry") as address, private_mounts():
        town = Town.founded(tmp_path, address, "ham", big=24, parallel=1)  # beside it, ham would meet the full disk too
        disk = town.catalog.settings.state_dir
        disk.mkdir(parents=True, mode=0o700)
        sized(disk, 20, "")
        night, failures = town.night()
        assert night.exit_code == 4, told(failures)
        assert (night.built, night.published) == (("with-ham",), ("with-ham",))
        assert status(night)["big"] == "failed"
        assert f"the disk that holds {disk}" in told(failures)
        assert town.left() == []
        with monkeypatch.context() as patched:
            patched.setattr(WorldStages, "upstreams", lambda *_: (str(fill(disk)),))
            with pytest.raises(OutsideError, match="the disk that holds"):
                town.night()
        (disk / "filler").unlink()
        sized(disk, 100)
        night, failures = town.night()
        assert night.exit_code == 0, told(failures)
        assert (len(night.resumed), night.built, town.left()) == (1, (), [])
        with closing(town.context.ledger) as ledger:
            assert [len(ledger.releases(name)) for name in ("big", "with-ham")] == [1, 1]


def sized(disk: Path, megabytes: int, how: str = "remount,") -> None:
    """Mount a disk of that size, or give it that size."""
    run(["mount", "-t", "tmpfs", "-o", f"{how}mode=0700,size={megabytes}m", "none", str(disk)])
