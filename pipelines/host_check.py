"""Edge: checks whether controls hold on a running host: this one, or another over ssh, without an agent.

The checks are those of images. One script goes to a shell on the host, which is root or becomes it by sudo, in a mount
namespace in which all is read-only (host-check.sh). What comes back is counted, timed, and parsed as data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from hardening.findings import LIVE_LIMIT_SECONDS, CheckResult, Outcome, result_of
from hardening.foundation.engine_address import EngineAddress, engine_address
from hardening.foundation.errors import LateError, OutsideError, UsageError
from hardening.foundation.limits import CHUNK, HOST_ANSWER, HOST_SECONDS
from hardening.foundation.process import Dialled
from hardening.foundation.ssh import PASSES, ssh_command
from hardening.model import LoadedControl
from hardening.render import Check
from images.boot.guest import Record, parse
from images.boot.observations import live_result, merge_live

LOCAL = "this host"
PRELUDE = Path(__file__).with_name("host-check.sh")
SHELL = '[ "$(id -u)" = 0 ] || by=sudo; exec ${by:+sudo -n} unshare --mount --propagation private sh -s'
WHERE = "running", "its files"  # as evidence names what a live check saw, and the other
NO_FACTS = dict.fromkeys(("IMAGE_CONFIG", "IMAGE_HISTORY", "RUN_LOG", "DECLARED_FILES"), "/dev/null")  # of no image
BEFORE_BOOT = "it is about an image before its first boot, and this host runs"
WAYS = "log in as root, or as somebody whom sudo lets run commands without a password (ssh://ops@web-2)"


@dataclass(frozen=True)
class HostQuestion:
    """A control's check as it is asked: of the files (`live` False) or of what runs."""

    check: Check
    live: bool

    @property
    def name(self) -> str:
        """What its record is called."""
        return f"{self.check.control}.{'live' if self.live else 'files'}"

    @property
    def line(self) -> str:
        """The line of the script that asks it."""
        values = [quote(f"{name}={value}") for name, value in (NO_FACTS | self.check.env).items()]
        asked = [self.name, str(int(self.live)), str(LIVE_LIMIT_SECONDS), quote(self.check.text), *values]
        return " ".join(["check", *asked])


def host_address(text: str) -> EngineAddress | None:
    """The machine that `text` names, such as ssh://ops@web-2 or ops@web-2; None for this one, which is an empty text.

    Raises UsageError.
    """
    if not text:
        return None
    try:
        address = engine_address(text if "://" in text else f"ssh://{text}")
    except ValueError as error:
        raise UsageError(f"--host: {error}", hint="such as ssh://ops@web-2; without an address: this host") from None
    if address.scheme != "ssh":
        raise UsageError(f"--host: {text} is not a host with a shell", hint="such as ssh://ops@web-2")
    return address


def questions(checks: Sequence[Check], controls: Mapping[str, LoadedControl]) -> list[HostQuestion]:
    """What is asked: of each check the files, and what runs where it looks at that. Pure."""
    found = list[HostQuestion]()
    for check in checks:
        if not controls[check.control].control.before_boot:
            found.append(HostQuestion(check, live=False))
        if re.search(r"\bLIVE\b", check.text):
            found.append(HostQuestion(check, live=True))
    return found


def script(asked: Sequence[HostQuestion]) -> str:
    """All that the host's shell reads, in a function, so that it has read all of it before it begins. Pure."""
    lanes = [[one.line for one in asked[lane::2]] for lane in (0, 1)]
    running = [line for lane in lanes if lane for line in ("{", *lane, "} &")]
    names = " ".join(one.name for one in asked)
    return "\n".join(
        [PRELUDE.read_text(), "main() {", "read_only", *running, "wait", f"report {names}", "}", "main", ""]
    )


def check_host(
    address: EngineAddress | None, checks: Sequence[Check], controls: Mapping[str, LoadedControl],
    ssh_config: Path | None = None,
) -> tuple[CheckResult, ...]:  # fmt: skip
    """What each check says of the host, in order. Raises OutsideError where it gave no whole answer, and UsageError
    where nothing would be asked of it.
    """
    asked = questions(checks, controls)
    if not asked:
        names = ", ".join(sorted({check.control for check in checks}))
        raise UsageError(f"nothing to check on a host: {names} concerns images before their first boot")
    words = ssh_command(address, ssh_config, f"sh -c {quote(SHELL)}") if address else ("sh", "-c", SHELL)
    dialled = Dialled(words, passes=PASSES if address else ())
    host = address.text if address else LOCAL
    with closing(dialled.connection):
        try:
            data = _answer(dialled, script(asked).encode(), host)
        except BaseException:
            dialled.end()
            raise
    told = parse(data, [one.name for one in asked])
    if not told.whole:
        said = dialled.last_words() or told.problem
        raise OutsideError(f"{host} could not be checked: {' '.join(said.split())}", hint=WAYS)
    return results(checks, asked, told.records)


def _answer(dialled: Dialled, text: bytes, host: str) -> bytes:
    """All that the host says to the script, up to the limits of size and time."""
    ends, data = time.monotonic() + HOST_SECONDS.most, bytearray()
    try:
        dialled.connection.settimeout(max(0.01, HOST_SECONDS.most))
        dialled.connection.sendall(text)
        dialled.connection.shutdown(1)
        while True:
            dialled.connection.settimeout(max(0.01, ends - time.monotonic()))
            if not (some := dialled.connection.recv(CHUNK)):
                return bytes(data)
            data += some
            HOST_ANSWER.require(len(data), f"what {host} says")
    except TimeoutError:
        raise LateError(f"{host} did not answer within {HOST_SECONDS}") from None
    except (BrokenPipeError, ConnectionResetError):
        return bytes(data)  # it ended before it was asked: its last words say why


def results(
    checks: Sequence[Check], asked: Sequence[HostQuestion], records: Mapping[str, Record]
) -> tuple[CheckResult, ...]:
    """A result for each check, by what the host told; the worse of files and of what runs. Pure."""
    static, live = list[CheckResult](), list[CheckResult]()
    for one in asked:
        (live if one.live else static).append(live_result(one.check, records[one.name]))
    known = {result.control for result in (*static, *live)}
    left = [result_of(check, Outcome.NOT_APPLICABLE, BEFORE_BOOT) for check in checks if check.control not in known]
    found = {result.control: result for result in (*merge_live(static, live, WHERE), *left)}
    return tuple(found[check.control] for check in checks)
