"""Edge: ends connections of `serve` that are silent. uvicorn itself bounds only the silence right after an answer."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from hardening.foundation.limits import SERVE_HEAD_SECONDS, SERVE_STREAM_SECONDS


class TimedProtocol(H11Protocol):
    """A connection whose next call must come, and whose answer must be taken, in time: else it holds a place for ever.

    An answer may take as long as a stream of changes, and the look after it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look after it."""
        super().connection_made(transport)
        self._look(None, self.loop.time())

    def _look(self, call: RequestResponseCycle | None, since: float) -> None:
        """Abort the connection where since then nothing but this call was whole, and its time is over."""
        wait, now = SERVE_HEAD_SECONDS.most, self.loop.time()
        if self not in self.connections:  # lost; one that only closes still waits for its answer to be taken
            return
        if self.cycle is not call:
            call, since = self.cycle, now
        answering = call is not None and (not call.response_complete or self.transport.get_write_buffer_size() > 0)
        if now - since >= (SERVE_STREAM_SECONDS.most + wait if answering else wait):
            self.transport.abort()
        else:
            self.loop.call_later(wait, self._look, call, since)
