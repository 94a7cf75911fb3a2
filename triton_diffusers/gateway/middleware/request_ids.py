"""Ids that connect a request with its job, its logs and its traces."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_IDS = "triton_diffusers.request_ids"
"""Name in the scope of the request's ``RequestIds``."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """The id of a request, and the position in its trace (``traceparent`` of W3C Trace Context)."""

    request_id: str
    traceparent: str

    @classmethod
    def from_headers(cls, request_id: str, traceparent: str) -> RequestIds:
        """Return the caller's ids where they are valid, else new ones."""
        valid = _REQUEST_ID.fullmatch(request_id) is not None
        traced = _TRACEPARENT.fullmatch(traceparent) is not None
        return cls(
            request_id if valid else secrets.token_hex(16),
            traceparent if traced else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00",
        )


class RequestIdMiddleware:
    """Puts the ids into the scope, and ``X-Request-Id`` into the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        ids = RequestIds.from_headers(headers.get(b"x-request-id", ""), headers.get(b"traceparent", ""))
        scope[REQUEST_IDS] = ids

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = ids.request_id
            await send(message)

        await self._app(scope, receive, sending)
