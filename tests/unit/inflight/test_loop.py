"""Engine loop on a fake engine: jobs join, leave, fail and are cancelled without affecting each other."""

from __future__ import annotations

import io
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import Counts, StartLoop, images_of, made_alone, stand_before_the_next_step
from tests.waiting import WITHIN, until
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.errors import Busy
from triton_diffusers.inflight.job import Job, JobState, Origin
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings

pytestmark = pytest.mark.usefixtures("without_admission_budget")


def test_a_job_that_only_waits_has_not_started(start_loop: StartLoop, engine: FakeEngine) -> None:
    """If the process dies now, the waiting job cannot be the cause."""
    loop = start_loop(engine, max_images_in_flight=1)
    started: list[str] = []
    engine.turnstile.hold()
    jobs = [
        loop.submit(request_for(), Origin(model="sd_base", on_start=lambda name=name: started.append(name)))  # type: ignore[misc]
        for name in ("first", "second")
    ]
    until(lambda: jobs[0].state is JobState.RUNNING)
    assert started == ["first"]
    engine.turnstile.open()
    for job in jobs:
        finish(loop, job)
    assert started == ["first", "second"]


def test_request_returns_an_image(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(image_num=2)))
    assert job.result is not None
    assert (len(job.result.images), job.result.is_nsfw, job.result.warnings) == (2, (False, False), ())
    assert job.result.optimized is False
    assert min(job.result.queue_seconds, job.result.run_seconds) >= 0
    assert Image.open(io.BytesIO(job.result.images[0])).size == (64, 64)


def test_size_that_is_not_a_multiple_is_returned_exactly(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(width=100, height=90)))
    assert tuple(job.samples[0].latents.shape) == (4, 12, 13)
    assert Image.open(io.BytesIO(images_of(job)[0])).size == (100, 90)


def test_a_request_joins_the_running_batch(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, telemetry=(counts := Counts()))
    engine.turnstile.hold()
    first = loop.submit(request_for(steps=6))
    engine.turnstile.allow(2)
    second = loop.submit(request_for("a green pear", steps=4))
    engine.turnstile.open()
    finish(loop, first, second)
    # The first is alone for the two steps and the one that it stood before; the second needs one more.
    assert counts.calls == [1, 1, 1, 2, 2, 2, 1]


def test_batched_images_equal_images_made_alone(start_loop: StartLoop, engine: FakeEngine) -> None:
    """Compare images of shared calls with those of single requests, to the last bit."""
    requests = [
        request_for("one", steps=7, image_num=2),
        request_for("two", steps=3, seed=5, guidance_scale=1.0),
        request_for("three", scheduler="Euler a", seed=9, image_num=3),
        request_for("four", scheduler="DDIM", width=96),
        request_for("five", scheduler="Heun", steps=5, guidance_scale=9.5),
        request_for("six", scheduler="DPM++ 2M SDE Karras", width=96, negative_prompt="blurry"),
        request_for("seven", scheduler="UniPC", steps=6),
        request_for("eight", scheduler="LCM", seed=2**64 - 1, image_num=2),
    ]
    loop = start_loop(engine, telemetry=(counts := Counts()))
    engine.turnstile.hold()
    jobs = [loop.submit(request) for request in requests]
    engine.turnstile.open()
    finish(loop, *jobs)
    assert max(counts.calls) == 4, "some calls were shared"
    made = [image for job in jobs for image in images_of(job)]
    assert len(set(made)) == len(made)
    for request, job in zip(requests, jobs, strict=True):
        assert images_of(job) == made_alone(start_loop, request), request.prompt


@pytest.mark.parametrize("seed", [5, 2**64 - 2])
def test_image_i_uses_seed_plus_i(start_loop: StartLoop, engine: FakeEngine, seed: int) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(seed=seed, image_num=4, scheduler="Euler a")))
    assert len(set(images_of(job))) == 4
    for index, image in enumerate(images_of(job)):
        alone = request_for(seed=(seed + index) % 2**64, scheduler="Euler a")
        assert made_alone(start_loop, alone) == (image,)


def test_a_short_request_overtakes_a_long_one(
    start_loop: StartLoop, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Costs decide the order: with this clock, a step takes one second and everything else no time.
    clock = SimpleNamespace(perf_counter=lambda: float(engine.turnstile.passed), time=time.time)
    monkeypatch.setattr("triton_diffusers.inflight.loop.time", clock)
    loop = start_loop(engine)
    engine.turnstile.hold()
    long = loop.submit(request_for(steps=50, image_num=4))
    engine.turnstile.allow(3)
    short = loop.submit(request_for(steps=4))
    # While the short one is there, each step takes it along: one step that was begun and its own four; then it is
    # decoded, after a step or two more if it has cost more than the long one by then.
    engine.turnstile.allow(8)
    finish(loop, short)
    assert images_of(short)
    assert long.state is JobState.RUNNING


def test_new_job_gets_no_credit_for_the_time_before_arrival(start_loop: StartLoop, engine: FakeEngine) -> None:
    """Otherwise, it would have the engine to itself until it has caught up."""
    loop = start_loop(engine)
    engine.turnstile.hold()
    old = loop.submit(request_for(steps=50))
    engine.turnstile.allow(10)
    new = loop.submit(request_for(steps=50, width=128))
    engine.turnstile.allow(1)
    assert new.cost_seconds >= old.cost_seconds > 0  # a little more: making it ready is charged, too


def test_request_beyond_the_queue_limit_is_busy(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, max_queue=2, max_images_in_flight=1)
    engine.turnstile.hold()
    jobs = [loop.submit(request_for())]
    stand_before_the_next_step(engine)
    jobs += [loop.submit(request_for()) for _ in range(2)]
    with pytest.raises(Busy, match="2 requests wait already"):
        loop.submit(request_for())
    engine.turnstile.open()
    finish(loop, *jobs)
    finish(loop, after := loop.submit(request_for()))
    assert all(images_of(job) for job in [*jobs, after])


def test_images_in_flight_are_bounded_and_nobody_starves(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, telemetry=(counts := Counts()), max_images_in_flight=4)
    jobs = [loop.submit(request_for(image_num=number % 4 + 1, seed=number)) for number in range(12)]
    finish(loop, *jobs)
    assert all(images_of(job) for job in jobs)
    assert max(images for images, _ in counts.in_flight_and_queued) <= 4
    assert counts.images == sum(job.request.image_num for job in jobs)
    started = [job.started for job in jobs]
    assert started == sorted(started, key=lambda moment: moment or 0), "in the order of arrival"


def test_final_in_flight_counts_are_zero(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, telemetry=(counts := Counts()))
    finish(loop, loop.submit(request_for()), loop.submit(request_for("boom")))
    loop.stop()
    assert counts.in_flight_and_queued[-1] == (0, 0)
    assert sorted(counts.outcomes) == ["failed", "succeeded"]


def test_a_job_is_that_of_its_origin_which_is_told_its_end_once(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    ended: list[tuple[str, JobState]] = []
    origins = [
        Origin(model="sd_controlnet", job_id=name, arrived=time.time() - 100.0, on_end=lambda job: note(job))
        for name in ("good", "bad")
    ]

    def note(job: Job) -> None:
        ended.append((job.origin.job_id, job.state))

    good, bad = loop.submit(request_for(), origins[0]), loop.submit(request_for("boom"), origins[1])
    finish(loop, good, bad)
    until(lambda: len(ended) == 2)
    assert sorted(ended) == [("bad", JobState.FAILED), ("good", JobState.SUCCEEDED)]
    loop.cancel(good)
    loop.stop()
    assert len(ended) == 2
    assert (good.model, good.queue_seconds > 99.0) == ("sd_controlnet", True), "it waited before it came here"


def test_wait_returns_at_its_timeout(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    engine.turnstile.hold()
    job = loop.submit(request_for())
    loop.wait([job], 0.05)
    loop.wait([], 0.0)
    assert not job.state.ended


@pytest.mark.parametrize(("guided", "warned"), [(3.0, ["negative_prompt", "prompt"]), (1.0, ["prompt"])])
def test_truncated_prompt_is_a_warning(
    start_loop: StartLoop, engine: FakeEngine, guided: float, warned: list[str]
) -> None:
    loop = start_loop(engine, max_prompt_chunks=1)
    request = request_for("x" * 80, negative_prompt="y" * 80, guidance_scale=guided)
    finish(loop, job := loop.submit(request))
    assert job.result is not None
    assert [warning.split(":")[0] for warning in job.result.warnings] == warned
    assert job.result.warnings[-1].endswith("cut: 'xxxxx'")


def test_without_guidance_a_negative_prompt_and_half_the_rows_are_saved(
    start_loop: StartLoop, engine: FakeEngine
) -> None:
    loop = start_loop(engine)
    jobs = [
        loop.submit(request_for(guidance_scale=1.0, negative_prompt=negative)) for negative in ("", "blurry", "boom")
    ]
    finish(loop, *jobs)
    assert {images_of(job) for job in jobs} == {images_of(jobs[0])}
    assert {job.samples[0].conditioning.rows for job in jobs} == {1}


def test_guidance_moves_away_from_the_negative_prompt(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    variants = [
        {"guidance_scale": 3.0},
        {"guidance_scale": 6.0},
        {"guidance_scale": 1.0},
        {"negative_prompt": "x"},
    ]
    jobs = [loop.submit(request_for(**changes)) for changes in variants]
    finish(loop, *jobs)
    assert len({images_of(job) for job in jobs}) == len(variants)


def test_flagged_image_is_black(start_loop: StartLoop) -> None:
    engine = FakeEngine(is_unsafe=lambda pixels: bool(pixels[..., 0].mean() > 128))
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(image_num=8, steps=2, guidance_scale=1.0)))
    assert job.result is not None
    unchecked = start_loop(FakeEngine())
    finish(unchecked, plain := unchecked.submit(job.request))
    assert set(job.result.is_nsfw) == {True, False}, "the seeds give some of both"
    for flagged, image, before in zip(job.result.is_nsfw, job.result.images, images_of(plain), strict=True):
        if flagged:
            assert not np.asarray(Image.open(io.BytesIO(image))).any()
        else:
            assert image == before


def test_requests_from_many_threads(start_loop: StartLoop, engine: FakeEngine, board: JobBoard) -> None:
    loop = start_loop(engine, board=board)
    jobs: list[Job] = []

    def submit(first: int) -> None:
        for seed in range(first, first + 5):
            jobs.append(job := loop.submit(request_for(seed=seed, task_id=f"task-{seed}", steps=2)))
            if seed % 5 == 0:
                loop.cancel(job)

    threads = [threading.Thread(target=submit, args=(first,)) for first in range(0, 40, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(loop, *jobs)
    assert len({job.number for job in jobs}) == 40
    succeeded = [job for job in jobs if job.state is JobState.SUCCEEDED]
    assert len(succeeded) >= 32
    for job in succeeded[::8]:
        assert images_of(job) == made_alone(start_loop, job.request)
    assert {entry.state for entry in board.entries()} <= {"succeeded", "cancelled"}


def test_the_engine_is_made_and_called_by_one_thread_only() -> None:
    """Avoid two OpenMP thread pools, which slow each other down."""
    seen: set[int] = set()

    class Watched(FakeEngine):
        def __getattribute__(self, name: str) -> Any:
            if name in ("encode_prompts", "predict", "decode", "is_unsafe"):
                seen.add(threading.get_ident())
            return super().__getattribute__(name)

    made: list[int] = []

    def make() -> Watched:
        made.append(threading.get_ident())
        return Watched()

    loop = EngineLoop(make, Settings(store=""), name="sd_base")
    loop.start()
    job = loop.submit(request_for(steps=2))
    loop.wait([job], WITHIN)
    loop.stop()
    assert job.state is JobState.SUCCEEDED
    assert seen == set(made)
    assert threading.get_ident() not in seen


def test_start_raises_errors_of_creating_the_engine() -> None:
    def make() -> FakeEngine:
        raise LoadError("no model")

    loop = EngineLoop(make, Settings(store=""), name="sd_base")
    with pytest.raises(LoadError, match="no model"):
        loop.start()
    assert not loop.alive
