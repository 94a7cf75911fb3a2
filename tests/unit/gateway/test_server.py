"""The HTTP server: slow and hostile connections, hang-ups, its address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.served import running
from tests.waiting import WITHIN
from triton_diffusers.gateway import server as gateway_server
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.gateway.results import Results
from triton_diffusers.gateway.server import warn_of_any_host
from triton_diffusers.gateway.settings import GatewaySettings
from triton_diffusers.settings import Settings, SettingsError

pytestmark = pytest.mark.anyio


async def exchange(port: int, data: bytes, *, within: float = WITHIN) -> bytes:
    """Send bytes on a new connection; return what comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), within)
    finally:
        writer.close()


def request(body: bytes = b"", *headers: str, line: str = "POST /api/jobs HTTP/1.1", host: str = "localhost") -> bytes:
    lines = [line, f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def test_a_request_on_a_socket(tmp_path: Path) -> None:
    async with running(tmp_path) as (port, _):
        answer = await exchange(port, request(b'{"prompt": "an apple"}'))
    assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert b"x-request-id: " in answer
    assert b"\r\nserver: " not in answer


async def test_slow_headers_are_given_up_and_slow_jobs_are_not(tmp_path: Path) -> None:
    async with running(tmp_path, header_seconds=1.0) as (port, _):
        assert await exchange(port, b"") == b""
        assert await exchange(port, b"GET /health/live HTTP/1.1\r\nHost: ") == b""
        answer = await exchange(port, request(line="GET /health/live HTTP/1.1"))
        assert answer.startswith(b"HTTP/1.1 200")
        accepted = await exchange(port, request(b'{"prompt": "a"}'))
        job = json.loads(accepted.partition(b"\r\n\r\n")[2])
        waited = await exchange(port, request(line=f"GET /api/jobs/{job['id']}?wait=2.5 HTTP/1.1"))
        assert waited.startswith(b"HTTP/1.1 200")


async def test_a_second_slow_request_of_a_connection_is_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, header_seconds=1.0) as (port, _):
        keep = request(line="GET /health/live HTTP/1.1").replace(b"Connection: close\r\n", b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(keep)
        await reader.readuntil(b'{"status":"live"}')
        writer.write(b"GET /health")
        assert await asyncio.wait_for(reader.read(), WITHIN) == b""
    writer.close()


@pytest.mark.parametrize("reads", [False, True])
async def test_a_caller_who_reads_nothing_is_dropped_and_a_slow_one_is_not(
    tmp_path: Path, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = bytes(30_000_000)  # more than the kernel takes

    async def read(*_: Any) -> tuple[bytes, str]:
        return image, "image/png"

    monkeypatch.setattr(Results, "read", read)
    async with running(tmp_path, read_seconds=2.0 if reads else 0.4) as (port, _):
        accepted = await exchange(port, request(b'{"prompt": "a"}'))
        job = json.loads(accepted.partition(b"\r\n\r\n")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
        writer.write(request(line=f"GET /api/jobs/{job['id']}/images/0.png HTTP/1.1"))
        received = 0
        if reads:
            while part := await reader.read(1_000_000 if received > 10_000_000 else 400_000):
                received += len(part)
                await asyncio.sleep(0.1)
            assert received > len(image)
        else:
            await asyncio.sleep(1.5)
            with contextlib.suppress(ConnectionResetError):
                while part := await reader.read(1_000_000):
                    received += len(part)
            assert 0 < received < len(image)
    writer.close()


async def test_large_headers_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (port, _):
        answer = await exchange(port, request(b"", "X-Large: " + "a" * 100_000))
    assert answer.startswith(b"HTTP/1.1 400")


async def test_other_hosts_are_not_answered_on_loopback(tmp_path: Path) -> None:
    async with running(tmp_path) as (port, _):
        answer = await exchange(port, request(b"{}", host="evil.example"))
        assert answer.startswith(b"HTTP/1.1 421")
    async with running(tmp_path, host="0.0.0.0") as (port, _):
        answer = await exchange(port, request(b"{}", host="images.example"))
        assert answer.startswith(b"HTTP/1.1 401")
    async with running(tmp_path, allowed_hosts=("images.example",)) as (port, _):
        answer = await exchange(port, request(b"{}", host="localhost"))
        assert answer.startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize(
    ("host", "allowed", "warned"),
    [("0.0.0.0", (), True), ("0.0.0.0", ("a.example",), False), ("127.0.0.1", (), False), ("localhost", (), False)],
)
def test_a_gateway_that_answers_for_every_host_says_so(
    host: str, allowed: tuple[str, ...], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_any_host(host, GatewaySettings(allowed_hosts=allowed))
    assert ("name its hosts in TRITON_DIFFUSERS_GATEWAY_ALLOWED_HOSTS" in caplog.text) is warned


async def test_a_caller_who_closes_the_connection_cancels_the_job(tmp_path: Path) -> None:
    async with running(tmp_path, leave_seconds=0) as (port, service):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b'{"prompt": "a"}', line="POST /api/predict/a HTTP/1.1"))
        while not (jobs := (await service.table.jobs(None)).jobs):
            await asyncio.sleep(0.02)
        writer.close()
        ended = await service.table.wait_for_end(None, jobs[0].id, WITHIN)
        assert ended.state is JobState.CANCELLED


async def test_a_stopping_server_lets_no_stream_keep_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (port, _):
        accepted = await exchange(port, request(b'{"prompt": "a"}'))
        job = json.loads(accepted.partition(b"\r\n\r\n")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(line=f"GET /api/jobs/{job['id']}/events HTTP/1.1"))
        await reader.readuntil(b"event: queued")
    writer.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"database": "mysql://a"}, "database: 'mysql://a' is invalid: expected sqlite:///path or postgresql"),
        ({"database": "sqlite:////proc/none/jobs.sqlite"}, "TRITON_DIFFUSERS_GATEWAY_DATABASE: "),
        ({"state_dir": Path("/proc/none")}, "state_dir: '/proc/none' is invalid: "),
    ],
)
def test_unusable_settings_end_the_start(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    chosen = GatewaySettings(**{"state_dir": tmp_path, **settings})
    with pytest.raises(SettingsError, match=f"^{message}"):
        gateway_server.make_service(chosen, Settings(store=str(tmp_path)), is_open=True)


def test_a_gateway_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TRITON_DIFFUSERS_STORE: '' is invalid: jobs need a result store"):
        gateway_server.make_service(GatewaySettings(state_dir=tmp_path), Settings(store=""), is_open=True)


def test_a_database_server_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = gateway_server.open_job_store(f"sqlite:///{tmp_path}/jobs.sqlite", gateway_server.JobTableSettings())
    outcomes = iter([gateway_server.TableUnavailable("no answer"), opened])

    def open_store(url: str, settings: object) -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(gateway_server, "open_job_store", open_store)
    with caplog.at_level(logging.WARNING):
        table = gateway_server.open_table(GatewaySettings(database="postgresql://away/jobs"))
    assert table.store is opened
    assert "waiting for the job table: no answer" in caplog.text
    opened.close()
