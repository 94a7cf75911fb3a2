"""Requests of the client while engines die and come back."""

from __future__ import annotations

import time

import pytest

from tests.unit.engine_process.played import RESULT, Engines, reach_the_client, taken, tasks
from tests.waiting import until
from triton_diffusers.engine_process.messages import (
    Started,
    Succeeded,
)
from triton_diffusers.errors import Busy, EngineFailure, TimedOut


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
    caller.submit()
    taken(engine)
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
