"""Parsing and checking the text of a link."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urlsplit


class LinkRefused(Exception):
    """A link is refused; ``limit`` is the rule, without facts about the server's network."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


IPAddress = IPv4Address | IPv6Address

_MAX_CHARACTERS = 4096
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Ports below it belong to other services, such as mail and remote shells.
_FIRST_FREE_PORT = 1024

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*")
# Resolvers read such hosts as IPv4 addresses in octal, in hexadecimal or with omitted parts.
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~-._"


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a link. ``path`` is percent-encoded, with the query."""

    scheme: str
    host: str | IPAddress
    port: int
    path: str

    @property
    def host_name(self) -> str:
        """Return the host as text, an IPv6 address without its brackets."""
        return str(self.host)

    @property
    def host_header(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse(url: str, schemes: Collection[str]) -> Target:
    """Parse a link. Raises ``LinkRefused``."""
    if len(url) > _MAX_CHARACTERS:
        raise LinkRefused(f"at most {_MAX_CHARACTERS} characters")
    if _FORBIDDEN.search(url):
        raise LinkRefused("must have no control characters and no backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
        path = quote(parts.path or "/", _SAFE_IN_PATH)
        query = quote(parts.query, _SAFE_IN_PATH + "?")
    except ValueError as error:
        raise LinkRefused("must be a URL") from error
    if parts.scheme not in schemes:
        raise LinkRefused(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if "@" in parts.netloc:
        raise LinkRefused("must have no user name and no password")
    port = _DEFAULT_PORTS[parts.scheme] if port is None else port
    if port < _FIRST_FREE_PORT and port not in _DEFAULT_PORTS.values():
        raise LinkRefused(f"its port must be 80, 443 or at least {_FIRST_FREE_PORT}")
    host = _host(parts.netloc, parts.hostname or "")
    return Target(parts.scheme, host, port, f"{path}?{query}" if query else path)


def _host(netloc: str, host: str) -> str | IPAddress:
    """Return a host as a lower-case name without a final dot, or as an address in canonical form."""
    try:
        if "[" in netloc:
            # A zone ("%eth0") would name an interface of this machine.
            return IPv6Address(host if "%" not in host else "")
        host = host.removesuffix(".")
        if _ENDS_IN_NUMBER.fullmatch(host):
            return IPv4Address(host)
    except ValueError as error:
        raise LinkRefused("an address must be written in its usual form") from error
    if not _HOST.fullmatch(host):
        raise LinkRefused("its host must be a name in ASCII (xn--… for others) or an address")
    return host


def parse_address(text: str) -> IPAddress | None:
    """Return an address, or None for any other text."""
    try:
        return ip_address(text)
    except ValueError:
        return None
