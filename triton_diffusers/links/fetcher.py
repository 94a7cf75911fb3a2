"""Fetching of linked images; redirects are followed under the same rules."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urljoin

import httpcore2

from triton_diffusers.errors import InvalidImage
from triton_diffusers.links.client import GuardedClient
from triton_diffusers.links.transport import Deadline
from triton_diffusers.links.url import LinkRefused
from triton_diffusers.settings import Settings

logger = logging.getLogger(__name__)

_REDIRECTS = (301, 302, 303, 307, 308)
_FAILED = "its host must answer with the image; there was no connection or no proper answer"
# Images are compressed already.
_HEADERS = {"Accept": "image/*"}


class LinkFetcher:
    """A fetcher of linked images, usable from any thread; ``connection`` are the options of its ``GuardedClient``."""

    def __init__(self, settings: Settings, **connection: Any) -> None:
        self._client = GuardedClient(settings, **connection)
        self._seconds = settings.link_seconds
        self._redirects = settings.link_redirects
        self._megabytes = settings.max_image_megabytes

    def host_of(self, field: str, url: str) -> str:
        """Return a link's host. Raises ``InvalidImage`` for an invalid link."""
        try:
            return self._client.parse(url).host_name
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
            answer = self._client.request("GET", self._client.parse(url), _HEADERS, deadline, self._read)
            if isinstance(answer, bytes):
                return answer
            url = _next(url, answer)
        raise LinkRefused(f"at most {self._redirects} redirects")

    def _read(self, response: httpcore2.Response) -> bytes | str:
        """Return the body, or the target of a redirect."""
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
