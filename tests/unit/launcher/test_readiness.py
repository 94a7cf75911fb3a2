"""Readiness of a server that starts."""

from __future__ import annotations

import signal
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from triton_diffusers.launcher.errors import StartFailed
from triton_diffusers.launcher.readiness import wait_until_ready
from triton_diffusers.launcher.repository import Model, Repository
from triton_diffusers.launcher.stop import StopRequest


def test_a_crash_while_the_first_probe_waits_is_a_failed_start(tmp_path: Path) -> None:
    """A request that crashes the server can come as soon as it listens."""
    endpoint = MagicMock(**{"is_ready.return_value": True, "connect.side_effect": ConnectionRefusedError})
    server = MagicMock(**{"wait.return_value": True, "failure.return_value": "SIGSEGV"}, exit_code=-signal.SIGSEGV)
    repository = Repository(tmp_path, {"painter": Model("painter", probe={})})
    with pytest.raises(StartFailed, match="SIGSEGV"):
        wait_until_ready(server, endpoint, repository, MagicMock(failure=""), StopRequest())


def test_an_engine_that_cannot_be_loaded_is_a_failed_start(tmp_path: Path) -> None:
    """The server would wait for it for ever."""
    endpoint = MagicMock(**{"is_ready.return_value": False})
    server = MagicMock(**{"wait.return_value": False})
    with pytest.raises(StartFailed, match=r"^tritonserver did not start: no weights$"):
        wait_until_ready(server, endpoint, Repository(tmp_path), MagicMock(failure="no weights"), StopRequest())
