"""Helpers for tests of loops on a fake engine."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.conftest import finish
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.loop import EngineLoop

StartLoop = Callable[..., EngineLoop]


class Counts:
    """Telemetry that records all events."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.images = 0
        self.steps = 0
        self.outcomes: list[str] = []
        self.in_flight_and_queued: list[tuple[int, int]] = []

    def request_ended(self, model: str, outcome: str, queue_seconds: float, run_seconds: float) -> None:
        assert min(queue_seconds, run_seconds) >= 0
        self.outcomes.append(outcome)

    def images_made(self, model: str, count: int) -> None:
        self.images += count

    def steps_made(self, model: str, count: int) -> None:
        self.steps += count

    def unet_called(self, images: int, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append(images)

    def in_flight(self, images: int, queued: int) -> None:
        self.in_flight_and_queued.append((images, queued))


def images_of(job: Job) -> tuple[bytes, ...]:
    assert job.error is None
    assert job.state is JobState.SUCCEEDED
    assert job.result is not None
    return job.result.images


def made_alone(start_loop: StartLoop, request: GenerationRequest) -> tuple[bytes, ...]:
    loop = start_loop(FakeEngine())
    finish(loop, job := loop.submit(request))
    return images_of(job)


def stand_before_the_next_step(engine: FakeEngine) -> None:
    engine.turnstile.allow(0)
