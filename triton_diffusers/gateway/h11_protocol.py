"""HTTP/1.1 with a limit on the time that a caller may take to send a request's headers."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def limited_protocol(header_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with that limit, which uvicorn itself does not have."""

    class LimitedProtocol(H11Protocol):
        """Closes connections that have sent no complete headers in time."""

        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._header_timer = self.loop.call_later(header_seconds, self.transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_timer()
            elif self._header_timer is None:  # a further request of the connection
                self._header_timer = self.loop.call_later(header_seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _stop_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return LimitedProtocol
