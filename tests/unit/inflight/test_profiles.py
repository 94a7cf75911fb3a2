"""Requests with several sampling profiles in one loop: results as if alone, with fewer and smaller calls."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from tests.unit.conftest import NATIVE_SIDE, finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.waiting import WITHIN
from triton_diffusers.api.request import Function, GenerationRequest
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.compile.report import psnr_of
from triton_diffusers.engines import Batch
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.sampling.profiles import EXACT, PROFILES, Profile
from triton_diffusers.settings import Settings

StartLoop = Callable[..., EngineLoop]

CACHED, INTERVAL, FAST = (PROFILES[name] for name in ("cached", "guidance-interval", "fast"))
THIRD = Profile(name="third", period=3)


class Watched(FakeEngine):
    """Engine that records the rows of each call and whether it was whole."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[int, bool]] = []

    def predict(self, batch: Batch) -> Any:
        self.calls.append((len(batch), batch.deep is None))
        return super().predict(batch)


@pytest.fixture
def engine() -> Watched:
    return Watched()


def images_of(job: Job) -> tuple[bytes, ...]:
    assert job.error is None
    assert job.result is not None
    return job.result.images


def made_alone(start_loop: StartLoop, request: GenerationRequest) -> tuple[bytes, ...]:
    finish(loop := start_loop(FakeEngine()), job := loop.submit(request))
    return images_of(job)


def grey_png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "PNG")
    return file.getvalue()


def test_cached_profile_calls(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    finish(loop, loop.submit(request_for(steps=8, profile=THIRD)))
    assert engine.calls == [(2, whole) for whole in (True, False, False, True, False, False, True, True)]


def test_guidance_interval_profile_calls(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    finish(loop, loop.submit(request_for(steps=5, profile=Profile(name="half", guided=0.5))))
    assert [rows for rows, _ in engine.calls] == [2, 2, 2, 1, 1]
    assert all(whole for _, whole in engine.calls)


def test_fast_profile_calls(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    both = Profile(name="both", period=3, guided=0.5)
    finish(loop, loop.submit(request_for(steps=4, profile=both)))
    assert engine.calls == [(2, True), (2, False), (1, False), (1, True)]
    engine.calls.clear()
    finish(loop, loop.submit(request_for(steps=4, profile=both, guidance_scale=1.0)))
    assert engine.calls == [(1, True), (1, False), (1, False), (1, True)]


def test_a_second_order_schedulers_calls_are_counted(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    finish(loop, loop.submit(request_for(steps=4, scheduler="Heun", profile=THIRD)))
    assert [whole for _, whole in engine.calls] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("request_fields", [{}, {"function": Function.IMAGE_TO_IMAGE}], ids=["t2i", "i2i"])
def test_a_period_of_one_is_exact(start_loop: StartLoop, request_fields: dict[str, Any]) -> None:
    image = {"image": grey_png()} if request_fields else {}
    request = request_for(steps=6, scheduler="Euler a", **request_fields, **image)
    exact = made_alone(start_loop, request)
    assert made_alone(start_loop, replace(request, profile=Profile(name="each", period=1))) == exact
    assert made_alone(start_loop, replace(request, profile=CACHED)) != exact
    assert made_alone(start_loop, replace(request, profile=INTERVAL)) != exact


def test_profile_of_image_to_image_counts_from_its_first_step(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    request = request_for(
        steps=10, function=Function.IMAGE_TO_IMAGE, image=grey_png(), denoising_strength=0.5, profile=THIRD
    )
    finish(loop, loop.submit(request))
    assert [whole for _, whole in engine.calls] == [True, False, False, True, True]


def mixed() -> list[GenerationRequest]:
    """Return requests of equal shape with several profiles, lengths and functions."""
    image = grey_png()
    return [
        request_for("one", steps=9, profile=CACHED, image_num=2),
        request_for("two", steps=7),
        request_for("three", steps=8, profile=FAST, scheduler="Euler a"),
        request_for("four", steps=5, profile=INTERVAL, scheduler="Heun"),
        request_for("five", steps=8, profile=FAST, guidance_scale=1.0),
        request_for("six", steps=9, profile=CACHED, function=Function.IMAGE_TO_IMAGE, image=image),
        request_for("seven", steps=9, profile=FAST, function=Function.INPAINT, image=image, mask=image),
    ]


def test_mixed_profiles_do_not_affect_each_other(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine, max_batch=3)
    jobs = []
    for request in mixed():
        jobs.append(loop.submit(request))
        time.sleep(0.002)  # they join one after another
    finish(loop, *jobs)
    for job in jobs:
        assert images_of(job) == made_alone(start_loop, job.request), job.request.prompt


@pytest.fixture
def immediate_admission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admit each job before the next step: on a loaded machine, the budget of time delays the second job."""
    monkeypatch.setattr("triton_diffusers.inflight.admission._ADMISSION_BUDGET_SECONDS", math.inf)


@pytest.mark.usefixtures("immediate_admission")
def test_cached_requests_share_whole_calls_whenever_they_came(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    engine.turnstile.hold()
    first = loop.submit(request_for("one", steps=12, profile=THIRD))
    engine.turnstile.allow(1)  # it stands before its first step with taken-over features
    second = loop.submit(request_for("two", steps=12, profile=THIRD))
    engine.turnstile.open()
    finish(loop, first, second)
    shared = [call for call in engine.calls if call[0] == 4]
    assert len(shared) >= 9, engine.calls


def test_features_are_held_no_longer_than_needed(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)
    finish(
        loop, exact := loop.submit(request_for(steps=5)), cached := loop.submit(request_for(steps=5, profile=CACHED))
    )
    for job in (exact, cached):
        assert all(sample.deep is None for sample in job.samples)


@pytest.mark.usefixtures("immediate_admission")
def test_failed_call_keeps_features_of_other_jobs(start_loop: StartLoop, engine: Watched) -> None:
    loop = start_loop(engine)

    class Once:
        """Engine that fails in the first shared call on deep features."""

        done = False

    predict = engine.predict

    def breaking(batch: Batch) -> Any:
        if batch.deep is not None and len(batch) > 2 and not Once.done:
            Once.done = True
            raise RuntimeError("no memory")
        return predict(batch)

    engine.predict = breaking  # type: ignore[method-assign]
    engine.turnstile.hold()
    jobs = [loop.submit(request_for(prompt, steps=8, profile=CACHED)) for prompt in ("one", "two")]
    engine.turnstile.open()
    finish(loop, *jobs)
    assert Once.done
    for job in jobs:
        assert images_of(job) == made_alone(start_loop, job.request)


def test_swap_between_whole_and_shallow_steps(start_loop: StartLoop, engine: Watched) -> None:
    class Optimized(FakeEngine):
        optimized = True

    for calls in (1, 2, 3):
        first = Watched()
        loop = start_loop(first)
        first.turnstile.hold()
        job = loop.submit(request_for(steps=8, profile=FAST))
        first.turnstile.allow(calls)
        with ThreadPoolExecutor() as pool:
            swapping = pool.submit(loop.swap, Optimized())
            while loop._swap is None:
                time.sleep(0.001)
            first.turnstile.open()
            swapping.result(WITHIN)
        finish(loop, job)
        assert images_of(job) == made_alone(start_loop, job.request)
        assert job.result is not None
        assert job.result.optimized


def test_the_emoji_model(components: Components) -> None:
    """Compare mixed profiles with single ones within rounding, and profiles with exact within limits."""
    loop = EngineLoop(lambda: EagerEngine(components), Settings(store=""), name="sd_base")
    loop.start()

    def together(requests: Sequence[GenerationRequest]) -> list[Image.Image]:
        finish(loop, *(jobs := [loop.submit(request) for request in requests]))
        return [Image.open(io.BytesIO(image)) for job in jobs for image in images_of(job)]

    try:
        base = request_for(steps=7, width=NATIVE_SIDE, height=NATIVE_SIDE, guidance_scale=7.0)
        requests = [replace(base, profile=profile) for profile in (EXACT, CACHED, FAST)]
        alone = [image for request in requests for image in together([request])]
        for one, other in zip(alone, together(requests), strict=True):
            assert psnr_of(one, other) >= 40
        for image in alone[1:]:
            assert 10 < psnr_of(alone[0], image) < 60
    finally:
        loop.stop()
