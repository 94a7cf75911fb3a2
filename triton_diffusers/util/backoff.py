"""Exponential backoff."""

from __future__ import annotations

import random


def backoff(attempt: int, *, first: float, longest: float = float("inf"), jitter: bool = False) -> float:
    """Return the seconds to wait after a failed attempt, counted from 0: ``first``, doubled each time.

    With ``jitter`` it is half of that to all of it, so that workers that failed together do not retry together.
    """
    pause = min(first * 2.0 ** min(attempt, 64), longest)
    return random.uniform(pause / 2, pause) if jitter else pause  # noqa: S311  # not a secret
