"""Background commands: their output, their ends, and that they end with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.waiting import WITHIN, until
from triton_diffusers.compile.work import WorkFolder
from triton_diffusers.optimize.process import BackgroundProcess

ROOT = Path(__file__).resolve().parents[3]
# Prints its process id, starts a child, and sleeps.
FAMILY = (
    "import subprocess, os, time; print(os.getpid(), flush=True); subprocess.Popen(['sleep', '600']); time.sleep(600)"
)


def members(group: int) -> list[int]:
    """Return the living processes of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def ran(program: str, *, log: Callable[[str], None] = lambda line: None) -> str | None:
    return BackgroundProcess([sys.executable, "-c", program], os.environ, log).run()


def test_output_of_both_streams_is_logged() -> None:
    lines: list[str] = []
    program = "import sys; print('one\\n'); print(' two ', file=sys.stderr, flush=True); print('dréi')"
    assert ran(program, log=lines.append) is None
    assert sorted(lines) == ["dréi", "one", "two"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; print('begins'); sys.exit('the disk is full')", "the disk is full"),
        ("import sys; sys.exit(3)", "exit code 3"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "it was killed; perhaps the machine ran out of memory",
        ),
        ("import os, signal; print('so far'); os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by SIGSEGV"),
        ("import os; os.write(1, b'\\xff\\n'); raise SystemExit(1)", "\ufffd"),
    ],
)
def test_the_reason_of_a_failure(program: str, reason: str) -> None:
    assert ran(program) == reason


def test_a_command_that_does_not_exist() -> None:
    reason = BackgroundProcess(["/nowhere/program"], os.environ, lambda line: None).run()
    assert reason is not None
    assert "No such file" in reason


def test_a_command_has_low_priority() -> None:
    lines: list[str] = []
    program = (
        "import os; print(os.nice(0), open('/proc/self/oom_score_adj').read().strip(), os.getpgid(0) == os.getpid())"
    )
    assert ran(program, log=lines.append) is None
    assert lines == [f"{min(19, os.nice(0) + 10)} 1000 True"]


def test_a_stop_ends_the_command_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a loaded machine SIGTERM may take longer than the grace.
    monkeypatch.setattr("triton_diffusers.optimize.process._GRACE_SECONDS", WITHIN)
    lines: list[str] = []
    process = BackgroundProcess([sys.executable, "-c", FAMILY], os.environ, lines.append)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(process.run)
        until(lambda: lines and len(members(int(lines[0]))) == 2)
        process.stop()
        assert running.result(WITHIN) == "it was ended by SIGTERM"
    until(lambda: not members(int(lines[0])))
    process.stop()  # a second time has no effect


def test_a_stop_kills_a_command_that_ignores_sigterm() -> None:
    lines: list[str] = []
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    process = BackgroundProcess([sys.executable, "-c", program], os.environ, lines.append)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(process.run)
        until(lambda: lines)
        process.stop()
        assert running.result(WITHIN) == "it was killed; perhaps the machine ran out of memory"


def test_a_stop_ends_a_wait_for_another_build(tmp_path: Path) -> None:
    (other := WorkFolder(tmp_path, "openvino-bfloat16")).open()
    lines: list[str] = []
    program = (
        "import sys; from pathlib import Path; from triton_diffusers.compile.work import WorkFolder;"
        "print('waits', flush=True); WorkFolder(Path(sys.argv[1]), 'openvino-bfloat16').open(wait=True)"
    )
    process = BackgroundProcess([sys.executable, "-c", program, str(tmp_path)], os.environ, lines.append)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(process.run)
        until(lambda: lines)
        process.stop()
        assert running.result(WITHIN) == "it was ended by SIGTERM"
    assert lines == ["waits"]
    other.close()


def test_nothing_starts_after_a_stop(tmp_path: Path) -> None:
    process = BackgroundProcess(["touch", str(tmp_path / "file")], os.environ, lambda line: None)
    process.stop()
    assert process.run() == "the server is stopping"
    assert not (tmp_path / "file").exists()


def test_children_of_a_killed_command_end_with_it() -> None:
    lines: list[str] = []
    process = BackgroundProcess([sys.executable, "-c", FAMILY], os.environ, lines.append)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(process.run)
        until(lambda: lines and len(members(int(lines[0]))) == 2)
        os.kill(int(lines[0]), signal.SIGKILL)
        assert running.result(WITHIN) == "it was killed; perhaps the machine ran out of memory"
    until(lambda: not members(int(lines[0])))


def test_a_command_ends_with_a_server_that_is_killed() -> None:
    """After ``kill -9`` no code of ours runs: the kernel ends the command."""
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys; from triton_diffusers.optimize.process import BackgroundProcess;"
            "show = lambda line: print(line, flush=True);"
            "BackgroundProcess([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True);"
            "time.sleep(600)'], os.environ, show).run()",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        build = int(server.stdout.readline())
        assert members(build) == [build]
        server.kill()
    until(lambda: not members(build))
