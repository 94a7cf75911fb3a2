"""A driver of exchanges that awaits, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from triton_diffusers_client.errors import ClientError
from triton_diffusers_client.gateway.driver import LIMITS, event_of, reply_of, request_of
from triton_diffusers_client.gateway.effects import Close, Effect, Flow, Next, Open, Reply, Send, Sleep
from triton_diffusers_client.gateway.faults import error_of_transport

T = TypeVar("T")


@dataclass(slots=True)
class _OpenStream:
    response: httpx2.Response
    events: AsyncIterator[httpx2.ServerSentEvent]


class AsyncDriver:
    """Performs the effects of flows; see ``driver.Driver``."""

    def __init__(self, netloc: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._netloc = netloc
        self._client = httpx2.AsyncClient(limits=LIMITS, transport=transport)

    async def run(self, flow: Flow[T]) -> T:
        """Return what a flow returns, or raise what it raises."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = await self._perform(effect)
                except BaseException as error:  # noqa: BLE001  # the flow decides
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _perform(self, effect: Effect) -> Any:
        if self._client.is_closed and not isinstance(effect, Close):
            raise ClientError("the client is closed")
        try:
            match effect:
                case Send():
                    return reply_of(await self._client.send(request_of(self._client, effect)))
                case Sleep(seconds):
                    await asyncio.sleep(seconds)
                case Open(send):
                    return await self._open(send)
                case Next(_OpenStream(events=events)):
                    return event_of(await anext(events, None))
                case Close(_OpenStream(response=response)):
                    await response.aclose()
        except httpx2.TransportError as error:
            raise error_of_transport(error, self._netloc) from error
        return None

    async def _open(self, send: Send) -> _OpenStream | Reply:
        response = await self._client.send(request_of(self._client, send), stream=True)
        if response.status_code == httpx2.codes.OK:
            return _OpenStream(response, aiter(httpx2.EventSource(response)))
        try:
            await response.aread()
            return reply_of(response)
        finally:
            await response.aclose()
