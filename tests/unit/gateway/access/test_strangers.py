"""Attempts of callers without a key, and of those whose key has ended."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.gateway.access.conftest import ACTOR, Users
from tests.unit.gateway.asgi import Call
from tests.unit.gateway.conftest import Gateway, ended
from tests.unit.gateway.openai_calls import GENERATIONS
from tests.waiting import WITHIN, until_async
from triton_diffusers.gateway.access.declaration import SMALL_BODY_BYTES
from triton_diffusers.gateway.app import create_app
from triton_diffusers.gateway.dialects import native_streams
from triton_diffusers.gateway.jobs.job import JobState

pytestmark = pytest.mark.anyio

LARGE = b'{"code": [' + b"[]," * SMALL_BODY_BYTES + b'[]], "name": "x"}'
TOO_LARGE = "body: its size is invalid: at most 0.05 MB"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/setup"),
        ("GET", "/health/live"),
        ("GET", "/api/jobs/x/images/0.png?expires=1&signature=x"),
    ],
)
async def test_a_caller_without_a_key_sends_small_bodies(
    gateway: Gateway, users: Users, method: str, path: str
) -> None:
    reply = await gateway.client.request(method, path, content=LARGE)
    assert (reply.status_code, TOO_LARGE in reply.text) == (413, True)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/me/keys"), ("PATCH", "/api/admin/users/root"), ("POST", "/nothing")]
)
async def test_documents_of_accounts_are_small(gateway: Gateway, users: Users, method: str, path: str) -> None:
    reply = await users.call(users.admin_key, method, path, content=LARGE)
    assert (reply.status_code, TOO_LARGE in reply.text) == (413, True)


async def test_a_request_to_draw_may_be_large(gateway: Gateway, users: Users) -> None:
    reply = await users.call(users.admin_key, "POST", "/api/jobs", json={"prompt": "x", "image": "x" * 10**6})
    assert reply.status_code == 400
    assert "image" in reply.text


@pytest.mark.parametrize("query", ["signature=x&signature=", "signature=&signature=", "signature="])
async def test_a_signature_that_is_none_needs_a_key(gateway: Gateway, users: Users, query: str) -> None:
    job = await users.submit(users.admin_key)
    await gateway.draw()
    path = f"/api/jobs/{job['id']}/images/0.png?expires=9999999999&{query}"
    assert (await gateway.client.get(path)).status_code == 401
    assert (await users.call(users.admin_key, "GET", path)).status_code == 200


async def test_a_host_does_not_change_the_path_that_was_signed(gateway: Gateway, users: Users) -> None:
    own, other = await users.submit(users.add("eve")), await users.submit(users.admin_key)
    for _ in range(2):
        await gateway.draw()
    signed = f"/api/jobs/{own['id']}/images/0.png"
    query = gateway.service.results._signer.query(signed)
    assert (await gateway.client.get(f"{signed}?{query}")).status_code == 200
    for host in (f"gateway{signed}?", f"gateway{signed}#"):
        reply = await gateway.client.get(f"/api/jobs/{other['id']}/images/0.png?{query}", headers={"Host": host})
        assert reply.status_code == 404


async def test_events_end_with_the_key(gateway: Gateway, users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_streams, "_KEEPALIVE_SECONDS", 0.05)
    key = users.add("ann")
    job = await users.submit(key)
    reading = asyncio.create_task(users.call(key, "GET", f"/api/jobs/{job['id']}/events"))
    await asyncio.sleep(0)
    users.accounts.revoke_key(key.split("_")[1], actor=ACTOR)
    assert (await ended(reading)).status_code in (200, 401)
    assert (await gateway.table.get(None, job["id"])).state is JobState.QUEUED


async def test_a_stream_of_images_ends_with_the_key(gateway: Gateway, users: Users) -> None:
    key = users.add("ann")
    call = Call(create_app(gateway.service), [("Authorization", f"Bearer {key}")])
    call.scope |= {"path": GENERATIONS, "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": ""}
    call.send(b'{"prompt": "an apple", "stream": true}')
    reading = asyncio.create_task(call.run())
    await until_async(lambda: call.status == 200, "the stream")
    users.accounts.revoke_key(key.split("_")[1], actor=ACTOR)
    await asyncio.wait_for(reading, WITHIN)
    assert b"key: it is unknown, expired or revoked" in call.body
