"""Engine swaps while requests are in flight: none is dropped or delayed, and each continues unchanged."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.lora_files import kohya, random_weights
from tests.unit.conftest import NATIVE_SIDE, finish, request_for
from tests.unit.fake_engine import FAMILY, SCHEDULER_CONFIG, FakeEngine, Turnstile
from tests.waiting import WITHIN
from triton_diffusers.api.request import LoraChoice, ModelDefaults
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.protocol import IncompatibleEngine
from triton_diffusers.errors import Busy
from triton_diffusers.families.guidance import Distilled
from triton_diffusers.families.latents import LatentFormat
from triton_diffusers.families.schedules import NoiseSchedule
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.settings import Settings

StartLoop = Callable[..., EngineLoop]


class OptimizedEngine(FakeEngine):
    """Bit-identical replacement engine, so that results must not change."""

    optimized = True


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def made_alone(start_loop: StartLoop, job: Job) -> tuple[bytes, ...]:
    loop = start_loop(FakeEngine())
    finish(loop, again := loop.submit(job.request))
    assert again.result is not None
    return again.result.images


def test_optimized_reports_the_engine_of_the_last_step(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, before := loop.submit(request_for(image_num=2)))
    loop.swap(OptimizedEngine())
    finish(loop, after := loop.submit(request_for(image_num=2)))
    assert before.result is not None
    assert after.result is not None
    assert (before.result.optimized, after.result.optimized) == (False, True)
    assert before.result.images == after.result.images


def test_requests_in_flight_continue_with_the_new_engine(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, max_images_in_flight=4)
    engine.turnstile.hold()
    running = [
        loop.submit(request_for("one", steps=6, scheduler="Euler a")),
        loop.submit(request_for("two", steps=8, image_num=2, scheduler="DPM++ 2M SDE Karras", seed=5)),
        loop.submit(request_for("three", steps=5, width=96, scheduler="Heun")),
    ]
    waiting = loop.submit(request_for("four", image_num=3))
    engine.turnstile.allow(3)
    successor = OptimizedEngine()
    with ThreadPoolExecutor() as pool:
        swapping = pool.submit(loop.swap, successor)
        while loop._swap is None:
            time.sleep(0.001)
        assert successor.turnstile.passed == 0
        engine.turnstile.open()
        swapping.result(WITHIN)
        made_before = engine.turnstile.passed
        finish(loop, *running, waiting)
    assert made_before == engine.turnstile.passed == 4, "the step under way was the old engine's last"
    assert successor.turnstile.passed > 0
    for job in (*running, waiting):
        assert job.result is not None
        assert job.result.optimized
        assert job.result.images == made_alone(start_loop, job)


def test_swap_of_an_idle_loop_is_immediate(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    loop.swap(OptimizedEngine())
    assert loop.alive
    assert loop.defaults.side == FakeEngine.family.defaults.side


def test_steps_do_not_wait_for_freeing_the_old_engine() -> None:
    """Free the old engine only after steps of the new one, which must not wait for it."""
    before, successor = Turnstile(), OptimizedEngine()
    steps_meanwhile: list[bool] = []

    class SlowToGo(FakeEngine):
        def __init__(self) -> None:
            super().__init__()
            self.turnstile = before

        def __del__(self) -> None:  # simulates freeing gigabytes
            steps_meanwhile.append(successor.turnstile.wait_for(3))

    loop = EngineLoop(SlowToGo, Settings(store=""), name="sd_base")
    loop.start()
    try:
        before.hold()
        jobs = [loop.submit(request_for(steps=6, seed=seed)) for seed in range(3)]
        before.allow(2)
        with ThreadPoolExecutor() as pool:
            swapping = pool.submit(loop.swap, successor)
            while loop._swap is None:
                time.sleep(0.001)
            before.open()
            finish(loop, *jobs)
            swapping.result(WITHIN)
    finally:
        loop.stop()
    assert steps_meanwhile == [True]
    assert all(job.result is not None and job.result.optimized for job in jobs)


def test_old_engine_is_freed_by_the_swapping_thread() -> None:
    ended_in: list[str] = []

    class Mortal(FakeEngine):
        def __del__(self) -> None:
            ended_in.append(threading.current_thread().name)

    loop = EngineLoop(Mortal, Settings(store=""), name="sd_base")
    loop.start()
    try:
        finish(loop, loop.submit(request_for()))
        loop.swap(OptimizedEngine())
        assert ended_in == [threading.current_thread().name]
    finally:
        loop.stop()


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("latents", LatentFormat(channels=16, pixels=8)),
        ("latents", LatentFormat(channels=4, pixels=4)),
        ("denoiser_channels", 9),
        ("defaults", ModelDefaults(side=512)),
        ("text_layers", 12),
        ("schedule", NoiseSchedule({**SCHEDULER_CONFIG, "prediction_type": "v_prediction"})),
        ("guidance", Distilled(256)),
        ("lora_targets", {"unet.conv_in": (8, 4, 3, 3)}),
    ],
)
def test_swap_to_another_checkpoint_is_an_error(
    start_loop: StartLoop, engine: FakeEngine, trait: str, value: object
) -> None:
    other = OptimizedEngine()
    if trait == "lora_targets":
        other.lora_targets = value  # type: ignore[assignment]
    else:
        other.family = replace(FAMILY, **{trait: value})  # type: ignore[arg-type]
    loop = start_loop(engine)
    engine.turnstile.hold()
    job = loop.submit(request_for())
    with pytest.raises(IncompatibleEngine, match=f"another model: its {trait} is different"):
        loop.swap(other)
    engine.turnstile.open()
    finish(loop, job)
    assert job.result is not None
    assert job.result.optimized is False
    assert other.turnstile.passed == 0


def test_swap_fails_when_the_loop_ends(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    engine.turnstile.hold()
    job = loop.submit(request_for())
    engine.turnstile.allow(1)
    with ThreadPoolExecutor() as pool:
        swapping = pool.submit(loop.swap, OptimizedEngine())
        stopping = pool.submit(loop.stop)
        with pytest.raises(Busy):
            swapping.result(WITHIN)
        engine.turnstile.open()
        stopping.result(WITHIN)
    assert job.state is JobState.CANCELLED
    with pytest.raises(Busy):
        loop.swap(OptimizedEngine())


def test_loaded_loras_survive_a_swap(start_loop: StartLoop, engine: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "lora" / "style.safetensors"
    file.parent.mkdir()
    save_file(kohya(random_weights(FakeEngine.lora_targets, rank=2, seed=0)), file)
    loop = start_loop(engine, model_dir=tmp_path)
    chosen = request_for(loras=(LoraChoice("lora/style.safetensors", 1.0),))
    finish(loop, loop.submit(chosen))
    status = file.stat()
    file.write_bytes(b"\0" * status.st_size)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    loop.swap(OptimizedEngine())
    finish(loop, job := loop.submit(chosen))
    assert job.error is None


def test_real_engines(components: Components, start_loop: StartLoop) -> None:
    """Swap real engines: the first one is freed, and the image is unchanged."""

    class Compiled(EagerEngine):
        optimized = True

    engines = [EagerEngine(components)]
    gone = weakref.ref(engines[0])
    loop = EngineLoop(engines.pop, Settings(store=""), name="sd_base")
    loop.start()
    try:
        side = NATIVE_SIDE // 2
        jobs = [loop.submit(request_for(steps=6, seed=seed, width=side, height=side)) for seed in range(3)]
        loop.swap(Compiled(components))
        assert gone() is None
        finish(loop, *jobs)
        assert [job.state for job in jobs] == [JobState.SUCCEEDED] * 3
        assert all(job.result is not None and job.result.optimized for job in jobs)
        finish(loop, again := loop.submit(jobs[0].request))
        assert again.state is JobState.SUCCEEDED
    finally:
        loop.stop()
