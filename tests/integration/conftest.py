"""Real servers for the tests: each is the real command, ``triton-diffusers serve``, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.waiting import WITHIN
from triton_diffusers.util.process import attached

ROOT = Path(__file__).resolve().parents[2]
LOG_SHOWN = 20_000  # characters


@dataclass
class RunningTriton:
    """A started ``triton-diffusers serve``. The URLs are known once it is ready."""

    process: subprocess.Popen[bytes]
    log: Path
    runtime_dir: Path
    http_url: str = ""
    grpc_url: str = ""
    metrics_url: str = ""
    control_key: str = ""

    def wait_until_ready(self) -> None:
        """Wait for the server's own word that it can be called; fail with its log if it ends before."""
        endpoints = self.runtime_dir / "endpoints.json"
        deadline = time.monotonic() + WITHIN
        while not endpoints.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the server did not become ready:\n{self.log_tail()}", pytrace=False)
            time.sleep(0.05)
        found = json.loads(endpoints.read_text(encoding="utf-8"))
        self.http_url, self.grpc_url, self.metrics_url = found["http"], found["grpc"], found["metrics"]
        self.control_key = found["triton-diffusers-key"]

    def stop(self) -> int:
        """Stop it as a user would; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def end(self) -> None:
        """End it at once, as a second Ctrl-C does: how servers stop is for tests of that to see."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def log_text(self) -> str:
        """All that the launcher and Triton have written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self.log_text()[-LOG_SHOWN:]


@dataclass
class TritonStarter:
    """Starts servers, each in its own subfolder of ``folder``, and stops those that still run."""

    folder: Path
    started: list[RunningTriton] = field(default_factory=list)

    def __call__(
        self,
        *,
        env: Mapping[str, str] | None = None,
        model_dir: Path | None = None,
        model_repository: Path | None = None,
        args: Sequence[str] = (),
        gateway: bool = False,
        wait: bool = True,
    ) -> RunningTriton:
        """Start the command on free ports; ``env`` is added to the environment, ``args`` to the command."""
        place = self.folder / f"server-{len(self.started)}"
        place.mkdir()
        server_log = place / "log"
        runtime_dir = place / "runtime"
        command = [
            sys.executable, "-m", "triton_diffusers", "serve", "--http-port=0", "--grpc-port=0", "--metrics-port=0",
            f"--model-dir={model_dir or ROOT / 'models' / 'emoji'}",
            f"--model-repository={model_repository or ROOT / 'model_repository'}",
            "--log-level=verbose", "--log-file=", "--gateway-port=0" if gateway else "--no-gateway",
            "--func-name=base",  # what most tests need; who needs more says so in `args`
            *args,
        ]  # fmt: skip
        with server_log.open("wb") as output:
            process = subprocess.Popen(
                attached(command, death_signal=signal.SIGTERM),  # ends even if the tests are killed
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "TRITON_DIFFUSERS_RUNTIME_DIR": str(runtime_dir),
                    "TRITON_DIFFUSERS_STORE": str(place / "results"),
                    **(env or {}),
                },
                start_new_session=True,  # a process group of its own, like a command at a terminal
            )
        server = RunningTriton(process, server_log, runtime_dir)
        self.started.append(server)
        if wait:
            server.wait_until_ready()
        return server

    def end(self) -> None:
        """End all."""
        for server in self.started:
            server.end()


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTriton]:
    """Return the repository's own models on the emoji model, shared by all tests that do no harm to it."""
    starter = TritonStarter(tmp_path_factory.mktemp("triton"))
    try:
        yield starter()
    finally:
        starter.end()


@pytest.fixture
def start_triton(tmp_path: Path) -> Iterator[TritonStarter]:
    """Return a function that starts servers of a test's own, stopped at its end."""
    starter = TritonStarter(tmp_path)
    try:
        yield starter
    finally:
        starter.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs of a failed test's servers."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for server in value.started if isinstance(value, TritonStarter) else [value]:
                if isinstance(server, RunningTriton):
                    report.sections.append((f"log of server {server.process.pid}", server.log_tail()))
    return report
