"""Watching a sink: windows, groups, take-overs, redelivery."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.unit.gateway.eas.conftest import SERVICE, SINK, Served, received
from tests.unit.gateway.eas.wire import read_frame
from tests.waiting import WITHIN

pytestmark = pytest.mark.anyio


async def indexes(socket: Any, count: int) -> list[int]:
    """Return the indexes of the next messages."""
    return [read_frame(await received(socket)).index for _ in range(count)]


async def is_silent(served: Served, socket: Any) -> bool:
    """Return True if nothing has been sent to a socket, although the gateway has answered a ping since."""
    await asyncio.wait_for(await socket.ping(), WITHIN)
    try:
        await asyncio.wait_for(socket.recv(), 0.3)
    except TimeoutError:
        return True
    return False


async def test_results_are_sent_as_they_appear(served: Served) -> None:
    async with served.watch() as socket:
        for number in (1, 2, 3):
            _, job_id = await served.put(task_id=str(number))
            await served.draw()
            frame = read_frame(await received(socket))
            assert (frame.index, frame.tags) == (number, {"requestId": job_id})
            assert frame.reply["task_id"] == str(number)
            assert frame.reply["image_url"][0].startswith(f"http://localhost:{served.port}/api/jobs/{job_id}/images/")
            await served.commit(frame.index)
    assert (await served.attributes())["stream.length"] == "0"


async def test_a_window_bounds_what_is_not_committed(served: Served) -> None:
    await served.put_drawn(4)
    async with served.watch(_window_=2) as socket:
        assert await indexes(socket, 2) == [1, 2]
        assert await is_silent(served, socket)
        await served.commit(1)
        assert await indexes(socket, 1) == [3]
        await served.commit(2, 3)
        assert await indexes(socket, 1) == [4]


async def test_committing_on_sending_ignores_the_window(served: Served) -> None:
    await served.put_drawn(3)
    async with served.watch(_auto_commit_="true") as socket:
        assert await indexes(socket, 3) == [1, 2, 3]
        while (await served.attributes())["stream.length"] != "0":
            await asyncio.sleep(0.02)


async def test_results_that_were_not_committed_are_sent_again(served: Served) -> None:
    await served.put_drawn(2)
    async with served.watch(_window_=2) as socket:
        assert await indexes(socket, 2) == [1, 2]
        await served.commit(1)
        socket.transport.abort()  # as a killed process or the SDK's close does
    async with served.watch(uid="other") as socket:
        assert await indexes(socket, 1) == [2]


async def test_a_new_connection_takes_the_place_of_an_old_one(served: Served) -> None:
    await served.put_drawn(2)
    async with served.watch() as old:
        assert await indexes(old, 1) == [1]
        async with served.watch() as new:
            assert await indexes(new, 1) == [1]
            with pytest.raises(ConnectionClosed) as closed:
                await received(old)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            await served.commit(1)
            assert await indexes(new, 1) == [2]


async def test_a_group_shares_results_and_each_group_gets_all(served: Served) -> None:
    async with (
        served.watch(uid="one") as one,
        served.watch(uid="two") as two,
        served.watch(uid="one", gid="others", _window_=2) as other,
    ):
        await served.put_drawn(2)
        shared = [await indexes(socket, 1) for socket in (one, two)]
        assert sorted(shared) == [[1], [2]]
        assert await indexes(other, 2) == [1, 2]
        await served.commit(1, 2)
        assert (await served.attributes())["stream.length"] == "2"
        await served.commit(1, 2, gid="others")
        assert (await served.attributes())["stream.length"] == "0"


async def test_a_watch_may_ask_for_some_results_only(served: Served) -> None:
    for color in ("red", "blue", "red"):
        await served.client.post(f"{SERVICE}?color={color}", json={"prompt": "a"})
        await served.draw()
    async with served.watch(color="red", _window_=9) as socket:
        assert await indexes(socket, 2) == [1, 3]
    async with served.watch(_index_=3, _index_only_="true") as socket:
        frame = read_frame(await received(socket))
        assert (frame.index, frame.data, frame.tags["color"]) == (3, b"", "red")
    async with served.watch(_index_=-1, _window_=9) as socket:
        while "Running" not in (await served.attributes())["consumers.list.[0]"]:
            await asyncio.sleep(0.02)
        await served.put_drawn()
        assert await indexes(socket, 1) == [4]


async def test_a_watch_over_plain_http_is_a_stream_of_frames(served: Served) -> None:
    await served.put_drawn()
    query = {"_watch_": "true", "_window_": "5"}
    headers = {"Accept": "application/vnd.google.protobuf"}

    async def next_frame(parts: Any) -> int:
        buffer = bytearray()
        while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "big"):
            buffer += await asyncio.wait_for(anext(parts), WITHIN)
        assert len(buffer) == 4 + int.from_bytes(buffer[:4], "big")
        return read_frame(bytes(buffer[4:])).index

    async with served.client.stream("GET", SINK, params=query, headers=headers) as stream:
        parts = stream.aiter_raw()
        assert await next_frame(parts) == 1
        await served.put_drawn()
        assert await next_frame(parts) == 2
        await parts.aclose()
    while "Running" in (await served.attributes())["consumers.list.[0]"]:
        await asyncio.sleep(0.02)
    async with served.watch(_window_=5) as socket:
        assert await indexes(socket, 2) == [1, 2]


@pytest.mark.parametrize("gateway_settings", [{"services": "draw_async=:async:NDJk"}])
async def test_a_refused_watch_has_a_status(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    for headers, status in (({}, 401), ({"Authorization": "NDJk", "Origin": "http://evil.example"}, 403)):
        with pytest.raises(InvalidStatus) as refused:
            async with served.watch(headers=headers):
                pass
        assert refused.value.response.status_code == status
    async with served.watch(headers={"Authorization": "NDJk"}):
        pass
    with pytest.raises(InvalidStatus) as refused:
        async with served.watch(headers={"Authorization": "NDJk"}, _window_="many"):
            pass
    assert refused.value.response.status_code == 400
    assert b"_window_: 'many' is invalid" in (refused.value.response.body or b"")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("gateway_settings", [{"header_seconds": 3.0}])
async def test_a_watch_outlives_the_time_for_headers(served: Served) -> None:
    async with served.watch() as socket:
        await asyncio.sleep(3.5)
        await served.put_drawn()
        assert await indexes(socket, 1) == [1]


async def test_watches_are_counted(served: Served) -> None:
    async with served.watch():
        page = (await served.client.get("/metrics")).text
    assert f'sd_gateway_requests_total{{route="{SINK.replace("draw_async", "{name}")}",status="101"}} 1.0' in page
