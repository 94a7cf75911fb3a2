"""Name resolution and connections with a deadline."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import Any

import httpcore2
from httpcore2 import NetworkBackend, NetworkStream

from triton_diffusers.links.url import IPAddress, parse_address

# Returns all addresses of a name; empty, or an OSError, if the name is unknown.
Resolver = Callable[[str], Sequence[IPAddress]]


def system_resolver(host: str) -> Sequence[IPAddress]:
    """Return the operating system's IPv4 and IPv6 addresses of a name."""
    answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    # In the system's order of preference. Only link-local addresses have a zone, which is kept.
    addresses = (parse_address(str(answer[4][0])) for answer in answers)
    return list(dict.fromkeys(address for address in addresses if address is not None))


def resolve(resolver: Resolver, host: str, deadline: Deadline) -> Sequence[IPAddress]:
    """Return the resolver's answer. Raises ``httpcore2.ReadTimeout`` after the deadline.

    The system's resolver cannot be interrupted, so it runs in a thread, which is abandoned after the deadline.
    """
    answer: Future[Sequence[IPAddress]] = Future()

    def ask() -> None:
        try:
            answer.set_result(resolver(host))
        except (OSError, UnicodeError):  # an unknown or malformed name
            answer.set_result(())

    Thread(target=ask, name="resolve", daemon=True).start()
    try:
        return answer.result(deadline.left())
    except TimeoutError as error:
        raise httpcore2.ReadTimeout("the name was not resolved in time") from error


class Deadline:
    """The end of a whole fetch, however many small reads it takes."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds left. Raises ``httpcore2.ReadTimeout`` after the deadline."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise httpcore2.ReadTimeout("the time of the fetch is over")
        return seconds


class PinnedBackend(NetworkBackend):
    """A network backend that connects only to the given addresses, without resolving the name a second time."""

    def __init__(self, addresses: Sequence[IPAddress], deadline: Deadline, backend: NetworkBackend) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        """Connect to the first address that answers; each gets an equal share of the time that is left."""
        error: Exception = httpcore2.ConnectError("no address")
        for position, address in enumerate(self._addresses):
            share = self._deadline.left() / (len(self._addresses) - position)
            try:
                stream = self._backend.connect_tcp(str(address), port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failure:
                error = failure
            else:
                return TimedStream(stream, self._deadline)
        raise error


class TimedStream(NetworkStream):
    """A stream whose every call is limited by the deadline."""

    def __init__(self, stream: NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes."""
        return self._stream.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes."""
        self._stream.write(buffer, self._deadline.left())

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        """Shake hands; ``server_hostname`` is the link's host, which the certificate must be for."""
        secure = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left())
        return TimedStream(secure, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return the underlying stream's value."""
        return self._stream.get_extra_info(info)
