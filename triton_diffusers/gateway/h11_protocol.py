"""HTTP/1.1 with limits on the time that a caller may take to send a request's headers, and to read a response."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def limited_protocol(header_seconds: float, read_seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with those limits, which uvicorn itself does not have."""

    class LimitedProtocol(H11Protocol):
        """Closes connections that have sent no complete headers, or read nothing of a response, in time."""

        _header_timer: asyncio.TimerHandle | None = None
        _reading_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._header_timer = self.loop.call_later(header_seconds, self.transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_header_timer()
            elif self._header_timer is None:  # a further request of the connection
                self._header_timer = self.loop.call_later(header_seconds, self.transport.close)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._expect_reading(self.transport.get_write_buffer_size())

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_reading_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_header_timer()
            self._stop_reading_timer()
            super().connection_lost(exc)

        def _expect_reading(self, unread_bytes: int) -> None:
            """Drop the connection unless some of the bytes have been read when the time is over."""

            def check() -> None:
                left = self.transport.get_write_buffer_size()
                if left < unread_bytes:
                    self._expect_reading(left)
                else:
                    self.transport.abort()  # to close it would wait for the reader

            self._reading_timer = self.loop.call_later(read_seconds, check)

        def _stop_reading_timer(self) -> None:
            if self._reading_timer is not None:
                self._reading_timer.cancel()
                self._reading_timer = None

        def _stop_header_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return LimitedProtocol
