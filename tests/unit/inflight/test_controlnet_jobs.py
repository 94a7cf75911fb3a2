"""Requests with ControlNets in the loop: loading delays no other request, and failures affect only their own."""

from __future__ import annotations

import io
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.controlnet_files import random_controlnet, save_folder
from tests.unit.checkpoints.original import unet
from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FAMILY, FakeEngine
from tests.waiting import WITHIN
from triton_diffusers.adapters.controlnet import ControlNetWeights
from triton_diffusers.api.request import ControlChoice
from triton_diffusers.engines import Batch, ControlNet, Residuals
from triton_diffusers.families.conditioning import Inputs
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.preprocess.preprocessors import Preprocessors
from triton_diffusers.sampling.profiles import PROFILES
from triton_diffusers.settings import Settings

StartLoop = Callable[..., EngineLoop]


class Tinted:
    """ControlNet that adds its control image's mean."""

    def __init__(self, controlled: list[int], nbytes: int) -> None:
        self._controlled, self.nbytes = controlled, nbytes

    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, images: torch.Tensor
    ) -> Residuals:
        self._controlled.append(len(latents))
        return (images.mean((1, 2, 3))[:, None, None, None].expand_as(latents),)


class ControlledEngine(FakeEngine):
    """Engine that loads ControlNets when permitted."""

    family = replace(FAMILY, denoiser_config=dict(unet().config))

    def __init__(self) -> None:
        super().__init__()
        self.may_make = threading.Event()
        self.may_make.set()
        self.making = threading.Event()
        self.made = 0
        self.controlled: list[int] = []  # rows of each ControlNet call
        self.rows: list[int] = []

    def make_controlnet(self, weights: ControlNetWeights) -> ControlNet:
        self.making.set()
        assert self.may_make.wait(WITHIN)
        self.made += 1
        return Tinted(self.controlled, weights.nbytes)

    def predict(self, batch: Batch) -> Any:
        self.rows.append(len(batch))
        return super().predict(batch)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for number in (0, 1):
        save_folder(random_controlnet(ControlledEngine.family.denoiser_config, number), folder / f"net-{number}")
    return folder


def png(tone: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (tone, tone, tone)).save(file, "PNG")
    return file.getvalue()


def controlled(path: str = "net-0", tone: int = 255, **changes: Any) -> Any:
    return request_for(controls=(ControlChoice(path=path, image=png(tone)),), **changes)


def images_of(job: Job) -> tuple[bytes, ...]:
    assert job.error is None
    assert job.result is not None
    return job.result.images


def test_other_requests_continue_while_a_controlnet_loads(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    engine.may_make.clear()
    loop = start_loop(engine, model_dir=model_dir)
    waiting = loop.submit(controlled())
    assert engine.making.wait(WITHIN)
    other = loop.submit(request_for(task_id="other"))
    finish(loop, other)
    assert images_of(other)
    assert waiting.state is JobState.QUEUED
    engine.may_make.set()
    finish(loop, waiting)
    assert images_of(waiting) != images_of(other)


def test_controlnet_shared_by_requests_is_loaded_once(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir)
    for _ in range(2):
        finish(loop, *[loop.submit(controlled(f"net-{number}")) for number in (0, 1)])
    assert engine.made == 2


def test_requests_with_and_without_share_their_calls(start_loop: StartLoop, model_dir: Path) -> None:
    alone = [controlled("net-0"), controlled("net-1", 128), request_for()]
    expected = []
    for request in alone:
        loop = start_loop(ControlledEngine(), model_dir=model_dir)
        finish(loop, job := loop.submit(request))
        expected.append(images_of(job))
    engine = ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir)
    finish(loop, *[loop.submit(request) for request in alone[:2]])  # from here on both are loaded
    engine.rows.clear()
    engine.turnstile.hold()
    first = loop.submit(request_for(task_id="first"))
    engine.turnstile.allow(0)
    jobs = [loop.submit(request) for request in alone]
    while not all(job.gathered for job in jobs):
        loop.wait(jobs, 0.01)
    engine.turnstile.open()
    finish(loop, first, *jobs)
    assert [images_of(job) for job in jobs] == expected
    assert 8 in engine.rows, "two rows each for the first and the three"


def test_control_image_is_returned_on_request(start_loop: StartLoop, model_dir: Path) -> None:
    loop = start_loop(ControlledEngine(), model_dir=model_dir)
    silent, asked = loop.submit(controlled(tone=77)), loop.submit(controlled(tone=77, return_control_image=True))
    finish(loop, silent, asked)
    assert silent.result is not None
    assert asked.result is not None
    assert silent.result.control_images == ()
    (image,) = asked.result.control_images
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(image))), np.full((64, 64, 3), 77))


def test_shared_control_image_is_preprocessed_once(
    start_loop: StartLoop, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    process = Preprocessors.process

    def watched(self: Preprocessors, name: str, pixels: Any) -> Any:
        seen.append(name)
        return process(self, name, pixels)

    monkeypatch.setattr(Preprocessors, "process", watched)
    loop = start_loop(ControlledEngine(), model_dir=model_dir)
    names = (("net-0", "canny"), ("net-1", "canny"), ("net-1", "none"))
    shared = tuple(ControlChoice(path=path, process=name, image=png(9)) for path, name in names)
    finish(loop, job := loop.submit(request_for(controls=shared, return_control_image=True)))
    assert len(job.control_images) == 3
    assert seen == ["canny", "none"]


def test_controlnet_runs_from_start_to_end_only(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir)
    choice = ControlChoice(path="net-0", image=png(255), start=0.25, end=0.75)
    finish(loop, job := loop.submit(request_for(steps=8, controls=(choice,))))
    assert images_of(job)
    assert engine.controlled == [2, 2, 2, 2]


def test_steps_with_a_controlnet_run_the_whole_unet(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir)
    exact, cached = loop.submit(controlled(steps=8)), loop.submit(controlled(steps=8, profile=PROFILES["cached"]))
    finish(loop, exact, cached)
    assert images_of(exact) == images_of(cached)
    assert cached.warnings == ["profile cached: with a ControlNet every step runs the whole UNet"]


def test_failed_controlnet_load_fails_its_request(start_loop: StartLoop, model_dir: Path) -> None:
    loop = start_loop(ControlledEngine(), model_dir=model_dir)
    missing, good = loop.submit(controlled("net-7")), loop.submit(controlled())
    finish(loop, missing, good)
    assert "controlnet_path" in str(missing.error)
    assert "net-7" in str(missing.error)
    assert str(model_dir) not in str(missing.error)
    assert images_of(good)


def test_cancelled_request_releases_its_controlnets(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir, controlnet_cache_megabytes=0)
    engine.turnstile.hold()
    first = loop.submit(controlled("net-0"))
    engine.turnstile.allow(0)  # it runs
    second = loop.submit(controlled("net-1"))
    third = loop.submit(controlled("net-1", task_id="third"))
    loop.cancel(second)
    loop.cancel(first)
    engine.turnstile.open()
    finish(loop, first, second, third)
    assert (first.state, second.state) == (JobState.CANCELLED, JobState.CANCELLED)
    assert images_of(third)


def test_cancelled_request_does_not_wait_for_memory_of_a_replaced_engine(
    start_loop: StartLoop, model_dir: Path
) -> None:
    engine, successor = ControlledEngine(), ControlledEngine()
    loop = start_loop(engine, model_dir=model_dir, controlnet_cache_megabytes=0)
    engine.turnstile.hold()
    successor.turnstile.hold()
    first = loop.submit(controlled("net-0"))
    engine.turnstile.allow(0)  # it runs
    second = loop.submit(controlled("net-1"))
    while loop._in_use.controlnets._waiter is None:
        time.sleep(0.001)
    with ThreadPoolExecutor() as pool:
        swapping = pool.submit(loop.swap, successor)
        while loop._swap is None:
            time.sleep(0.001)
        engine.turnstile.open()
        swapping.result(WITHIN)
    loop.cancel(second)
    third = loop.submit(controlled("net-1", task_id="third"))
    try:
        successor.turnstile.allow(1)
        assert successor.making.wait(WITHIN), "the load of the cancelled request still waits"
        assert (first.state, second.state) == (JobState.RUNNING, JobState.CANCELLED)
    finally:
        successor.turnstile.open()
    finish(loop, first, second, third)
    assert images_of(third)


def test_loop_stops_while_a_controlnet_loads(start_loop: StartLoop, model_dir: Path) -> None:
    engine = ControlledEngine()
    engine.may_make.clear()
    loop = start_loop(engine, model_dir=model_dir)
    job = loop.submit(controlled())
    assert engine.making.wait(WITHIN)
    threading.Timer(0.2, engine.may_make.set).start()
    loop.stop()
    assert job.state is JobState.CANCELLED


def test_request_in_flight_keeps_its_controlnet_but_not_the_replaced_engine(
    start_loop: StartLoop, model_dir: Path
) -> None:
    finish(unchanged := start_loop(ControlledEngine(), model_dir=model_dir), alone := unchanged.submit(controlled()))
    engines, successor = [ControlledEngine()], ControlledEngine()
    before, turnstile, rows = weakref.ref(engines[0]), engines[0].turnstile, engines[0].controlled
    loop = EngineLoop(engines.pop, Settings(store="", model_dir=model_dir), name="sd_controlnet")
    loop.start()
    try:
        turnstile.hold()
        successor.turnstile.hold()
        job = loop.submit(controlled())
        turnstile.allow(1)
        with ThreadPoolExecutor() as pool:
            swapping = pool.submit(loop.swap, successor)
            while loop._swap is None:
                time.sleep(0.001)
            turnstile.open()
            swapping.result(WITHIN)
        successor.turnstile.allow(1)
        assert before() is None
        assert job.state is JobState.RUNNING
        successor.turnstile.open()
        finish(loop, job)
        assert images_of(job) == images_of(alone)
        assert len(rows) == job.request.steps
        assert successor.made == 0
        finish(loop, later := loop.submit(controlled()))
        assert images_of(later) == images_of(alone)
        assert successor.made == 1
    finally:
        successor.turnstile.open()
        loop.stop()
