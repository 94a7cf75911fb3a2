"""Waiting for something that another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.unit.fake_engine import WITHIN


def until(condition: Callable[[], object]) -> None:
    """Return when the condition is true; fail if it does not become true."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
