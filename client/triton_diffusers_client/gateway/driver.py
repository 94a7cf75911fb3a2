"""A driver of exchanges that blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from triton_diffusers_client.errors import ClientError
from triton_diffusers_client.gateway.effects import Close, Effect, Event, Flow, Next, Open, Reply, Send, Sleep
from triton_diffusers_client.gateway.faults import error_of_transport

T = TypeVar("T")

CONNECT_SECONDS = 10.0
# As many connections as there are callers.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)


@dataclass(slots=True)
class _OpenStream:
    response: httpx2.Response
    events: Iterator[httpx2.ServerSentEvent]


class Driver:
    """Performs the effects of flows. Any number of threads may run flows at once."""

    def __init__(self, netloc: str, transport: httpx2.BaseTransport | None = None) -> None:
        self._netloc = netloc
        self._client = httpx2.Client(limits=LIMITS, transport=transport)

    def run(self, flow: Flow[T]) -> T:
        """Return what a flow returns, or raise what it raises."""
        try:
            effect = next(flow)
            while True:
                try:
                    result = self._perform(effect)
                except BaseException as error:  # noqa: BLE001  # the flow decides
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _perform(self, effect: Effect) -> Any:
        if self._client.is_closed and not isinstance(effect, Close):
            raise ClientError("the client is closed")
        try:
            match effect:
                case Send():
                    return reply_of(self._client.send(request_of(self._client, effect)))
                case Sleep(seconds):
                    time.sleep(seconds)
                case Open(send):
                    return self._open(send)
                case Next(_OpenStream(events=events)):
                    return event_of(next(events, None))
                case Close(_OpenStream(response=response)):
                    response.close()
        except httpx2.TransportError as error:
            raise error_of_transport(error, self._netloc) from error
        return None

    def _open(self, send: Send) -> _OpenStream | Reply:
        response = self._client.send(request_of(self._client, send), stream=True)
        if response.status_code == httpx2.codes.OK:
            return _OpenStream(response, iter(httpx2.EventSource(response)))
        try:
            response.read()
            return reply_of(response)
        finally:
            response.close()


def request_of(client: httpx2.Client | httpx2.AsyncClient, send: Send) -> httpx2.Request:
    """Return the request of an effect."""
    timeout = httpx2.Timeout(send.seconds, connect=min(CONNECT_SECONDS, send.seconds), pool=None)
    return client.build_request(
        send.method, send.url, headers=send.headers, params=send.params or None, content=send.content, timeout=timeout
    )


def reply_of(response: httpx2.Response) -> Reply:
    """Return the reply of a response that was read."""
    return Reply(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def event_of(event: httpx2.ServerSentEvent | None) -> Event | None:
    """Return a server-sent event."""
    return None if event is None else Event(event.event, event.id, event.data)
