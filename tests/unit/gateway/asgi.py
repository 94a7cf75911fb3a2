"""Small ASGI applications and calls for the tests of middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's body."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class Call:
    """A request whose messages are sent one by one; ``status`` and ``body`` are of the answer."""

    def __init__(
        self, app: ASGIApp, headers: Iterable[tuple[str, str]] = (), method: str = "POST", address: str = "127.0.0.1"
    ) -> None:
        self.status = 0
        self.body = b""
        self.headers: dict[str, str] = {}
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": "/api/jobs",
            "client": (address, 50_000),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._app = app

    def send(self, body: bytes, *, more: bool = False) -> Call:
        """Send a part of the body."""
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def hang_up(self) -> Call:
        """Close the connection."""
        self._messages.put_nowait({"type": "http.disconnect"})
        return self

    async def run(self) -> Call:
        """Run the application to its end."""
        await self._app(self.scope, self._messages.get, self._receive)
        return self

    async def _receive(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
