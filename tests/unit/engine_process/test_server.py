"""The engine process's server on a fake engine: requests of several clients, on their way to one loop and back."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine_process.served import Client, Running, error_of
from tests.unit.fake_engine import FakeEngine
from tests.unit.jobs.test_board import entry
from tests.waiting import WITHIN, until
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.engine_process.messages import (
    Cancel,
    Hello,
    LoadFailed,
    Ready,
    Started,
    Submit,
    Succeeded,
    Watch,
)
from triton_diffusers.errors import Busy, Cancelled, EngineFailure
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import SettingsError


@pytest.mark.parametrize("hello", [None, Watch()])
def test_clients_are_told_when_the_engine_is_ready(make: Callable[..., Running], hello: Watch | None) -> None:
    running = make()
    early = running.connect(hello=hello)
    assert early.synchronise() == []
    running.load()
    ready = early.received()
    assert isinstance(ready, Ready)
    assert ready.defaults.side == 64
    assert running.connect(hello=hello).received() == ready


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LoadError("models/x has no UNet:\n it is empty"), "models/x has no UNet: it is empty"),
        (
            SettingsError("optimize: 'x' is invalid"),
            "SettingsError: optimize: 'x' is invalid",
        ),
        (MemoryError(), "MemoryError"),
    ],
)
def test_clients_are_told_why_the_engine_cannot_be_loaded(
    make: Callable[..., Running], error: Exception, reason: str
) -> None:
    running = make()
    early = running.connect()
    early.synchronise()
    running.fail(error)
    for client in (early, running.connect(hello=Watch())):
        told = client.received()
        assert isinstance(told, LoadFailed)
        assert told.reason.startswith(reason)


def test_a_client_of_another_user_is_refused_and_others_are_not(
    running: Running,
    client: Client,
    runtime_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched, socket.socket(socket.AF_UNIX) as stranger:
        patched.setattr(os, "getuid", lambda: os.geteuid() + 1)  # a second user takes root
        patched.chdir(runtime_dir)  # the path is longer than an address
        stranger.settimeout(WITHIN)
        stranger.connect("engine.sock")
        assert stranger.recv(1) == b""
    assert "a connection is refused: the other end belongs to user" in caplog.text
    assert isinstance(running.connect().received(), Ready)


@pytest.mark.parametrize("with_images", [True, False])
def test_a_request_is_started_and_its_result_sent(client: Client, with_images: bool) -> None:
    client.submit("a", with_images=with_images, image_num=2)
    assert client.received() == Started("a")
    ended = client.received()
    assert isinstance(ended, Succeeded)
    assert len(ended.result.images) == (2 if with_images else 0)
    assert ended.result.is_nsfw == (False, False)


def test_errors_of_the_loop_are_sent(client: Client) -> None:
    client.submit("a", prompt="boom")
    error = error_of(client.ends(1)["a"])
    assert isinstance(error, EngineFailure)
    assert str(error) == "task a failed; the server's log says why"


def test_a_request_that_the_loop_does_not_take_is_refused(make: Callable[..., Running], engine: FakeEngine) -> None:
    running = make(max_queue=1, max_images_in_flight=1)
    running.load()
    client = running.connect()
    client.received()
    engine.turnstile.hold()
    client.submit("running")
    engine.turnstile.allow(0)
    client.submit("waiting")
    client.submit("refused")
    assert isinstance(error_of(client.ends(1)["refused"]), Busy)
    engine.turnstile.open()
    assert client.ends(2).keys() == {"running", "waiting"}
    until(lambda: ("requests", (("model", "sd_base"), ("outcome", "refused"))) in client.metric_keys)


def test_cancel_ends_a_running_request(client: Client, engine: FakeEngine) -> None:
    engine.turnstile.hold()
    client.submit("a")
    engine.turnstile.allow(0)
    client.send(Cancel("unknown"), Cancel("a"))
    client.synchronise()
    engine.turnstile.open()
    assert isinstance(error_of(client.ends(1)["a"]), Cancelled)


def test_requests_of_a_client_that_is_gone_are_cancelled_and_no_others(
    running: Running, client: Client, engine: FakeEngine, runtime_dir: Path
) -> None:
    other = running.connect("sd_controlnet")
    other.received()
    engine.turnstile.hold()
    client.submit("lost")
    client.submit("lost while it waits")
    client.synchronise()
    other.submit("kept")
    other.synchronise()
    engine.turnstile.allow(0)
    client.close()
    with closing(JobBoard(runtime_dir)) as board:
        until(lambda: all(job.cancel_requested for job in jobs_of(running, "lost")))
        engine.turnstile.open()
        assert isinstance(other.ends(1)["kept"], Succeeded)
        until(lambda: {shown.state for shown in board.entries("lost")} == {"cancelled"})


def jobs_of(running: Running, task_id: str) -> list[Any]:
    """Return the loop's jobs of requests whose tasks begin like this."""
    return [
        request.job
        for request in list(running.server._requests.values())
        if request.message.job_id.startswith(task_id) and request.job is not None
    ]


def test_the_board_shows_a_request_as_its_clients(running: Running, runtime_dir: Path, engine: FakeEngine) -> None:
    """Once that process has ended, nobody waits for the request any more."""
    parent = os.getppid()
    with closing(JobBoard(runtime_dir)) as board:
        board.post(entry(1, pid=parent, arrived=1.0, task_id="former"))
        board.post(entry(2, arrived=1.0, task_id="another"))
        engine.turnstile.hold()
        client = running.connect(hello=Hello("sd_controlnet", parent, time.time()))
        client.received()
        client.submit("a")
        client.synchronise()
        shown = {found.task_id: found for found in board.entries()}
        assert shown.keys() == {"another", "a"}, "an earlier process of the same number has left the other one"
        assert (shown["a"].pid, shown["a"].job_id) == (parent, "a")


def test_each_model_gets_its_own_metrics_and_one_those_of_the_engine(running: Running) -> None:
    base = running.connect("sd_base")
    assert isinstance(base.received(), Ready), "it is the first"
    control, watcher = running.connect("sd_controlnet"), running.connect(hello=Watch())
    for client in (control, watcher):
        assert isinstance(client.received(), Ready)
    base.submit("a", steps=3)
    base.ends(1)

    def first_labels(client: Client) -> set[tuple[str, str]]:
        return {labels[0] for _, labels in client.metric_keys}

    until(lambda: {"requests", "calls", "engine"} <= {family for family, _ in base.metric_keys})
    assert first_labels(base) == {("model", "sd_base"), ("worker", "0")}
    until(lambda: control.metric_keys)
    assert first_labels(control) == {("model", "sd_controlnet")}
    assert watcher.metrics == []


def test_the_next_client_gets_the_engines_gauges_when_the_first_is_gone(running: Running) -> None:
    first = running.connect("sd_base")
    first.received()
    second = running.connect("sd_controlnet")
    second.received()
    first.close()

    until(lambda: {"engine", "optimizer"} <= {family for family, _ in second.metric_keys})


def test_a_message_that_fails_costs_no_client_its_connection(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.send(Submit("bad", "sd_base", None, 0.0, True, is_suspect=False))  # type: ignore[arg-type]
    client.submit("a")
    assert isinstance(client.ends(1)["a"], Succeeded)
    assert "a message of a client failed" in caplog.text


def test_closing_disconnects_the_clients(running: Running, client: Client, engine: FakeEngine) -> None:
    engine.turnstile.hold()
    client.submit("a")
    assert client.received() == Started("a")
    closing_thread = threading.Thread(target=running.server.close)
    closing_thread.start()
    assert client.received() is None, "whoever sent the request hands it over to the next engine"
    engine.turnstile.open()
    closing_thread.join(WITHIN)
    assert not closing_thread.is_alive()
