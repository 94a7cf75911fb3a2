"""Which model is called, with which timeout, and what becomes of jobs that nobody waits for any more."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from tests.waiting import WITHIN, until
from triton_diffusers_client import CancelledError, Client, ClientError, NotFoundError, RequestTimeoutError
from triton_diffusers_client.fields import JOBS_OUTPUTS, OUTPUTS
from triton_diffusers_client.triton import backend as module

_VALUES: Mapping[str, Any] = {"seed": b"7", "parameters": b"{}", "is_nsfw": [], "state": b"running"}


def answer(table: Any) -> dict[str, Any]:
    """One value for each output: that of a job, or of a generation without images."""
    made = {}
    for field in table:
        value = _VALUES.get(field.name, {"INT64": 1, "FP32": 0.0, "BOOL": False}.get(field.datatype, b""))
        if field.many and table is OUTPUTS:
            value = []
        made[field.name] = np.array(value if isinstance(value, list) else [value], object)
    return made


class FakeServer:
    """Knows which models it has, and what it was asked: model, task and timeout."""

    def __init__(self, *models: str) -> None:
        self.models = models
        self.asked: list[tuple[str, float | None]] = []
        self.cancelled: list[str] = []
        self.states: list[list[str]] = []  # of the jobs that each next question finds; at the end, one that runs
        self.behaviour: Callable[[], None] = lambda: None
        self.arrived = threading.Event()

    def call(self, model: str, inputs: Mapping[str, Any], timeout: float | None) -> FakeCall:
        return FakeCall(self, model, inputs, timeout)

    def close(self) -> None:
        self.closed = True


class FakeCall:
    def __init__(self, server: FakeServer, model: str, inputs: Mapping[str, Any], timeout: float | None) -> None:
        self._server, self._model, self._inputs, self._timeout = server, model, inputs, timeout
        self._given_up = threading.Event()

    def cancel(self) -> None:
        self._given_up.set()

    def result(self) -> Mapping[str, Any]:
        server = self._server
        if self._model == "jobs":
            server.cancelled.append(self._inputs["task_id"].item().decode())
            states = server.states.pop(0) if server.states else ["running"]
            if not states:
                raise NotFoundError("task_id: no job is known")
            jobs = {name: np.repeat(column, len(states)) for name, column in answer(JOBS_OUTPUTS).items()}
            return {**jobs, "state": np.array([state.encode() for state in states], object)}
        server.asked.append((self._model, self._timeout))
        if self._model not in server.models:
            raise NotFoundError(f"Request for unknown model: '{self._model}' is not found")
        server.arrived.set()
        server.behaviour()
        if self._given_up.is_set():
            raise CancelledError("the request was cancelled")
        return answer(OUTPUTS)

    @property
    def given_up(self) -> threading.Event:
        return self._given_up


def connected(server: FakeServer, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Client:
    monkeypatch.setattr(module, "open_transport", lambda address, headers: server)
    return Client("triton+http://server", **options)


def test_the_default_model_is_the_ensemble_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("ensemble", "sd_base", "ensemble_controlnet", "sd_controlnet")
    with connected(server, monkeypatch) as client:
        client.generate("红苹果")
        client.generate("红苹果", process_func="canny", image=b"a")
        client.generate("红苹果", model="sd_base")
    assert [model for model, _ in server.asked] == ["ensemble", "ensemble_controlnet", "sd_base"]


def test_a_server_without_ensembles_is_asked_for_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("sd_base")
    with connected(server, monkeypatch) as client:
        for _ in range(3):
            client.generate("a red apple")
    assert [model for model, _ in server.asked] == ["ensemble", "sd_base", "sd_base", "sd_base"]


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_an_endless_timeout_is_none(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    with connected(server, monkeypatch, model="m", timeout=timeout) as client:
        client.generate("x")
        client.generate("x", timeout=timeout)
    assert server.asked == [("m", None)] * 2


def test_closing_asks_a_server_that_does_not_answer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    over = threading.Event()
    server.behaviour = lambda: over.wait(WITHIN) and None
    client = connected(server, monkeypatch, model="m")
    jobs = [client.submit("x") for _ in range(3)]
    until(lambda: len(server.asked) == len(jobs))
    monkeypatch.setattr(module, "progress_from", MagicMock(side_effect=RequestTimeoutError))
    threading.Timer(0.2, over.set).start()
    client.close()
    assert len(server.cancelled) == 1
    for job in jobs:
        with pytest.raises(CancelledError):
            job.result(WITHIN)


def test_something_else_that_is_not_found_is_not_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("ensemble", "sd_base")

    def refuse() -> None:
        raise NotFoundError("in ensemble 'ensemble', lora_path: 'a' is not in the model directory")

    server.behaviour = refuse
    with connected(server, monkeypatch) as client, pytest.raises(NotFoundError, match="lora_path"):
        client.generate("a red apple", lora_path="a")
    assert [model for model, _ in server.asked] == ["ensemble"]


def test_a_calls_own_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    with connected(server, monkeypatch, model="m", timeout=500.0) as client:
        client.generate("x")
        client.generate("x", timeout=20)
        client.submit("x", timeout=30).result(WITHIN)
    timeouts = [timeout for _, timeout in server.asked if timeout is not None]
    assert [round(timeout) for timeout in timeouts] == [500, 20, 30]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True])
def test_a_timeout_that_is_invalid(timeout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^timeout: .* is invalid"):
        connected(FakeServer(), monkeypatch, timeout=timeout)
    with connected(FakeServer(), monkeypatch) as client, pytest.raises(ValueError, match=r"^timeout: "):
        client.generate("x", timeout=timeout)


@pytest.mark.parametrize("ends", [KeyboardInterrupt, SystemExit, RuntimeError, RequestTimeoutError])
def test_an_interrupted_wait_cancels_the_job(ends: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")

    def end() -> None:
        raise ends

    server.behaviour = end
    with connected(server, monkeypatch, model="m") as client:
        with pytest.raises(ends):
            client.generate("x", task_id="one")
        assert server.cancelled == ["one"]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CANCEL_PAUSE", 0.0)


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("before", [[], ["failed"]], ids=["unknown", "an earlier attempt has failed"])
def test_a_request_on_its_way_is_cancelled_once_it_arrives(before: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    server.states = [before] * 20
    over = threading.Event()
    server.behaviour = lambda: over.wait(WITHIN) and None
    with connected(server, monkeypatch, model="m") as client:
        job = client.submit("x", task_id="one")
        assert server.arrived.wait(WITHIN)
        assert job.cancel()
        assert server.cancelled == ["one"] * 21
        over.set()
        with pytest.raises(CancelledError):
            job.result(WITHIN)


@pytest.mark.usefixtures("no_pauses")
def test_an_interrupted_request_on_its_way_is_cancelled_once_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    server.states = [[]] * 20

    def interrupt() -> None:
        raise KeyboardInterrupt

    server.behaviour = interrupt
    with connected(server, monkeypatch, model="m") as client, pytest.raises(KeyboardInterrupt):
        client.generate("x", task_id="one")
    assert server.cancelled == ["one"] * 21


@pytest.mark.parametrize("states", [[], ["succeeded"]])
def test_an_answered_request_is_cancelled_by_one_call(states: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    server.states = [states]
    with connected(server, monkeypatch, model="m") as client:
        job = client.submit("x", task_id="one")
        job.result(WITHIN)
        assert job.cancel() == bool(states)
        assert server.cancelled == ["one"]


@pytest.mark.usefixtures("no_pauses")
def test_a_request_that_never_arrives_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CANCEL_SECONDS", 0.0)
    server = FakeServer("m")
    server.states = [[]] * 1000
    over = threading.Event()
    server.behaviour = lambda: over.wait(WITHIN) and None
    with connected(server, monkeypatch, model="m") as client:
        job = client.submit("x")
        assert server.arrived.wait(WITHIN)
        assert not job.cancel()
        over.set()
        with pytest.raises(CancelledError):
            job.result(WITHIN)


def test_an_answer_of_the_servers_cancels_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    with connected(server, monkeypatch, model="m") as client:
        client.generate("x")
        with pytest.raises(NotFoundError):
            client.generate("x", model="other")
    assert server.cancelled == []


def test_closing_the_client_cancels_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer("m")
    over = threading.Event()
    server.behaviour = lambda: over.wait(WITHIN) and None
    client = connected(server, monkeypatch, model="m")
    job = client.submit("x", task_id="one")
    assert server.arrived.wait(WITHIN)
    threading.Timer(0.2, over.set).start()
    client.close()
    with pytest.raises(CancelledError):
        job.result(WITHIN)
    assert server.cancelled == ["one"]
    assert server.closed
    client.close()  # again does nothing
    for call in (client.jobs, lambda: client.generate("x")):
        with pytest.raises(ClientError, match="closed"):
            call()


def test_a_program_that_ends_cancels_its_jobs() -> None:
    """In a process of its own, which leaves a job behind without closing its client."""
    program = textwrap.dedent(
        """
        import atexit, threading
        atexit.register(lambda: print(*server.cancelled))
        from tests.unit.client.triton.test_backend import FakeServer
        from triton_diffusers_client import Client
        from triton_diffusers_client.triton import backend as module
        server = FakeServer("m")
        server.behaviour = lambda: threading.Event().wait(10_000)
        module.open_transport = lambda address, headers: server
        client = Client("grpc://server", model="m")
        client.submit("x", task_id="left-behind")
        assert server.arrived.wait(200)
        """
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "left-behind\n"
