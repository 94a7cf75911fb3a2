"""Ends of jobs in the loop: cancelled, timed out, failed, stopped, each without an effect on others."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import Counts, StartLoop, images_of, made_alone, stand_before_the_next_step
from tests.waiting import WITHIN, until
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, InvalidRequest, TimedOut
from triton_diffusers.inflight.job import JobState
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.settings import Settings
from triton_diffusers.storage import StoredResult
from triton_diffusers.storage.local import LocalStore

pytestmark = pytest.mark.usefixtures("without_admission_budget")


def test_cancel_a_running_job(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, telemetry=(counts := Counts()))
    engine.turnstile.hold()
    job, other = loop.submit(request_for(steps=100)), loop.submit(request_for("another"))
    engine.turnstile.allow(2)
    loop.cancel(job)
    engine.turnstile.open()
    finish(loop, job, other)
    assert (job.state, type(job.error)) == (JobState.CANCELLED, Cancelled)
    assert job.samples[0].position <= 3
    assert images_of(other) == made_alone(start_loop, request_for("another"))
    assert sorted(counts.outcomes) == ["cancelled", "succeeded"]


def test_cancel_a_queued_job(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, max_images_in_flight=1)
    engine.turnstile.hold()
    running, queued = loop.submit(request_for()), loop.submit(request_for())
    stand_before_the_next_step(engine)
    assert (running.state, queued.state) == (JobState.RUNNING, JobState.QUEUED)
    loop.cancel(queued)
    engine.turnstile.allow(1)
    assert (queued.state, queued.run_seconds, queued.samples) == (JobState.CANCELLED, 0.0, [])
    engine.turnstile.open()
    finish(loop, running)
    assert images_of(running)


@pytest.mark.parametrize("arrived_seconds_ago", [0.0, 1000.0])
def test_a_request_ends_when_its_timeout_is_over(
    start_loop: StartLoop, engine: FakeEngine, arrived_seconds_ago: float
) -> None:
    loop = start_loop(engine, max_images_in_flight=1)
    engine.turnstile.hold()
    running, queued = (loop.submit(request_for(timeout_seconds=900.0)) for _ in range(2))
    stand_before_the_next_step(engine)
    for job in (running, queued):
        job.origin = replace(job.origin, arrived=job.arrived - arrived_seconds_ago)
    engine.turnstile.open()
    finish(loop, running, queued)
    if not arrived_seconds_ago:
        assert images_of(running) == images_of(queued)
        return
    for job in (running, queued):
        assert (job.state, type(job.error)) == (JobState.CANCELLED, TimedOut)
        assert str(job.error) == "the job was cancelled: its timeout of 900 s is over (timeout_seconds)"


def test_job_cancelled_while_stored_is_removed_from_the_store(
    start_loop: StartLoop, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved: list[str] = []
    saving, may_save = threading.Event(), threading.Event()
    save = LocalStore.save

    def held_save(self: LocalStore, name: str, data: bytes, content_type: str) -> StoredResult:
        saving.set()
        assert may_save.wait(WITHIN)
        saved.append(name)
        return save(self, name, data, content_type)

    monkeypatch.setattr(LocalStore, "save", held_save)
    loop = start_loop(engine, store=str(tmp_path / "store"))
    being_stored = loop.submit(request_for(task_id="being-stored"))
    assert saving.wait(WITHIN)
    before_it = loop.submit(request_for(task_id="before-it"))
    while not before_it.decoded:
        loop.wait([before_it], 0.01)
    kept = loop.submit(request_for(task_id="kept"))
    for job in (being_stored, before_it):
        loop.cancel(job)
    finish(loop, being_stored, before_it)
    assert {job.state for job in (being_stored, before_it)} == {JobState.CANCELLED}
    may_save.set()
    finish(loop, kept)
    loop.stop()
    assert {name.split("_")[0] for name in saved} == {"result/being-stored", "result/before-it", "result/kept"}
    assert [path.name.split("_")[0] for path in (tmp_path / "store").rglob("*.png")] == ["kept"]
    assert being_stored.result is None, "or it would be answered with it"


def test_cancelling_an_ended_job_has_no_effect(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for()))
    loop.cancel(job)
    finish(loop, loop.submit(request_for()))
    assert images_of(job)


def test_a_failing_call_fails_its_culprit_alone(
    start_loop: StartLoop, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    loop = start_loop(engine)
    engine.turnstile.hold()
    jobs = [loop.submit(request_for(prompt, steps=6)) for prompt in ("good", "boom", "also good")]
    engine.turnstile.open()
    finish(loop, *jobs)
    assert [job.state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
    assert isinstance(jobs[1].error, EngineFailure)
    assert str(jobs[1].error) == "task a-task failed; the server's log says why"
    assert "RuntimeError: the prompt says boom" in caplog.text
    for job in (jobs[0], jobs[2]):
        assert images_of(job) == made_alone(start_loop, job.request)
    finish(loop, after := loop.submit(request_for()))
    assert images_of(after)


def test_a_failing_scheduler_fails_its_job_alone(
    start_loop: StartLoop, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    loop = start_loop(engine, telemetry=(counts := Counts()))
    engine.turnstile.hold()
    jobs = [loop.submit(request_for(prompt, steps=6)) for prompt in ("one", "two", "three")]
    engine.turnstile.allow(1)
    jobs[1].samples[0].step_options["no_such_option"] = 1
    engine.turnstile.open()
    finish(loop, *jobs)
    assert [job.state for job in jobs] == [JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED]
    assert isinstance(jobs[1].error, EngineFailure)
    assert "no_such_option" in caplog.text
    assert "no_such_option" not in str(jobs[1].error)
    assert 3 in counts.calls, "they did share a call"
    for job in (jobs[0], jobs[2]):
        assert images_of(job) == made_alone(start_loop, job.request)


def test_non_finite_numbers_fail_the_job(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    jobs = [loop.submit(request_for(prompt)) for prompt in ("good", "nan")]
    finish(loop, *jobs)
    assert images_of(jobs[0]) == made_alone(start_loop, jobs[0].request)
    assert jobs[1].state is JobState.FAILED
    assert isinstance(jobs[1].error, EngineFailure)
    assert "gave NaN or infinite values" in str(jobs[1].error)


def test_value_invalid_for_the_model_is_an_invalid_request(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(scheduler="LCM", steps=60)))
    assert (job.state, type(job.error)) == (JobState.FAILED, InvalidRequest)
    finish(loop, after := loop.submit(request_for()))
    assert images_of(after)


def test_stop_cancels_all_jobs(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, max_images_in_flight=1)
    engine.turnstile.hold()
    jobs = [loop.submit(request_for(steps=100)) for _ in range(3)]
    stand_before_the_next_step(engine)
    assert loop.alive
    stopper = threading.Thread(target=loop.stop)
    stopper.start()
    until(lambda: not loop.alive)
    engine.turnstile.open()
    stopper.join(WITHIN)
    assert not stopper.is_alive()
    assert [job.state for job in jobs] == [JobState.CANCELLED] * 3
    assert all(isinstance(job.error, Busy) for job in jobs)
    with pytest.raises(Busy, match="stopping"):
        loop.submit(request_for())


def test_the_death_of_the_loop_is_reported_before_its_jobs_end(tmp_path: Path, engine: FakeEngine) -> None:
    """The process ends then, so that the requests are handed over to the next one and not answered."""

    class Broken(Counts):
        def unet_called(self, images: int, seconds: float) -> None:
            raise OSError("this telemetry breaks its promise")

    states: list[JobState] = []
    settings = Settings(runtime_dir=tmp_path, store="")
    loop = EngineLoop(
        lambda: engine, settings, name="sd_base", telemetry=Broken(), on_death=lambda: states.append(job.state)
    )
    loop.start()
    engine.turnstile.hold()
    job = loop.submit(request_for())
    engine.turnstile.open()
    finish(loop, job)
    assert states == [JobState.RUNNING]
    loop.stop()


def test_jobs_of_a_failed_loop_end(start_loop: StartLoop, engine: FakeEngine) -> None:
    class Broken(Counts):
        def unet_called(self, images: int, seconds: float) -> None:
            raise OSError("this telemetry breaks its promise")

    loop = start_loop(engine, telemetry=Broken(), max_images_in_flight=1)
    engine.turnstile.hold()
    jobs = [loop.submit(request_for()) for _ in range(2)]
    engine.turnstile.open()
    finish(loop, *jobs)
    assert [job.state for job in jobs] == [JobState.CANCELLED] * 2
    assert {str(job.error) for job in jobs} == {
        "the engine loop has failed, the server's log says why; send the request again later"
    }
    assert not loop.alive
    with pytest.raises(Busy, match="engine loop has failed"):
        loop.submit(request_for())
