"""A server of the engine process in the tests' own process, and clients of it."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import request_for
from tests.unit.engine_process.peers import Peer
from tests.unit.fake_engine import FakeEngine
from tests.waiting import until
from triton_diffusers.engine_process.channel import Channel, connect, listen
from triton_diffusers.engine_process.messages import (
    Failed,
    Hello,
    Message,
    MetricKey,
    Metrics,
    Ping,
    Pong,
    Started,
    Submit,
    Succeeded,
    Watch,
)
from triton_diffusers.engine_process.server import EngineServer
from triton_diffusers.settings import Settings


class Choice:
    """Stands in for ``EngineChoice``: the engine is the test's, and nothing is to be built."""

    made = "eager"
    missing = None
    needs_force = False

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    def make(self, try_out: Any) -> FakeEngine:
        try_out(self._engine)
        return self._engine


def connected(path: Path) -> Channel:
    """Return a connection to a server that listens, or will soon."""
    channels: list[Channel] = []

    def try_to_connect() -> bool:
        with suppress(OSError):
            channels.append(connect(path))
        return bool(channels)

    until(try_to_connect)
    return channels[0]


class Client(Peer):
    """A client of the server. Metrics are kept apart, since they come at any time."""

    def __init__(self, path: Path, hello: Hello | Watch) -> None:
        self.metrics: list[Metrics] = []
        super().__init__(connected(path))
        self.send(hello)

    def record(self, message: Message) -> None:
        if isinstance(message, Metrics):
            self.metrics.append(message)
        else:
            super().record(message)

    @property
    def metric_keys(self) -> set[MetricKey]:
        """Families and labels of the metrics so far."""
        return {key for sent in list(self.metrics) for key in (*sent.added, *sent.values)}

    def submit(self, job_id: str, *, suspect: bool = False, with_images: bool = True, **changes: Any) -> None:
        request = request_for(task_id=job_id, **changes)
        self.send(Submit(job_id, "sd_base", request, time.time(), with_images, is_suspect=suspect))

    def ends(self, count: int) -> dict[str, Succeeded | Failed]:
        """Wait for the ends of requests, and return them by job; ``Started`` messages between them are dropped."""
        found: dict[str, Succeeded | Failed] = {}
        while len(found) < count:
            message = self.received()
            if isinstance(message, Succeeded | Failed):
                assert message.job_id not in found, "it has ended already"
                found[message.job_id] = message
            else:
                assert isinstance(message, Started)
        return found

    def synchronise(self) -> list[Message]:
        """Return all messages until the server has read everything that was sent to it."""
        self.send(Ping())
        found: list[Message] = []
        while not isinstance(message := self.received(), Pong):
            assert message is not None
            found.append(message)
        return found


class Running:
    """A server in this process, which is loaded when the test says so."""

    def __init__(self, resources: ExitStack, runtime_dir: Path, engine: FakeEngine, **settings: Any) -> None:
        fields = {"runtime_dir": runtime_dir, "store": "", "enlarge": "off", "poll_seconds": 0.02, **settings}
        self.settings = Settings(**fields)
        self._resources = resources
        self._path = runtime_dir / "engine.sock"
        self._chosen: Future[Any] = Future()
        self._engine = engine
        self.server = EngineServer(self.settings, 0)
        listener = resources.enter_context(listen(self._path))
        resources.callback(listener.shutdown, 2)
        threading.Thread(target=self.server.accept, args=(listener,), daemon=True).start()

    def connect(self, model: str = "sd_base", hello: Hello | Watch | None = None) -> Client:
        client = Client(self._path, hello or Hello(model, os.getpid(), time.time()))
        self._resources.callback(client.close)
        return client

    def load(self) -> None:
        self._chosen.set_result(Choice(self._engine))
        self._resources.callback(self.stop)
        self.server.load(self._chosen)

    def fail(self, error: Exception) -> None:
        self._chosen.set_exception(error)
        with pytest.raises(type(error)):
            self.server.load(self._chosen)

    def stop(self) -> None:
        self._engine.turnstile.open()
        self.server.close()


def error_of(message: Succeeded | Failed) -> Exception:
    assert isinstance(message, Failed)
    return message.error
