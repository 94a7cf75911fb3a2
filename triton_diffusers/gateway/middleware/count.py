"""Counts of requests by route and status. A WebSocket counts when it is opened."""

from __future__ import annotations

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NO_ROUTE = "none"
_ANSWERS = frozenset(("http.response.start", "websocket.accept", "websocket.http.response.start"))
_SWITCHED = 101  # status of an accepted WebSocket


class CountMiddleware:
    """Counts each response. Routes are counted by their templates: paths are the caller's, and without number."""

    def __init__(self, app: ASGIApp, requests: Counter) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def sending(message: Message) -> None:
            if message["type"] in _ANSWERS:
                route = getattr(scope.get("route"), "path", _NO_ROUTE)
                self._requests.labels(route, str(message.get("status", _SWITCHED))).inc()
            await send(message)

        await self._app(scope, receive, sending)
