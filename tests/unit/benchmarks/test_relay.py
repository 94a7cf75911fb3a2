"""Programs that take turns."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks.program import Program, running
from benchmarks.relay import Start, relay

_PARTS = """
import socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
log = open(sys.argv[2], "a", buffering=1)
"""
# Loads, makes steps, and ends; everything it does takes a while, in which nobody else is to be seen.
_STEPS = (
    _PARTS
    + """
name, steps = sys.argv[3], int(sys.argv[4])
for part in ["loads", *["steps"] * steps, "ends"]:
    print(name, "begins", file=log)
    time.sleep(0.03)
    print(name, part, file=log)
    if part != "ends":
        channel.sendall(b".")
        assert channel.recv(1)
"""
)


class TestRelay:
    """Who works when, and what becomes of those that fail."""

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "log"

    def program(self, log: Path, text: str, *arguments: str) -> Start:
        def start(channel: int) -> AbstractContextManager[Program]:
            command = [sys.executable, "-c", text, str(channel), str(log), *arguments]
            return running(command, {}, passed=[channel])

        return start

    def test_one_works_at_a_time_and_hands_over_after_every_step(self, log: Path) -> None:
        assert relay([self.program(log, _STEPS, "a", "3"), self.program(log, _STEPS, "b", "2")], 30.0) == [None, None]
        said = log.read_text().splitlines()
        assert [line.split()[0] for line in said[::2]] == [line.split()[0] for line in said[1::2]]
        assert said[1::2] == [
            *("a loads", "b loads", "a steps", "b steps", "a steps", "b steps"),
            *("a steps", "b ends", "a ends"),
        ]

    def test_one_that_fails_leaves_the_other_alone(self, log: Path) -> None:
        broken = self.program(log, _PARTS + "channel.sendall(b'.'); channel.recv(1); sys.exit('no memory')")
        outcomes = relay([broken, self.program(log, _STEPS, "b", "2")], 30.0)
        assert str(outcomes[0]) == "ended with 1: no memory"
        assert outcomes[1] is None
        assert log.read_text().splitlines()[-1] == "b ends"

    def test_one_that_cannot_start_is_told(self, log: Path) -> None:
        outcomes = relay([self.program(log, "import sys; sys.exit('no such model')")], 30.0)
        assert str(outcomes[0]) == "ended with 1: no such model"

    def test_one_that_takes_too_long_is_ended(self, log: Path) -> None:
        outcomes = relay([self.program(log, _PARTS + "time.sleep(600)")], 0.5)
        assert str(outcomes[0]) == "not done in time"

    def test_a_channel_that_its_child_still_holds_is_no_reason_to_wait(self, log: Path) -> None:
        leaves_one = _PARTS + (
            "import subprocess\n"
            "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], pass_fds=[channel.fileno()])\n"
            "sys.exit('gone')"
        )
        assert str(relay([self.program(log, leaves_one)], 30.0)[0]) == "ended with 1: gone"
