"""Services of a gateway with users: their keys in the forms of EAS clients, and queues of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.unit.gateway.eas.conftest import SERVICE, SINK, Served, received
from tests.unit.gateway.eas.test_services import BODY, signed
from tests.unit.gateway.eas.wire import read_frame
from tests.unit.gateway.served import running
from triton_diffusers.gateway.access.caller import Role
from triton_diffusers.gateway.dialects.eas import watch

pytestmark = pytest.mark.anyio

ACTOR = "tests"


def add(served: Served, name: str, **fields: Any) -> str:
    """Make a user and return a key, which signs requests."""
    accounts = served.service.accounts
    accounts.add_user(name, role=Role.ADMIN if name == "root" else Role.USER, actor=ACTOR)
    return accounts.add_key(name, signs=True, actor=ACTOR, **fields).secret


async def put(served: Served, headers: dict[str, str]) -> httpx2.Response:
    return await served.client.post(SERVICE, content=BODY, headers=headers)


async def test_a_key_queues_and_watches(served: Served) -> None:
    add(served, "root")
    key = add(served, "ann")
    raw = {"Authorization": key}
    for headers in (raw, {"Authorization": f"Bearer {key}"}, signed(key, "draw_async", BODY)):
        assert (await put(served, headers)).status_code == 200
        await served.draw()
    async with served.watch(headers=raw, _window_=3) as socket:
        assert [read_frame(await received(socket)).index for _ in range(3)] == [1, 2, 3]
    for headers in ({}, {"Authorization": "x"}, signed("x", "draw_async", BODY), signed(key, "other", BODY)):
        assert (await put(served, headers)).status_code == 401
        with pytest.raises(InvalidStatus):
            async with served.watch(headers=headers):
                pass
    (job,) = (await served.table.jobs(None, limit=1)).jobs
    assert job.owner != "local"


async def test_a_watch_ends_with_its_key(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.2)
    add(served, "root")
    key = add(served, "ann")
    headers = {"Authorization": key}
    async with served.watch(headers=headers) as socket:
        await put(served, headers)
        await served.draw()
        assert read_frame(await received(socket)).index == 1
        served.service.accounts.revoke_key(key.split("_")[1], actor=ACTOR)
        with pytest.raises(ConnectionClosed) as closed:
            await received(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_queues_of_users_are_apart(served: Served) -> None:
    add(served, "root")
    ann, bob = ({"Authorization": add(served, name)} for name in ("ann", "bob"))
    index = (await put(served, ann)).text
    query = {"requestId": (await served.draw()).id}
    calls: list[tuple[str, str, dict[str, str]]] = [
        ("GET", SINK, query),
        ("GET", SINK, {"_search_": "true", "_index_": "1"}),
        ("GET", SERVICE, {"_search_": "true", "_index_": index}),
    ]
    for method, path, given in calls:
        reply = await served.client.request(method, path, params=given, headers=bob)
        assert reply.status_code in (204, 404)
    writes = [("PUT", SINK), ("DELETE", SINK), ("DELETE", SERVICE)]
    for method, path in writes:
        assert (await served.client.request(method, path, params={"_indexes_": index}, headers=bob)).text == "OK"
    for path in (SERVICE, SINK):
        attributes = (await served.client.get(path, params={"_attrs_": "true"}, headers=bob)).json()
        assert attributes["stream.length"] == "0"
    assert (await served.client.get(SINK, params=query, headers=ann)).json()["success"] == 1


@pytest.mark.parametrize("gateway_settings", [{"services": "*=:async:dG9rZW4="}])
async def test_a_services_token_needs_no_key(served: Served) -> None:
    add(served, "root")
    assert (await put(served, {"Authorization": "dG9rZW4="})).status_code == 200
    assert (await put(served, signed("dG9rZW4=", "draw_async", BODY))).status_code == 200
    assert (await served.client.get("/api/jobs", headers={"Authorization": "dG9rZW4="})).status_code == 401


@pytest.mark.parametrize("is_open", [False, True])
async def test_other_addresses_are_open_only_if_the_operator_says_so(tmp_path: Path, is_open: bool) -> None:
    async with running(tmp_path, host="0.0.0.0", open=is_open) as (port, _), httpx2.AsyncClient() as client:
        reply = await client.post(f"http://127.0.0.1:{port}{SERVICE}", content=json.dumps({"prompt": "a"}))
    assert reply.status_code == (200 if is_open else 401)
