"""A gateway's HTTP server in the tests' own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn

from tests.waiting import WITHIN
from triton_diffusers.gateway import server as gateway_server
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.settings import Settings


@contextlib.asynccontextmanager
async def running(tmp_path: Path, host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[tuple[int, Service]]:
    """Run a server; yield its port and its service."""
    chosen = GatewaySettings(state_dir=tmp_path, **settings)
    service = gateway_server.make_service(
        chosen, Settings(store=str(tmp_path / "store")), is_open=gateway_server.is_open(host, chosen)
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(gateway_server.server_config(service, host))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1], service
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, WITHIN)
