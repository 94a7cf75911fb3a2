"""Gateways that are killed while they deliver lose no message, on both databases."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, new_job
from tests.unit.gateway.webhooks.receiver import Message, receiving
from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import JobState, NewWebhook, Webhook, WebhookState
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

ROOT = Path(__file__).parents[4]
WITHIN = 120.0
JOBS = 5


@pytest.fixture
def start(url: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start_one() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.unit.gateway.webhooks.worker", url]
        processes.append(subprocess.Popen(command, cwd=ROOT))
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)


def webhook(store: JobStore, job_id: str) -> Webhook:
    found = store.get(None, job_id).webhook
    assert found is not None
    return found


def test_a_gateway_killed_during_its_deliveries_loses_none(
    url: str, start: Callable[[], subprocess.Popen[bytes]]
) -> None:
    store = open_store(url, JobTableSettings())
    killed = threading.Event()

    def hold_until_the_kill(message: Message) -> tuple[int, dict[str, str]]:
        killed.wait(WITHIN)
        return 204, {}

    with receiving() as receiver:
        receiver.answer = hold_until_the_kill
        hook = NewWebhook(url=receiver.url(), host="127.0.0.1", events=[JobState.SUCCEEDED])
        ids = [each.job.id for each in store.submit("ann", [new_job(webhook=hook) for _ in range(JOBS)])]
        for claim in store.claim("runner", "default", [MODEL], JOBS):
            store.finish(claim.lease, RESULT, BILL)
        first = start()
        until(lambda: len({message.id for message in receiver.messages}) >= 2)
        first.kill()
        first.wait()
        before = [message.id for message in receiver.messages]
        killed.set()
        start()
        until(lambda: all(webhook(store, job_id).state is WebhookState.DELIVERED for job_id in ids))
        received = [(message.body.decode(), message.id) for message in receiver.messages]
    assert {job_id for job_id, _ in received} == set(ids)
    assert {message_id for _, message_id in received} == {webhook(store, job_id).message_id for job_id in ids}
    after = [message_id for _, message_id in received][len(before) :]
    assert set(before) <= set(after), "a delivery that the kill has cut off is repeated under its id"
    store.close()
