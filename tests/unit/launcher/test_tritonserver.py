"""The process: its log is passed on and searched for the reason when it ends by itself."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import WITHIN, until
from triton_diffusers.launcher import tritonserver
from triton_diffusers.launcher.tritonserver import TritonServer

LOAD_FAILURE = """\
I1122 00:00:00.000001 1 model_lifecycle.cc:472] "loading: painter:1"
E1122 00:00:00.000002 1 model_lifecycle.cc:642] "failed to load 'painter' version 1: Internal: ImportError: x\\nAt:"
error: creating server: Internal - failed to load all models
"""
CRASH = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n  what():  boost::...\n"
PORT_TAKEN = """\
E1122 00:00:00.000003 1 main.cc:245] "failed to start GRPC service: Unavailable - Socket '127.0.0.1:1' already in use "
"""


@pytest.fixture
def run() -> Iterator[Callable[..., tuple[TritonServer, io.StringIO]]]:
    """Run a shell command in tritonserver's place."""
    reading, writing = os.pipe()

    def start(command: str, *, program: str = "/bin/sh") -> tuple[TritonServer, io.StringIO]:
        log = io.StringIO()
        server = TritonServer(
            [program, "-c", command],
            os.environ,
            region_prefix="none-has-it",
            inherited=reading,
            on_line=lambda line: log.write(f"{line}\n"),  # type: ignore[arg-type,return-value]
        )
        return server, log

    yield start
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (LOAD_FAILURE, "model painter failed to load: Internal: ImportError: x"),
        (PORT_TAKEN, "failed to start GRPC service: Unavailable - Socket '127.0.0.1:1' already in use"),
        ("error: creating server: Internal - bad\n", "creating server: Internal - bad"),
        ("/bin/tritonserver: unrecognized option '--x'\n" + "  --help\n" * 400, "unrecognized option '--x'"),
        ("nothing of interest\n", "exit code 3, see its log"),
        (LOAD_FAILURE + CRASH, "it crashed (boost::interprocess::lock_exception), see its log"),
    ],
)
def test_reason_of_its_end(run: Callable[..., tuple[TritonServer, io.StringIO]], said: str, reason: str) -> None:
    server, log = run(f"cat <<'END'\n{said}END\nexit 3")
    assert server.wait(WITHIN)
    assert server.exit_code == 3
    assert server.failure() == reason
    assert log.getvalue() == said


def test_signal_is_the_reason_of_an_end_by_signal(run: Callable[..., tuple[TritonServer, io.StringIO]]) -> None:
    server, _ = run(f"cat <<'END'\n{LOAD_FAILURE}END\nkill -9 $$")
    assert server.wait(WITHIN)
    assert server.failure() == "SIGKILL, see its log"


def test_program_that_cannot_be_started_is_the_reason(
    run: Callable[..., tuple[TritonServer, io.StringIO]], tmp_path: Path
) -> None:
    server, _ = run("", program=f"{tmp_path}/tritonserver")
    assert server.wait(WITHIN)
    assert server.exit_code == 127
    assert server.failure() == f"{tmp_path}/tritonserver cannot be started: No such file or directory"


def test_no_handlers_of_a_fork_are_run(run: Callable[..., tuple[TritonServer, io.StringIO]]) -> None:
    """gRPC's can abort the new process if channels are live, as they may be when tritonserver is started again."""
    forks: list[int] = []
    os.register_at_fork(before=lambda: forks.append(os.getpid()))
    server, log = run("echo started")
    assert server.wait(WITHIN)
    server.failure()  # its log has been read by then
    assert log.getvalue() == "started\n"
    assert not forks


def test_kill_ends_what_it_started_too(run: Callable[..., tuple[TritonServer, io.StringIO]]) -> None:
    server, log = run("trap '' TERM; sleep 1000 & echo $!; wait")
    until(lambda: log.getvalue().endswith("\n"))
    child = Path("/proc") / log.getvalue().strip() / "stat"
    assert child.exists()
    server.stop(exit_timeout=1000, is_forced=lambda: True)
    until(lambda: not child.exists() or child.read_text().split()[2] == "Z")
    assert server.exit_code is not None
    assert server.exit_code < 0


def test_stop_has_a_bound(run: Callable[..., tuple[TritonServer, io.StringIO]]) -> None:
    server, log = run("trap '' TERM; echo deaf; while true; do sleep 0.1; done")
    until(lambda: "deaf" in log.getvalue())
    server.stop(exit_timeout=0.1, is_forced=lambda: False)
    assert server.exit_code == -9


@pytest.mark.parametrize(
    ("said", "idle"),
    [("All models are stopped, unloading models", False), ("Timeout 15: Found 1 model versions", True)],
)
def test_stop_does_not_wait_for_nothing(
    run: Callable[..., tuple[TritonServer, io.StringIO]], monkeypatch: pytest.MonkeyPatch, said: str, idle: bool
) -> None:
    """Triton does: for a model that an open stream has called, and for a call that its caller has cancelled."""
    monkeypatch.setattr(tritonserver, "_IDLE_SECONDS", 0.3)
    server, log = run(f"trap 'echo {said}' TERM; echo ready; while true; do sleep 0.1; done")
    until(lambda: "ready" in log.getvalue())
    server.stop(exit_timeout=1000, is_forced=lambda: False, is_idle=lambda: idle)
    assert server.exit_code == -9
    assert said in log.getvalue()


def test_stop_waits_for_requests(
    run: Callable[..., tuple[TritonServer, io.StringIO]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tritonserver, "_IDLE_SECONDS", 0.1)
    server, log = run("trap 'sleep 1.5; exit 7' TERM; echo ready; while true; do sleep 0.1; done")
    until(lambda: "ready" in log.getvalue())
    server.stop(exit_timeout=1000, is_forced=lambda: False, is_idle=lambda: False)
    assert server.exit_code == 7
