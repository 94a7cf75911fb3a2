"""Watching a sink: results are sent to a consumer as they appear, and again until they are committed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.websockets import WebSocket, WebSocketDisconnect

from triton_diffusers.gateway.dialects.eas.frames import Frame, encode_frame, media_type_of
from triton_diffusers.gateway.dialects.eas.queue_call import QueueCall
from triton_diffusers.gateway.dialects.eas.sink_queue import SinkQueue
from triton_diffusers.gateway.faults import Refused
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.sink import Consumer, ConsumerReplaced
from triton_diffusers.gateway.middleware.body import DISCONNECTED

logger = logging.getLogger(__name__)

_MAX_WINDOW = 1000
_AUTO_COMMIT_WINDOW = 50  # the caller's is ignored then
_LOOK_SECONDS = 5.0  # until an idle watch gives a sign of life, and its key is looked up again
# Two clients of one name replace each other for as long as both connect again: not without a pause.
_REPLACED_SECONDS = 1.0
_LENGTH_BYTES = 4
_GOING_AWAY, _NOT_ALLOWED, _TRY_AGAIN = 1001, 1008, 1013


class Watch:
    """A call that asks for the results of a sink as they appear."""

    def __init__(self, call: QueueCall) -> None:
        """Read the call's parameters. Raises: InvalidRequest."""
        parameters = call.parameters
        self._call = call
        self._sink = SinkQueue(call)
        self._index = parameters.index()
        self._tags = parameters.tags
        self._index_only = parameters.flag("_index_only_")
        self._commits = parameters.flag("_auto_commit_")
        window = parameters.number("_window_", 1, range(_MAX_WINDOW + 1))
        self._window = _AUTO_COMMIT_WINDOW if self._commits else window
        self._media_type = media_type_of(call.connection.headers.get("accept", ""))

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Consumer]:
        """Provide a consumer, in place of an earlier connection of its name.

        At the end, uncommitted entries return to the group, even if the task is cancelled. Raises: TableUnavailable.
        """
        call, sinks = self._call, self._call.table.store.sinks
        consumer = await call.table.call(sinks.connect, call.sink, call.group, call.consumer, self._window)
        try:
            yield consumer
        finally:
            await asyncio.shield(asyncio.ensure_future(self._disconnect(consumer)))

    async def batches(self, consumer: Consumer) -> AsyncIterator[Sequence[Frame]]:
        """Yield frames as they appear; none now and then.

        Raises: ConsumerReplaced, TableUnavailable. Refused: the caller's key has ended.
        """
        table = self._call.table
        first = await self._sink.first_number(self._index, newest=False)
        while True:
            entries = await table.wait_for_some(_LOOK_SECONDS, table.store.sinks.take, consumer, first, self._tags)
            await self._call.service.authenticator.authenticate(self._call.connection)
            yield await self._sink.frames(entries, index_only=self._index_only)
            # After they were sent, so that a connection that breaks loses none.
            if self._commits and entries:
                await self._sink.commit([entry.number for entry in entries])

    def encode(self, frame: Frame) -> bytes:
        """Return a frame in the media type that the caller accepts."""
        return encode_frame(frame, self._media_type)

    async def _disconnect(self, consumer: Consumer) -> None:
        try:
            await self._call.table.call(self._call.table.store.sinks.disconnect, consumer)
        except TableUnavailable as error:
            logger.warning("a consumer is disconnected when its time is over: %s", error)


async def watch_by_socket(socket: WebSocket, watch: Watch, read_seconds: float) -> None:
    """Send frames, as a binary message each, until the caller hangs up or reads nothing for ``read_seconds``."""
    async with watch.connected() as consumer:
        await socket.accept()
        sending = asyncio.create_task(_send(socket, watch, consumer, read_seconds))
        listening = asyncio.create_task(_listen(socket))
        try:
            await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, listening):
                task.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
    if not sending.cancelled():
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the caller has hung up first
            await socket.close(sending.result())


async def watch_by_stream(request: Request, watch: Watch) -> AsyncIterator[bytes]:
    """Yield frames, each after its length, until the caller hangs up."""
    gone = request.scope[DISCONNECTED]
    with contextlib.suppress(ConsumerReplaced, TableUnavailable, Refused):
        async with watch.connected() as consumer:
            async for frames in watch.batches(consumer):
                if gone.is_set():
                    return
                for frame in frames:
                    encoded = watch.encode(frame)
                    yield len(encoded).to_bytes(_LENGTH_BYTES, "big") + encoded


async def _send(socket: WebSocket, watch: Watch, consumer: Consumer, read_seconds: float) -> int:
    """Send frames; return the code with which to close the connection."""
    try:
        async for frames in watch.batches(consumer):
            for frame in frames:
                async with asyncio.timeout(read_seconds):
                    await socket.send_bytes(watch.encode(frame))
    except ConsumerReplaced:
        await asyncio.sleep(_REPLACED_SECONDS)
    except WebSocketDisconnect:
        pass  # noticed here first
    except TimeoutError:
        logger.warning("a watch ends: its caller reads nothing")
    except TableUnavailable as error:
        logger.warning("a watch ends: %s", error)
        return _TRY_AGAIN
    except Refused:
        return _NOT_ALLOWED
    return _GOING_AWAY


async def _listen(socket: WebSocket) -> None:
    """Return when the caller has hung up; what it sends has no meaning."""
    with contextlib.suppress(WebSocketDisconnect):
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass
