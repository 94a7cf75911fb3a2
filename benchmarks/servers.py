"""Servers to measure: ``triton-diffusers serve`` as a process of its own, on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
MODEL_REPOSITORY = ROOT / "model_repository"
PEER_REPOSITORY = ROOT / "benchmarks" / "peers"
MODEL_DIR = ROOT / "models" / "emoji"

_START_SECONDS = 600.0  # of a server, on a machine that does other things as well
_STOP_SECONDS = 30.0
_TICK = 0.2
_LAST_LINES = 15


class ServerFailed(RuntimeError):
    """A server did not start; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Endpoints:
    """Where a server listens, as ``host:port``; ``pid`` is its launcher."""

    http: str
    grpc: str
    pid: int


@contextlib.contextmanager
def servers(
    repositories: Mapping[str, Path],
    model_dir: Path,
    settings: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    *,
    gateway_port: int = 0,
    watch: bool = False,
) -> Iterator[Mapping[str, Endpoints]]:
    """Start one server for each model repository, all at once; yield their endpoints by the same names.

    ``settings`` are environment variables, ``arguments`` are added to the command; with a ``gateway_port`` a server has
    a gateway and a runner beside it. Without ``watch`` the watchdog is off: its probes would make an idle server work
    while another is measured. Raises ``ServerFailed``.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="triton-diffusers-bench-")))
        options = ["--gateway-port", str(gateway_port)] if gateway_port else ["--no-gateway"]
        if not watch:
            options.append("--no-watch")
        started = {}
        for name, repository in repositories.items():
            process = _spawn(repository, model_dir, folder / name, settings or {}, [*options, *arguments])
            stack.callback(_stop, process)
            started[name] = process
        yield {name: _wait(name, process, folder / name) for name, process in started.items()}


def end_on_sigterm() -> None:
    """Make SIGTERM end this program the way an exception does, so that its servers are stopped."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _spawn(
    repository: Path, model_dir: Path, folder: Path, settings: Mapping[str, str], arguments: Sequence[str]
) -> subprocess.Popen[bytes]:
    folder.mkdir()
    command = [
        *(sys.executable, "-m", "triton_diffusers", "serve", "--func-name", "base"),
        *("--log-level", "warning"),
        *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--exit-timeout", "5"),
        *("--model-repository", str(repository), "--model-dir", str(model_dir.absolute())),
        *arguments,
    ]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "TRITON_DIFFUSERS_RUNTIME_DIR": str(folder), "TRITON_DIFFUSERS_STORE": "", **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _wait(name: str, process: subprocess.Popen[bytes], folder: Path) -> Endpoints:
    """Wait until the launcher has written down where it listens, which it does when every model has answered."""
    published = folder / "endpoints.json"
    deadline = time.monotonic() + _START_SECONDS
    while not published.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            ended = process.poll() is not None
            what = f"ended with {process.returncode}" if ended else f"was not ready after {_START_SECONDS:.0f} s"
            lines = (folder / "log").read_text(errors="replace").splitlines()[-_LAST_LINES:]
            raise ServerFailed("\n".join([f"the server of {name} {what}:", *lines]))
        time.sleep(_TICK)
    said = json.loads(published.read_text())
    return Endpoints(http=said["http"].removeprefix("http://"), grpc=said["grpc"], pid=said["pid"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
