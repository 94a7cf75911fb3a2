"""Programs that hand over to each other, so that one works at a time, and all of them within the same minutes.

A virtual machine may be twice as slow a quarter of an hour later. Of two that have taken turns step by step, each step
has a neighbour of the same minute to be compared with.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from benchmarks.program import Program, ProgramFailed

_LOOK_SECONDS = 1.0


Start = Callable[[int], AbstractContextManager[Program]]
"""Runs a program that is passed the socket of this number."""


class _Runner:
    """A program, and the channel by which it hands over (it sends a byte) and is given the word (it gets one)."""

    def __init__(self, program: Program, channel: socket.socket) -> None:
        self._program = program
        self._channel = channel
        channel.settimeout(_LOOK_SECONDS)

    def hands_over(self, until: float) -> bool:
        """Wait until it does; false if it has ended, or the time has come."""
        while time.monotonic() < until:
            try:
                return bool(self._channel.recv(1))
            except TimeoutError:
                # What it has started may still hold the other end of the channel.
                if self._program.has_ended:
                    return False
            except ConnectionError:
                return False
        return False

    def works(self, until: float) -> bool:
        """Give it the word; see ``hands_over``."""
        try:
            self._channel.sendall(b".")
        except ConnectionError:
            return False
        return self.hands_over(until)

    def end(self, until: float) -> ProgramFailed | None:
        """Wait for its end, and say how it failed."""
        try:
            self._program.wait(max(0.0, until - time.monotonic()))
        except ProgramFailed as error:
            return error
        return None


def relay(starts: Sequence[Start], seconds: float) -> list[ProgramFailed | None]:
    """Run programs by turns until all have ended; returns for each how it failed, if it did.

    Each starts when the one before has handed over for the first time. ``seconds`` is the limit for each, on average.
    """
    until = time.monotonic() + seconds * len(starts)
    with contextlib.ExitStack() as stack:
        runners = []
        for start in starts:
            channel, theirs = socket.socketpair()
            stack.enter_context(channel)
            with theirs:
                program = stack.enter_context(start(theirs.fileno()))
            runners.append(_Runner(program, channel))
            runners[-1].hands_over(until)
        running = list(runners)
        while running:
            running = [runner for runner in running if runner.works(until)]
        return [runner.end(until) for runner in runners]
