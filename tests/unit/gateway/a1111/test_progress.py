"""Progress, interruption and tasks: of the caller's own jobs."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from tests.unit.gateway.a1111.calls import PROGRESS, encoded, posted
from tests.unit.gateway.conftest import Gateway, ended, report
from triton_diffusers.gateway.jobs.job import Blob, JobState, Progress

pytestmark = pytest.mark.anyio

IDLE = {
    "progress": 0.0,
    "eta_relative": 0.0,
    "state": {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "",
        "job_count": 0,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    },
    "current_image": None,
    "textinfo": None,
}


async def progress(gateway: Gateway, query: str = "") -> dict[str, Any]:
    return dict((await gateway.client.get(f"{PROGRESS}{query}")).json())


async def task(gateway: Gateway, name: str, **fields: Any) -> dict[str, Any]:
    return dict((await gateway.client.post("/internal/progress", json={"id_task": name, **fields})).json())


async def queued_jobs(gateway: Gateway, number: int) -> None:
    """Wait until jobs have been accepted."""
    async with asyncio.timeout(60):
        while len((await gateway.table.jobs(None, [JobState.QUEUED])).jobs) < number:
            await asyncio.sleep(0.01)


async def test_an_idle_caller_sees_no_job_of_other_interfaces(gateway: Gateway) -> None:
    await gateway.submit()
    assert await progress(gateway) == IDLE


async def test_a_running_job_is_shown_with_a_preview(gateway: Gateway) -> None:
    waiting = [posted(gateway), posted(gateway)]
    claim = await gateway.claim()
    assert (await progress(gateway))["current_image"] is None
    signals = await report(gateway, claim, progress=Progress(step=5, steps=20))
    assert signals.previews_wanted == [claim.job.id]
    await report(gateway, claim, preview=Blob(data=b"preview", media_type="image/jpeg"))
    shown = await progress(gateway)
    assert shown.keys() == IDLE.keys()
    assert shown["progress"] == 0.25
    assert shown["eta_relative"] >= 0
    state = shown["state"]
    assert state.keys() == IDLE["state"].keys()  # type: ignore[attr-defined]
    assert (state["job"], state["sampling_step"], state["sampling_steps"]) == (claim.job.id, 5, 20)
    assert state["job_count"] in (1, 2)
    assert base64.b64decode(shown["current_image"]) == b"preview"
    assert (await progress(gateway, "?skip_current_image=true"))["current_image"] is None
    await gateway.finish(claim, [encoded()])
    await gateway.draw([encoded()])
    for each in waiting:
        await ended(each)
    assert await progress(gateway) == IDLE


async def test_skip_cancels_one_job_and_interrupt_all_of_them(gateway: Gateway) -> None:
    other = await gateway.submit()
    waiting = [posted(gateway) for _ in range(3)]
    jobs = gateway.table.jobs
    await queued_jobs(gateway, 4)
    assert (await gateway.client.post("/sdapi/v1/skip")).json() == {}
    assert len((await jobs(None, [JobState.CANCELLED])).jobs) == 1
    assert (await gateway.client.post("/sdapi/v1/interrupt")).json() == {}
    assert len((await jobs(None, [JobState.CANCELLED])).jobs) == 3
    assert (await gateway.table.get(None, other["id"])).state is JobState.QUEUED
    for each in waiting:
        assert (await ended(each)).json()["images"] == []


async def test_a_task_is_followed_by_its_callers_id(gateway: Gateway) -> None:
    name = "task(txt2img-ABC)"
    unknown = await task(gateway, name)
    assert (unknown["active"], unknown["queued"], unknown["completed"]) == (False, False, False)
    waiting = [posted(gateway, force_task_id=name), posted(gateway, force_task_id="b")]
    await queued_jobs(gateway, 2)
    pending = (await gateway.client.get("/internal/pending-tasks")).json()
    assert (pending["size"], set(pending["tasks"])) == (2, {name, "b"})
    queued = await task(gateway, name)
    assert (queued["queued"], queued["active"], queued["textinfo"][:10]) == (True, False, "In queue: ")
    for _ in range(2):
        claim = await gateway.claim()
        if claim.job.tags == {"task": name}:
            await report(gateway, claim, preview=Blob(data=b"preview", media_type="image/jpeg"))
            active = await task(gateway, name)
            assert active["live_preview"] == f"data:image/jpeg;base64,{base64.b64encode(b'preview').decode()}"
            assert (await task(gateway, name, id_live_preview=active["id_live_preview"]))["live_preview"] is None
            assert (await task(gateway, name, live_preview=False))["live_preview"] is None
        await gateway.finish(claim, [encoded()])
    for each in waiting:
        await ended(each)
    done = await task(gateway, name)
    assert (done["completed"], done["active"], done["queued"]) == (True, False, False)
    assert (await gateway.client.get("/internal/ping")).json() == {}
