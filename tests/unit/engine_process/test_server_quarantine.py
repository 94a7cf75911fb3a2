"""Requests that were in an engine process when it died run alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import pytest

from tests.unit.engine_process.served import Client, Running, error_of
from tests.unit.fake_engine import FakeEngine
from tests.unit.jobs.test_board import entry
from tests.waiting import WITHIN
from triton_diffusers.engine_process import server as server_module
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Started,
    Succeeded,
)
from triton_diffusers.errors import Busy, Cancelled
from triton_diffusers.inflight.admission import Admission
from triton_diffusers.jobs.board import JobBoard


def test_a_suspect_runs_alone(client: Client, engine: FakeEngine) -> None:
    engine.turnstile.hold()
    client.submit("before")
    assert client.received() == Started("before")
    client.submit("first", suspect=True)
    client.submit("second", suspect=True)
    client.submit("after")
    assert client.synchronise() == [], "nothing is started while another request runs"
    engine.turnstile.open()
    messages = [client.received() for _ in range(7)]
    order = [message.job_id for message in messages if isinstance(message, Started | Succeeded)]
    assert order == ["before", "first", "first", "second", "second", "after", "after"]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return the messages as they are sent, slowly, and the tasks as work on them begins."""
    events: list[object] = []
    send, prepare = Connection.send, Admission.prepare

    def sent(connection: Any, message: Any) -> None:
        if isinstance(message, Started | Succeeded):
            time.sleep(0.2)
            events.append((type(message), message.job_id))
        send(connection, message)

    def begun(admission: Any, job: Any) -> None:
        events.append(job.request.task_id)
        prepare(admission, job)

    monkeypatch.setattr(server_module, "_FLUSH_SECONDS", WITHIN)
    monkeypatch.setattr(Connection, "send", sent)
    monkeypatch.setattr(Admission, "prepare", begun)
    return events


def test_the_client_knows_all_before_a_suspect_can_kill_the_process(order: list[object], client: Client) -> None:
    """A message that is still queued when the process dies is lost, and somebody else is blamed."""
    client.submit("first", suspect=True)
    client.submit("second", suspect=True)
    client.ends(2)
    assert order == [
        (Started, "first"), "first", (Succeeded, "first"), (Started, "second"), "second", (Succeeded, "second"),
    ]  # fmt: skip


def test_a_request_that_waits_for_suspects_is_cancelled_at_once(client: Client, engine: FakeEngine) -> None:
    engine.turnstile.hold()
    client.submit("suspect", suspect=True)
    client.submit("a")
    client.submit("b")
    client.send(Cancel("a"))
    received = [client.received(), client.received()]
    assert Started("suspect") in received
    (ended,) = (message for message in received if isinstance(message, Failed))
    assert (ended.job_id, type(ended.error)) == ("a", Cancelled)
    engine.turnstile.open()
    assert client.ends(2).keys() == {"suspect", "b"}


def test_the_board_shows_a_request_that_was_cancelled_while_it_waited_for_suspects(
    running: Running, client: Client, engine: FakeEngine
) -> None:
    engine.turnstile.hold()
    with closing(JobBoard(running.settings.runtime_dir)) as board:
        board.post(entry(job_id="a", task_id="a", state="queued"))  # as the client does
        client.submit("suspect", suspect=True)
        client.submit("a")
        client.send(Cancel("a"))
        client.ends(1)
        assert [(shown.state, shown.error_msg) for shown in board.entries("a")] == [
            ("cancelled", "the job was cancelled")
        ]
    engine.turnstile.open()
    client.ends(1)


def test_the_board_forgets_a_refused_request(make: Callable[..., Running], engine: FakeEngine) -> None:
    running = make(max_queue=1)
    running.load()
    client = running.connect()
    client.received()
    engine.turnstile.hold()
    with closing(JobBoard(running.settings.runtime_dir)) as board:
        client.submit("suspect", suspect=True)
        client.submit("held")
        board.post(entry(job_id="refused", task_id="refused", state="queued"))
        client.submit("refused")
        assert isinstance(error_of(client.ends(1)["refused"]), Busy)
        assert board.entries("refused") == []
    engine.turnstile.open()
    client.ends(2)


def test_requests_that_wait_for_suspects_are_bounded_but_suspects_are_not(
    make: Callable[..., Running], engine: FakeEngine
) -> None:
    running = make(max_queue=2)
    running.load()
    client = running.connect()
    client.received()
    engine.turnstile.hold()
    client.submit("suspect", suspect=True)
    for number in range(3):
        client.submit(str(number))
    client.submit("another", suspect=True)
    error = error_of(client.ends(1)["2"])
    assert isinstance(error, Busy)
    assert str(error) == "the engine has died and is recovering; send the request again later"
    engine.turnstile.open()
    assert client.ends(4).keys() == {"suspect", "0", "1", "another"}


def test_any_number_of_requests_is_refused_after_a_suspect(make: Callable[..., Running], engine: FakeEngine) -> None:
    """Each refusal looks for the next request to start."""
    running = make(max_queue=1000)
    running.load()
    client = running.connect()
    client.received()
    engine.turnstile.hold()
    client.submit("suspect", suspect=True)
    for number in range(1000):
        client.submit(str(number))
    client.synchronise()
    engine.turnstile.open()
    running.server._loop.stop()
    ended = client.ends(1001)
    assert {type(error_of(message)) for job, message in ended.items() if job != "suspect"} == {Busy}
