"""A tritonserver that dies is started again, soon and however often. The clock is the test's own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from tests.unit.jobs.test_board import entry
from triton_diffusers.jobs.board import JobBoard
from triton_diffusers.launcher import launcher, readiness
from triton_diffusers.launcher import stop as stop_module
from triton_diffusers.launcher.errors import BadOption, BadRepository, StartFailed
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.launcher.ports import Ports
from triton_diffusers.launcher.repository import Repository
from triton_diffusers.launcher.stop import StopRequest
from triton_diffusers.launcher.watchdog import WatchTimes
from triton_diffusers.launcher.workspace import Workspace

TIMES = WatchTimes(calm=5.0)
LONG = TIMES.calm + 1.0


@dataclass
class Clock:
    """Stands in for the module ``time``."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class FakeServer:
    """Loads for a while, serves for a while, and dies."""

    def __init__(self, clock: Clock, *, loads: float, serves: float) -> None:
        self._clock = clock
        self._ready = clock.now + loads
        self._end = self._ready + serves

    @property
    def is_ready(self) -> bool:
        return self._ready <= self._clock.now < self._end

    def wait(self, seconds: float) -> bool:
        self._clock.sleep(seconds)
        return self._clock.now >= self._end

    @property
    def exit_code(self) -> int | None:
        return 1 if self._clock.now >= self._end else None

    def failure(self) -> str:
        return "it died"

    def stop(self, exit_timeout: float, is_forced: Callable[[], bool], is_idle: Callable[[], bool]) -> None:
        """As it was asked to."""

    def kill(self) -> None:
        """Report the server as dead."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., tuple[int, int]]]:
    """Keep servers running that serve for these seconds each, the last figure again and again.

    Return the exit code and the number of starts. A server that serves for 0 s dies while it loads. The 20th start is
    followed by a request to stop.
    """
    clock = Clock()
    for module in (launcher, readiness, stop_module):
        monkeypatch.setattr(module, "time", clock)
    servers: list[FakeServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if servers[-1].is_ready else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    def keep(*serves: float) -> tuple[int, int]:
        stop = StopRequest()

        def start() -> FakeServer:
            servers.append(FakeServer(clock, loads=1.0, serves=serves[min(len(servers), len(serves) - 1)]))
            if len(servers) == 20:
                stop.signals.append(signal.SIGTERM)
            return servers[-1]

        options = ServeOptions(model_repository=tmp_path, model_dir=str(tmp_path))
        ports = Ports(http=server.server_port, grpc=1, metrics=1)
        with Workspace.create(tmp_path / "runtime") as workspace:
            code = launcher._keep_running(
                start, options, ports, Repository(tmp_path), workspace, MagicMock(failure=""), stop, TIMES
            )
        return code, len(servers)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield keep
        server.shutdown()
        thread.join()


def delay_in(message: str) -> str:
    return message.partition("again ")[2].partition(":")[0]


@pytest.mark.parametrize("serves", [1.0, LONG])
def test_a_server_that_dies_while_it_serves_is_always_started_again_soon(
    starts: Callable[..., tuple[int, int]], serves: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert starts(serves) == (0, 20)
    assert caplog.messages[0] == "tritonserver is started again now: it died"
    assert {delay_in(message) for message in caplog.messages} <= {"now", "in 1 s", "in 2 s"}


def test_a_server_that_no_longer_starts_is_tried_with_growing_delays(
    starts: Callable[..., tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    assert starts(1.0, *[0.0] * 18) == (0, 20)
    assert [delay_in(message) for message in caplog.messages][:8] == [
        "now", "in 1 s", "in 2 s", "in 4 s", "in 8 s", "in 16 s", "in 32 s", "in 60 s",
    ]  # fmt: skip


def test_a_server_that_never_started_is_an_error(starts: Callable[..., tuple[int, int]]) -> None:
    with pytest.raises(StartFailed, match="it died"):
        starts(0.0)


def test_a_model_that_holds_requests_takes_the_server_with_it_when_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its requests would never be answered, so the connections have to be closed."""
    monkeypatch.setattr(launcher, "wait_until_ready", lambda *arguments: True)
    monkeypatch.setattr(launcher, "announce", lambda *arguments: None)
    watchdog = MagicMock(fault="model sd_base is dead: its process 7 has ended")
    monkeypatch.setattr(launcher, "Watchdog", MagicMock(return_value=watchdog))
    server = MagicMock(**{"wait.return_value": False})
    options = ServeOptions(model_repository=tmp_path, model_dir=str(tmp_path))
    with Workspace.create(tmp_path / "runtime") as workspace:
        end = launcher._run(
            server, options, Ports(1, 2, 3), Repository(tmp_path), workspace, MagicMock(), StopRequest(), TIMES
        )
    assert end is not None
    assert end.failure == "model sd_base is dead: its process 7 has ended"
    watchdog.stop.assert_called_once_with()
    server.stop.assert_not_called()


@pytest.mark.parametrize(
    ("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True)]
)
def test_ports_open_to_others_are_a_warning(
    host: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadRepository):
        launcher.serve(ServeOptions(model_repository=tmp_path / "missing", model_dir="", host=host))
    assert (f"--host {host} opens Triton's ports to other machines" in caplog.text) is warned


def test_a_misspelt_setting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_STEP", "20")
    with pytest.raises(BadRepository):
        launcher.serve(ServeOptions(model_repository=tmp_path / "missing", model_dir=""))
    assert "did you mean TRITON_DIFFUSERS_MAX_STEPS?" in caplog.text


def test_a_setting_that_cannot_be_read_is_an_error_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_STEPS", "many")
    with pytest.raises(BadOption, match="TRITON_DIFFUSERS_MAX_STEPS: 'many'"):
        launcher.serve(ServeOptions(model_repository=tmp_path / "missing", model_dir=""))


@pytest.mark.parametrize(
    ("models", "state", "idle"),
    [
        (["sd_base", "ensemble"], None, True),
        (["sd_base", "ensemble"], "running", False),
        (["sd_base", "ensemble"], "succeeded", True),
        (["sd_base", "mine"], None, False),
    ],
)
def test_a_server_is_idle_if_its_board_has_no_request(
    tmp_path: Path, models: list[str], state: str | None, idle: bool
) -> None:
    """Models that are not ours post nothing, so nothing is known of their requests."""
    repository = Repository(tmp_path, dict.fromkeys(models))  # type: ignore[arg-type]
    with Workspace.create(tmp_path / "runtime") as workspace, closing(JobBoard(workspace.runtime_dir)) as board:
        if state:
            board.post(entry(state=state, ended=None if state == "running" else time.time()))
        with launcher._idleness(repository, workspace) as is_idle:
            assert is_idle() == idle


def test_a_board_that_cannot_be_opened_does_not_spoil_the_stop(tmp_path: Path) -> None:
    with Workspace.create(tmp_path / "runtime") as workspace:
        (workspace.runtime_dir / "jobs.sqlite").mkdir()
        with launcher._idleness(Repository(tmp_path, {}), workspace) as is_idle:
            assert not is_idle()
