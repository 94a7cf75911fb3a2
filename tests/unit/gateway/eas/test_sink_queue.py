"""The sink: reading, committing, rejecting and deleting results over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.unit.gateway.eas.conftest import SINK, Served, received
from tests.unit.gateway.eas.wire import ReceivedFrame, read_frame, read_frames
from tests.waiting import WITHIN
from triton_diffusers.gateway.dialects.eas.frames import PROTOBUF
from triton_diffusers.gateway.jobs.sink import MAX_DELIVERIES

pytestmark = pytest.mark.anyio


async def get(served: Served, **query: object) -> list[ReceivedFrame]:
    """Return results as the SDK's ``get`` does."""
    given = {"_raw_": "false", **{name: str(value) for name, value in query.items()}}
    reply = await served.client.get(SINK, params=given, headers={"Accept": PROTOBUF})
    assert reply.status_code in (200, 204), reply.text
    return read_frames(reply.content)


async def test_a_result_is_the_reply_of_the_synchronous_service(served: Served) -> None:
    _, job_id = await served.put(task_id="t", seed="7", image_num=2, use_base64=True)
    await served.draw([b"one", b"two"])
    (frame,) = await get(served, requestId=job_id)
    assert (frame.index, frame.tags) == (1, {"requestId": job_id})
    assert (frame.reply["success"], frame.reply["task_id"], frame.reply["seed"]) == (1, "t", "7")
    assert frame.reply["is_nsfw"] == [False, False]
    assert "images_base64" not in frame.reply
    assert frame.reply["warnings"][-1] == "use_base64: queues carry no images; image_url is where they are"
    images = [(await served.client.get(url)).content for url in frame.reply["image_url"]]
    assert images == [b"one", b"two"]


async def test_an_error_is_a_result_too(served: Served) -> None:
    await served.put(task_id="t")
    await served.fail("x" * 300, 462)
    (frame,) = await get(served)
    assert frame.tags["lastCode"] == "462"
    assert frame.reply == {"success": 0, "error_code": 462, "error_msg": "x" * 200, "task_id": "t"}


async def test_a_result_that_is_not_there_yet_is_204(served: Served) -> None:
    _, job_id = await served.put()
    query = {"requestId": job_id}
    reply = await served.client.get(SINK, params=query)
    assert (reply.status_code, reply.content) == (204, b"")
    waiting = asyncio.create_task(served.client.get(SINK, params={**query, "_timeout_": "30s"}))
    await served.draw()
    reply = await asyncio.wait_for(waiting, WITHIN)
    assert reply.status_code == 200
    assert reply.headers["X-Eas-Queueservice-Request-Id"] == job_id
    assert reply.json()["success"] == 1
    assert (await served.client.get(SINK, params={"requestId": "unknown"})).status_code == 204


async def test_results_are_read_from_an_index_and_by_tags(served: Served) -> None:
    for query in ("?color=red", "?color=blue", "?color=red"):
        await served.client.post(f"{SINK.removesuffix('/sink')}{query}", json={"prompt": "a"})
        await served.draw()
    assert [frame.index for frame in await get(served, _length_=9)] == [1, 2, 3]
    assert [frame.index for frame in await get(served, _index_=2, _length_=9)] == [2, 3]
    assert [frame.index for frame in await get(served, _index_=-1, _length_=9)] == [3]
    tagged = await get(served, color="red", _length_=9)
    assert [(frame.index, frame.tags["color"]) for frame in tagged] == [(1, "red"), (3, "red")]
    counts = [
        (await served.client.get(SINK, params={"_count_": "true", **tags})).text for tags in ({}, {"color": "red"})
    ]
    assert counts == ["3", "2"]
    assert (await served.client.get(SINK, params={"_count_": "true", "_priority_": "1"})).text == "0"


async def test_without_protobuf_results_are_json_with_base64(served: Served) -> None:
    (job_id,) = await served.put_drawn()
    reply = await served.client.get(SINK, params={"_raw_": "false"})
    (entry,) = reply.json()
    assert (entry["index"], entry["tags"]) == (1, {"requestId": job_id})
    assert json.loads(base64.b64decode(entry["data"]))["success"] == 1
    reply = await served.client.get(SINK, params={"_length_": "2"})
    message = "_length_: '2' is invalid: must be a whole number between 1 and 1"
    assert (reply.status_code, reply.json()["error_msg"]) == (460, message)


async def test_a_result_is_deleted_once_it_was_read_if_asked_to(served: Served) -> None:
    await served.put_drawn(2)
    assert [frame.index for frame in await get(served, _auto_delete_="false")] == [1]
    assert [frame.index for frame in await get(served, _auto_delete_="true")] == [1]
    assert [frame.index for frame in await get(served, _length_=9)] == [2]


async def test_results_are_deleted_committed_and_truncated(served: Served) -> None:
    await served.put_drawn(6)
    assert (await served.client.delete(SINK, params={"_indexes_": "2,99"})).text == "OK"
    await served.commit(3)
    assert [frame.index for frame in await get(served, _length_=9)] == [1, 4, 5, 6]
    await served.client.delete(SINK, params={"_index_": "5", "_trunc_": "true"})
    assert [frame.index for frame in await get(served, _length_=9)] == [5, 6]
    attributes = await served.attributes()
    names = ("meta.name", "stream.length", "stream.firstEntry", "stream.lastEntry")
    assert [attributes[name] for name in names] == ["draw_async/sink", "2", "5", "6"]


async def test_a_rejected_result_is_sent_again_until_it_is_undeliverable(served: Served) -> None:
    await served.put_drawn()
    query = {"_indexes_": "1", "_negative_": "true"}
    async with served.watch() as socket:
        for _ in range(MAX_DELIVERIES):
            assert read_frame(await received(socket)).index == 1
            form = {"_code_": "Shutdown", "_reason_": "not now"}
            assert (await served.client.put(SINK, params=query, data=form)).text == "OK"
    assert (await served.attributes())["stream.length"] == "0"
    reply = await served.client.put(SINK, params=query, data={"_code_": "no word"})
    message = "_code_: 'no word' is invalid: must be digits or words such as Shutdown, of at most 20 characters"
    assert (reply.status_code, reply.json()["error_msg"]) == (460, message)


async def test_the_place_of_a_result_is_found(served: Served) -> None:
    async def place(index: int) -> Any:
        reply = await served.client.get(SINK, params={"_search_": "true", "_index_": str(index)})
        return reply.json() if reply.status_code == 200 else reply.status_code

    await served.put_drawn(3)
    async with served.watch() as socket:
        await received(socket)
        assert await place(1) == {"IsPending": True, "WaitCount": 0, "ConsumerId": "eas.u"}
        assert await place(3) == {"IsPending": False, "WaitCount": 1, "ConsumerId": ""}
        assert await place(9) == 404
        attributes = await served.attributes()
    assert attributes["consumers.stats.total"] == "1"
    assert attributes["consumers.list.[0]"] == "Id: eas.u, Pending: 1, Status: Running, Window: 1, Slots: 0"
    assert attributes["groups.list.[0]"] == "Id: eas"


async def test_only_the_service_writes_the_sink(served: Served) -> None:
    reply = await served.client.post(SINK, content=b"abc")
    assert (reply.status_code, reply.json()["error_code"]) == (405, 460)
