"""Requests to hosts that callers name: resolve the name, check its addresses, connect to one of those addresses."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpcore2

from triton_diffusers.links.address_rules import AddressRules
from triton_diffusers.links.transport import Deadline, PinnedBackend, Resolver, resolve, system_resolver
from triton_diffusers.links.url import IPAddress, LinkRefused, Target, parse
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# One message for unknown names and for forbidden addresses, so that links cannot be used to explore the server's
# network.
_NOT_PUBLIC = "its host must be known and public"
_NO_LINKS = "this server takes no links; send the image itself"


class GuardedClient:
    """An HTTP client that reaches only the hosts that the operator's settings of links allow; usable from any thread.

    Every request has its own connection and keeps no state. Unlike a browser it supports no proxies, cookies, passwords
    or compressed answers, and it follows no redirects by itself.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: Resolver = system_resolver,
        backend: httpcore2.NetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._schemes = [scheme for scheme in settings.link_schemes.split(",") if scheme != "none"]
        self._rules = AddressRules(settings.link_allow_hosts)
        self._resolver = resolver
        self._backend = backend or httpcore2.SyncBackend()
        self._ssl_context = ssl_context

    def parse(self, url: str, *, without_schemes: str = _NO_LINKS) -> Target:
        """Return the target of a URL; ``without_schemes`` is the reason where the operator allows no scheme.

        Raises: LinkRefused: the URL is malformed, or names a forbidden address.
        """
        if not self._schemes:
            raise LinkRefused(without_schemes)
        return parse(url, self._schemes)

    def check_address(self, target: Target) -> None:
        """Raise ``LinkRefused`` if the target is an address, not a name, and may not be reached."""
        if not isinstance(target.host, str):
            self._accept(target, [target.host])

    def request(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        deadline: Deadline,
        read: Callable[[httpcore2.Response], T],
        *,
        body: bytes | None = None,
    ) -> T:
        """Return what ``read`` makes of the response, before the deadline.

        Raises: LinkRefused: the target's addresses may not be reached. ``httpcore2``'s errors.
        """
        addresses = self._addresses(target, deadline)
        url = httpcore2.URL(scheme=target.scheme, host=target.host_name, port=target.port, target=target.path)
        sent = [
            ("Host", target.host_header),
            ("User-Agent", "triton-diffusers"),
            ("Accept-Encoding", "identity"),  # a compressed answer could be a decompression bomb
            ("Connection", "close"),
            *headers.items(),
        ]
        if body is not None:
            sent.append(("Content-Length", str(len(body))))
        pinned = PinnedBackend(addresses, deadline, self._backend)
        if self._ssl_context is None and target.scheme == "https":  # loading the authorities takes a while
            self._ssl_context = httpcore2.default_ssl_context()
        with httpcore2.HTTPConnection(url.origin, ssl_context=self._ssl_context, network_backend=pinned) as connection:
            response = connection.handle_request(httpcore2.Request(method, url, headers=sent, content=body))
            try:
                return read(response)
            finally:
                response.close()

    def _addresses(self, target: Target, deadline: Deadline) -> list[IPAddress]:
        host = target.host
        addresses = list(resolve(self._resolver, host, deadline)) if isinstance(host, str) else [host]
        self._accept(target, addresses)
        return addresses

    def _accept(self, target: Target, addresses: list[IPAddress]) -> None:
        if not self._rules.accept(target.host_name, addresses):
            found = ", ".join(map(str, addresses)) or "the name has no address"
            # The caller's job or webhook has the error; its text does not tell the two apart.
            logger.info("request to %r refused: %s", target.host_name, found)
            raise LinkRefused(_NOT_PUBLIC)
