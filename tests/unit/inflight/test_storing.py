"""Unavailable stores: jobs wait without delaying others, and no image is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oss_server import OssServer
from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.jobs.board import JobBoard

BUCKET = "a-bucket"


@pytest.fixture
def oss(monkeypatch: pytest.MonkeyPatch) -> Iterator[OssServer]:
    with OssServer() as server:
        server.buckets[BUCKET] = {}
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TRITON_DIFFUSERS_OSS_REGION", server.region)
        monkeypatch.setenv("TRITON_DIFFUSERS_OSS_ENDPOINT", server.endpoint)
        monkeypatch.setenv("TRITON_DIFFUSERS_OSS_ATTEMPTS", "1")
        yield server


def away(server: OssServer) -> None:
    server.fail(503, times=100_000, code="ServiceUnavailable")


def back(server: OssServer) -> None:
    with server.lock:
        server._faults.clear()


def held(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*.png")]


def wait_for_notice(board: JobBoard, *jobs: Job) -> None:
    tasks = {job.request.task_id for job in jobs}
    while tasks != {
        entry.task_id for entry in board.entries() if entry.error_msg.startswith("waiting for the store: ")
    }:
        assert not any(job.state.ended for job in jobs)


def test_more_jobs_wait_than_fit_and_all_are_stored_when_the_store_is_back(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard, oss: OssServer, tmp_path: Path
) -> None:
    loop = start_loop(
        engine, board=board, store=f"oss://{BUCKET}/p", unstored_dir=str(tmp_path / "held"), max_images_in_flight=6
    )
    away(oss)
    jobs = [loop.submit(request_for(task_id=f"task-{number}")) for number in range(6)]
    wait_for_notice(board, *jobs)
    assert {entry.state for entry in board.entries()} == {"running"}
    assert len(held(tmp_path / "held")) == 6
    back(oss)
    finish(loop, *jobs)
    for job in jobs:
        (url,) = job.result.oss_urls if job.result else ("",)
        assert oss.data(BUCKET, url.removeprefix(f"oss://{BUCKET}/")) == images_of(job)[0]
    assert held(tmp_path / "held") == []
    assert {entry.error_msg for entry in board.entries()} == {""}


def test_job_that_waits_can_be_cancelled(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard, oss: OssServer, tmp_path: Path
) -> None:
    loop = start_loop(engine, board=board, store=f"oss://{BUCKET}/p", unstored_dir=str(tmp_path / "held"))
    away(oss)
    job = loop.submit(request_for(task_id="a-task"))
    wait_for_notice(board, job)
    board.cancel("a-task")
    finish(loop, job)
    assert job.state is JobState.CANCELLED
    loop.stop()
    assert held(tmp_path / "held") == []


def test_server_that_stops_holds_what_waits(
    start_loop: StartLoop, engine: FakeEngine, board: JobBoard, oss: OssServer, tmp_path: Path
) -> None:
    loop = start_loop(engine, board=board, store=f"oss://{BUCKET}/p", unstored_dir=str(tmp_path / "held"))
    away(oss)
    job = loop.submit(request_for(task_id="a-task"))
    wait_for_notice(board, job)
    loop.stop()
    assert job.state is JobState.FAILED
    assert str(job.error).startswith(f"oss://{BUCKET}/p/result/a-task")
    assert f"on the server, the images are held as {tmp_path / 'held'}" in str(job.error)
    assert len(held(tmp_path / "held")) == 1


def test_images_are_not_stored_unless_the_request_wants_it(
    start_loop: StartLoop, engine: FakeEngine, tmp_path: Path
) -> None:
    loop = start_loop(engine, store=str(tmp_path / "store"))
    job = loop.submit(request_for(store_images=False))
    finish(loop, job)
    assert job.result is not None
    assert len(job.result.images) == 1
    assert (job.result.image_urls, job.result.oss_urls) == ((), ())
    assert not list((tmp_path / "store").rglob("*.png"))
