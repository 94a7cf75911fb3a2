"""Waiting for something that another thread or process does, with one limit for all tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

# Seconds until a wait has failed. No result depends on it: an idle machine needs a moment, a busy one minutes.
WITHIN = 240.0

T = TypeVar("T")


def until(condition: Callable[[], T], what: str = "it", *, within: float = WITHIN) -> T:
    """Return the condition's first true value; fail if there is none."""
    pauses = _pauses(what, within)
    while not (value := condition()):
        time.sleep(next(pauses))
    return value


async def until_async(condition: Callable[[], T], what: str = "it") -> T:
    """Return the condition's first true value while other tasks run; fail if there is none."""
    pauses = _pauses(what, WITHIN)
    while not (value := condition()):
        await asyncio.sleep(next(pauses))
    return value


def _pauses(what: str, within: float) -> Iterator[float]:
    """Yield pauses that grow, so that many who wait leave the processor to what they wait for."""
    deadline, pause = time.monotonic() + within, 0.005
    while time.monotonic() < deadline:
        yield pause
        pause = min(pause * 1.3, 0.1)
    raise AssertionError(f"{what}: not within {within:g} s")
