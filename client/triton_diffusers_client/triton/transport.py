"""Protocol of transports, and the choice of one by URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from triton_diffusers_client.address import Address
from triton_diffusers_client.triton.tensors import Array

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


def server_timeout(seconds: float | None) -> int | None:
    """Return a timeout in microseconds, as Triton has it."""
    return None if seconds is None else max(1, min(_MAX_MICROSECONDS, int(seconds * 1e6)))


def open_transport(address: Address, headers: Mapping[str, str]) -> Transport:
    """Return the transport for an address, which sends ``headers`` with every call; it connects at the first one."""
    # Each half of tritonclient loads a stack of its own, so only the one that is used is imported.
    if address.scheme.startswith("grpc"):
        from triton_diffusers_client.triton.grpc_transport import GrpcTransport

        return GrpcTransport(address, headers)
    from triton_diffusers_client.triton.http_transport import HttpTransport

    return HttpTransport(address, headers)
