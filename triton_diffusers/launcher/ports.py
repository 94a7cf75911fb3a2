"""The three ports of a server: checked before Triton starts, so that a taken one is one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

from triton_diffusers.launcher.errors import BadOption, PortUnavailable


@dataclass(frozen=True)
class Ports:
    """The ports that a server listens on."""

    http: int
    grpc: int
    metrics: int
    gateway: int | None = None


def choose_ports(host: str, *, http: int, grpc: int, metrics: int, gateway: int | None = None) -> Ports:
    """Check the asked-for ports on ``host`` and fill in free ones for zeros; no ``gateway`` needs none.

    Raises:
        PortUnavailable: a port is in use, needs rights, is out of range, or is asked for twice.
        BadOption: ``host`` is not an address of this machine.
    """
    asked = {"http": http, "grpc": grpc, "metrics": metrics}
    if gateway is not None:
        asked["gateway"] = gateway
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:  # all are held until all are known, so that free ones differ
        # Fixed ports first: a free one must not take a number that another option asks for.
        for name, port in sorted(asked.items(), key=lambda item: not item[1]):
            twin = next((other for other, taken in chosen.items() if taken == port), None)
            if twin is not None:
                raise PortUnavailable(f"--{twin}-port and --{name}-port are both {port}; each needs its own")
            holder = held.enter_context(_listen(host, port, f"--{name}-port"))
            chosen[name] = holder.getsockname()[1]
    return Ports(**chosen)


def _listen(host: str, port: int, option: str) -> socket.socket:
    if not 0 <= port <= 65535:
        raise PortUnavailable(f"{option} {port} is not a port; use 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise BadOption(f"--host {host} cannot be resolved: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Without it, connections that a server before this one left in TIME_WAIT would count as "in use".
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailable(
                f"port {port} on {host} is in use; choose another with {option} (0 takes a free one)"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise BadOption(f"--host {host} is not an address of this machine") from error
        raise PortUnavailable(
            f"port {port} on {host} cannot be used ({os.strerror(error.errno or 0)}); choose another with {option}"
        ) from error
    return listener
