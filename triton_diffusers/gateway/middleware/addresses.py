"""A bound on the requests of one address, so that one caller's streams leave connections for the others."""

from __future__ import annotations

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from triton_diffusers.gateway.faults import Fault, Refused

_RETRY_SECONDS = 5
_TRY_AGAIN_LATER = 1013  # of WebSockets


class AddressMiddleware:
    """Refuses requests of an address that has ``max_requests`` in progress: streams, and callers who wait."""

    def __init__(self, app: ASGIApp, max_requests: int) -> None:
        self._app = app
        self._max_requests = max_requests
        self._active: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises ``Refused``."""
        client = scope.get("client")
        if scope["type"] not in ("http", "websocket") or client is None:
            await self._app(scope, receive, send)
            return
        address = str(client[0])
        if self._active[address] >= self._max_requests:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
                return
            message = f"this address has {self._max_requests} requests in progress, the limit; end one, or try later"
            raise Refused(Fault(status=429, message=message, retry_after=_RETRY_SECONDS))
        self._active[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._active -= Counter((address,))  # drops the address at 0
