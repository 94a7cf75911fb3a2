"""Programs that take turns."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks.program import Program, running
from benchmarks.relay import relay
from tests.waiting import WITHIN

_PARTS = """
import os, signal, sys, time
log = open(sys.argv[1], "a", buffering=1)
hand_over = lambda: os.kill(os.getpid(), signal.SIGSTOP)
"""
# Loads, makes steps, and ends; everything it does takes a while, in which nobody else is to be seen.
_STEPS = (
    _PARTS
    + """
name, steps = sys.argv[2], int(sys.argv[3])
for part in ["loads", *["steps"] * steps, "ends"]:
    print(name, "begins", file=log)
    time.sleep(0.03)
    print(name, part, file=log)
    if part != "ends":
        hand_over()
"""
)


class TestRelay:
    """Order of the requests, and fate of those that fail."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "log"

    def program(self, log: Path, text: str, *arguments: str) -> AbstractContextManager[Program]:
        return running([sys.executable, "-c", text, str(log), *arguments], {})

    def test_one_works_at_a_time_and_hands_over_after_every_step(self, log: Path) -> None:
        assert relay([self.program(log, _STEPS, "a", "3"), self.program(log, _STEPS, "b", "2")], WITHIN) == [None, None]
        said = log.read_text().splitlines()
        assert [line.split()[0] for line in said[::2]] == [line.split()[0] for line in said[1::2]]
        assert said[1::2] == [
            *("a loads", "b loads", "a steps", "b steps", "a steps", "b steps"),
            *("a steps", "b ends", "a ends"),
        ]

    def test_one_that_fails_leaves_the_other_alone(self, log: Path) -> None:
        broken = self.program(log, _PARTS + "hand_over(); sys.exit('no memory')")
        outcomes = relay([broken, self.program(log, _STEPS, "b", "2")], WITHIN)
        assert str(outcomes[0]) == "ended with 1: no memory"
        assert outcomes[1] is None
        assert log.read_text().splitlines()[-1] == "b ends"

    def test_a_program_that_cannot_start_is_reported(self, log: Path) -> None:
        outcomes = relay([self.program(log, "import sys; sys.exit('no such model')")], WITHIN)
        assert str(outcomes[0]) == "ended with 1: no such model"

    def test_a_slow_program_is_stopped(self, log: Path) -> None:
        outcomes = relay([self.program(log, _PARTS + "time.sleep(600)")], 0.5)
        assert str(outcomes[0]) == "not done in time"

    def test_threads_stop_too(self, log: Path) -> None:
        busy = _PARTS + (
            "import threading\n"
            "def work():\n"
            "    while True:\n"
            "        print('a works', file=log); time.sleep(0.002)\n"
            "threading.Thread(target=work, daemon=True).start()\n"
            "while not os.path.getsize(sys.argv[1]):\n"
            "    time.sleep(0.002)\n"
            "hand_over()"
        )
        relay([self.program(log, busy), self.program(log, _STEPS, "b", "2")], WITHIN)
        said = log.read_text().splitlines()
        assert "a works" in said[: said.index("b begins")]
        assert said[said.index("b begins") :][:2] == ["b begins", "b loads"]
