"""One turn of a contender: what is timed, and which memory is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.contenders.turn import Turn, measure
from benchmarks.program import Program, running
from benchmarks.relay import relay
from benchmarks.servers import ROOT
from tests.waiting import WITHIN, until

_MEBIBYTE = 2**20


def turn(folder: Path, steps: int = 3) -> Turn:
    return Turn(
        model="",
        artifact="",
        noise="",
        control="",
        picture=str(folder / "picture.png"),
        prompt="a red apple",
        guidance=7.5,
        seed=1,
        side=8,
        steps=steps,
        warm_up=True,
    )


class Sleeper:
    """Takes 20 ms for a step and 60 ms for the rest."""

    packages = ("pillow", "not-installed-anywhere")

    def __init__(self, turn: Turn) -> None:
        self.asked: list[int] = []

    def draw(self, steps: int, on_step: Callable[[], None]) -> Image.Image:
        self.asked.append(steps)
        for _ in range(steps):
            time.sleep(0.02)
            on_step()
        time.sleep(0.06)
        return Image.new("RGB", (8, 8), "red")


class Threaded(Sleeper):
    """Draws in a thread of its own, while the first one is busy."""

    def draw(self, steps: int, on_step: Callable[[], None]) -> Image.Image:
        with ThreadPoolExecutor(1) as pool:
            drawn = pool.submit(super().draw, steps, on_step)
            while not drawn.done():
                sum(range(1000))
            return drawn.result()


def program(asked: Turn, folder: Path, sleeper: type[Sleeper]) -> tuple[AbstractContextManager[Program], Path]:
    """Return a contender's program, and the file with what it takes."""
    (folder / "turn.json").write_text(json.dumps(vars(asked)))
    names = f"from {__name__} import {sleeper.__name__}; from benchmarks.contenders.turn import take_turn"
    command = [sys.executable, "-c", f"{names}; take_turn({sleeper.__name__})"]
    return running([*command, str(folder / "turn.json"), str(folder / "measured.json")], {}), folder / "measured.json"


def test_times_lie_between_the_ends_of_steps(tmp_path: Path) -> None:
    asked = turn(tmp_path)
    made: list[Sleeper] = []

    def make(turn: Turn) -> Sleeper:
        time.sleep(0.05)
        made.append(Sleeper(turn))
        return made[0]

    measured = measure(asked, make, lambda: None)
    assert made[0].asked == [1, 3]
    assert measured.ready >= 0.05
    assert measured.warm_up >= 0.08
    assert len(measured.steps) == 2
    assert min(measured.steps) >= 0.02
    assert measured.after >= 0.06
    assert measured.image >= 0.12
    assert set(measured.packages) == {"pillow"}
    with Image.open(asked.picture) as drawn:
        assert drawn.size == (8, 8)


def test_memory_of_the_warm_up_counts_in_the_peak_and_not_in_that_of_drawing(tmp_path: Path) -> None:
    class Greedy(Sleeper):
        def draw(self, steps: int, on_step: Callable[[], None]) -> Image.Image:
            if steps == 1:
                np.ones(256 * _MEBIBYTE, np.uint8)
            return super().draw(steps, on_step)

    measured = measure(turn(tmp_path), Greedy, lambda: None)
    assert measured.peak - measured.peak_drawing > 200 * _MEBIBYTE


def test_a_contender_that_skips_steps_is_not_believed(tmp_path: Path) -> None:
    class Lazy(Sleeper):
        def draw(self, steps: int, on_step: Callable[[], None]) -> Image.Image:
            return super().draw(1, on_step)

    with pytest.raises(RuntimeError, match="3 steps were asked for, 1 were made"):
        measure(turn(tmp_path), Lazy, lambda: None)


def test_the_time_in_which_others_work_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hour, real = 3600.0, time.monotonic
    words: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: real() + hour * len(words))
    measured = measure(turn(tmp_path), Sleeper, lambda: words.append(time.monotonic()))
    assert len(words) == 1 + 3  # loaded, and after each step
    assert measured.image < hour
    assert max(measured.steps) < hour


def test_a_turn_is_read_from_a_file_and_answered_in_another(tmp_path: Path) -> None:
    own, answer = program(turn(tmp_path, steps=2), tmp_path, Sleeper)
    assert relay([own], WITHIN) == [None]
    assert len(json.loads(answer.read_text())["steps"]) == 1


def test_a_thread_that_hands_over_does_not_see_the_time_pass(tmp_path: Path) -> None:
    slow = "import os, signal, time\nfor _ in range(2): time.sleep(4.0); os.kill(os.getpid(), signal.SIGSTOP)"
    own, answer = program(turn(tmp_path, steps=2), tmp_path, Threaded)
    assert relay([own, running([sys.executable, "-c", slow], {})], WITHIN) == [None, None]
    assert max(json.loads(answer.read_text())["steps"]) < 3.5


def test_a_contender_does_not_outlive_its_parent(tmp_path: Path) -> None:
    program(turn(tmp_path), tmp_path, Sleeper)
    start = f"""
import os, subprocess, sys
from benchmarks.contenders.turn import take_turn
from {__name__} import Sleeper
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, {str(tmp_path / "turn.json")!r}, "answer"])
    os.waitpid(child.pid, os.WUNTRACED)
    print(child.pid)
else:
    take_turn(Sleeper)
"""
    (tmp_path / "start.py").write_text(start)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "start.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WITHIN, check=True)
    stat = Path(f"/proc/{int(done.stdout)}/stat")

    def has_ended() -> bool:
        # One that has ended may still be waiting to be asked how.
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "ZX"

    until(has_ended, "it ends without its parent")
