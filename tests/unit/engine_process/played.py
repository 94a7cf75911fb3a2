"""Engines that a test plays, and a client before them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.conftest import DEFAULTS, request_for, result_with
from tests.unit.engine_process.peers import Listener, Peer
from tests.waiting import WITHIN, until
from triton_diffusers.engine_process.address import engine_addresses
from triton_diffusers.engine_process.client import EngineClient, Outcome, PendingRequest
from triton_diffusers.engine_process.messages import (
    Hello,
    Metrics,
    Ready,
    Started,
    Submit,
    Succeeded,
)
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings

RESULT = result_with(images=(b"image",))


@dataclass
class Caller:
    """Sends requests and keeps their outcomes, by task."""

    client: EngineClient
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)

    def submit(self, task_id: str = "a", *, with_images: bool = True, **changes: Any) -> PendingRequest:
        outcomes = self.outcomes.setdefault(task_id, [])
        return self.client.submit(request_for(task_id=task_id, **changes), outcomes.append, with_images=with_images)

    def outcome(self, task_id: str = "a") -> Outcome:
        """Wait for a task's only outcome."""
        until(lambda: self.outcomes[task_id])
        (outcome,) = self.outcomes[task_id]
        return outcome


@dataclass
class Engines:
    """Addresses of engines that the test plays, and the clients before them."""

    runtime_dir: Path
    listening: Callable[[Path], Listener]
    resources: ExitStack
    metrics: list[Metrics] = field(default_factory=list)

    def client(self, **settings: Any) -> EngineClient:
        read = Settings(**{"runtime_dir": self.runtime_dir, "poll_seconds": 0.02, **settings})
        self.addresses = engine_addresses(read)
        self.listeners = [self.listening(address.socket) for address in self.addresses]
        self.board = self.resources.enter_context(closing(JobBoard(self.runtime_dir)))
        return EngineClient("sd_base", self.addresses, read, self.board, self.metrics.append)

    def caller(self, **settings: Any) -> tuple[Caller, Peer]:
        """Return a caller whose client's first engine is ready, and that engine."""
        client = self.client(**settings)
        starting = threading.Thread(target=client.start)
        starting.start()
        self.resources.callback(client.close)
        engine = self.connection()
        starting.join(WITHIN)
        return Caller(client), engine

    def connection(self, number: int = 0, *, ready: bool = True) -> Peer:
        """Accept the client's connection to an engine, which is ready then."""
        peer = self.listeners[number].accept()
        assert isinstance(peer.received(), Hello)
        if ready:
            peer.send(Ready(DEFAULTS))
        return peer

    def vanish(self, *peers: Peer) -> None:
        """End all engines: nobody listens any more."""
        for listener in self.listeners:
            listener.close()
        for peer in peers:
            peer.close()

    def return_(self) -> Peer:
        """Bring the only engine back."""
        self.listeners = [self.listening(address.socket) for address in self.addresses]
        return self.connection()


def taken(engine: Peer, *, start: bool = True) -> Submit:
    """Return the next request that an engine has received, and start it."""
    message = engine.received()
    assert isinstance(message, Submit)
    if start:
        engine.send(Started(message.job_id))
    return message


def tasks(engine: Peer, count: int, *, start: bool = True) -> list[tuple[str, bool]]:
    """Return the tasks of the next requests, and True for each suspect."""
    messages = [taken(engine, start=start) for _ in range(count)]
    return [(message.request.task_id, message.is_suspect) for message in messages]


def reach_the_client(engine: Peer, caller: Caller) -> None:
    """Return when the client has read everything that the engine has sent so far."""
    last = f"last of {len(caller.outcomes)}"
    caller.submit(last)
    engine.send(Succeeded(taken(engine).job_id, RESULT))
    caller.outcome(last)
