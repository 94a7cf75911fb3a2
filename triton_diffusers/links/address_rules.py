"""Rules for the addresses that a link may reach: public ones, and those that the operator allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

from triton_diffusers.links.url import IPAddress, parse_address

# The tables are IANA's registries of special-purpose addresses. Python's ``is_global`` differs from version to version:
# 3.11.7, for one, takes 192.0.0.192 as public, where a cloud serves an instance's metadata.
_NOT_PUBLIC_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 answers for metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's agent for its virtual machines, in spite of its public address
        "169.254.0.0/16",  # link-local; 169.254.169.254 answers for metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Public IPv6 addresses are those in the first network and in none of the others. This excludes loopback, mapped and
# compatible IPv4, unique local, link-local, site-local and multicast addresses.
_PUBLIC_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo's embedded IPv4 among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4's embedded IPv4
        "3fff::/20",  # documentation
    )
)
# The prefix of DNS64 in networks with IPv6 only; the last 32 bits are the IPv4 address.
_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: IPAddress) -> bool:
    """Return True if an address is on the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


class AddressRules:
    """Rules that accept public addresses, and the host names, addresses and networks that the operator allows."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """Read the allowed hosts. Raises ``ValueError`` for an invalid network."""
        self._hosts: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for item in allowed:
            bare = item.strip("[]")
            if "/" in bare or parse_address(bare) is not None:
                self._networks.append(ip_network(bare))
            else:
                self._hosts.add(bare.lower().removesuffix("."))

    def accept(self, host: str, addresses: Sequence[IPAddress]) -> bool:
        """Return True if a link may lead to this host: all its addresses must be acceptable, since any may be used."""
        return bool(addresses) and (host in self._hosts or all(self._accept(address) for address in addresses))

    def _accept(self, address: IPAddress) -> bool:
        return is_public(address) or any(address in network for network in self._networks)
