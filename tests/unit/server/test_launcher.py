"""How often a tritonserver that keeps dying is started again. The clock is the test's: loading takes no real time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from triton_diffusers.server import launcher
from triton_diffusers.server.errors import BadRepository
from triton_diffusers.server.launcher import StopRequest
from triton_diffusers.server.options import ServeOptions
from triton_diffusers.server.ports import Ports
from triton_diffusers.server.repository import Repository
from triton_diffusers.server.runtime import TritonRuntime
from triton_diffusers.server.watchdog import WatchTimes
from triton_diffusers.server.workspace import Workspace

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

    def failure(self) -> str:
        return "it died"

    def stop(self, exit_timeout: float, is_forced: Callable[[], bool]) -> None:
        """As it was asked to."""

    def kill(self) -> None:
        """It is dead."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[float, float], tuple[int, int]]]:
    """Keeps a server running that loads and serves for so many seconds; the exit code, and how often it was started.

    The 20th start is followed by a request to stop.
    """
    clock = Clock()
    monkeypatch.setattr(launcher, "time", clock)
    servers: list[FakeServer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if servers[-1].is_ready else 503)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    def keep(loads: float, serves: float) -> tuple[int, int]:
        stop = StopRequest()

        def start() -> FakeServer:
            servers.append(FakeServer(clock, loads=loads, serves=serves))
            if len(servers) == 20:
                stop.signals.append(signal.SIGTERM)
            return servers[-1]

        options = ServeOptions(model_repository=tmp_path, model_dir=str(tmp_path))
        ports = Ports(http=server.server_port, grpc=1, metrics=1)
        with Workspace.create(tmp_path / "runtime") as workspace:
            code = launcher._keep_running(start, options, ports, Repository(tmp_path), workspace, stop, TIMES)
        return code, len(servers)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield keep
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("loads", [1.0, LONG])
def test_one_that_never_has_a_calm_time_is_given_up(
    starts: Callable[[float, float], tuple[int, int]], loads: float
) -> None:
    assert starts(loads, 1.0) == (1, 6)


def test_one_that_dies_now_and_then_is_always_started_again(starts: Callable[[float, float], tuple[int, int]]) -> None:
    assert starts(1.0, LONG) == (0, 20)


def test_a_misspelt_setting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_STEP", "20")
    with pytest.raises(BadRepository):
        launcher.serve(ServeOptions(model_repository=tmp_path / "missing", model_dir=""))
    assert "did you mean TRITON_DIFFUSERS_MAX_STEPS?" in caplog.text


def test_the_default_translator_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ServeOptions(model_repository=tmp_path, model_dir="", translator_dir=Path("/checkout/models/translator"))
    with Workspace.create(None) as workspace:
        monkeypatch.delenv("TRITON_DIFFUSERS_TRANSLATOR_DIR", raising=False)
        found = launcher.model_settings(options, tmp_path, workspace)
        assert found["TRITON_DIFFUSERS_TRANSLATOR_DIR"] == "/checkout/models/translator"
        monkeypatch.setenv("TRITON_DIFFUSERS_TRANSLATOR_DIR", "/own")
        assert "TRITON_DIFFUSERS_TRANSLATOR_DIR" not in launcher.model_settings(options, tmp_path, workspace)


@pytest.mark.parametrize(("extra", "ours"), [((), True), (("--http-header-forward-pattern=x-.*",), False)])
def test_triton_passes_headers_on_unless_the_operator_says_which(
    tmp_path: Path, extra: tuple[str, ...], ours: bool
) -> None:
    """The models go by the absence of these headers, so they must know that Triton passes them on."""
    options = ServeOptions(model_repository=tmp_path, model_dir="", extra_arguments=extra)
    with Workspace.create(None) as workspace:
        settings = launcher.model_settings(options, tmp_path, workspace)
        runtime = TritonRuntime(tmp_path, tmp_path, "here", {})
        command = launcher.server_command(options, Repository(tmp_path, {}), runtime, Ports(1, 2, 3), workspace)
    assert ("TRITON_DIFFUSERS_HEADERS_FORWARDED" in settings) == ours
    assert [argument for argument in command if "header-forward-pattern" in argument] == [
        *(
            ["--http-header-forward-pattern=(?i)^host$", "--grpc-header-forward-pattern=(?i)^user-agent$"]
            if ours
            else []
        ),
        *extra,
    ]
