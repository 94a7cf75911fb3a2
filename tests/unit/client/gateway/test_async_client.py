"""The asynchronous client at the real gateway, whose jobs the test itself runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx2
import pytest

from tests.unit.gateway.conftest import Gateway, anyio_backend, gateway, gateway_settings, report  # noqa: F401
from triton_diffusers.gateway.jobs.job import Progress as Report
from triton_diffusers_client import (
    AsyncClient,
    CancelledError,
    Interface,
    InvalidRequestError,
    JobState,
    NotFoundError,
    RequestTimeoutError,
    ServerError,
    async_client,
)
from triton_diffusers_client.gateway.async_driver import AsyncDriver

pytestmark = pytest.mark.anyio

WITHIN = 60.0  # seconds; generous, for loaded machines


@pytest.fixture
async def client(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:  # noqa: F811
    app = gateway.client._transport  # type: ignore[attr-defined]
    monkeypatch.setattr(async_client, "AsyncDriver", lambda netloc: AsyncDriver(netloc, app))
    async with AsyncClient("http://gateway", retries=0, timeout=WITHIN) as made:
        yield made


async def test_a_gateway_is_recognised_and_draws(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    assert await client.interface() is Interface.GATEWAY
    waiting = asyncio.create_task(client.generate("an apple", seed=7, image_num=2, width=64, task_id="mine"))
    await gateway.draw([b"first", b"second"], is_nsfw=[False, True])
    generation = await asyncio.wait_for(waiting, WITHIN)
    assert [(image.data, image.seed, image.is_nsfw) for image in generation.images] == [
        (b"first", 7, False),
        (b"second", 8, True),
    ]
    assert (generation.task_id, generation.prompt, generation.run_seconds) == ("mine", "an apple", 1.5)
    assert generation.warnings == ("a warning of the model",)
    job = await client.job(generation.job_id)
    assert (await job.result()).images == generation.images
    assert gateway.drawn == []


async def test_fields_arrive_as_they_were_given(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    job = await client.submit(
        "an apple", control_image=b"one", control_scale=0.5, priority=3, lora_path="a", timeout=50
    )
    claim = await gateway.claim()
    assert (claim.job.model, claim.job.priority, claim.job.label) == ("ensemble_controlnet", 3, job.task_id)
    fields: Mapping[str, object] = claim.job.request["fields"]
    assert (fields["control_scale"], fields["lora_path"], fields["timeout_seconds"]) == ([0.5], ["a"], 50)
    inputs = await gateway.table.inputs(claim.job.id)
    assert {name: blob.data for name, blob in inputs.items()} == {"control_image_base64/0": b"b25l"}


async def test_progress_ends_with_the_job(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    job = await client.submit("an apple", image_num=2)
    seen = []

    async def follow() -> None:
        async for now in job.progress():
            seen.append((now.state, now.step, now.steps, now.images_done, now.image_num))

    following = asyncio.create_task(follow())
    claim = await gateway.claim()
    await report(gateway, claim, progress=Report(step=3, steps=10))
    await gateway.finish(claim)
    await asyncio.wait_for(following, WITHIN)
    assert seen[0][0] in (JobState.QUEUED, JobState.RUNNING)
    assert seen[-1][0] is JobState.SUCCEEDED
    assert {row[-1] for row in seen} == {2}


async def test_a_queued_job_tells_its_place(client: AsyncClient) -> None:
    await client.submit("an apple")
    second = await client.submit("an apple")
    status = await second.status()
    assert (status.state, status.position, status.image_num) == (JobState.QUEUED, 1, 1)
    assert not await second.done()
    assert not await second.wait(0.01)
    with pytest.raises(RequestTimeoutError, match=f"^job {second.id} is not done after 0.01 s$"):
        await second.result(0.01)


async def test_a_job_is_found_by_its_label(client: AsyncClient) -> None:
    await client.submit("an apple", task_id="mine")
    newest = await client.submit("an apple", task_id="mine")
    assert (await client.job("mine")).id == newest.id
    assert (await client.progress("mine")).id == newest.id
    assert (await client.cancel("mine")).state is JobState.QUEUED
    assert (await newest.status()).state is JobState.CANCELLED
    with pytest.raises(CancelledError):
        await newest.result()
    with pytest.raises(NotFoundError, match="'nobody'"):
        await client.job("nobody")


async def test_jobs_are_listed_over_several_pages(
    client: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("triton_diffusers_client.gateway.session._PAGE", 2)
    ids = [(await client.submit("an apple", task_id=f"t-{number % 2}")).id for number in range(5)]
    assert [job.id for job in await client.jobs()] == ids[::-1]
    assert [job.id for job in await client.jobs(limit=3)] == ids[:1:-1]
    assert [job.id for job in await client.jobs(task_id="t-1", states="queued")] == [ids[3], ids[1]]
    assert await client.jobs(states=["succeeded", "dead"]) == []
    with pytest.raises(ValueError, match=r"^states: 'asleep' is invalid: it must be one of queued, "):
        await client.jobs(states="asleep")


async def test_a_batch_is_accepted_as_a_whole_and_ends_in_any_order(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    with pytest.raises(InvalidRequestError) as caught:
        await client.submit_many(["an apple", {"prompt": "a pear", "steps": 900}])
    assert (caught.value.field, caught.value.value) == ("jobs[1].steps", "900")
    assert await client.jobs() == []
    jobs = await client.submit_many(["an apple", {"prompt": "a pear", "priority": 5}, "a plum"], steps=3)
    ended = client.as_completed(jobs)
    await gateway.draw([b"pear"])
    first = await asyncio.wait_for(anext(ended), WITHIN)
    assert first.id == jobs[1].id
    assert (await first.result()).images[0].data == b"pear"
    await gateway.draw()
    await gateway.draw()
    assert {job.id async for job in ended} == {jobs[0].id, jobs[2].id}
    late = client.as_completed([await client.submit("an apple")], timeout=0.01)
    with pytest.raises(RequestTimeoutError, match=r"^1 jobs are not done after 0.01 s$"):
        await anext(late)


async def test_a_deleted_job_is_gone(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    job = await client.submit("an apple")
    with pytest.raises(InvalidRequestError):
        await job.delete()
    await gateway.draw()
    await job.delete()
    with pytest.raises(NotFoundError):
        await job.status()
    assert list(gateway.store_folder.rglob("*.png")) == []


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (460, "steps: 5 is invalid: no", InvalidRequestError),
        (462, "image: 'x' is invalid: it is not an image", InvalidRequestError),
        (469, "the engine failed", ServerError),
        (469, "cancelled: its timeout of 5 s is over (timeout_seconds)", RequestTimeoutError),
    ],
)
async def test_a_failed_job_raises_its_error(
    client: AsyncClient,
    gateway: Gateway,  # noqa: F811
    code: int,
    message: str,
    kind: type[Exception],
) -> None:
    job = await client.submit("an apple")
    await gateway.fail(message, code)
    with pytest.raises(kind) as caught:
        await job.result()
    assert (type(caught.value), str(caught.value)) == (kind, message)
    assert (await job.status()).error_msg == message


async def test_an_invalid_field_is_told_with_value_and_rule(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate("an apple", steps=900)
    error = caught.value
    assert (error.field, error.value, error.rule) == ("steps", "900", "must be between 1 and 150")


async def test_a_cancelled_task_cancels_its_job(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    task = asyncio.create_task(client.generate("an apple"))
    await gateway.claim()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, WITHIN)
    (job,) = (await gateway.client.get("/api/jobs")).json()["jobs"]
    assert job["cancel_requested"]


async def test_a_job_whose_time_is_over_is_cancelled(client: AsyncClient, gateway: Gateway) -> None:  # noqa: F811
    with pytest.raises(RequestTimeoutError):
        await client.generate("an apple", timeout=0.5)
    jobs = (await gateway.client.get("/api/jobs")).json()["jobs"]
    assert [job["state"] for job in jobs] in ([], ["cancelled"], ["expired"])


async def test_a_closed_client_says_so(client: AsyncClient) -> None:
    await client.jobs()
    await client.close()
    with pytest.raises(Exception, match="the client is closed"):
        await client.jobs()


async def test_a_server_that_is_neither_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page = httpx2.MockTransport(lambda request: httpx2.Response(200, html="<h1>hello</h1>"))
    monkeypatch.setattr(async_client, "AsyncDriver", lambda netloc: AsyncDriver(netloc, page))
    async with AsyncClient("https://server/path") as made:
        with pytest.raises(
            Exception, match=r"^https://server:443/path answers, but is neither a gateway nor a Triton$"
        ):
            await made.jobs()
