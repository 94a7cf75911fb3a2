"""Timing of two engines in turns, with the loop that serves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_engine import FakeEngine
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.timing import ROUNDS, time_in_turns
from triton_diffusers.engines import Batch


class Slow(FakeEngine):
    """An engine that records its steps in ``steps`` and sleeps for each."""

    def __init__(self, name: str, steps: list[str], seconds: float) -> None:
        super().__init__()
        self.name, self.steps, self.seconds = name, steps, seconds

    def predict(self, batch: Batch) -> Any:
        self.steps.append(self.name)
        time.sleep(self.seconds)
        return super().predict(batch)


def test_engines_are_timed_in_turns_without_a_swap_between_rounds(tmp_path: Path) -> None:
    steps: list[str] = []
    said: list[tuple[int, int]] = []
    timed = time_in_turns(
        lambda: Slow("eager", steps, 0.02),
        lambda: Slow("compiled", steps, 0.0),
        tmp_path,
        64,
        lambda done, total: said.append((done, total)),
    )
    assert len(timed.rounds) == ROUNDS
    assert all(eager >= 0.02 for eager, _ in timed.rounds)
    turns = [name for name, before in zip(steps, ["", *steps], strict=False) if name != before]
    # The last turn of a round and the first of the next are the same engine's.
    assert turns == ["eager", "compiled"] * (ROUNDS // 2) + ["eager", "compiled"] * (ROUNDS % 2)
    assert said == [(number + 1, ROUNDS) for number in range(ROUNDS)]


def test_a_failed_step_fails_the_timing(tmp_path: Path) -> None:
    class Broken(FakeEngine):
        def predict(self, batch: Batch) -> Any:
            raise RuntimeError("no such kernel")

    with pytest.raises(BuildError, match="a step could not be timed: RuntimeError: no such kernel"):
        time_in_turns(FakeEngine, Broken, tmp_path, 64, lambda done, total: None)
