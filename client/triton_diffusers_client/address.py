"""URLs of servers, and the interface that each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit


class Interface(StrEnum):
    """The interface of a server: jobs at a gateway, or inferences of Triton."""

    GATEWAY = "gateway"
    TRITON = "triton"


_GRPC_PORTS = {"grpc": 8001, "grpcs": 443}
# Port and interface of each scheme; None: the server is asked.
_SCHEMES: dict[str, tuple[int, Interface | None]] = {
    "http": (8080, None),
    "https": (443, None),
    "gateway+http": (8080, Interface.GATEWAY),
    "gateway+https": (443, Interface.GATEWAY),
    "triton+http": (8000, Interface.TRITON),
    "triton+https": (443, Interface.TRITON),
    **{scheme: (port, Interface.TRITON) for scheme, port in _GRPC_PORTS.items()},
}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a server: ``scheme`` is http, https, grpc or grpcs; ``path`` precedes the interface's own paths.

    ``interface`` is None if the URL leaves it open.
    """

    scheme: str
    host: str
    port: int
    path: str = ""
    interface: Interface | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``[scheme://]host[:port][/path]``; the scheme is http if there is none. Raises ``ValueError``."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"url: {url!r} is invalid: it must start with {'://, '.join(_SCHEMES)}://")
        if not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"url: {url!r} is invalid: it must be [scheme://]host[:port]")
        default_port, interface = _SCHEMES[parts.scheme]
        path = parts.path.rstrip("/")
        if path and parts.scheme in _GRPC_PORTS:
            raise ValueError(f"url: {url!r} is invalid: gRPC has no path")
        scheme = parts.scheme.rpartition("+")[2]
        return cls(scheme, parts.hostname, parts.port or default_port, path, interface)

    @property
    def secure(self) -> bool:
        """True if TLS is used."""
        return self.scheme.endswith("s")

    @property
    def netloc(self) -> str:
        """Host and port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL, without the interface."""
        return f"{self.scheme}://{self.netloc}{self.path}"
