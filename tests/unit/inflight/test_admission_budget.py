"""Admission of bursts: running jobs continue in between, and cheap jobs still start together."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from tests.unit.conftest import finish, request_for
from tests.unit.fake_engine import FakeEngine
from tests.unit.loops import StartLoop, images_of, stand_before_the_next_step
from triton_diffusers.api.request import Function
from triton_diffusers.engines import Batch
from triton_diffusers.inflight.admission import AdmissionBudget
from triton_diffusers.inflight.job import Job, JobState
from triton_diffusers.inflight.loop import EngineLoop

STEP = 1.0  # seconds


class ClockedEngine(FakeEngine):
    """Engine with a simulated clock that records its calls."""

    def __init__(self, encode_seconds: float, during_encode: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.now = 0.0
        self.encode_seconds = encode_seconds
        self.during_encode = during_encode
        self.calls: list[str] = []

    def encode(self, pixels: Any) -> torch.Tensor:
        self.calls.append("encode")
        self.now += self.encode_seconds
        self.during_encode()
        return super().encode(pixels)

    def predict(self, batch: Batch) -> Any:
        made = super().predict(batch)
        self.calls.append("predict")
        self.now += STEP
        return made

    @property
    def steps_between(self) -> list[int]:
        """Steps between consecutive encodings of input images."""
        encodings = [index for index, call in enumerate(self.calls) if call == "encode"]
        return [after - before - 1 for before, after in pairwise(encodings)]


@pytest.fixture
def started(start_loop: StartLoop, monkeypatch: pytest.MonkeyPatch) -> Callable[[ClockedEngine], EngineLoop]:
    def start(engine: ClockedEngine) -> EngineLoop:
        clock = SimpleNamespace(perf_counter=lambda: engine.now, time=lambda: engine.now)
        monkeypatch.setattr("triton_diffusers.inflight.loop.time", clock)
        return start_loop(engine)

    return start


def burst(loop: EngineLoop, engine: ClockedEngine, number: int) -> tuple[Job, list[Job]]:
    """Return a job before its first step, and others that arrived with input images meanwhile."""
    white = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(white, "PNG")
    engine.turnstile.hold()
    running = loop.submit(request_for(steps=20))
    stand_before_the_next_step(engine)
    request = request_for(function=Function.IMAGE_TO_IMAGE, image=white.getvalue())
    newcomers = [loop.submit(request) for _ in range(number)]
    while not all(job.gathered for job in newcomers):
        loop.wait(newcomers, 0.01)
    return running, newcomers


@pytest.mark.parametrize(("encode_seconds", "steps"), [(3.0, [2, 3]), (1.5, [1, 1]), (0.3, [0, 0])])
def test_admission_of_a_burst_alternates_with_steps(
    started: Callable[[ClockedEngine], EngineLoop], encode_seconds: float, steps: list[int]
) -> None:
    """Count the step before the first admission as its credit: three seconds are two more steps."""
    loop = started(engine := ClockedEngine(encode_seconds))
    running, newcomers = burst(loop, engine, 3)
    engine.turnstile.open()
    finish(loop, running, *newcomers)
    assert all(images_of(job) for job in (running, *newcomers))
    assert engine.steps_between == steps


def test_cancelled_job_is_not_admitted(started: Callable[[ClockedEngine], EngineLoop]) -> None:
    loop = started(engine := ClockedEngine(0.0, during_encode=lambda: loop.cancel(newcomers[1])))
    running, newcomers = burst(loop, engine, 3)
    engine.turnstile.open()
    finish(loop, running, *newcomers)
    states = [JobState.SUCCEEDED, JobState.CANCELLED, JobState.SUCCEEDED]
    assert [job.state for job in newcomers] == states
    assert engine.calls.count("encode") == 2


def test_budget_overrun_delays_admission() -> None:
    pace = AdmissionBudget()
    for _ in range(5):
        assert pace.allows(1)
        pace.admitted(0.02)
    assert not pace.allows(1)
    pace.advanced(0.05)
    assert pace.allows(1)
    pace.admitted(2.0)
    assert not pace.allows(1)
    pace.advanced(1.5)
    assert not pace.allows(1), "half a second is owed"
    pace.advanced(0.5)
    assert pace.allows(1)


def test_budget_does_not_accumulate_unused_turns() -> None:
    pace = AdmissionBudget()
    for _ in range(100):
        pace.advanced(1.0)
    pace.admitted(1.2)
    assert not pace.allows(1)


def test_budget_is_reset_when_nothing_runs() -> None:
    pace = AdmissionBudget()
    pace.admitted(60.0)
    assert pace.allows(0)
    assert pace.allows(1)
