"""Shared memory limit of input images; large images do not delay small ones."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of
from tests.waiting import WITHIN
from triton_diffusers.api.request import FromBase64, Function
from triton_diffusers.errors import Busy, InvalidImage
from triton_diffusers.images.inputs import ImageLoader
from triton_diffusers.inflight.job import JobState
from triton_diffusers.inflight.loop import EngineLoop


def webp(side: int) -> bytes:
    """Return a file of a few bytes that decodes to a large image."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return buffer.getvalue()


LARGE = webp(1000)  # takes 24 MB while it is decoded
SMALL = webp(64)


class Gate:
    """Gate for the decoding of large images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.decoding = threading.Semaphore(0)
        load = ImageLoader.load

        def wait(loader: ImageLoader, request: Any) -> Any:
            if request.image == LARGE:
                self.decoding.release()
                assert self.open.wait(WITHIN)
            return load(loader, request)

        monkeypatch.setattr(ImageLoader, "load", wait)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


def send(loop: EngineLoop, image: bytes, **fields: Any) -> Any:
    return loop.submit(request_for(function=Function.IMAGE_TO_IMAGE, image=image, **fields))


def used(loop: EngineLoop) -> tuple[int, int]:
    return loop._input_loader._encoded.used, loop._input_loader._decoded.used


def test_large_images_wait_for_memory_and_hold_up_nobody(start_loop: StartLoop, engine: FakeEngine, gate: Gate) -> None:
    loop = start_loop(engine, max_input_megabytes=30)
    large = [send(loop, LARGE) for _ in range(4)]
    assert gate.decoding.acquire(timeout=WITHIN)
    finish(loop, small := send(loop, SMALL), text := loop.submit(request_for()))
    assert images_of(small)
    assert images_of(text)
    assert not gate.decoding.acquire(blocking=False), "only one is decoded at a time"
    assert not any(job.state.ended for job in large)
    gate.open.set()
    finish(loop, *large)
    assert all(images_of(job) for job in large)
    assert used(loop) == (0, 0)


def test_wait_for_image_memory_times_out(start_loop: StartLoop, engine: FakeEngine, gate: Gate) -> None:
    loop = start_loop(engine, max_input_megabytes=30, input_wait_seconds=0.05)
    first = send(loop, LARGE)
    assert gate.decoding.acquire(timeout=WITHIN)
    finish(loop, second := send(loop, LARGE))
    assert isinstance(second.error, Busy)
    gate.open.set()
    finish(loop, first)
    assert images_of(first)


def test_the_memory_of_ended_jobs_is_free(start_loop: StartLoop, engine: FakeEngine, gate: Gate) -> None:
    loop = start_loop(engine, max_input_megabytes=30)
    cancelled = send(loop, LARGE)
    assert gate.decoding.acquire(timeout=WITHIN)
    loop.cancel(cancelled)
    finish(loop, cancelled)
    assert cancelled.state is JobState.CANCELLED
    gate.open.set()
    finish(loop, broken := send(loop, b"no image"), drawn := send(loop, LARGE))
    assert isinstance(broken.error, InvalidImage)
    assert images_of(drawn)
    loop.stop()
    assert used(loop) == (0, 0)
    assert drawn.sources is cancelled.sources is None


def test_a_waiting_jobs_images_are_counted(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine)
    engine.turnstile.hold()
    job = send(loop, SMALL)
    engine.turnstile.allow(0)
    assert used(loop) == (len(SMALL), 64 * 64 * 6)
    engine.turnstile.open()
    finish(loop, job)


def test_encoded_images_of_all_requests_are_bounded(start_loop: StartLoop, engine: FakeEngine) -> None:
    padded = SMALL + bytes(600_000)  # decoders ignore what follows an image
    loop = start_loop(engine, max_input_megabytes=1)
    engine.turnstile.hold()
    first = send(loop, padded)
    for image in (padded, FromBase64(padded)):
        with pytest.raises(Busy, match="images: the 1 MB for input images"):
            send(loop, image)  # type: ignore[arg-type]
    engine.turnstile.open()
    finish(loop, first)
    finish(loop, again := send(loop, padded))
    assert images_of(again)


def test_oversized_image_fails_immediately(start_loop: StartLoop, engine: FakeEngine) -> None:
    loop = start_loop(engine, max_input_megabytes=20)
    finish(loop, job := send(loop, LARGE))
    assert isinstance(job.error, InvalidImage)
    assert "image: '24 MB to decode' is invalid: at most 20 MB (max_input_megabytes)" in str(job.error)
