"""A bound on failed attempts to authenticate."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

_MINUTE_SECONDS = 60.0
_MAX_ADDRESSES = 10_000
_IPV6_PREFIX = 64  # what one customer of a provider has


class FailedAttempts:
    """Counts the failed attempts of each address: ``max_per_minute`` at once, and as many again in each minute.

    It is this gateway's own: keys cannot be guessed, so that the bound only keeps the noise down.
    """

    def __init__(self, max_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = max_per_minute
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, address: str) -> float:
        """Return the time until the address may try again; 0: it may now."""
        count = self._count(_network(address))
        return 0.0 if count <= self._max - 1 else (count - self._max + 1) * _MINUTE_SECONDS / self._max

    def add(self, address: str) -> None:
        """Count a failed attempt."""
        network = _network(address)
        self._failures[network] = min(float(self._max), self._count(network) + 1.0), self._clock()
        self._failures.move_to_end(network)
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def _count(self, network: str) -> float:
        count, at = self._failures.get(network, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._max / _MINUTE_SECONDS)


def _network(address: str) -> str:
    """Return the network of an IPv6 address, and any other address as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
    return str(parsed)
