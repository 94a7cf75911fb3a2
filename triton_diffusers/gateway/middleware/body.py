"""Bounds on request bodies, and a watch on callers that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triton_diffusers.api.statuses import SERVER_ERROR
from triton_diffusers.errors import shown
from triton_diffusers.gateway.faults import Fault, Refused

DISCONNECTED = "triton_diffusers.disconnected"
"""Name in the scope of the ``asyncio.Event`` that is set when the caller has hung up."""

MAX_BODY_BYTES = "triton_diffusers.max_body_bytes"
"""Name in the scope of a bound on the request's body, where its route has one below the gateway's."""

_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bounds on request bodies: bytes of one, bytes of all that are in memory, seconds until one is complete."""

    max_bytes: int
    max_total_bytes: int
    max_seconds: float


@dataclass(slots=True)
class _Memory:
    """Bytes of all bodies in memory."""

    limit: int
    used: int = 0


class BodyMiddleware:
    """Reads each body to its end, within bounds, and then watches for the caller's disconnect.

    Frameworks see a disconnect only while they wait for a message, which a handler that computes its answer does not.
    """

    def __init__(self, app: ASGIApp, limits: BodyLimits) -> None:
        self._app = app
        self._limits = limits
        self._memory = _Memory(limits.max_total_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request. Raises ``Refused``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        own = scope.get(MAX_BODY_BYTES)
        limits = self._limits if own is None else replace(self._limits, max_bytes=min(own, self._limits.max_bytes))
        _check(headers, limits)
        body = _Body(limits, self._memory)
        try:
            if await self._read(body, receive):
                await self._run(scope, body, receive, send)
        finally:
            body.close()

    async def _read(self, body: _Body, receive: Receive) -> bool:
        try:
            async with asyncio.timeout(self._limits.max_seconds):
                return await body.read(receive)
        except TimeoutError:
            rule = f"must be complete within {self._limits.max_seconds:g} s"
            raise Refused(Fault(status=408, message=f"body: {body.size} bytes is invalid: {rule}")) from None

    async def _run(self, scope: Scope, body: _Body, receive: Receive, send: Send) -> None:
        disconnected = asyncio.Event()
        scope[DISCONNECTED] = disconnected
        watch = asyncio.create_task(_watch(receive, disconnected))
        messages: list[Message] = [{"type": "http.request", "body": body.take(), "more_body": False}]

        async def replay() -> Message:
            if messages:
                return messages.pop()
            await disconnected.wait()
            return {"type": "http.disconnect"}

        try:
            await self._app(scope, replay, send)
        finally:
            watch.cancel()


def _check(headers: Mapping[bytes, str], limits: BodyLimits) -> None:
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        rule = "send the body as it is"
        raise Refused(Fault(status=415, message=f"Content-Encoding: {shown(encoding)} is invalid: {rule}"))
    length = headers.get(b"content-length", "0")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_large(limits)


async def _watch(receive: Receive, disconnected: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    disconnected.set()


def _too_large(limits: BodyLimits) -> Refused:
    rule = f"at most {limits.max_bytes / 1e6:g} MB"
    return Refused(Fault(status=413, message=f"body: its size is invalid: {rule}"))


@dataclass(slots=True)
class _Body:
    """A request's body, counted until the request has ended."""

    limits: BodyLimits
    memory: _Memory
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    async def read(self, receive: Receive) -> bool:
        """Read to the end; return False if the caller hangs up before it. Raises ``Refused``."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            self._add(message.get("body", b""))
            more = message.get("more_body", False)
        return True

    def _add(self, part: bytes) -> None:
        if self.size + len(part) > self.limits.max_bytes:
            raise _too_large(self.limits)
        if self.memory.used + len(part) > self.memory.limit:
            message = "the gateway is reading too many large requests; try again later"
            raise Refused(Fault(status=503, code=SERVER_ERROR, message=message, retry_after=_RETRY_SECONDS))
        self.size += len(part)
        self.memory.used += len(part)
        self.parts.append(part)

    def take(self) -> bytes:
        """Return the whole content; this object does not hold it any longer."""
        content = b"".join(self.parts)
        self.parts.clear()
        return content

    def close(self) -> None:
        """Stop counting the body's memory."""
        self.memory.used -= self.size
