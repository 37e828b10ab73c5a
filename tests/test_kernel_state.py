"""The kernel parameters that a tree sets at boot, read as systemd-sysctl reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.kernel_state import parameters, root_path, write


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
