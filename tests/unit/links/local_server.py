"""A server on 127.0.0.1 that answers with whatever bytes a test wants, however slowly."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread

from tests.waiting import WITHIN

# Gets the request's bytes, yields the answer's pieces; the connection is closed after the last one.
Answer = Callable[[bytes], Iterator[bytes]]


class LocalServer:
    """Answers each connection in a thread. ``requests`` are those that came; ``sent`` counts the answers' bytes."""

    def __init__(self, answer: Answer, *, context: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> None:
        self._answer = answer
        self._context = context
        self.stopping = Event()
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent = 0
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [Thread(target=self._accept)]
        self._threads[0].start()

    def stop(self) -> None:
        """End all that runs."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(WITHIN)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.connections += 1
            thread = Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with contextlib.suppress(OSError), connection:
            if self._context is None:
                self._talk(connection)
            else:
                with self._context.wrap_socket(connection, server_side=True) as secure:
                    self._talk(secure)

    def _talk(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
            if not request.startswith(b"G"):  # no GET, but a handshake of TLS
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
        self.requests.append(request)
        for answer in self._answer(request):
            if self.stopping.is_set():
                return
            connection.sendall(answer)
            self.sent += len(answer)


def ok(body: bytes, *headers: str) -> bytes:
    """Return a whole answer of status 200."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def redirect(location: str, *headers: str, status: int = 302) -> bytes:
    """Return a redirect."""
    lines = [f"HTTP/1.1 {status} Found", f"Location: {location}", "Content-Length: 0", *headers, "", ""]
    return "\r\n".join(lines).encode()


def drip(first: bytes, rest: bytes, seconds: float = 0.05) -> Answer:
    """Send ``rest`` over and over, piece by piece, each in good time."""

    def answer(_: bytes) -> Iterator[bytes]:
        yield first
        while True:
            time.sleep(seconds)
            yield rest

    return answer
