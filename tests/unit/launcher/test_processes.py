"""Model processes are found by their shared memory region, and told from others with their number."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from triton_diffusers.launcher.processes import model_processes

PREFIX = f"test-{os.getpid()}-"


def stub(model: str, region: str) -> subprocess.Popen[str]:
    """Return a process with a stub's command line, which says so when it is there."""
    words = ["/backends/python/stub", f"/models/{model}/1/model.py", region, "1048576"]
    program = "import sys, time; print('here', flush=True); time.sleep(1000)"
    process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    return process


@pytest.fixture
def stubs() -> Iterator[list[subprocess.Popen[str]]]:
    """Two model processes of our server, and one of another."""
    started = [stub("painter", f"{PREFIX}a"), stub("jobs", f"{PREFIX}b"), stub("painter", f"other-{PREFIX}")]
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_found_by_server_and_model(stubs: list[subprocess.Popen[str]]) -> None:
    found = {(process.pid, process.model) for process in model_processes(PREFIX)}
    assert found == {(stubs[0].pid, "painter"), (stubs[1].pid, "jobs")}
    assert [process.pid for process in model_processes(PREFIX, "jobs")] == [stubs[1].pid]


def test_zombie_is_dead(stubs: list[subprocess.Popen[str]]) -> None:
    (painter,) = model_processes(PREFIX, "painter")
    assert painter.is_alive
    painter.kill()
    os.waitid(os.P_PID, stubs[0].pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet asked for its status
    assert not painter.is_alive
    assert not model_processes(PREFIX, "painter")
    painter.kill()  # again: no error
    stubs[0].wait()
    assert not painter.is_alive


def test_later_process_with_the_same_number_is_another(stubs: list[subprocess.Popen[str]]) -> None:
    (painter,) = model_processes(PREFIX, "painter")
    earlier = dataclasses.replace(painter, started=painter.started - 1)
    assert not earlier.is_alive
    earlier.kill()
    assert painter.is_alive
