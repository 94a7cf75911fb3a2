"""Previews of running jobs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, made_alone, stand_before_the_next_step
from triton_diffusers.jobs.board import JobBoard


@pytest.mark.parametrize("scheduler", ["DPM++ 2M", "Euler a", "DDIM", "PNDM", "UniPC", "Heun", "LCM", "DPM++ SDE"])
def test_preview_of_a_running_job(start_loop: StartLoop, engine: FakeEngine, board: JobBoard, scheduler: str) -> None:
    loop = start_loop(engine, board=board)
    engine.turnstile.hold()
    loop.submit(request_for(scheduler=scheduler, steps=6, width=256, height=128))
    engine.turnstile.allow(2)
    assert board.entries("a-task")[0].preview is None
    board.want_preview("a-task")
    engine.turnstile.allow(1)
    preview = board.entries("a-task")[0].preview
    assert preview is not None
    image = Image.open(io.BytesIO(preview))
    image.load()
    assert (image.format, image.size) == ("JPEG", (128, 64))


def test_flagged_preview_is_withheld(start_loop: StartLoop, board: JobBoard) -> None:
    engine = FakeEngine(is_unsafe=lambda pixels: True)
    loop = start_loop(engine, board=board)
    engine.turnstile.hold()
    loop.submit(request_for())
    engine.turnstile.allow(1)
    board.want_preview("a-task")
    engine.turnstile.allow(1)
    assert board.entries("a-task")[0].preview is None


def test_failed_preview_does_not_affect_the_job(start_loop: StartLoop, board: JobBoard) -> None:
    class Fragile(FakeEngine):
        previews = 0

        def decode(self, latents: Any) -> Any:
            if not all(sample.denoised for sample in job.samples):
                self.previews += 1
                raise ValueError("no image yet")
            return super().decode(latents)

    engine = Fragile()
    loop = start_loop(engine, board=board)
    engine.turnstile.hold()
    job = loop.submit(request_for())
    stand_before_the_next_step(engine)
    board.want_preview("a-task")
    engine.turnstile.open()
    finish(loop, job)
    assert engine.previews > 0
    assert images_of(job) == made_alone(start_loop, request_for())
