"""Time steps of a compiled engine and of the eager one in turns, so that disturbances affect both."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.compile.drawing import failure_message
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.probes import TIMED, probes
from triton_diffusers.compile.tasks import Advance, TimeResult
from triton_diffusers.engines import Engine
from triton_diffusers.inflight.job import Job
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.inflight.telemetry import NoTelemetry
from triton_diffusers.settings import Settings

ROUNDS = 5
_WARM_UP_STEPS = 1  # not timed, after each change of engines
_TIMED_STEPS = 3  # of a turn
_POLL_SECONDS = 0.05
_EAGER, _COMPILED = 0, 1


def time_in_turns(
    make_eager: Callable[[], Engine], make_compiled: Callable[[], Engine], folder: Path, side: int, advance: Advance
) -> TimeResult:
    """Time both engines with the loop that serves requests, which swaps them between turns.

    Each round has a turn of each engine, and begins with the engine that ended the last one, to save swaps. ``side`` is
    that of the images, in pixels.

    Raises: BuildError: a step fails.
    """
    eager: list[Engine] = []

    def made() -> Engine:
        eager.append(make_eager())
        return eager[0]

    steps = _Steps()
    loop = EngineLoop(made, Settings(model_dir=folder, store="", close_safety=True), name="build", telemetry=steps)
    loop.start()
    try:
        engines = (eager[0], make_compiled())
        request = probes(side, 10 * (_WARM_UP_STEPS + _TIMED_STEPS))[TIMED]  # more steps than needed
        in_use, rounds = _EAGER, []
        for number in range(ROUNDS):
            seconds = {}
            for engine in (in_use, 1 - in_use):
                if engine != in_use:
                    loop.swap(engines[engine])
                    in_use = engine
                seconds[engine] = _turn(loop, steps, request)
            rounds.append((seconds[_EAGER], seconds[_COMPILED]))
            advance(number + 1, ROUNDS)
        return TimeResult(rounds=tuple(rounds))
    finally:
        loop.stop()


def _turn(loop: EngineLoop, steps: _Steps, request: GenerationRequest) -> float:
    """Return the median seconds per step of the current engine."""
    steps.taken.clear()
    steps.job = loop.submit(request)
    while not steps.job.state.ended:
        loop.wait([steps.job], _POLL_SECONDS)
    timed = steps.taken[_WARM_UP_STEPS : _WARM_UP_STEPS + _TIMED_STEPS]
    if len(timed) < _TIMED_STEPS:
        raise BuildError(f"a step could not be timed: {failure_message(steps.job)}")
    return statistics.median(timed)


class _Steps(NoTelemetry):
    """Records the seconds of each step of ``job``, and cancels it when there are enough."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self.taken: list[float] = []

    def unet_called(self, images: int, seconds: float) -> None:
        self.taken.append(seconds)
        if self.job is not None and len(self.taken) >= _WARM_UP_STEPS + _TIMED_STEPS:
            self.job.cancel()
