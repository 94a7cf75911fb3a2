"""Real worker processes, whose tasks fail, crash or are killed with their build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until
from triton_diffusers.compile import tasks as tasks_module
from triton_diffusers.compile.errors import BuildError
from triton_diffusers.compile.tasks import DrawResult, DrawTask, run_task

ROOT = Path(__file__).resolve().parents[3]


def task(folder: Path) -> DrawTask:
    return DrawTask(model_dir=folder / "nowhere", cache_dir=folder, steps=1, side=64, folder=folder)


def run(folder: Path) -> str:
    """Return the error of the failing task."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    try:
        with pytest.raises(BuildError) as caught:
            run_task(task(folder), folder / "log", lock, lambda done, total: None)
    finally:
        os.close(lock)
    return str(caught.value)


def worker_runs(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let workers run this program."""
    popen = subprocess.Popen

    def replaced(command: list[str], **options: object) -> object:
        return popen([sys.executable, "-c", program], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(tasks_module.subprocess, "Popen", replaced)


def test_a_failed_task_is_one_line_with_the_full_log_in_a_file(tmp_path: Path) -> None:
    """Runs the real worker."""
    said = run(tmp_path)
    assert said.startswith(f"{tmp_path}/nowhere is not a model directory")
    assert said.endswith(f"(full log: {tmp_path}/log)")
    assert "Traceback" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9; the machine may have run out of memory"),
        ("import os; os.abort()", "was ended by signal 6"),
        ("import sys; print('half', file=sys.stderr); sys.exit(3)", "ended with code 3: half"),
        ("print('not a message'); raise SystemExit(4)", "ended with code 4"),
        ("import sys; sys.stdin.close(); raise OSError(28, 'No space left')", "ended with code 1: OSError: [Errno 28]"),
        ("""print('{"error": "it did not work"}')""", "it did not work"),
    ],
)
def test_the_end_of_a_worker_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, said: str
) -> None:
    worker_runs(monkeypatch, program)
    assert said in run(tmp_path)


def test_a_worker_reports_progress_and_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker_runs(
        monkeypatch,
        """print('{"done": 1, "total": 2}\\nnoise'); """
        """print('{"result": {"files": {"a": ["b"]}, "side": 64, "peak_bytes": 7}}')""",
    )
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    seen: list[tuple[int, int]] = []
    drawn = run_task(task(tmp_path), tmp_path / "log", lock, lambda done, total: seen.append((done, total)))
    os.close(lock)
    assert drawn == DrawResult(files={"a": ["b"]}, side=64, peak_bytes=7)
    assert seen == [(1, 2)]


def test_a_worker_ends_with_a_killed_build(tmp_path: Path) -> None:
    """The build gets SIGKILL; its worker, which would sleep forever, ends soon after."""
    sleeper = "import os, time; os.write(2, b'%d\\n' % os.getpid()); time.sleep(1000)"
    build = subprocess.Popen(
        [sys.executable, "-c",
         f"import os, subprocess; from pathlib import Path; from triton_diffusers.compile import tasks;"
         f"popen = subprocess.Popen;"
         f"subprocess.Popen = lambda command, **options: popen([*command[:-2], '-c', {sleeper!r}], **options);"
         f"folder = Path({str(tmp_path)!r});"
         f"lock = os.open(folder / 'lock', os.O_CREAT | os.O_RDWR);"
         f"task = tasks.DrawTask(model_dir=folder, cache_dir=folder, steps=1, side=64, folder=folder);"
         f"tasks.run_task(task, folder / 'log', lock, lambda done, total: None)"],
        cwd=ROOT,
    )  # fmt: skip
    log = tmp_path / "log"
    until(lambda: log.exists() and log.read_text().endswith("\n"))
    pid = int(log.read_text())
    assert _lives(pid)
    build.kill()
    build.wait()
    until(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
