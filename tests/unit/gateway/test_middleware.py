"""Middleware: limits on bodies, hang-ups, other sites' pages, ids."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.unit.gateway.asgi import Call, echo
from tests.waiting import WITHIN
from triton_diffusers.gateway.app import render
from triton_diffusers.gateway.middleware.addresses import AddressMiddleware
from triton_diffusers.gateway.middleware.body import DISCONNECTED, MAX_BODY_BYTES, BodyLimits, BodyMiddleware
from triton_diffusers.gateway.middleware.faults import FaultMiddleware
from triton_diffusers.gateway.middleware.origin import OriginMiddleware, host_name
from triton_diffusers.gateway.middleware.request_ids import REQUEST_IDS, RequestIdMiddleware

pytestmark = pytest.mark.anyio

LIMITS = BodyLimits(max_bytes=1000, max_total_bytes=1500, max_seconds=0.2)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def limited(app: ASGIApp = echo, limits: BodyLimits = LIMITS) -> ASGIApp:
    return FaultMiddleware(BodyMiddleware(app, limits), render)


def origin(hosts: Iterable[str] = ()) -> ASGIApp:
    return FaultMiddleware(OriginMiddleware(echo, tuple(hosts)), render)


async def test_a_body_within_the_limits_arrives_whole() -> None:
    call = Call(limited()).send(b"a" * 500, more=True).send(b"b" * 500)
    await call.run()
    assert (call.status, call.body) == (200, b"a" * 500 + b"b" * 500)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_large_body_is_refused_while_it_arrives(declared: bool) -> None:
    call = Call(limited(), [("Content-Length", "1001")] if declared else ())
    if not declared:
        call.send(b"a" * 600, more=True).send(b"b" * 401, more=True)
    await call.run()
    assert (call.status, call.headers["connection"]) == (413, "close")
    assert b"body: its size is invalid: at most 0.001 MB" in call.body


@pytest.mark.parametrize(
    ("own", "size", "status"), [(None, 1000, 200), (10, 10, 200), (10, 11, 413), (5000, 1001, 413)]
)
async def test_a_route_may_have_a_lower_bound(own: int | None, size: int, status: int) -> None:
    call = Call(limited()).send(b"a" * size)
    call.scope[MAX_BODY_BYTES] = own
    assert (await call.run()).status == status


async def test_a_slow_body_is_given_up() -> None:
    call = await Call(limited()).send(b"a", more=True).run()
    assert call.status == 408
    assert b"must be complete within 0.2 s" in call.body


async def test_memory_of_all_bodies_is_bounded_and_given_back() -> None:
    release = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await echo(scope, receive, send)

    app = limited(slow)
    first = asyncio.create_task(Call(app).send(b"a" * 1000).run())
    await asyncio.sleep(0)
    second = await Call(app).send(b"b" * 600).run()
    assert (second.status, second.headers["retry-after"]) == (503, "5")
    release.set()
    assert (await first).status == 200
    assert (await Call(app).send(b"b" * 1000).run()).status == 200


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("identity", 200), ("", 200), ("gzip, br", 415)])
async def test_compressed_bodies_are_refused(encoding: str, status: int) -> None:
    call = await Call(limited(), [("Content-Encoding", encoding)]).send(b"a").run()
    assert call.status == status


async def test_a_caller_who_hangs_up_while_sending_starts_nothing() -> None:
    called = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal called
        called = True

    await Call(limited(app)).send(b"a", more=True).hang_up().run()
    assert not called


async def test_a_handler_sees_the_caller_hang_up() -> None:
    seen = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"a"
        await scope[DISCONNECTED].wait()
        assert (await receive())["type"] == "http.disconnect"
        seen.set()

    call = Call(limited(app)).send(b"a")
    task = asyncio.create_task(call.run())
    await asyncio.sleep(0.01)
    assert not seen.is_set()
    call.hang_up()
    await asyncio.wait_for(task, WITHIN)
    assert seen.is_set()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("localhost.", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
async def test_only_known_hosts_are_answered(host: str, status: int) -> None:
    call = await Call(origin(("localhost", "127.0.0.1", "::1")), [("Host", host)]).send(b"").run()
    assert call.status == status
    assert (await Call(origin(), [("Host", host)]).send(b"").run()).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://images.example"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://images.example.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://images.example"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://images.example"}, 403),
    ],
)
async def test_pages_of_other_sites_cannot_write(headers: dict[str, str], status: int) -> None:
    sent = [("Host", "images.example"), *headers.items()]
    assert (await Call(origin(), sent).send(b"").run()).status == status
    assert (await Call(origin(), sent, method="GET").send(b"").run()).status == 200


def test_host_names() -> None:
    assert [host_name(netloc) for netloc in ("a:1", "[::1]:1", "a@b", "x:y")] == ["a", "::1", "b", "x"]


@pytest.mark.parametrize(
    ("request_id", "traceparent", "kept"),
    [
        ("abc-1", TRACE, (True, True)),
        ("", "", (False, False)),
        ("a b", TRACE.upper(), (False, False)),
        ("x" * 129, TRACE.replace("00-", "01-"), (False, False)),
        ("é", "00-" + "0" * 32 + "-b7ad6b7169203331-01", (False, False)),
    ],
)
async def test_ids_of_the_caller_are_kept_if_they_are_valid(
    request_id: str, traceparent: str, kept: tuple[bool, bool]
) -> None:
    call = Call(RequestIdMiddleware(echo), [("X-Request-Id", request_id), ("traceparent", traceparent)]).send(b"")
    await call.run()
    ids = call.scope[REQUEST_IDS]
    assert (ids.request_id == request_id, ids.traceparent == traceparent) == kept
    assert call.headers["x-request-id"] == ids.request_id
    assert len(ids.traceparent) == len(TRACE)


async def test_a_bug_is_not_told_to_the_caller(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    call = await Call(FaultMiddleware(broken, render)).send(b"").run()
    assert call.status == 500
    assert b"secret" not in call.body
    assert "secret" in caplog.text


async def test_an_address_has_a_bounded_number_of_requests() -> None:
    release = asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await echo(scope, receive, send)

    app = FaultMiddleware(AddressMiddleware(wait, max_requests=2), render)
    calls = [Call(app, address="10.0.0.1").send(b"") for _ in range(3)]
    other = Call(app, address="10.0.0.2").send(b"")
    tasks = [asyncio.create_task(call.run()) for call in (*calls, other)]
    await asyncio.wait_for(tasks[2], 30)
    assert (calls[2].status, calls[2].headers["retry-after"]) == (429, "5")
    assert "this address has 2 requests in progress" in calls[2].body.decode()
    assert not any(task.done() for task in (tasks[0], tasks[1], tasks[3]))
    release.set()
    await asyncio.gather(*tasks)
    assert [call.status for call in (*calls, other)] == [200, 200, 429, 200]
    assert (await Call(app, address="10.0.0.1").send(b"").run()).status == 200, "ended requests do not count"


async def test_a_websocket_beyond_the_bound_is_closed() -> None:
    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    app = AddressMiddleware(wait, max_requests=1)
    scope = {"type": "websocket", "client": ("10.0.0.1", 5)}
    task = asyncio.create_task(app(scope, receive, send))
    await asyncio.sleep(0)
    await app(scope, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1013}]
    task.cancel()
