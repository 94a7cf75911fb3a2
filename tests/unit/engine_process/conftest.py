"""Sockets, clients and servers of the engine process's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.unit.engine_process.peers import Listener
from tests.unit.engine_process.played import Engines
from tests.unit.engine_process.served import Client, Running
from tests.unit.fake_engine import FakeEngine
from triton_diffusers.engine_process.messages import Ready


@pytest.fixture
def listening() -> Iterator[Callable[[Path], Listener]]:
    """Open a listening socket; a closed one may be opened again. All connections are closed after the test."""
    opened: list[Listener] = []

    def start(path: Path) -> Listener:
        opened.append(Listener(path))
        return opened[-1]

    yield start
    for listener in opened:
        listener.close()
        for peer in listener.accepted:
            peer.close()


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    """Return a runtime directory as deep as a pytest folder, or deeper: no socket address has room for its path."""
    with TemporaryDirectory() as folder:
        deep = Path(folder, *["deep"] * 30)
        deep.mkdir(parents=True)
        yield deep


@pytest.fixture
def make(runtime_dir: Path, engine: FakeEngine) -> Iterator[Callable[..., Running]]:
    with ExitStack() as resources:
        yield lambda **settings: Running(resources, runtime_dir, engine, **settings)


@pytest.fixture
def running(make: Callable[..., Running]) -> Running:
    made = make()
    made.load()
    return made


@pytest.fixture
def client(running: Running) -> Client:
    """Return a client that has been told that the engine is ready."""
    connected = running.connect()
    assert isinstance(connected.received(), Ready)
    return connected


@pytest.fixture
def engines(runtime_dir: Path, listening: Callable[[Path], Listener]) -> Iterator[Engines]:
    with ExitStack() as resources:
        yield Engines(runtime_dir, listening, resources)
