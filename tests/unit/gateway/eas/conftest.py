"""A gateway on a socket, whose jobs the test itself runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.unit.gateway.conftest import Gateway
from tests.unit.gateway.served import running
from tests.waiting import WITHIN
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.storage.local import LocalStore

SERVICE = "/api/predict/draw_async"
SINK = f"{SERVICE}/sink"


@dataclass
class Served(Gateway):
    """A gateway with a port."""

    port: int = 0

    async def put(self, **fields: Any) -> tuple[int, str]:
        """Queue a request; return its index and its id."""
        reply = await self.client.post(SERVICE, json={"prompt": "an apple", **fields})
        assert reply.status_code == 200, reply.text
        return int(reply.text), reply.headers["X-Eas-Queueservice-Request-Id"]

    async def put_drawn(self, count: int = 1, **fields: Any) -> list[str]:
        """Queue some requests and draw them; return their ids."""
        ids = []
        for _ in range(count):
            ids.append((await self.put(**fields))[1])
            await self.draw()
        return ids

    @asynccontextmanager
    async def watch(
        self, uid: str = "u", gid: str = "eas", headers: Mapping[str, str] | None = None, **query: object
    ) -> AsyncIterator[ClientConnection]:
        """Watch the sink by a WebSocket, as the SDK does."""
        given = {"_watch_": "true", "_index_": "0", "_window_": "1", **{name: str(v) for name, v in query.items()}}
        uri = f"ws://localhost:{self.port}{SINK}?{httpx2.QueryParams(given)}"
        identity = {
            "X-EAS-QueueService-Redis-Uid": uid,
            "X-EAS-QueueService-Redis-Gid": gid,
            "Accept": "application/vnd.google.protobuf",
            "Origin": f"http://localhost:{self.port}",
            **(headers or {}),
        }
        async with connect(uri, additional_headers=identity) as socket:
            yield socket

    async def commit(self, *indexes: int, gid: str = "eas") -> None:
        """Commit results for a group."""
        query = {"_indexes_": ",".join(map(str, indexes))}
        reply = await self.client.put(SINK, params=query, headers={"X-EAS-QueueService-Redis-Gid": gid})
        assert (reply.status_code, reply.text) == (200, "OK")

    async def attributes(self, path: str = SINK) -> dict[str, str]:
        """Return the attributes of a queue."""
        return dict((await self.client.get(path, params={"_attrs_": "true"})).json())


@pytest.fixture
async def served(tmp_path: Path, gateway_settings: dict[str, Any], anyio_backend: str) -> AsyncIterator[Served]:
    async with running(tmp_path, **gateway_settings) as (port, service):
        store = LocalStore(tmp_path / "store")
        async with httpx2.AsyncClient(base_url=f"http://localhost:{port}", timeout=WITHIN) as client:
            yield Served(service, client, ResultWriter(store, 0), tmp_path / "store", port=port)


async def received(socket: ClientConnection) -> bytes:
    """Return the next message."""
    message = await asyncio.wait_for(socket.recv(), WITHIN)
    assert isinstance(message, bytes), "only binary messages are understood"
    return message
