"""The client: holds requests until they are answered, however often the engines die. The engines are the tests' own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import DEFAULTS, request_for, result_with
from tests.unit.engine_process.conftest import Listener, Peer
from tests.unit.fake_engine import WITHIN
from tests.unit.jobs.test_board import entry
from tests.unit.waiting import until
from triton_diffusers.api.request import GenerationResult
from triton_diffusers.engine_process.address import engine_addresses
from triton_diffusers.engine_process.client import EngineClient, EngineUnavailable, Outcome, PendingRequest
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Hello,
    LoadFailed,
    Metrics,
    Ready,
    Started,
    Submit,
    Succeeded,
)
from triton_diffusers.errors import Busy, Cancelled, EngineFailure, InvalidRequest, TimedOut
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


@pytest.fixture
def engines(runtime_dir: Path, listening: Callable[[Path], Listener]) -> Iterator[Engines]:
    with ExitStack() as resources:
        yield Engines(runtime_dir, listening, resources)


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


def test_a_request_is_handed_over_and_its_result_handed_back(engines: Engines) -> None:
    caller, engine = engines.caller()
    before = time.time()
    pending = caller.submit(steps=7, with_images=False)
    sent = taken(engine)
    assert (sent.job_id, sent.model, sent.request, sent.with_images, sent.is_suspect) == (
        pending.job_id, "sd_base", pending.request, False, False,
    )  # fmt: skip
    assert before <= sent.arrived <= time.time()
    assert caller.outcomes["a"] == []
    engine.send(Succeeded(sent.job_id, RESULT))
    assert caller.outcome() == RESULT


def test_an_error_is_handed_back_as_it_was(engines: Engines) -> None:
    caller, engine = engines.caller()
    caller.submit()
    engine.send(Failed(taken(engine).job_id, InvalidRequest("steps", 0, "too few")))
    error = caller.outcome()
    assert isinstance(error, InvalidRequest)
    assert (str(error), error.field) == ("steps: 0 is invalid: too few", "steps")


def test_the_start_waits_for_the_engine_and_has_its_defaults(engines: Engines) -> None:
    client = engines.client()
    with closing(client):
        starting = threading.Thread(target=client.start)
        starting.start()
        engine = engines.listeners[0].accept()
        hello = engine.received()
        assert isinstance(hello, Hello)
        assert (hello.model, hello.pid) == ("sd_base", os.getpid())
        assert hello.born <= time.time()
        starting.join(0.1)
        assert starting.is_alive()
        with pytest.raises(EngineUnavailable, match="no engine has been ready yet"):
            _ = client.defaults
        engine.send(Ready(DEFAULTS))
        starting.join(WITHIN)
        assert client.defaults == DEFAULTS


def test_an_engine_that_cannot_be_loaded_is_told_with_its_reason(engines: Engines) -> None:
    client = engines.client()

    def fail() -> None:
        engines.connection(ready=False).send(LoadFailed("no weights in models/x"))

    failing = threading.Thread(target=fail)
    failing.start()
    with closing(client), pytest.raises(EngineUnavailable, match=r"^no weights in models/x$"):
        client.start()
    failing.join()


def test_a_start_ends_when_the_client_is_closed(engines: Engines) -> None:
    client = engines.client()
    raised: list[str] = []

    def start() -> None:
        try:
            client.start()
        except EngineUnavailable as error:
            raised.append(str(error))

    starting = threading.Thread(target=start)
    starting.start()
    engines.connection(ready=False)
    client.close()
    starting.join(WITHIN)
    assert raised == ["the server is stopping; send the request again later"]


def test_requests_are_handed_over_again_when_the_engine_is_back(engines: Engines) -> None:
    """Suspect only the requests that it had started; resubmit all of them unchanged."""
    caller, engine = engines.caller()
    started, queued = caller.submit("started"), caller.submit("queued")
    first = taken(engine)
    taken(engine, start=False)
    reach_the_client(engine, caller)
    engines.vanish(engine)
    engine = engines.return_()
    again = [taken(engine), taken(engine)]
    assert [(sent.job_id, sent.is_suspect) for sent in again] == [(started.job_id, True), (queued.job_id, False)]
    assert (again[0].request, again[0].arrived) == (first.request, first.arrived)
    for sent in again:
        engine.send(Succeeded(sent.job_id, RESULT))
    assert caller.outcome("started") == caller.outcome("queued") == RESULT


def test_the_second_death_fails_the_request_that_was_alone_and_no_other(engines: Engines) -> None:
    caller, engine = engines.caller()
    for task_id in ("innocent", "guilty"):
        caller.submit(task_id)
    assert tasks(engine, 2) == [("innocent", False), ("guilty", False)]
    reach_the_client(engine, caller)
    engine.close()
    engine = engines.connection()
    assert tasks(engine, 2, start=False) == [("innocent", True), ("guilty", True)]
    engine.send(Started(next(job for job, held in caller.client._pending.items() if held.request.task_id == "guilty")))
    reach_the_client(engine, caller)
    engine.close()
    error = caller.outcome("guilty")
    assert isinstance(error, EngineFailure)
    assert str(error) == (
        "task guilty was in the engine alone when it died, and before that once with others; it is not tried again"
    )
    engine = engines.connection()
    sent = taken(engine)
    assert (sent.request.task_id, sent.is_suspect) == ("innocent", True)
    engine.send(Succeeded(sent.job_id, RESULT))
    assert caller.outcome("innocent") == RESULT


def test_deaths_before_a_request_was_started_do_not_count(engines: Engines) -> None:
    caller, engine = engines.caller()
    caller.submit()
    for _ in range(4):
        assert tasks(engine, 1, start=False) == [("a", False)]
        engine.close()
        engine = engines.connection()
    engine.send(Succeeded(taken(engine).job_id, RESULT))
    assert caller.outcome() == RESULT


def test_requests_that_wait_for_an_engine_are_bounded(engines: Engines) -> None:
    caller, engine = engines.caller(max_queue=2)
    for task_id in ("a", "b", "c"):
        caller.submit(task_id)  # the bound of a living engine is its own
    assert len(tasks(engine, 3, start=False)) == 3
    engines.vanish(engine)
    until(lambda: all(pending.link is None for pending in caller.client._pending.values()))
    with pytest.raises(Busy, match="3 requests wait for the engine already, the limit; send the request again later"):
        caller.submit("d")
    engine = engines.return_()
    assert len(tasks(engine, 3)) == 3
    caller.submit("e")
    assert tasks(engine, 1) == [("e", False)]


def test_a_request_that_arrives_without_an_engine_waits_for_it(engines: Engines) -> None:
    caller, engine = engines.caller()
    engines.vanish(engine)
    until(lambda: caller.client._links[0].channel is None)
    caller.submit()
    engine = engines.return_()
    assert tasks(engine, 1) == [("a", False)]


def test_a_request_waits_for_an_engine_only_so_long(engines: Engines) -> None:
    caller, engine = engines.caller(engine_wait_seconds=0.1)
    pending = caller.submit()
    taken(engine)
    engines.board.post(entry(job_id=pending.job_id, task_id="a"))
    engines.vanish(engine)
    error = caller.outcome()
    assert isinstance(error, Busy)
    assert str(error) == "the engine has not come back in 0.1 s; send the request again later"
    (shown,) = engines.board.entries("a")
    assert (shown.state, shown.error_msg) == ("cancelled", str(error))


def test_a_request_with_an_engine_is_left_to_its_patience(engines: Engines) -> None:
    caller, engine = engines.caller(engine_wait_seconds=0.05)
    caller.submit(timeout_seconds=0.05)
    sent = taken(engine)
    time.sleep(0.3)
    assert caller.outcomes["a"] == []
    engine.send(Succeeded(sent.job_id, RESULT))
    assert caller.outcome() == RESULT


def test_a_timeout_ends_a_request_that_waits_for_an_engine(engines: Engines) -> None:
    caller, engine = engines.caller()
    caller.submit(timeout_seconds=0.2)
    caller.submit("patient")
    engines.vanish(engine)
    error = caller.outcome()
    assert isinstance(error, TimedOut)
    assert "timeout of 0.2 s" in str(error)
    assert caller.outcomes["patient"] == []


def test_cancel_is_the_engines_while_it_has_the_request(engines: Engines) -> None:
    caller, engine = engines.caller()
    pending = caller.submit()
    taken(engine)
    caller.client.cancel(pending)
    assert engine.received() == Cancel(pending.job_id)
    assert caller.outcomes["a"] == []
    engine.send(Failed(pending.job_id, Cancelled("the job was cancelled")))
    assert isinstance(caller.outcome(), Cancelled)


def test_cancel_ends_a_request_that_waits_for_an_engine(engines: Engines) -> None:
    caller, engine = engines.caller()
    pending = caller.submit()
    caller.submit("kept")
    tasks(engine, 2, start=False)
    engines.board.post(entry(job_id=pending.job_id, task_id="a"))
    engines.vanish(engine)
    until(lambda: pending.link is None)
    caller.client.cancel(pending)
    assert isinstance(caller.outcome(), Cancelled)
    assert [shown.state for shown in engines.board.entries("a")] == ["cancelled"]
    caller.client.cancel(pending)
    assert len(caller.outcomes["a"]) == 1
    assert tasks(engines.return_(), 1) == [("kept", False)]


def test_the_engine_with_the_least_work_gets_the_next_request(engines: Engines) -> None:
    caller, first = engines.caller(device="cuda:0,cuda:1")
    second = engines.connection(1)
    until(lambda: all(link.channel is not None for link in caller.client._links))
    caller.submit("long", steps=40)
    long = taken(first)
    caller.submit("short", steps=10)
    assert tasks(second, 1) == [("short", False)]
    caller.submit("images", steps=10, image_num=2)
    assert tasks(second, 1) == [("images", False)]
    caller.submit("large", width=128, height=128, steps=11)  # 30 steps of work there, 40 on the first
    assert tasks(second, 1) == [("large", False)]
    caller.submit("next", steps=1)
    assert tasks(first, 1) == [("next", False)]
    first.send(Succeeded(long.job_id, RESULT))
    caller.outcome("long")
    caller.submit("last", steps=1)
    assert tasks(first, 1) == [("last", False)]
    assert not second.has_received()


def test_the_requests_of_a_dead_engine_go_to_the_living_one(engines: Engines) -> None:
    caller, first = engines.caller(device="cuda:0,cuda:1")
    second = engines.connection(1)
    until(lambda: all(link.channel is not None for link in caller.client._links))
    caller.submit("a")
    caller.submit("b", steps=5)
    assert tasks(first, 1, start=False) == [("a", False)]
    assert tasks(second, 1) == [("b", False)]
    engines.listeners[0].close()
    first.close()
    sent = taken(second)
    assert sent.request.task_id == "a"
    second.send(Succeeded(sent.job_id, RESULT))
    assert caller.outcome("a") == RESULT


def test_metrics_are_passed_on(engines: Engines) -> None:
    _, engine = engines.caller()
    sent = Metrics({("images", (("model", "sd_base"),)): 2.0}, {("queued", (("worker", "0"),)): 1.0})
    engine.send(sent)
    until(lambda: engines.metrics)
    assert engines.metrics == [sent]


def test_close_ends_every_request_once_and_takes_no_more(engines: Engines) -> None:
    caller, engine = engines.caller()
    for task_id in ("a", "b"):
        caller.submit(task_id)
    tasks(engine, 2)
    caller.client.close()
    assert engine.received() is None
    for task_id in ("a", "b"):
        error = caller.outcome(task_id)
        assert isinstance(error, Busy)
        assert str(error) == "the server is stopping; send the request again later"
    with pytest.raises(Busy, match="the server is stopping"):
        caller.submit("c")
    assert not any(thread.is_alive() for thread in caller.client._threads)


def test_an_answer_that_fails_costs_no_other_request_its_own(
    engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    caller, engine = engines.caller()

    def fail(outcome: Outcome) -> None:
        raise RuntimeError("Triton does not take it")

    caller.client.submit(request_for(task_id="unlucky"), fail, with_images=True)
    engine.send(Succeeded(taken(engine).job_id, RESULT))
    caller.submit()
    engine.send(Succeeded(taken(engine).job_id, RESULT))
    assert isinstance(caller.outcome(), GenerationResult)
    assert "task unlucky could not be answered" in caplog.text
