"""The table for asyncio: waiting for events, ends and work, on both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, Table, new_job
from tests.waiting import WITHIN, until_async
from triton_diffusers.gateway.jobs.errors import JobNotFound, TableUnavailable
from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import JobState, Progress, Report
from triton_diffusers.gateway.jobs.table import JobTable

LONG = 2 * WITHIN  # seconds that a wait takes which hears of nothing


def run(store: JobStore, test: Callable[[JobTable], Coroutine[Any, Any, None]]) -> None:
    """Run a test with the table of a store, which it closes."""

    async def main() -> None:
        table = JobTable(store)
        try:
            await test(table)
        finally:
            await table.close()

    asyncio.run(main())


async def _seconds(awaitable: Awaitable[object]) -> float:
    before = time.monotonic()
    await awaitable
    return time.monotonic() - before


def test_waiters_hear_of_what_another_process_does(open_table: Callable[..., Table]) -> None:
    other = open_table()

    async def test(table: JobTable) -> None:
        claiming = asyncio.create_task(table.wait_for_claim("r", "default", [MODEL], 1, LONG))
        await asyncio.sleep(0.3)
        job = await asyncio.to_thread(other.submit)
        (claim,) = await claiming
        ending = asyncio.create_task(table.wait_for_end("ann", job.id, LONG))
        streaming = asyncio.create_task(table.wait_for_events("ann", job.id, 2, LONG))
        await asyncio.sleep(0.3)
        report = Report(lease=claim.lease, progress=Progress(step=1, steps=2))
        await asyncio.to_thread(other.store.renew, [report])
        assert [event.kind for event in await streaming] == ["progress"]
        assert not ending.done()
        await asyncio.to_thread(other.store.finish, claim.lease, RESULT, BILL)
        assert (await ending).state == JobState.SUCCEEDED

    before = time.monotonic()
    run(open_table().store, test)
    assert time.monotonic() - before < WITHIN


def test_consumers_hear_of_entries_that_another_process_appends(open_table: Callable[..., Table]) -> None:
    other = open_table()
    sinks = other.store.sinks
    consumer = sinks.connect("ann/a", "g", "c", 5)

    async def test(table: JobTable) -> None:
        waiting = asyncio.create_task(table.wait_for_some(LONG, table.store.sinks.take, consumer))
        job = await asyncio.to_thread(other.submit, sink="ann/a")
        assert job.sink == "ann/a"
        (waits,) = await table.in_flight("ann", "ann/a")
        assert (waits.id, waits.number, waits.state) == (job.id, job.number, JobState.QUEUED)
        assert await table.in_flight("ann", "ann/b") == await table.in_flight("bob", "ann/a") == []
        claim = await asyncio.to_thread(other.claim_one)
        await asyncio.to_thread(other.store.finish, claim.lease, RESULT, BILL)
        assert [entry.job_id for entry in await waiting] == [job.id]
        assert await table.in_flight("ann", "ann/a") == []
        assert await table.wait_for_some(0.2, table.store.sinks.take, consumer) == []

    run(open_table().store, test)


def test_waits_end_when_their_time_is_over(open_table: Callable[..., Table]) -> None:
    async def test(table: JobTable) -> None:
        (submitted,) = await table.submit("ann", [new_job(model="other")])
        job_id = submitted.job.id
        assert (await table.wait_for_end("ann", job_id, 0.2)).state == JobState.QUEUED
        assert await table.wait_for_events("ann", job_id, 1, 0.2) == []
        assert await table.wait_for_claim("r", "default", [MODEL], 1, 0.2) == []
        assert [event.number for event in await table.wait_for_events("ann", job_id, 0, LONG)] == [1]
        with pytest.raises(JobNotFound):
            await table.wait_for_end("bob", job_id, LONG)

    run(open_table().store, test)


def test_waiting_for_a_deleted_job_ends(open_table: Callable[..., Table]) -> None:
    async def test(table: JobTable) -> None:
        (submitted,) = await table.submit("ann", [new_job()])
        await table.cancel("ann", submitted.job.id)
        waiting = asyncio.create_task(table.wait_for_events("ann", submitted.job.id, 2, LONG))
        await asyncio.sleep(0.1)
        await table.delete("ann", submitted.job.id)
        with pytest.raises(JobNotFound):
            await waiting

    run(open_table().store, test)


def test_many_waiters_cost_one_query_for_each_change(
    open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_table().store
    asked: list[int] = []
    numbers = store.event_numbers

    def counted(job_ids: Any) -> Any:
        asked.append(len(job_ids))
        return numbers(job_ids)

    monkeypatch.setattr(store, "event_numbers", counted)

    async def test(table: JobTable) -> None:
        submitted = await table.submit("ann", [new_job() for _ in range(30)])
        ids = [item.job.id for item in submitted]
        waits = [asyncio.create_task(table.wait_for_events("ann", job_id, 1, LONG)) for job_id in ids]
        await until_async(lambda: 30 in asked, "one query for all")
        asked.clear()
        for job_id in ids[:10]:
            await table.cancel("ann", job_id)
        await asyncio.wait_for(asyncio.gather(*waits[:10]), WITHIN)
        assert not any(wait.done() for wait in waits[10:])
        for wait in waits[10:]:
            wait.cancel()

    run(store, test)
    assert len(asked) < 100, "not one for each waiter and change"


def test_waiters_outlive_a_failure_of_the_database(
    open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_table().store
    numbers = store.event_numbers
    failing = [True]

    def fails_once(job_ids: Any) -> Any:
        if failing:
            failing.pop()
            raise TableUnavailable("down")
        return numbers(job_ids)

    monkeypatch.setattr(store, "event_numbers", fails_once)

    async def test(table: JobTable) -> None:
        (submitted,) = await table.submit("ann", [new_job()])
        waiting = asyncio.create_task(table.wait_for_end("ann", submitted.job.id, LONG))
        await asyncio.sleep(0.2)
        await table.cancel("ann", submitted.job.id)
        assert await _seconds(waiting) < WITHIN

    run(store, test)
    assert "down" in caplog.text
