"""Warnings about values that cannot be applied exactly; a strength of 0 returns the input image."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of
from triton_diffusers.api.request import Expansion, Function, ResizeMode
from triton_diffusers.inflight.control import Control
from triton_diffusers.inflight.rounding import _idle_controls


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(width: int, height: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


SOURCE = noise(70, 50)
MASK = np.full((50, 70), 255, np.uint8)


@pytest.mark.parametrize(
    "fields",
    [
        {"function": Function.IMAGE_TO_IMAGE},
        {"function": Function.IMAGE_TO_IMAGE, "scheduler": "Heun", "image_num": 2},
        {"function": Function.INPAINT, "mask": png(MASK)},
    ],
)
def test_a_strength_of_zero_returns_the_input_image_exactly(
    start_loop: StartLoop, engine: FakeEngine, fields: dict[str, Any]
) -> None:
    loop = start_loop(engine)
    request = request_for(image=png(SOURCE), width=70, height=50, denoising_strength=0.0, **fields)
    finish(loop, job := loop.submit(request), neighbour := loop.submit(request_for()))
    for image in images_of(job):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(image))), SOURCE)
    assert job.result is not None
    assert list(job.result.warnings) == ["denoising_strength: 0 returns the input image unchanged"]
    assert engine.turnstile.passed == neighbour.request.steps
    assert images_of(neighbour)


def test_a_strength_of_zero_fits_the_image_to_the_size(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    fields = {"image": png(SOURCE), "denoising_strength": 0.0}
    added = Expansion(left=8, right=0, up=0, down=2)
    jobs = [
        loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, resize_mode=ResizeMode.PAD, **fields)),
        loop.submit(
            request_for(
                function=Function.OUTPAINT,
                width=70,
                height=50,
                expansion=added,
                **fields,
            )
        ),
    ]
    finish(loop, *jobs)
    sizes = [Image.open(io.BytesIO(images_of(job)[0])).size for job in jobs]
    assert sizes == [(64, 64), (78, 52)]
    outpainted = np.asarray(Image.open(io.BytesIO(images_of(jobs[1])[0])))
    assert np.array_equal(outpainted[:50, 8:], SOURCE)


def test_an_unsafe_input_image_is_not_returned(start_loop: StartLoop) -> None:
    loop = start_loop(FakeEngine(is_unsafe=lambda pixels: bool(pixels.any())))
    request = request_for(
        function=Function.IMAGE_TO_IMAGE, image=png(SOURCE), width=70, height=50, denoising_strength=0.0
    )
    finish(loop, job := loop.submit(request))
    assert not np.asarray(Image.open(io.BytesIO(images_of(job)[0]))).any()


@pytest.mark.parametrize(("strength", "calls"), [(0.02, 1), (0.05, 2), (0.09, 4), (0.1, 5), (1.0, 50)])
def test_small_strengths_are_honoured(start_loop: StartLoop, engine: FakeEngine, strength: float, calls: int) -> None:
    loop = start_loop(engine)
    fields = {"function": Function.IMAGE_TO_IMAGE, "image": png(noise(64, 64)), "denoising_strength": strength}
    finish(loop, job := loop.submit(request_for(steps=50, **fields)))
    assert engine.turnstile.passed == calls
    assert job.result is not None
    assert job.result.warnings == ()


def test_strength_below_one_step_is_a_warning(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    fields = {"function": Function.IMAGE_TO_IMAGE, "image": png(noise(64, 64)), "denoising_strength": 0.01}
    finish(loop, job := loop.submit(request_for(steps=20, **fields)))
    assert engine.turnstile.passed == 1
    assert job.result is not None
    assert list(job.result.warnings) == ["denoising_strength: 0.01 of 20 steps is less than one step; one step was run"]


def test_rounded_size_is_a_warning(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    finish(loop, job := loop.submit(request_for(width=70, height=64)))
    assert job.result is not None
    (warning,) = job.result.warnings
    assert warning.startswith("width × height: 70×64 is generated at 72×64,")
    assert Image.open(io.BytesIO(images_of(job)[0])).size == (70, 64)


def test_controlnet_without_an_active_step_is_a_warning() -> None:
    controls = [Control(None, None, 1.0, start, end) for start, end in ((0.0, 1.0), (0.3, 0.5))]  # type: ignore[arg-type]
    assert list(_idle_controls(controls, 5)) == [
        "control_start / control_end: no whole step of 5 lies between 0.3 and 0.5; ControlNet 2 had no effect"
    ]
    assert list(_idle_controls(controls, 10)) == []
