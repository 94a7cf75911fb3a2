"""The engine process's server on a fake engine: requests of several clients, on their way to one loop and back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import request_for
from tests.unit.engine_process.conftest import Peer
from tests.unit.fake_engine import WITHIN, FakeEngine
from tests.unit.jobs.test_board import entry
from tests.unit.waiting import until
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.engine_process import server as server_module
from triton_diffusers.engine_process.channel import Channel, connect, listen
from triton_diffusers.engine_process.messages import (
    Cancel,
    Failed,
    Hello,
    LoadFailed,
    Message,
    MetricKey,
    Metrics,
    Ping,
    Pong,
    Ready,
    Started,
    Submit,
    Succeeded,
    Watch,
)
from triton_diffusers.engine_process.server import LOAD_FAILED, EngineServer, run
from triton_diffusers.errors import Busy, Cancelled, EngineFailure
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.settings import Settings, SettingsError


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


def error_of(message: Succeeded | Failed) -> Exception:
    assert isinstance(message, Failed)
    return message.error


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
    base, control = running.connect("sd_base"), running.connect("sd_controlnet")
    watcher = running.connect(hello=Watch())
    for client in (base, control, watcher):
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
    monkeypatch.setattr(server_module, "_FAREWELL_SECONDS", 2.0)
    path = runtime_dir / "engine.sock"
    chosen: Future[Any] = Future()
    chosen.set_exception(LoadError("no weights"))
    told: list[Message | None] = []

    def use() -> None:
        time.sleep(0.1)
        with closing(Client(path, Watch())) as client:
            told.append(client.received())

    using = threading.Thread(target=use)
    using.start()
    assert run(Settings(runtime_dir=runtime_dir), path, 0, chosen) == LOAD_FAILED
    using.join(WITHIN)
    assert told == [LoadFailed("no weights")]
