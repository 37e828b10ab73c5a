"""What the controls' shell functions of kernel settings make of the kernel that runs."""

from __future__ import annotations

import pytest

from hardening.foundation.process import run
from hardening.foundation.settings import ROOT

FUNCTIONS = (ROOT / "hardening/functions/sysctl.sh").read_text()
GOOD = "kernel.ostype=Linux"


@pytest.mark.parametrize(
    ("wanted", "status", "said"),
    [
        (GOOD, 0, "1 settings hold; 0 are none of this kernel"),
        (f"{GOOD}\nkernel.ostype=Other", 1, "kernel/ostype is Linux in the running kernel, not Other"),
        (f"{GOOD}\nkernel.no_such_protection=1", 1, "kernel/no_such_protection is no setting of the running kernel"),
        (f"{GOOD}\nnet.ipv4.conf.all.no_such=1", 1, "net/ipv4/conf/all/no_such is no setting of the running kernel"),
        (f"{GOOD}\nnet.ipv4.conf.nowhere*.rp_filter=1", 0, "1 settings hold; 1 are none of this kernel"),
        (f"{GOOD}\nnet.ipv6.conf.nowhere.accept_ra=0", 0, "1 settings hold; 1 are none of this kernel"),
        ("net.ipv6.conf.nowhere.accept_ra=0", 1, "the kernel has none of the settings: nothing to look at"),
    ],
)
def test_a_protection_that_the_kernel_lacks_is_none(wanted: str, status: int, said: str) -> None:
    """A feature that it does not have cannot be on; a protection that it does not have does not protect."""
    script = f"set -eu\n{FUNCTIONS}\nsettings_hold '{wanted}'"
    done = run(["sh", "-c", script], env={"LIVE": "1", "PATH": "/usr/bin:/bin"}, ok=range(2))
    assert (done.status, done.stdout.strip(), done.stderr) == (status, said, "")
