"""Faults of the middleware below, answered in the shape of the caller's dialect."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triton_diffusers.gateway.faults import Fault, fault_of

Render = Callable[[str, Fault], Response]
"""Returns the response for a fault of a request to a path."""


class FaultMiddleware:
    """Answers exceptions, unless a response has begun."""

    def __init__(self, app: ASGIApp, render: Render) -> None:
        self._app = app
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or the opening of a WebSocket, which is then refused with the response's status."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if began:
                raise
            fault = fault_of(error)
            response = self._render(scope["path"], fault)
            if scope["type"] == "websocket":  # whose clients know no statuses of our own
                response.status_code = fault.status
            # The rest of the body may still be on its way.
            response.headers["Connection"] = "close"
            await response(scope, receive, send)
