"""Hosts that servers listen on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names of wildcards, nothing is bound here


def is_loopback(host: str) -> bool:
    """Return True if only this machine reaches a server that listens on ``host``; False if it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def reachable_host(host: str) -> str:
    """Return the address under which this machine reaches a server that listens on ``host``."""
    return _WILDCARDS.get(host, host)


def url_host(host: str) -> str:
    """Return ``host`` as it is written in a URL."""
    return f"[{host}]" if ":" in host else host
