"""Protocol of transports, and the choice of one by URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self
from urllib.parse import urlsplit

from triton_diffusers_client.tensors import Array

_DEFAULT_PORTS = {"http": 8000, "https": 443, "grpc": 8001, "grpcs": 443}
_MAX_MICROSECONDS = 2**63 - 1


class Call(Protocol):
    """One running inference."""

    def result(self) -> Mapping[str, Array]:
        """Wait for the output tensors. Raises a ``ClientError``."""

    def cancel(self) -> None:
        """End ``result`` with ``CancelledError``; callable from any thread, repeatedly.

        The server does not notice that: the job has to be cancelled by its id.
        """


class Transport(Protocol):
    """A way to a server, usable from any number of threads."""

    def call(self, model: str, inputs: Mapping[str, Array], timeout: float | None) -> Call:
        """Begin an inference that may take ``timeout`` seconds (None: any time).

        The server knows the timeout, too, and ends a job that takes longer, even if this process has died.
        """

    def close(self) -> None:
        """Close the connections; running calls may fail."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server: ``scheme`` is http, https, grpc or grpcs; ``path`` precedes ``/v2``."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``[scheme://]host[:port][/path]``; the scheme is http if there is none. Raises ``ValueError``."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError(f"url: {url!r} is invalid: it must start with {'://, '.join(_DEFAULT_PORTS)}://")
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"url: {url!r} is invalid: it must be [scheme://]host[:port]")
        path = parts.path.rstrip("/")
        if path and parts.scheme.startswith("grpc"):
            raise ValueError(f"url: {url!r} is invalid: gRPC has no path")
        return cls(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme], path)

    @property
    def secure(self) -> bool:
        """True if TLS is used."""
        return self.scheme.endswith("s")

    @property
    def netloc(self) -> str:
        """Host and port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def server_timeout(seconds: float | None) -> int | None:
    """Return a timeout in microseconds, as Triton has it."""
    return None if seconds is None else max(1, min(_MAX_MICROSECONDS, int(seconds * 1e6)))


def open_transport(address: Address, headers: Mapping[str, str]) -> Transport:
    """Return the transport for an address, which sends ``headers`` with every call; it connects at the first one."""
    # Each half of tritonclient loads a stack of its own, so only the one that is used is imported.
    if address.scheme.startswith("grpc"):
        from triton_diffusers_client.grpc_transport import GrpcTransport

        return GrpcTransport(address, headers)
    from triton_diffusers_client.http_transport import HttpTransport

    return HttpTransport(address, headers)
