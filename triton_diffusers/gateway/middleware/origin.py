"""Refusal of requests that web pages of other sites send.

Without a login, every page that is open in a browser on this machine could otherwise draw, read and cancel: by its own
requests, or by a name of its own that it has resolved to this machine (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from triton_diffusers.errors import shown
from triton_diffusers.gateway.faults import Fault, Refused

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_OWN_SITES = frozenset(("same-origin", "none"))


class OriginMiddleware:
    """Refuses requests for other hosts than ``hosts`` (empty: any), and writes from pages of other sites."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises ``Refused``."""
        if scope["type"] in ("http", "websocket"):
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            host = headers.get(b"host", "")
            if self._hosts and host_name(host) not in self._hosts:
                rule = "this gateway does not answer for this host (allowed_hosts)"
                raise Refused(Fault(status=421, message=f"Host: {shown(host)} is invalid: {rule}"))
            if scope.get("method", "") not in _SAFE_METHODS:
                _check_site(headers.get(b"sec-fetch-site"), headers.get(b"origin"), host)
        await self._app(scope, receive, send)


def host_name(netloc: str) -> str:
    """Return the host of ``host:port`` in lower case, without the brackets of an IPv6 address; empty if invalid."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _check_site(site: str | None, origin: str | None, host: str) -> None:
    """Raise ``Refused`` for a page of another site; only browsers send these headers."""
    same_origin = origin is None or origin.partition("://")[2] == host
    if site in _OWN_SITES or (site is None and same_origin):
        return
    rule = "pages of other sites may not use this gateway"
    raise Refused(Fault(status=403, message=f"Origin: {shown(origin)} is invalid: {rule}"))
