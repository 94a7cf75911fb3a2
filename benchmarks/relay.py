"""Programs that hand over to each other, so that one works at a time, and all of them within the same minutes.

A virtual machine may be twice as slow a quarter of an hour later. Of two that have taken turns step by step, each step
has a neighbour of the same minute to be compared with. Who has to wait is stopped, with all its threads.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from benchmarks.program import Program, ProgramFailed


def relay(programs: Sequence[AbstractContextManager[Program]], seconds: float) -> list[ProgramFailed | None]:
    """Run programs by turns until all have ended; returns for each how it failed, if it did.

    Each starts when the one before has handed over for the first time. ``seconds`` is the limit for each, on average.
    """
    until = time.monotonic() + seconds * len(programs)
    with contextlib.ExitStack() as stack:
        started = []
        for program in programs:
            started.append(stack.enter_context(program))
            started[-1].hands_over(until)
        working = list(started)
        while working:
            working = [program for program in working if _works(program, until)]
        return [_outcome(program, until) for program in started]


def _works(program: Program, until: float) -> bool:
    program.resume()
    return program.hands_over(until)


def _outcome(program: Program, until: float) -> ProgramFailed | None:
    try:
        program.wait(max(0.0, until - time.monotonic()))
    except ProgramFailed as error:
        return error
    return None
