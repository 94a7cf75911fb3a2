"""The engine process from its start to its end."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.engine_process.served import Choice, Client
from tests.unit.fake_engine import FakeEngine
from tests.waiting import WITHIN, until
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.engine_process import server as server_module
from triton_diffusers.engine_process.channel import connect
from triton_diffusers.engine_process.messages import (
    LoadFailed,
    Message,
    Ready,
    Watch,
)
from triton_diffusers.engine_process.server import LOAD_FAILED, EngineServer, run
from triton_diffusers.settings import Settings


def test_the_process_serves_until_sigterm_and_takes_no_client_after_it(
    runtime_dir: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that came then would hand its requests over to an engine that ends."""
    former = signal.getsignal(signal.SIGTERM)
    path = runtime_dir / "engine.sock"
    chosen: Future[Any] = Future()
    chosen.set_result(Choice(engine))
    refused = []
    close = EngineServer.close

    def try_to_connect_and_close(server: EngineServer) -> None:
        try:
            connect(path).close()
        except OSError:
            refused.append(True)
        close(server)

    monkeypatch.setattr(EngineServer, "close", try_to_connect_and_close)

    def use() -> None:
        with closing(Client(path, Watch())) as client:
            assert isinstance(client.received(), Ready)
            until(lambda: signal.getsignal(signal.SIGTERM) != former)
            os.kill(os.getpid(), signal.SIGTERM)
            assert client.received() is None

    using = threading.Thread(target=use)
    using.start()
    try:
        assert run(Settings(runtime_dir=runtime_dir, store=""), path, 0, chosen) == 0
    finally:
        signal.signal(signal.SIGTERM, former)
    using.join(WITHIN)
    assert refused == [True]


def test_clients_that_are_about_to_connect_learn_why_the_engine_cannot_be_loaded(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading can fail at once, while clients try to connect at intervals."""
    path = runtime_dir / "engine.sock"
    chosen: Future[Any] = Future()
    chosen.set_exception(LoadError("no weights"))
    told: list[Message | None] = []

    def use(seconds: float) -> None:
        """Connect while the process says farewell."""
        assert seconds >= 1.0
        with closing(Client(path, Watch())) as client:
            told.append(client.received())

    monkeypatch.setattr(server_module, "time", SimpleNamespace(sleep=use))
    assert run(Settings(runtime_dir=runtime_dir), path, 0, chosen) == LOAD_FAILED
    assert told == [LoadFailed("no weights")]
