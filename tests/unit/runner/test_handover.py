"""Runners that stop or are killed, and those that take their jobs over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.runner.conftest import FakeTriton, Fleet
from tests.waiting import WITHIN, until_async
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.runner.triton import TritonError

pytestmark = pytest.mark.anyio


async def test_a_stopped_runner_finishes_what_ends_in_time(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    job = await fleet.submit()
    async with fleet.runner(triton, exit_seconds=WITHIN) as stopping:
        await until_async(lambda: job.id in triton.running)
        stopping.set()
        await asyncio.sleep(0.1)
        triton.gate.set()
        assert (await fleet.ended(job)).state is JobState.SUCCEEDED


async def test_a_stopped_runner_hands_back_what_does_not(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    job = await fleet.submit()
    async with fleet.runner(triton):
        await until_async(lambda: job.id in triton.running)
    found = await fleet.table.get(None, job.id)
    assert (found.state, found.attempts, triton.cancelled) == (JobState.QUEUED, 0, [job.id])


async def test_a_second_runner_makes_the_same_images_under_the_same_names(fleet: Fleet, triton: FakeTriton) -> None:
    job = await fleet.submit(image_num=2)
    finish = fleet.table.store.finish

    def die_once(*arguments: Any) -> Any:
        """Store the images, and lose the lease before the end is written, as a kill would."""
        fleet.table.store.finish = finish  # type: ignore[method-assign]
        fleet.table.store.forget_runner("one")
        return finish(*arguments)

    fleet.table.store.finish = die_once  # type: ignore[method-assign]
    async with fleet.runner(triton, "one"):
        await until_async(lambda: len(fleet.files()) == 2)
        first = fleet.files()
        ended = await fleet.ended(job)
    assert (ended.state, ended.attempts) == (JobState.SUCCEEDED, 2)
    assert fleet.files() == first
    assert len(await fleet.table.ledger(None)) == 1


async def test_a_killed_runners_jobs_are_taken_up_at_its_next_start(fleet: Fleet, triton: FakeTriton) -> None:
    job = await fleet.submit()
    (claim,) = await fleet.table.claim("one", "default", ["ensemble"], 4)
    async with fleet.runner(triton, "one"):
        assert (await fleet.ended(job)).state is JobState.SUCCEEDED
    # What the killed one had left on Triton was ended first.
    assert set(triton.cancelled) == {claim.job.id}
    assert triton.cancelled_before_draws == {claim.job.id}


async def test_a_killed_runners_jobs_are_ended_on_triton_whoever_runs_them_next(
    fleet: Fleet, triton: FakeTriton
) -> None:
    """They may be dead, cancelled, or another runner's by now; Triton would draw them all the same."""
    job = await fleet.submit()
    for attempt in range(3):
        (claim,) = await fleet.table.claim("one", "default", ["ensemble"], 4)
        if attempt < 2:
            await fleet.table.forget_runner("one")
    triton.running[claim.job.id] = left = asyncio.Event()
    async with fleet.runner(triton, "one"):
        await until_async(left.is_set)
    assert (await fleet.ended(job)).state is JobState.DEAD
    assert triton.asked == []


async def test_nothing_is_claimed_before_a_former_runs_jobs_are_ended(fleet: Fleet, triton: FakeTriton) -> None:
    await fleet.submit()
    await fleet.table.claim("one", "default", ["ensemble"], 4)
    other = await fleet.submit()
    failures = [TritonError("UNAVAILABLE", "failed to connect")] * 2
    cancel = triton.cancel

    async def failing(task_id: str) -> bool:
        if failures:
            assert not triton.asked
            raise failures.pop()
        return await cancel(task_id)

    triton.cancel = failing  # type: ignore[method-assign]
    async with fleet.runner(triton, "one"):
        assert (await fleet.ended(other)).state is JobState.SUCCEEDED
    assert not failures


async def test_a_lost_lease_drops_the_job(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    job = await fleet.submit()
    async with fleet.runner(triton, "one", pool="default"):
        await until_async(lambda: job.id in triton.running)
        await fleet.table.forget_runner("one")
        await until_async(lambda: job.id in triton.cancelled)
