"""Delivery to real receivers: good, slow, closed, failing, redirecting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.unit.gateway.conftest import Gateway
from tests.unit.gateway.served import running
from tests.unit.gateway.webhooks.receiver import Message, Receiver, receiving
from triton_diffusers.gateway.app import webhook_deliverer

pytestmark = pytest.mark.anyio

WITHIN = 60.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


@pytest.fixture
async def deliver(gateway: Gateway) -> AsyncIterator[None]:
    """Run the gateway's deliverer."""
    async with delivering(gateway):
        yield


@contextlib.asynccontextmanager
async def delivering(gateway: Gateway) -> AsyncIterator[None]:
    task = asyncio.create_task(webhook_deliverer(gateway.service).run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not condition():
            await asyncio.sleep(0.01)


async def settled(gateway: Gateway, job: dict[str, Any], *, attempts: int = 1, state: str = "") -> dict[str, Any]:
    """Return a job's webhook once its message is settled, or an attempt has failed."""
    async with asyncio.timeout(WITHIN):
        while True:
            shown = dict((await gateway.client.get(f"/api/jobs/{job['id']}")).json()["webhook"])
            done = shown["state"] == state if state else shown["settled"] or shown["error"]
            if done and shown["attempts"] >= attempts:
                return shown
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("deliver")
async def test_a_receiver_gets_the_job_signed(gateway: Gateway, receiver: Receiver) -> None:
    job = await gateway.submit(webhook=receiver.url(), task_id="mine")
    await gateway.draw([b"an image"])
    shown = await settled(gateway, job)
    assert (shown["state"], shown["status"], shown["attempts"], shown["error"]) == ("delivered", 204, 1, None)
    (message,) = receiver.messages
    assert message.id == shown["message_id"]
    secret = (await gateway.client.get("/api/webhook-secret")).json()["secret"]
    document = message.verified(secret)
    assert document["type"] == "job.succeeded"
    assert document["timestamp"].endswith("Z")
    data = document["data"]
    assert (data["id"], data["task_id"], data["state"], "webhook" in data) == (job["id"], "mine", "succeeded", False)
    url = data["result"]["images"][0]["url"]
    assert url.startswith("http://gateway/api/jobs/")
    assert (await gateway.client.get(url)).content == b"an image"


@pytest.mark.usefixtures("deliver")
async def test_a_failed_job_is_told_with_its_error(gateway: Gateway, receiver: Receiver) -> None:
    await gateway.submit(webhook=receiver.url())
    await gateway.fail("the model has failed", 469)
    await until(lambda: bool(receiver.messages))
    document = receiver.messages[0].verified(gateway.service.webhook_signer.secret("local"))
    assert (document["type"], document["data"]["error"]["message"]) == ("job.failed", "the model has failed")


@pytest.mark.usefixtures("deliver")
@pytest.mark.parametrize(("status", "error"), [(500, "status 500"), (302, "status 302: redirects are not followed")])
async def test_a_refused_message_waits_and_is_delivered_on_demand(
    gateway: Gateway, receiver: Receiver, status: int, error: str
) -> None:
    receiver.answer = lambda message: (status, {"Location": receiver.url("/private")})
    job = await gateway.submit(webhook=receiver.url())
    await gateway.draw()
    shown = await settled(gateway, job)
    assert (shown["state"], shown["status"], shown["error"], shown["attempts"]) == ("waiting", status, error, 1)
    receiver.answer = lambda message: (200, {})
    reply = await gateway.client.post(f"/api/jobs/{job['id']}/webhook/redeliver")
    assert reply.status_code == 200, reply.text
    assert (await settled(gateway, job, state="delivered"))["message_id"] == shown["message_id"]
    assert {message.id for message in receiver.messages} == {shown["message_id"]}
    assert {message.path for message in receiver.messages} == {"/hook"}


@pytest.mark.usefixtures("deliver")
async def test_a_receiver_that_is_gone_is_given_up(gateway: Gateway, receiver: Receiver) -> None:
    receiver.answer = lambda message: (410, {})
    job = await gateway.submit(webhook=receiver.url())
    await gateway.draw()
    shown = await settled(gateway, job, state="failed")
    assert (shown["status"], shown["error"], shown["attempts"]) == (410, "status 410", 1)
    assert shown["settled"]


@pytest.mark.usefixtures("deliver")
@pytest.mark.parametrize("gateway_settings", [{"webhook_retry_seconds": 0}])
async def test_a_closed_receiver_is_given_up_after_the_time_of_retries(gateway: Gateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    job = await gateway.submit(webhook=f"http://127.0.0.1:{port}/")
    await gateway.draw()
    shown = await settled(gateway, job, state="failed")
    assert (shown["status"], shown["error"]) == (0, "no connection, or no proper answer")
    metrics = (await gateway.client.get("/metrics")).text
    assert 'sd_webhook_deliveries_total{outcome="given_up"} 1.0' in metrics


@pytest.mark.usefixtures("deliver")
async def test_a_slow_receiver_does_not_delay_another(gateway: Gateway, receiver: Receiver) -> None:
    """The slow one has more messages than the gateway has places for its host."""
    released = threading.Event()

    def never(message: Message) -> tuple[int, dict[str, str]]:
        released.wait(WITHIN)
        return 200, {}

    with receiving() as slow:
        slow.answer = never
        try:
            for _ in range(8):
                await gateway.submit(webhook=slow.url(host="127.0.0.1"))
                await gateway.draw()
            job = await gateway.submit(webhook=receiver.url(host="localhost"))
            await gateway.draw()
            await until(lambda: len(receiver.messages) == 1)
            assert len(slow.messages) <= 4, "an eighth of 32 places"
            await settled(gateway, job, state="delivered")
        finally:
            released.set()


async def test_messages_of_a_gateway_that_was_down_are_delivered_by_the_next(
    gateway: Gateway, receiver: Receiver
) -> None:
    jobs = [await gateway.submit(webhook=receiver.url()) for _ in range(3)]
    for _ in jobs:
        await gateway.draw()
    async with delivering(gateway):
        for job in jobs:
            await settled(gateway, job, state="delivered")
    assert len({message.id for message in receiver.messages}) == len(receiver.messages) == 3


async def test_several_gateways_deliver_each_message_once(gateway: Gateway, receiver: Receiver) -> None:
    jobs = [await gateway.submit(webhook=receiver.url()) for _ in range(6)]
    async with delivering(gateway), delivering(gateway):
        for _ in jobs:
            await gateway.draw()
        for job in jobs:
            await settled(gateway, job, state="delivered")
    assert len({message.id for message in receiver.messages}) == len(receiver.messages) == 6


async def test_a_gateway_that_serves_delivers(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_LINK_ALLOW_HOSTS", "127.0.0.1")
    async with (
        running(tmp_path) as (port, service),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN) as client,
    ):
        job = (await client.post("/api/jobs", json={"prompt": "a", "webhook": receiver.url()})).json()
        await client.post(f"/api/jobs/{job['id']}/cancel")
        await until(lambda: bool(receiver.messages))
        document = receiver.messages[0].verified(service.webhook_signer.secret("local"))
    assert (document["type"], document["data"]["id"]) == ("job.cancelled", job["id"])
    assert document["data"]["links"]["self"] == f"http://127.0.0.1:{port}/api/jobs/{job['id']}"
