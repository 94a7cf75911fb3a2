"""A runner claims, runs, reports, obeys and hands back."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.runner.conftest import FakeTriton, Fleet
from tests.waiting import WITHIN, until_async
from triton_diffusers.errors import StorageFailure
from triton_diffusers.gateway.jobs.errors import TableUnavailable
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.runner.execution import Execution
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.runner.triton import TritonError

pytestmark = pytest.mark.anyio


async def test_a_job_is_run_with_its_inputs_and_its_images_are_stored(fleet: Fleet, triton: FakeTriton) -> None:
    picture = base64.b64encode(b"a picture").decode()
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit(func_name="i2i", image_base64=picture, image_num=2, task_id="mine"))
    assert job.state is JobState.SUCCEEDED
    ((model, values, headers),) = triton.asked
    assert (model, headers) == ("ensemble", {"traceparent": "00-trace"})
    assert (values["task_id"], values["image_base64"], values["seed"]) == (job.id, picture.encode(), "7")
    assert (values["return_images"], values["store_images"], values["use_base64"]) == (True, False, False)
    assert job.result is not None
    assert [file["kind"] for file in job.result["files"]] == ["image", "image"]
    stored = fleet.files()
    assert [stored[file["name"]] for file in job.result["files"]] == [b"an apple 7 0", b"an apple 7 1"]
    assert len(stored) == 2
    (entry,) = await fleet.table.ledger(None)
    # Of what Triton says that it has drawn: the request has left steps and sizes to the model.
    assert (entry.bill.megapixel_steps, entry.bill.image_steps) == (pytest.approx(2 * 20 * 100 * 50 / 1e6), 2 * 20)
    assert entry.bill.engine_seconds == 2.0


async def test_no_id_or_priority_of_the_caller_reaches_triton(fleet: Fleet, triton: FakeTriton) -> None:
    async with fleet.runner(triton):
        first, second = await fleet.submit(task_id="same"), await fleet.submit(task_id="same")
        await fleet.ended(first)
        await fleet.ended(second)
    assert {values["task_id"] for _, values, _ in triton.asked} == {first.id, second.id}
    assert all(name not in values for _, values, _ in triton.asked for name in ("priority", "sequence_id"))


async def test_a_server_without_a_translator_gets_the_jobs_of_ensembles(fleet: Fleet, triton: FakeTriton) -> None:
    triton.ready = frozenset(("sd_base",))
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
        other = await fleet.submit(controlnet_path="a", image_link="https://a.example/b.png")
        await asyncio.sleep(0.3)
        assert (await fleet.table.get(None, other.id)).state is JobState.QUEUED
    assert job.state is JobState.SUCCEEDED
    assert [model for model, _, _ in triton.asked] == ["sd_base"]


async def test_no_more_images_are_claimed_than_the_window_has(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    jobs = [await fleet.submit(image_num=2) for _ in range(5)]
    async with fleet.runner(triton, max_images=4):
        await until_async(lambda: len(triton.running) == 2)
        await asyncio.sleep(0.3)
        assert len(triton.running) == 2
        triton.gate.set()
        for job in jobs:
            assert (await fleet.ended(job)).state is JobState.SUCCEEDED
    assert triton.most_images == 2


async def test_progress_and_wanted_previews_are_posted(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    job = await fleet.submit()
    async with fleet.runner(triton):
        await until_async(lambda: job.id in triton.running)
        await fleet.table.wait_for_events(None, job.id, 2, WITHIN)
        progress = (await fleet.table.get(None, job.id)).progress
        assert (progress.step, progress.steps) == (5, 10)
        assert await fleet.table.preview(None, job.id) is None
        await fleet.table.want_preview(None, job.id)
        async with asyncio.timeout(WITHIN):
            while (preview := await fleet.table.preview(None, job.id)) is None:
                await asyncio.sleep(0.05)
        assert (preview.data, preview.media_type) == (f"preview of {job.id}".encode(), "image/jpeg")
        triton.gate.set()
        await fleet.ended(job)


async def test_a_cancelled_job_is_stopped_on_triton_and_billed_for_its_steps(fleet: Fleet, triton: FakeTriton) -> None:
    triton.gate.clear()
    job = await fleet.submit()
    async with fleet.runner(triton):
        await fleet.table.wait_for_events(None, job.id, 2, WITHIN)
        await fleet.table.cancel(None, job.id)
        ended = await fleet.ended(job)
    assert (ended.state, triton.cancelled) == (JobState.CANCELLED, [job.id])
    (entry,) = await fleet.table.ledger(None)
    assert (entry.bill.megapixel_steps, entry.bill.image_steps) == (pytest.approx(job.work / 2), 5)
    assert fleet.files() == {}


async def test_images_of_a_job_that_was_cancelled_at_its_end_are_deleted(fleet: Fleet, triton: FakeTriton) -> None:
    job = await fleet.submit()

    def cancel_meanwhile(values: Mapping[str, Any]) -> None:
        fleet.table.store.cancel(None, job.id)

    triton.answer = cancel_meanwhile
    async with fleet.runner(triton):
        assert (await fleet.ended(job)).state is JobState.CANCELLED
    assert fleet.files() == {}


def raising(*errors: TritonError) -> Any:
    """Return an answer that raises the errors, one in each call, and then is none."""
    left = list(errors)

    def answer(values: Mapping[str, Any]) -> None:
        if left:
            raise left.pop(0)

    return answer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TritonError("INVALID_ARGUMENT", "lora_path: 'x' is invalid: it is not a LoRA"), 460),
        (TritonError("INVALID_ARGUMENT", "image_link: 'x' is invalid: it cannot be fetched"), 462),
        (TritonError("NOT_FOUND", "lora_path: 'x' does not exist"), 460),
        (TritonError("INTERNAL", "task failed; the server's log says why"), 469),
        (TritonError("CANCELLED", "the job was cancelled: its timeout of 1 s is over"), 469),
    ],
)
async def test_errors_of_requests_end_the_job(fleet: Fleet, triton: FakeTriton, error: TritonError, code: int) -> None:
    triton.answer = raising(error)
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.message, job.attempts) == (code, str(error), 1)


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (TritonError("UNAVAILABLE", "failed to connect to all addresses"), 2),
        (TritonError("INTERNAL", "Stub process 'sd_base_0_0' is not healthy."), 2),
        (TritonError("UNAVAILABLE", "128 requests wait already, the limit; send the request again later"), 1),
        (TritonError("UNAVAILABLE", "the engine has died and is recovering; send the request again later"), 1),
        (TritonError("UNAVAILABLE", "the engine has not come back in 60 s; send the request again later"), 2),
        (TritonError("NOT_FOUND", "Request for unknown model: 'sd_base' has no available versions"), 1),
    ],
)
async def test_errors_of_servers_queue_the_job_again(
    fleet: Fleet, triton: FakeTriton, error: TritonError, attempts: int
) -> None:
    triton.answer = raising(error)
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, attempts)


async def test_a_job_that_always_kills_its_server_is_given_up(fleet: Fleet, triton: FakeTriton) -> None:
    triton.answer = raising(*[TritonError("UNAVAILABLE", "Socket closed")] * 3)
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
    assert (job.state, job.attempts) == (JobState.DEAD, 3)
    assert job.error is not None
    assert job.error.message == "Socket closed"


async def test_nothing_is_claimed_while_triton_has_no_model(fleet: Fleet, triton: FakeTriton) -> None:
    triton.ready = frozenset()
    job = await fleet.submit()
    async with fleet.runner(triton):
        await asyncio.sleep(0.5)
        assert (await fleet.table.get(None, job.id)).attempts == 0
        triton.ready = frozenset(("ensemble", "sd_base"))
        assert (await fleet.ended(job)).state is JobState.SUCCEEDED


async def test_a_triton_that_dies_costs_its_job_one_attempt(fleet: Fleet, triton: FakeTriton) -> None:
    models = triton.ready

    def die(values: Mapping[str, Any]) -> None:
        if models == triton.ready and len(triton.asked) == 1:
            triton.ready = frozenset()
        if not triton.ready:
            raise TritonError("UNAVAILABLE", "Socket closed")

    triton.answer = die
    async with fleet.runner(triton):
        job = await fleet.submit()
        await asyncio.sleep(1.0)
        assert len(triton.asked) == 1
        triton.ready = models
        job = await fleet.ended(job)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)


async def test_a_runner_that_waits_says_so_once_and_then_rarely(
    fleet: Fleet, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("triton_diffusers.runner.runner.backoff", lambda *_, **__: 0.001)
    caplog.set_level(logging.INFO, "triton_diffusers.runner.runner")
    looks = 0

    async def models() -> frozenset[str]:
        nonlocal looks
        looks += 1
        raise TritonError("UNAVAILABLE", "failed to connect")

    monkeypatch.setattr(triton, "models", models)
    async with fleet.runner(triton):
        await until_async(lambda: looks > 160)
    said = [record.levelname for record in caplog.records if "waiting: Triton at fake:8001" in record.message]
    assert said[0] == "INFO"
    assert 2 <= len(said) <= 1 + looks // 75
    assert set(said[1:]) == {"WARNING"}


async def test_a_table_that_is_away_is_waited_for(fleet: Fleet, triton: FakeTriton) -> None:
    store, left = fleet.table.store, {"claim": 2, "inputs": 2, "renew": 1, "finish": 2, "forget_runner": 1}

    def failing(name: str) -> Any:
        method = getattr(store, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if left[name] > 0:
                left[name] -= 1
                raise TableUnavailable("the database is away")
            return method(*arguments, **keywords)

        return call

    for name in left:
        setattr(store, name, failing(name))
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
    assert job.state is JobState.SUCCEEDED
    assert {name for name, number in left.items() if number} <= {"renew"}


async def test_a_store_that_fails_queues_the_job_again(
    fleet: Fleet, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = fleet.store.save, [StorageFailure("the disk is broken")]

    def failing(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return save(*arguments)

    monkeypatch.setattr(fleet.store, "save", failing)
    async with fleet.runner(triton):
        job = await fleet.ended(await fleet.submit())
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)


async def test_what_is_left_of_a_timeout_reaches_triton(fleet: Fleet, triton: FakeTriton) -> None:
    job = await fleet.submit(timeout_seconds=3000)
    await asyncio.sleep(0.3)
    async with fleet.runner(triton):
        await fleet.ended(job)
    ((_, values, _),) = triton.asked
    assert 3000 - WITHIN < values["timeout_seconds"] < 2999.8


async def test_a_job_claimed_just_before_its_model_went_away_is_sent_all_the_same(
    fleet: Fleet, triton: FakeTriton
) -> None:
    job = await fleet.submit(model="sd_base")
    (claim,) = await fleet.table.claim("one", "default", ["sd_base"], 4)
    await Execution(claim, fleet.table, triton, ResultWriter(fleet.store, 0)).run(frozenset())  # type: ignore[arg-type]
    assert [model for model, _, _ in triton.asked] == ["sd_base"]
    assert (await fleet.ended(job)).state is JobState.SUCCEEDED
