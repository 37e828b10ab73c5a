"""The kernel parameters that a tree sets at boot, read as systemd-sysctl reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.scan.boot_state import mounts, parameters, restricts, root_path, unit_mount, write


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("kernel.dmesg_restrict = 1", {"kernel/dmesg_restrict": "1"}),
        ("  -kernel.dmesg_restrict=1  ", {"kernel/dmesg_restrict": "1"}),
        ("net/ipv4/ip_forward=0", {"net/ipv4/ip_forward": "0"}),
        ("net.ipv4.conf.eth0/1.rp_filter=1", {"net/ipv4/conf/eth0.1/rp_filter": "1"}),
        ("net/ipv4/conf/eth0.1/rp_filter=1", {"net/ipv4/conf/eth0.1/rp_filter": "1"}),
        ("kernel.core_pattern=|/bin/false a=b", {"kernel/core_pattern": "|/bin/false a=b"}),
        ("a.b=1\na.b=2", {"a/b": "2"}),
        ("# a.b=1\n; a.c=1\n\nnot a line\n-a.d", {}),
        ("net.ipv4.conf.*.rp_filter=1", {}),
        ("../../etc/passwd=1\n....etc.x=1\n/etc/../../x=1\n.=1\n/=1", {}),
        ("a.b=1\na.b.c=2", {"a/b/c": "2"}),
    ],
)
def test_a_parameter_is_known_by_its_path(text: str, found: dict[str, str]) -> None:
    """In both spellings; the last line wins; patterns and what leads elsewhere are passed over."""
    assert parameters(text) == found


@pytest.mark.needs("systemd-analyze")
def test_files_count_in_the_order_of_systemd(tmp_path: Path) -> None:
    """By name, whichever folder they are in; a file of /etc stands for that of the same name which a package brings."""
    for name, text in {
        "etc/sysctl.d/10-own.conf": "kernel.a=early\n",
        "usr/lib/sysctl.d/50-package.conf": "kernel.a=package\nkernel.b=package\n",
        "usr/lib/sysctl.d/60-masked.conf": "kernel.c=package\n",
        "etc/sysctl.d/60-masked.conf": "kernel.d=own\n",
    }.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    made = write(tmp_path / "tree", tmp_path / "proc") / "sys"
    found = {path.relative_to(made).as_posix(): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert found == {"kernel/a": "package\n", "kernel/b": "package\n", "kernel/d": "own\n"}


@pytest.mark.needs("systemd-analyze")
def test_a_tree_that_sets_nothing_has_an_empty_proc(tmp_path: Path) -> None:
    """The host's own parameters are no answer."""
    (tmp_path / "tree").mkdir()
    assert list((write(tmp_path / "tree", tmp_path / "proc") / "sys").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ENV_SUPATH\tPATH=/usr/sbin:/usr/bin\n", "PATH=/usr/sbin:/usr/bin\0"),
        ("ENV_SUPATH /sbin\nENV_SUPATH PATH=.:/bin # x\n", "PATH=.:/bin\0"),
        ("# ENV_SUPATH PATH=/bin\nENV_PATH PATH=/bin\n", ""),
    ],
)
def test_roots_path_is_what_a_login_gives_it(tmp_path: Path, text: str, found: str) -> None:
    """The last line wins, a comment is none, and the PATH of others is not root's."""
    (tmp_path / "login.defs").write_text(text)
    assert root_path(tmp_path / "login.defs") == found


def test_a_link_to_the_hosts_settings_gives_no_path(tmp_path: Path) -> None:
    """Nor does a tree without any."""
    assert root_path(tmp_path / "login.defs") == ""
    (tmp_path / "login.defs").symlink_to("/etc/login.defs")
    assert root_path(tmp_path / "login.defs") == ""


TMP = (
    "[Unit]\nConditionPathIsSymbolicLink=!/tmp\n[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\nOptions=mode=1777,nosuid\n"
)
HOME = "[Mount]\nWhat=/home\nWhere=/home\nType=none\nOptions=bind,nosuid,nodev\n"
DATA = "[Mount]\nWhat=/dev/disk/by-label/data\nWhere=/data\nType=ext4\nOptions=nosuid\n"
UNITS = {"usr/lib": {"tmp.mount": TMP}, "etc": {"home.mount": HOME, "data.mount": DATA}}


@pytest.fixture
def mounting(tmp_path: Path) -> Path:
    """A tree whose units mount /tmp, /home and a disk of its own."""
    for top, units in UNITS.items():
        folder = tmp_path / "tree" / top / "systemd/system"
        (folder / "local-fs.target.wants").mkdir(parents=True)
        for name, text in units.items():
            (folder / name).write_text(text)
            (folder / "local-fs.target.wants" / name).symlink_to(f"../{name}")
    return tmp_path / "tree"


@pytest.mark.needs("systemd-analyze")
def test_what_units_mount_at_boot_is_known_with_its_options(mounting: Path, tmp_path: Path) -> None:
    """Memory and folders onto themselves, with drop-ins; a disk that not every machine has is left out."""
    assert mounts(mounting) == {"/tmp": ("nosuid",), "/home": ("nosuid", "nodev")}
    drop_ins = mounting / "etc/systemd/system/tmp.mount.d"
    drop_ins.mkdir()
    (drop_ins / "a.conf").write_text("[Mount]\nOptions=mode=1777,nodev,noexec,size=50%%\n")
    assert mounts(mounting)["/tmp"] == ("nodev", "noexec")
    made = write(mounting, tmp_path / "proc") / "mounted"
    assert made.read_text() == "/home nosuid,nodev\n/tmp nodev,noexec\n"


@pytest.mark.needs("systemd-analyze")
def test_what_is_not_mounted_at_boot_is_no_mount(mounting: Path) -> None:
    """A masked unit, one that fstab stands for, one that nothing wants, and a folder that is a link, which tmp.mount
    leaves as it is.
    """
    (mounting / "etc/systemd/system/home.mount").unlink()
    (mounting / "etc/systemd/system/home.mount").symlink_to("/dev/null")
    assert mounts(mounting) == {"/tmp": ("nosuid",)}
    (mounting / "etc/fstab").write_text("LABEL=scratch /tmp ext4 rw 0 2\n")
    assert mounts(mounting) == {}
    (mounting / "etc/fstab").unlink()
    (mounting / "var/tmp").mkdir(parents=True)
    (mounting / "tmp").symlink_to("var/tmp")
    assert mounts(mounting) == {}
    (mounting / "tmp").unlink()
    (mounting / "usr/lib/systemd/system/local-fs.target.wants/tmp.mount").unlink()
    assert mounts(mounting) == {}


def test_shared_memory_is_mounted_by_systemd_and_fstab_says_how(tmp_path: Path) -> None:
    """A later line counts; what waits for somebody, a disk, and a comment are no mount at boot."""
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    assert mounts(tmp_path) == {}
    (tmp_path / "usr/lib/systemd/systemd").touch()
    assert mounts(tmp_path) == {"/dev/shm": ("nosuid", "nodev")}
    (tmp_path / "etc").mkdir()
    lines = [
        "LABEL=root / ext4 nosuid 0 1",
        "tmpfs /dev/shm tmpfs rw,nosuid,nodev,noexec 0 0",
        "# tmpfs /a tmpfs nosuid 0 0",
        "tmpfs /b tmpfs noauto,nosuid 0 0",
        "/c /c none bind,ro 0 0",
        "tmpfs /../d tmpfs nosuid 0 0",
    ]
    (tmp_path / "etc/fstab").write_text("\n".join(lines))
    assert mounts(tmp_path) == {"/dev/shm": ("nosuid", "nodev", "noexec"), "/c": ("ro",)}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("mode=1777,nosuid,nodev", ("nosuid", "nodev")),
        ("noexec,exec", ()),
        ("exec,noexec", ("noexec",)),
        ("ro,rw,nodev", ("nodev",)),
        ("nosuid,defaults", ()),
        ("", ()),
    ],
)
def test_a_later_option_takes_an_earlier_one_back(options: str, found: tuple[str, ...]) -> None:
    """As mount(8) reads them."""
    assert restricts(options.split(",")) == found


def test_only_the_section_of_the_mount_says_what_is_mounted() -> None:
    """And a drop-in begins without one."""
    text = "# /a.mount\n[Mount]\nWhere = /a\n[Unit]\nWhere=/b\n\n# /a.mount.d/x.conf\nWhere=/c\n[Mount]\nOptions=ro\n"
    assert unit_mount(text) == {"Where": "/a", "Options": "ro"}
