"""Waiting for what a server does by itself, as far as its log tells."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from tests.integration.conftest import RunningTriton

NOTICED_WITHIN = 10.0  # seconds; the promise
BACK_WITHIN = 120.0  # the tiny models load at once; the rest is for loaded machines


def until(condition: Callable[[], Any], within: float, what: str) -> Any:
    """Wait until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.05)
    return value


def until_logged(server: RunningTriton, pattern: str, within: float) -> re.Match[str]:
    found: re.Match[str] = until(lambda: re.search(pattern, server.log_text()), within, pattern)
    return found


def until_back(server: RunningTriton, model: str, pid: int) -> None:
    """Wait until the death of a model's process is noticed and the model answers again, or all of Triton does."""
    found = until_logged(server, rf"model {model} is dead: .*{pid}|tritonserver is started again", NOTICED_WITHIN)
    if found[0].startswith("model"):
        until_logged(server, f"model {model} answers again|tritonserver is started again", BACK_WITHIN * 2)
    if "tritonserver is started again" in server.log_text():
        until(lambda: server.log_text().count("is ready after") == 2, BACK_WITHIN * 2, "tritonserver is back")
