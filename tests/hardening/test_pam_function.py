"""What the controls' shell function of PAM says of stacks: who gets in without a proof."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

FUNCTIONS = (ROOT / "hardening/functions/pam.sh").read_text()
DEBIAN = """
auth [success=1 default=ignore] pam_unix.so
auth requisite pam_deny.so
auth required pam_permit.so
"""


def told(tree: Path, stacks: dict[str, str]) -> str:
    """What the function says of these stacks of /etc/pam.d."""
    folder = tree / "etc/pam.d"
    folder.mkdir(parents=True)
    for name, text in stacks.items():
        (folder / name).write_text(text)
    script = f"set -eu\ncd \"$ROOT\"\n{FUNCTIONS}\npam_open 'unix\nsss\nrootok\ngoogle_authenticator'"
    return run(["sh", "-c", script], env={"ROOT": str(tree), "PATH": "/usr/bin:/bin"}).stdout.strip()


@pytest.mark.parametrize(
    "stack",
    [
        "@include common-auth\n",
        "auth required pam_google_authenticator.so\n@include common-auth\n",
        "auth sufficient pam_rootok.so\nauth required pam_wheel.so use_uid\nauth substack common-auth\n",
        "auth [success=2 default=ignore] pam_unix.so\nauth [success=1 default=ignore] pam_sss.so\n"
        "auth requisite pam_deny.so\nauth required pam_permit.so\nauth optional pam_cap.so\n",
        "auth required pam_env.so\nauth sufficient pam_unix.so\nauth requisite pam_succeed_if.so uid >= 1000\n"
        "auth sufficient pam_sss.so\nauth required pam_deny.so\n",
        "auth required pam_faillock.so preauth\nauth [success=3 default=ignore] pam_unix.so\n"
        "auth [default=die] pam_faillock.so authfail\nauth sufficient pam_faillock.so authsucc\n"
        "auth requisite pam_deny.so\nauth required pam_permit.so\n",
        "account required pam_permit.so\n",
    ],
)
def test_a_stack_that_asks_is_not_open(tmp_path: Path, stack: str) -> None:
    """As Debian and others write them."""
    assert told(tmp_path, {"common-auth": DEBIAN, "login": stack}) == ""


@pytest.mark.parametrize(
    "stack",
    [
        "auth optional pam_unix.so\nauth required pam_env.so\n",
        "auth [success=2 default=ignore] pam_localuser.so\n" + DEBIAN,
        "auth [success=ignore default=2] pam_succeed_if.so uid < 1000\n" + DEBIAN,
        "auth [success=1 default=1] pam_unix.so\nauth requisite pam_deny.so\nauth required pam_permit.so\n",
        "auth sufficient pam_faillock.so preauth\n@include common-auth\n",
        "AUTH \\\n [ success = done default=ignore ] /lib/security/pam_permit.so\n@include common-auth\n",
    ],
)
def test_a_stack_that_asks_in_vain_is_open(tmp_path: Path, stack: str) -> None:
    """Where a wrong answer changes nothing, or nobody comes to the question."""
    assert told(tmp_path, {"common-auth": DEBIAN, "login": stack}) == "/etc/pam.d/login lets in whoever gives no proof"


def test_a_stack_without_an_end_is_not_judged(tmp_path: Path) -> None:
    """A hostile image may include a stack in itself many times over."""
    assert told(tmp_path, {"a": "auth required pam_unix.so\n" + 9 * "@include a\n"}) == (
        "/etc/pam.d/a is too long to be judged"
    )
