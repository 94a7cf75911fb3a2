"""Waiting for what a server does by itself, as far as its log tells."""

from __future__ import annotations

import re

from tests.integration.conftest import RunningTriton
from tests.waiting import until


def until_logged(server: RunningTriton, pattern: str) -> re.Match[str]:
    """Wait for a line of the server's log."""
    found = until(lambda: re.search(pattern, server.log_text()), pattern)
    assert found is not None
    return found


def until_ready_again(server: RunningTriton, count: int = 2) -> None:
    """Wait until tritonserver has become ready so many times."""
    until(lambda: server.log_text().count("is ready after") >= count, "tritonserver is back")


def until_back(server: RunningTriton, model: str, pid: int) -> None:
    """Wait until the death of a model's process is noticed and the model answers again, or all of Triton does."""
    found = until_logged(server, rf"model {model} is dead: .*{pid}|tritonserver is started again")
    if found[0].startswith("model"):
        until_logged(server, f"model {model} answers again|tritonserver is started again")
    if "tritonserver is started again" in server.log_text():
        until_ready_again(server)
