"""The input queue: putting, priorities, tags, places, deletion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway
from tests.unit.gateway.eas.conftest import SERVICE
from tests.unit.gateway.eas.wire import read_attributes
from triton_diffusers.gateway.dialects.eas.frames import PROTOBUF
from triton_diffusers.gateway.jobs.job import JobState

pytestmark = pytest.mark.anyio

ID = "X-Eas-Queueservice-Request-Id"


async def put(gateway: Gateway, query: str = "", headers: Any = None, **fields: Any) -> tuple[int, str]:
    """Queue a request; return its index and its id."""
    reply = await gateway.client.post(
        f"{SERVICE}{query}", json={"prompt": "an apple", "seed": 7, **fields}, headers=headers
    )
    assert reply.status_code == 200, reply.text
    return int(reply.text), reply.headers[ID]


async def get(gateway: Gateway, query: str) -> Any:
    reply = await gateway.client.get(f"{SERVICE}?{query}")
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_request_is_answered_with_its_place_in_the_queue(gateway: Gateway) -> None:
    reply = await gateway.client.post(SERVICE, content='{"task_id": "t", "prompt": "a", "seed": "7"}')
    job = await gateway.table.get(None, reply.headers[ID])
    assert reply.text == str(job.number)
    assert reply.headers["content-type"].startswith("text/plain")
    assert (job.label, job.dialect, job.request["fields"]["seed"]) == ("t", "eas", "7")


async def test_equal_requests_are_jobs_of_their_own_unless_they_have_a_key(gateway: Gateway) -> None:
    assert await put(gateway) != await put(gateway)
    key = {"Idempotency-Key": "k"}
    assert await put(gateway, headers=key) == await put(gateway, headers=key)


async def test_prioritised_requests_go_first(gateway: Gateway) -> None:
    header = (await get(gateway, "_attrs_=true"))["meta.header.priority"]
    ids = [(await put(gateway))[1], (await put(gateway, "?_priority_=1"))[1]]
    ids.append((await put(gateway, headers={header: "2"}))[1])
    assert [(await gateway.draw()).id for _ in range(3)] == ids[::-1]
    reply = await gateway.client.post(f"{SERVICE}?_priority_=101", json={"prompt": "a"})
    message = "_priority_: '101' is invalid: must be a whole number between 0 and 100"
    assert (reply.status_code, reply.json()["error_msg"]) == (460, message)


async def test_tags_are_kept_and_counted(gateway: Gateway) -> None:
    _, job_id = await put(gateway, "?color=red&_priority_=1&size=a")
    await put(gateway, "?color=blue")
    assert (await gateway.table.get(None, job_id)).tags == {"color": "red", "size": "a"}
    counts = {"": 2, "&color=red": 1, "&color=green": 0, "&_priority_=1": 1, "&_priority_=0": 1, "&_priority_=2": 0}
    for query, count in counts.items():
        assert await get(gateway, f"_count_=true{query}") == count


async def test_the_state_of_the_queue_is_told(gateway: Gateway) -> None:
    empty = await get(gateway, "_attrs_=true")
    assert empty["stream.length"] == "0"
    assert "stream.lastEntry" not in empty
    indexes = [(await put(gateway))[0] for _ in range(3)]
    await gateway.submit()
    reply = await gateway.client.get(f"{SERVICE}?_attrs_=true", headers={"Accept": PROTOBUF})
    assert reply.headers["content-type"] == PROTOBUF
    assert read_attributes(reply.content) == {
        "meta.backend": "triton-diffusers",
        "meta.name": "draw_async",
        "meta.state": "OK",
        "meta.maxPayloadBytes": "96000000",
        "meta.header.user": "X-EAS-QueueService-Redis-Uid",
        "meta.header.group": "X-EAS-QueueService-Redis-Gid",
        "meta.header.priority": "X-EAS-QueueService-Redis-Priority",
        "stream.approxMaxLength": "1000",
        "stream.length": "3",
        "stream.firstEntry": str(indexes[0]),
        "stream.lastEntry": str(indexes[-1]),
    }
    await gateway.draw()
    assert (await get(gateway, "_attrs_=true"))["stream.length"] == "2"


async def test_the_place_of_a_request_is_found(gateway: Gateway) -> None:
    await gateway.submit()
    (first, _), (second, _) = [await put(gateway) for _ in range(2)]
    assert await get(gateway, f"_search_=true&_index_={second}") == {"IsPending": False, "WaitCount": 2}
    await gateway.draw()
    await gateway.claim()
    assert await get(gateway, f"_search_=true&_index_={first}") == {"IsPending": True, "WaitCount": 0}
    reply = await gateway.client.get(f"{SERVICE}?_search_=true&_index_=99")
    assert (reply.status_code, reply.json()["error_msg"]) == (404, "_index_: no entry 99 is in the queue")


async def test_deleted_requests_are_cancelled(gateway: Gateway) -> None:
    entries = [await put(gateway) for _ in range(5)]
    other = await gateway.submit()
    reply = await gateway.client.delete(f"{SERVICE}?_indexes_={entries[4][0]},{entries[2][0]}")
    assert (reply.status_code, reply.text) == (200, "OK")
    await gateway.client.delete(f"{SERVICE}?_index_={entries[1][0]}&_trunc_=true")
    states = [(await gateway.table.get(None, job_id)).state for _, job_id in entries]
    cancelled, queued = JobState.CANCELLED, JobState.QUEUED
    assert states == [cancelled, queued, cancelled, queued, cancelled]
    assert (await gateway.table.get(None, other["id"])).state is queued


@pytest.mark.parametrize(
    ("method", "query"), [("GET", ""), ("GET", "?requestId=x"), ("PUT", "?_indexes_=1"), ("POST", "?_eos_=true")]
)
async def test_only_the_service_reads_and_ends_the_queue(gateway: Gateway, method: str, query: str) -> None:
    reply = await gateway.client.request(method, f"{SERVICE}{query}")
    assert (reply.status_code, reply.json()["error_code"]) == (405, 460)


async def test_queues_of_services_are_apart(gateway: Gateway) -> None:
    await put(gateway)
    reply = await gateway.client.get("/api/predict/other_async?_attrs_=true")
    assert reply.json()["stream.length"] == "0"
