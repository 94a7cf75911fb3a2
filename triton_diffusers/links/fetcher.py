"""Follow a caller's link: resolve the name, check its addresses, ask one of them; redirects the same way."""

from __future__ import annotations

import logging
import ssl
from urllib.parse import urljoin

import httpcore2

from triton_diffusers.errors import InvalidImage
from triton_diffusers.links.address_rules import AddressRules
from triton_diffusers.links.transport import Deadline, PinnedBackend, Resolver, resolve, system_resolver
from triton_diffusers.links.url import IPAddress, LinkRefused, Target, parse
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_REDIRECTS = (301, 302, 303, 307, 308)

# One message for unknown names and for forbidden addresses, so that links cannot be used to explore the server's
# network.
_NOT_PUBLIC = "its host must be known and public"
_FAILED = "its host must answer with the image; there was no connection or no proper answer"


class LinkFetcher:
    """A fetcher of linked images, usable from any thread. Every fetch has its own connections and keeps no state.

    Unlike a browser it supports no proxies, cookies, passwords or compressed answers.
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
        self._seconds = settings.link_seconds
        self._redirects = settings.link_redirects
        self._megabytes = settings.max_image_megabytes
        self._resolver = resolver
        self._backend = backend or httpcore2.SyncBackend()
        self._ssl_context = ssl_context or httpcore2.default_ssl_context()

    def host_of(self, field: str, url: str) -> str:
        """Return a link's host. Raises ``InvalidImage`` for an invalid link."""
        try:
            return self._parsed(url).host_name
        except LinkRefused as error:
            raise InvalidImage(field, _shortened(url), error.limit) from error

    def fetch(self, field: str, url: str) -> bytes:
        """Return the body that the link leads to. Raises ``InvalidImage`` naming ``field``, the link and the reason."""
        try:
            return self._follow(url, Deadline(self._seconds))
        except LinkRefused as error:
            raise InvalidImage(field, _shortened(url), error.limit) from error
        except httpcore2.TimeoutException as error:
            raise InvalidImage(field, _shortened(url), f"must be fetched within {self._seconds:g} seconds") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            logger.warning("%s: %r cannot be fetched: %r", field, _shortened(url), error)
            raise InvalidImage(field, _shortened(url), _FAILED) from error

    def _follow(self, url: str, deadline: Deadline) -> bytes:
        for _ in range(self._redirects + 1):
            target = self._parsed(url)
            answer = self._ask(target, self._checked(target, deadline), deadline)
            if isinstance(answer, bytes):
                return answer
            url = _next(url, answer)
        raise LinkRefused(f"at most {self._redirects} redirects")

    def _parsed(self, url: str) -> Target:
        if not self._schemes:
            raise LinkRefused("this server takes no links; send the image itself")
        return parse(url, self._schemes)

    def _checked(self, target: Target, deadline: Deadline) -> list[IPAddress]:
        host = target.host
        addresses = resolve(self._resolver, host, deadline) if isinstance(host, str) else (host,)
        if not self._rules.accept(target.host_name, addresses):
            logger.warning("link to %r refused: %s", target.host_name, ", ".join(map(str, addresses)) or "unknown")
            raise LinkRefused(_NOT_PUBLIC)
        return list(addresses)

    def _ask(self, target: Target, addresses: list[IPAddress], deadline: Deadline) -> bytes | str:
        """Return the body, or the target of a redirect."""
        url = httpcore2.URL(scheme=target.scheme, host=target.host_name, port=target.port, target=target.path)
        headers: dict[bytes | str, bytes | str] = {
            "Host": target.host_header,
            "User-Agent": "triton-diffusers",
            "Accept": "image/*",
            # A compressed answer could be a decompression bomb, and images are compressed already.
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        pinned = PinnedBackend(addresses, deadline, self._backend)
        with httpcore2.HTTPConnection(url.origin, ssl_context=self._ssl_context, network_backend=pinned) as connection:
            response = connection.handle_request(httpcore2.Request("GET", url, headers=headers))
            try:
                return self._read(response)
            finally:
                response.close()

    def _read(self, response: httpcore2.Response) -> bytes | str:
        headers = {name.lower(): value for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"].decode("utf-8", "replace")
        if response.status != 200:
            raise LinkRefused(f"its host must answer with status 200, not {response.status}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise LinkRefused("its host must not compress the answer (Content-Encoding)")
        max_bytes = int(self._megabytes * 1e6)
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > max_bytes:
                raise LinkRefused(f"at most {self._megabytes:g} MB")
        return bytes(body)


def _next(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise LinkRefused("a redirect must lead to a URL") from error


def _shortened(url: str) -> str:
    """Return a link without its query, which may hold a signature."""
    return url.partition("?")[0]
