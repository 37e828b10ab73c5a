"""A built machine's disk as a file for private clouds: the same bytes, whole or not at all, over nothing unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.errors import OutsideError
from hardening.foundation.hashing import digest
from hardening.foundation.process import run
from images.machine.disk import digests_of
from images.machine.trees import private_mounts
from pipelines.cli.export import export_image
from tests.images.build.test_machine_build import NEEDS, content_of
from tests.support.loop import Goldsmith
from tests.support.servers import Exported, Workshop

pytestmark = [pytest.mark.slow, pytest.mark.needs(*NEEDS)]


def test_an_exported_disk_is_the_disk(server: Goldsmith, qcow2: Exported, tmp_path: Path) -> None:
    """Raw it is the same bytes, with its holes; from qcow2 the same bytes come back. Nothing else stays behind."""
    config = server.store.config(content_of(server, "debian-server"))
    kept = server.store.disk(config["disk"]["linear"])
    raw, back = tmp_path / "disk.raw", tmp_path / "back.raw"
    answer = server("image.export", "debian-server", "--output", str(raw), "--form", "raw", "--json")
    for file, told in ((raw, answer), (qcow2.file, qcow2.forced)):
        assert told.code == 0, told.err
        [line] = told.json
        assert (line["file"], line["size_bytes"]) == (str(file), file.stat().st_size)
        assert list(file.parent.iterdir()) == [file]
    assert digest(digests_of(raw)) == config["disk"]["linear"]
    assert raw.stat().st_blocks <= kept.stat().st_blocks
    raw.unlink()
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(qcow2.file), str(back)])
    assert digest(digests_of(back)) == config["disk"]["linear"]
    back.unlink()
    assert qcow2.file.stat().st_size < kept.stat().st_blocks * 512


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("debian-server", "--form", "vmdk", "--output", "x"), 1, "--form: unknown format: vmdk"),
        (("debian-server", "--output", "/nonexistent/x.raw"), 1, "--output: /nonexistent/x.raw is in a folder"),
        (("debian-server", "--output", "/tmp"), 1, "--output: /tmp is a folder"),
        (("debian-server", "--output", "/dev/null", "--force"), 1, "--output: /dev/null is not a regular file"),
        (("debian-base", "--output", "x"), 2, "kind: debian-base is a container, which has no disk"),
        (("debian-serve", "--output", "x"), 2, "did you mean debian-server"),
        (("bastion", "--output", "x"), 2, "bastion has not been built on this machine"),
    ],
)
def test_an_export_that_cannot_be_is_refused(
    server: Goldsmith, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Wrong words are the caller's, with what would be right."""
    answer = server.here("image.export", *arguments, "--json")
    assert answer.code == code
    assert said in " ".join(answer.err.split())


def test_an_export_writes_over_nothing_unless_it_is_told_to(server: Goldsmith, qcow2: Exported, tmp_path: Path) -> None:
    """Not over a file, and not over a link that leads nowhere; the hint names the flag. What is there stays whole."""
    link = tmp_path / "link.qcow2"
    link.symlink_to(tmp_path / "nowhere")
    answer = server("image.export", "debian-server", "--form", "qcow2", "--output", str(link), "--json")
    for file, refused in ((link, answer), (qcow2.file, qcow2.refused)):
        assert refused.code == 1, refused.err
        assert f"--output: {file} exists already hint: --force" in " ".join(refused.err.split())
    assert list(tmp_path.iterdir()) == [link]
    assert qcow2.untouched
    assert (qcow2.forced.code, qcow2.forced.json[0]["size_bytes"]) == (0, qcow2.file.stat().st_size)
    run(["qemu-img", "check", str(qcow2.file)])


def test_a_forced_export_that_fails_leaves_what_was_there(server: Goldsmith, tmp_path: Path) -> None:
    """It writes beside it and takes its place at the end, so that a full disk costs nobody the old one."""
    shop = Workshop(server)
    with private_mounts():
        run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(tmp_path)])
        for form in ("raw", "qcow2"):
            disk = tmp_path / f"disk.{form}"
            disk.write_text("the one before")
            with pytest.raises(OutsideError):
                export_image("debian-server", form, str(disk), force=True, context=shop.context)
            assert disk.read_text() == "the one before"
        assert {path.name for path in tmp_path.iterdir()} == {"disk.raw", "disk.qcow2"}
