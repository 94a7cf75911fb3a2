"""The gateway and the runner that ``serve`` starts beside Triton."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from triton_diffusers.launcher.logs import ServerOutput
from triton_diffusers.launcher.options import ServeOptions
from triton_diffusers.settings import Settings
from triton_diffusers.util.backoff import backoff
from triton_diffusers.util.hosts import reachable_host, url_host
from triton_diffusers.util.process import attached, python
from triton_diffusers.util.state_dir import state_dir

log = logging.getLogger(__name__)

_STATE_DIR = "TRITON_DIFFUSERS_GATEWAY_STATE_DIR"
_RUNTIME_DIR = "TRITON_DIFFUSERS_RUNTIME_DIR"
_STORE = "TRITON_DIFFUSERS_STORE"
_CANNOT_START = 2  # exit code of a command whose settings are invalid
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 10.0
_CALM_SECONDS = 60.0  # a process that has lived longer is started again without a longer pause
_STOP_SECONDS = 10.0
# Before Triton drops what still runs: jobs that are handed back in time cost no attempt.
_SPARE_SECONDS = 3


class ServiceProcess:
    """A process that is started again when it ends, in a thread of its own, until it is stopped."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._output = ServerOutput()
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name=name, daemon=True)

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def terminate(self) -> None:
        """Ask the process to end; it is not started again. Returns at once."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def join(self, seconds: float) -> None:
        """Wait for the process's end, and kill it when the time is over."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if (process := self._process) is not None:
                process.send_signal(number)

    def _keep_running(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run()
            if self._stopping.is_set():
                return
            if code == _CANNOT_START:
                log.error("the %s cannot start; see above", self.name)
                return
            if time.monotonic() - began > _CALM_SECONDS:
                attempt = 0
            pause = backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS)
            reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log.error("the %s has died: %s; it is started again in %.1f s", self.name, reason, pause)
            self._stopping.wait(pause)
            attempt += 1

    def _run(self) -> int:
        self._process = subprocess.Popen(  # noqa: S603 - the command is the launcher's own
            attached(self._command, death_signal=signal.SIGTERM),
            env={**os.environ, **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C at the terminal is the launcher's to handle
        )
        if self._stopping.is_set():  # a stop that came while it started
            self._process.terminate()
        with cast("IO[str]", self._process.stdout) as lines:
            for line in lines:
                self._output(line.rstrip("\n"))
        return self._process.wait()


class Service:
    """Processes beside a server: a context manager. The first one ends first, and is asked to before the server is."""

    def __init__(self, *processes: ServiceProcess) -> None:
        self._processes = processes

    @property
    def has_gateway(self) -> bool:
        """Return True if a gateway is started."""
        return any(process.name == "gateway" for process in self._processes)

    def __enter__(self) -> Service:
        for process in self._processes:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(_STOP_SECONDS)

    def drain(self) -> None:
        """Have the runner finish its jobs, or hand them back, while Triton finishes its requests. Returns at once."""
        for process in self._processes[:1]:
            process.terminate()


def service_beside(options: ServeOptions, runtime_dir: Path) -> Service:
    """Return the gateway and the runner beside the server of these options, whose ports are known; it may be neither.

    ``runtime_dir`` is that of the server.
    """
    if options.gateway_port is None:
        return Service()
    if reason := _missing(options):
        log.warning("no gateway is started: %s", reason)
        return Service()
    environment = {_STATE_DIR: str(_state_dir(options, runtime_dir))}
    if options.store is not None:
        environment[_STORE] = options.store
    program = [python(), "-m", "triton_diffusers"]
    gateway = [*program, "gateway", f"--host={options.host}", f"--port={options.gateway_port}"]
    runner = [
        *program,
        "runner",
        f"--triton={url_host(reachable_host(options.host))}:{options.grpc_port}",
        f"--name={socket.gethostname()}-{options.gateway_port}",
        f"--exit-timeout={max(0, options.exit_timeout - _SPARE_SECONDS)}",
    ]
    return Service(
        ServiceProcess("runner", runner, environment),
        ServiceProcess("gateway", gateway, environment),
    )


def _missing(options: ServeOptions) -> str:
    """Return the reason why no gateway can run; empty if it can."""
    if find_spec("fastapi") is None:
        return "install it with: pip install 'triton-diffusers[gateway]'"
    store = Settings.read().store if options.store is None else options.store
    return "" if store else "jobs need a result store, and this server has none"


def _state_dir(options: ServeOptions, runtime_dir: Path) -> Path:
    """Return the directory of the job table, which outlives the server unless that has no port of its own."""
    if chosen := os.environ.get(_STATE_DIR):
        return Path(chosen).expanduser().absolute()
    if os.environ.get(_RUNTIME_DIR) or options.ephemeral:
        return runtime_dir / "gateway"
    return state_dir() / f"serve-{options.http_port}"
