"""One GET of data from a stranger: over https outside this machine, within a size, a time and a number of redirects."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin

from hardening.foundation.addresses import is_safe
from hardening.foundation.errors import LateError, OutsideError
from hardening.foundation.limits import CHUNK, FEED_BYTES, FEED_REDIRECTS, FEED_SECONDS, Meter

if TYPE_CHECKING:
    import requests

READ_SECONDS = 60
"""How long one read may wait. FEED_SECONDS limits the whole."""
OK = 200
NAME = "feed transfer"
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """What came back: the status, the validators that the server gave, and the digest of what was written."""

    status: int
    etag: str = ""
    modified: str = ""
    sha256: str = ""


class _Getting:
    """A transfer in a thread of its own, which is left alone once it is late: a read that waits cannot be ended.

    `file` is open and its owner's: what a late thread still brings goes into a file that has no name any more.
    """

    def __init__(self, address: str, headers: dict[str, str], file: IO[bytes]) -> None:
        self.address = address
        self.headers = {"Accept-Encoding": "identity", **headers}
        self.file = file
        self.late = threading.Event()
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Fill `answer` or `error`."""
        try:
            self.answer = self._get()
        except BaseException as error:  # raised again by whoever waits
            self.error = error

    def _get(self) -> Answer:
        import requests

        address = self.address
        try:
            for _ in range(FEED_REDIRECTS.most + 1):
                with requests.get(
                    address, headers=self.headers, timeout=READ_SECONDS, stream=True, allow_redirects=False
                ) as answer:
                    if answer.status_code not in REDIRECTS:
                        return self._take(answer)
                    target = urljoin(address, answer.headers.get("Location", ""))
                require_safe(target, came_from=address)
                address = target
        except (requests.RequestException, ValueError) as error:
            raise OutsideError(f"{self.address} could not be read: {type(error).__name__}") from None
        raise FEED_REDIRECTS.exceeded(self.address)

    def _take(self, answer: requests.Response) -> Answer:
        """Write what a good answer carries; of any other only its status counts."""
        if answer.status_code != OK:
            return Answer(answer.status_code)
        if (packed := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise OutsideError(f"{self.address} answered with the Content-Encoding {packed}, which was not asked for")
        FEED_BYTES.require(int(answer.headers.get("Content-Length", 0)), self.address)
        sha256 = self._write(answer)
        return Answer(OK, answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""), sha256)

    def _write(self, answer: requests.Response) -> str:
        seen, meter = hashlib.sha256(), Meter(FEED_BYTES, self.address)
        for part in answer.iter_content(CHUNK):
            meter.add(len(part))
            if self.late.is_set():
                break
            seen.update(part)
            self.file.write(part)
        return f"sha256:{seen.hexdigest()}"


def transfer(address: str, headers: dict[str, str], file: IO[bytes]) -> Answer:
    """Write what `address` gives to the open `file`. Raises OutsideError for what is refused or fails, LateError when
    all of it, with its redirects, takes longer than FEED_SECONDS.
    """
    require_safe(address)
    getting = _Getting(address, headers, file)
    thread = threading.Thread(target=getting.run, name=NAME, daemon=True)
    thread.start()
    thread.join(FEED_SECONDS.most)
    if thread.is_alive():
        getting.late.set()
        raise LateError(f"{address} exceeds {FEED_SECONDS}")
    if getting.error:
        raise getting.error
    if getting.answer is None:
        raise OutsideError(f"{address} gave no answer")
    return getting.answer


def require_safe(address: str, *, came_from: str = "") -> None:
    """Raises OutsideError unless data may be read from `address`, to which `came_from` redirects if it is given."""
    if not is_safe(address, came_from):
        how = f"{came_from} redirects to {address}" if came_from else f"{address} is refused"
        raise OutsideError(f"{how}: data comes over https, or over http from this machine itself")
