"""The check of a service's history finds each way to break a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.servers import Endpoints
from benchmarks.service_calls import GatewayClient
from benchmarks.service_history import Answer, Record, records, violations
from benchmarks.service_stack import Stack
from tests.unit.gateway.jobs.tables import BILL, RESULT, Table
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.gateway.jobs.job import JobError, JobState
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store
from triton_diffusers.storage.names import result_names
from triton_diffusers.util.uuid7 import uuid7

ANSWER = Answer(prompt="a cat", image="1f")


@pytest.fixture
def table(tmp_path):  # type: ignore[no-untyped-def]
    opened = Table(open_store(f"sqlite:///{tmp_path}/jobs.sqlite", JobTableSettings()))
    yield opened
    opened.store.close()


def submit(table: Table) -> str:
    return table.submit(request={"fields": {"prompt": "a cat"}}).id


def finished(table: Table) -> Record:
    """Return the record of a job that has run twice and ended once."""
    job_id = submit(table)
    table.store.fail(table.claim_one().lease, JobError(message="x"), retryable=True)
    table.store.finish(table.claim_one().lease, RESULT, BILL)
    (record,) = records(table.store, {job_id: ["1f"]})
    return record


def broken(answer: Answer, *found: Record) -> list[str]:
    return [name for name, prompts in violations([answer], found).items() if prompts == ["a cat"]]


def test_job_that_ran_twice_and_ended_once_breaks_nothing(table: Table) -> None:
    record = finished(table)
    assert (record.ends, record.bills, record.job.attempts) == (1, 1, 2)
    assert broken(ANSWER, record) == []


def test_each_broken_promise_is_found(table: Table) -> None:
    record = finished(table)
    assert broken(ANSWER) == ["lost"]
    assert broken(Answer(prompt="a cat", error="timeout"), record) == ["lost"]
    assert broken(ANSWER, replace(record, job=replace(record.job, state=JobState.DEAD))) == ["lost"]
    assert broken(ANSWER, record, record) == ["repeated"]
    assert broken(ANSWER, replace(record, ends=2)) == ["double results"]
    assert broken(ANSWER, replace(record, images=["1f", "1f"])) == ["double results"]
    assert broken(ANSWER, replace(record, bills=2)) == ["double bills"]
    assert broken(ANSWER, replace(record, bills=0)) == ["double bills"]
    assert broken(ANSWER, replace(record, images=["2e"])) == ["other images"]


def test_records_have_all_jobs_of_a_long_table(table: Table) -> None:
    ids = {submit(table) for _ in range(501)}
    assert {record.job.id for record in records(table.store, {})} == ids


def test_stored_images_are_found_by_their_jobs(tmp_path: Path) -> None:
    job_id = str(uuid7())
    request = GenerationRequest(task_id="ann", prompt="a cat", width=64, height=64, image_num=2)
    for name in result_names(request, datetime.now(UTC), job_id):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_bytes(name.encode())
    nowhere = Endpoints(http="", grpc="", pid=0)
    stack = Stack(triton=nowhere, client=GatewayClient("", 1.0), database="", folder=tmp_path, server=None, seconds=1.0)
    assert {name: len(images) for name, images in stack.images().items()} == {job_id: 2}
