"""Connections that break the rules of HTTP or WebSocket: each is refused, and leaves no job."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import httpx2
import pytest

from tests.unit.gateway.served import running
from tests.waiting import WITHIN

pytestmark = pytest.mark.anyio

HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST /api/jobs HTTP/1.1\r\nConnection: close\r\n" + HOST
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
WATCH = b"GET /api/predict/draw_async/sink?_watch_=true HTTP/1.1\r\n" + HOST + UPGRADE
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

ATTACKS = {
    "short length": (POST + b'Content-Length: 2\r\n\r\n{"prompt":1}', 400),
    "length that is never reached": (POST + b"Content-Length: 900\r\n\r\n{}", 408),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "length and chunks": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "endless chunks": (POST + CHUNKED + (b"1000\r\n" + b"a" * 4096 + b"\r\n") * 1000, 413),
    "broken chunk": (POST + CHUNKED + b"zz\r\n", 400),
    "gzip": (POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", 415),
    "deep JSON": (POST + b"Content-Length: 500000\r\n\r\n" + b"[" * 500_000, 400),
    "huge header": (POST + b"X: " + b"a" * 10**6 + b"\r\n\r\n", 400),
    "endless headers": (POST + b"X-A: b\r\n" * 50_000, 400),
    "two hosts": (POST + HOST + b"Content-Length: 2\r\n\r\n{}", 400),
    "TLS": (b"\x16\x03\x01\x02\0" * 50, 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421),
    "WebSocket at a path of HTTP": (b"GET /api/jobs HTTP/1.1\r\n" + HOST + UPGRADE, 403),
}
FRAMES = {
    "unknown opcode": b"\x8b\x80\0\0\0\0",
    "not masked": b"\x81\x01a",
    "frame of 8 GB": b"\x82\xff\0\0\0\x02\0\0\0\0aaaa",
}


async def exchange(port: int, data: bytes) -> bytes:
    """Return what the server sends until it closes the connection; it may do so before it has read all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.wait_for(reader.read(2**16), WITHIN):
                received += part
    finally:
        writer.close()
    return received


async def test_broken_requests_are_refused(tmp_path: Path) -> None:
    limits = {"header_seconds": 2.0, "body_seconds": 2.0, "max_body_megabytes": 1.0}
    async with running(tmp_path, **limits) as (port, service):
        for name, (data, status) in ATTACKS.items():
            answer = await exchange(port, data)
            # A reset of a connection with unread data may overtake the answer.
            assert not answer or answer.split(b" ")[1] == str(status).encode(), f"{name}: {answer[:300]!r}"
        await _assert_good(port)
        assert len((await service.table.jobs(None)).jobs) == 1


@pytest.mark.parametrize("name", FRAMES)
async def test_broken_frames_end_a_watch(tmp_path: Path, name: str) -> None:
    async with running(tmp_path, services="draw_async=ensemble:async") as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WATCH)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN)).startswith(b"HTTP/1.1 101 ")
        writer.write(FRAMES[name])
        close = await asyncio.wait_for(reader.readexactly(4), WITHIN)
        writer.close()
        # A close frame with the code of a broken protocol or of a large message.
        assert close[0] == 0x88
        assert int.from_bytes(close[2:]) in (1002, 1009)
        await _assert_good(port)


async def _assert_good(port: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN) as client:
        assert (await client.post("/api/jobs", json={"prompt": "an apple"})).status_code == 202
