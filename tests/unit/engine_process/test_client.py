"""The client: holds requests until they are answered, however often the engines die. The engines are the tests' own."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing

import pytest

from tests.unit.conftest import DEFAULTS, request_for
from tests.unit.engine_process.played import RESULT, Engines, taken, tasks
from tests.waiting import WITHIN, until
from triton_diffusers.api.request import GenerationResult
from triton_diffusers.engine_process.client import EngineUnavailable, Outcome
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Hello,
    LoadFailed,
    Metrics,
    Ready,
    Succeeded,
)
from triton_diffusers.errors import Busy, Cancelled, InvalidRequest


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
    engines.vanish(engine)
    until(lambda: pending.link is None)
    caller.client.cancel(pending)
    assert isinstance(caller.outcome(), Cancelled)
    assert [shown.state for shown in engines.board.entries("a")] == ["cancelled"]
    caller.client.cancel(pending)
    assert len(caller.outcomes["a"]) == 1
    assert tasks(engines.return_(), 1) == [("kept", False)]


def test_a_request_is_on_the_board_before_an_engine_has_it(engines: Engines) -> None:
    caller, engine = engines.caller()
    engines.vanish(engine)
    until(lambda: caller.client._links[0].channel is None)
    pending = caller.submit(image_num=2)
    (shown,) = engines.board.entries("a")
    assert (shown.job_id, shown.pid, shown.model, shown.state, shown.image_num, shown.arrived) == (
        pending.job_id, os.getpid(), "sd_base", "queued", 2, pending.arrived,
    )  # fmt: skip


def test_a_refused_request_is_not_on_the_board(engines: Engines) -> None:
    caller, engine = engines.caller(max_queue=1)
    engines.vanish(engine)
    until(lambda: caller.client._links[0].channel is None)
    caller.submit()
    with pytest.raises(Busy):
        caller.submit("b")
    assert engines.board.entries("b") == []


def test_the_board_cancels_a_request_that_waits_for_an_engine(engines: Engines) -> None:
    caller, engine = engines.caller()
    engines.vanish(engine)
    until(lambda: caller.client._links[0].channel is None)
    caller.submit()
    caller.submit("kept")
    engines.board.cancel("a")
    error = caller.outcome()
    assert isinstance(error, Cancelled)
    (shown,) = engines.board.entries("a")
    assert (shown.state, shown.error_msg) == ("cancelled", str(error))
    assert tasks(engines.return_(), 1) == [("kept", False)]


def test_the_board_cancels_a_request_that_its_engine_has_not_started(engines: Engines) -> None:
    caller, engine = engines.caller()
    pending = caller.submit()
    taken(engine, start=False)
    engines.board.cancel("a")
    assert engine.received() == Cancel(pending.job_id)
    engine.send(Failed(pending.job_id, Cancelled("the job was cancelled")))
    assert isinstance(caller.outcome(), Cancelled)


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
