"""Programs that end with the process that started them, and are otherwise what they would have been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import WITHIN, until
from triton_diffusers.util.process import attached, python

ROOT = Path(__file__).resolve().parents[3]
# What a process is given, as the process itself sees it.
SURROUNDINGS = """
import json, os, signal, sys
print(json.dumps({
    "pid": os.getpid(), "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "words": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd(),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
    "nice": os.nice(0), "oom": open("/proc/self/oom_score_adj").read().strip(),
}))
"""
ENVIRONMENT = {
    "LD_LIBRARY_PATH": "/nowhere/lib",
    "PYTHONPATH": "/nowhere/python",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
}


def surroundings(*, low_priority: bool = False, **options: object) -> tuple[int, dict[str, object]]:
    """Return the number of a process that was started with these options of ``Popen``, and what it sees."""
    command = attached(
        [sys.executable, "-c", SURROUNDINGS, "two words", ""], death_signal=signal.SIGKILL, low_priority=low_priority
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, **options) as process:  # type: ignore[call-overload]
        return process.pid, json.loads(process.communicate(timeout=WITHIN)[0])


def test_descriptors_session_and_folder_are_kept(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        pid, seen = surroundings(pass_fds=(reading,), start_new_session=True, cwd=tmp_path)
    finally:
        os.close(reading)
        os.close(writing)
    assert seen["pid"] == pid
    assert seen["leads"] == [True, True]
    assert seen["words"] == ["two words", ""]
    assert seen["environment"] == ENVIRONMENT
    assert seen["folder"] == str(tmp_path)
    assert seen["descriptors"] == [0, 1, 2, reading]
    assert seen["nice"] == os.nice(0)
    assert seen["oom"] == Path("/proc/self/oom_score_adj").read_text().strip()


def test_low_priority() -> None:
    _, seen = surroundings(low_priority=True, process_group=0)
    assert seen["leads"] == [False, True]
    assert (seen["nice"], seen["oom"]) == (min(19, os.nice(0) + 10), "1000")


def test_no_signal_is_ignored() -> None:
    """Python ignores some, which a program would inherit: one that writes to a closed pipe would not end."""
    command = attached(["/bin/sh", "-c", "grep SigIgn /proc/$$/status"], death_signal=signal.SIGKILL)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ignored = int(said.split()[1], 16)
    assert not [number for number in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (number - 1) & 1]


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "No such file or directory"), ("plain", "Permission denied")]
)  # fmt: skip
def test_a_command_that_cannot_start_prints_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "plain").touch(mode=0o600)
    command = attached([str(tmp_path / name), "word"], death_signal=signal.SIGTERM)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (127, "")
    assert ended.stderr == f"error: {tmp_path / name} cannot be started: {reason}\n"


def test_nothing_is_started_for_a_process_that_has_ended() -> None:
    with subprocess.Popen(["/bin/true"]) as other:
        other.wait()
    command = attached(["/bin/echo", "started"], death_signal=signal.SIGTERM)
    command[command.index(str(os.getpid()))] = str(other.pid)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: the process that started this one has ended\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    """The parent is killed, and so can tell nobody; a SIGTERM can be answered, a SIGKILL cannot."""
    last_words = tmp_path / "asked"
    program = f"trap 'touch {last_words}; exit' TERM; echo $$; while true; do sleep 0.02; done"
    with subprocess.Popen(
        [sys.executable, "-c",
         "import signal, subprocess, sys; from triton_diffusers.util.process import attached;"
         f"subprocess.run(attached(['/bin/sh', '-c', sys.argv[1]], death_signal=signal.Signals({number.value})))",
         program],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    until(lambda: not lives(pid))
    assert last_words.exists() == (number is signal.SIGTERM)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("running", "found"),
    [
        ("/usr/bin/python3.11", "/usr/bin/python3.11"),
        ("/opt/backend/stub", "{folder}/python3"),
        ("", "{folder}/python3"),
    ],
)
def test_the_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: str, found: str) -> None:
    (tmp_path / "python3").touch(mode=0o700)
    monkeypatch.setattr(sys, "executable", running)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python() == found.format(folder=tmp_path)
