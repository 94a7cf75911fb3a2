"""The job board: seen and written by several processes, and never a reason for a job to fail."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WITHIN, until
from triton_diffusers.jobs.board import BoardEntry, JobBoard

ENGINE = """
import os, sys, time
from pathlib import Path
from triton_diffusers.jobs.board import BoardEntry, JobBoard

board = JobBoard(Path(sys.argv[1]))
def post(state, step, ended=None):
    board.post(BoardEntry(job_id="their-job", pid=os.getpid(), model="sd_base", task_id="theirs", state=state,
                          step=step, steps=9, image_num=1, images_done=0, arrived=time.time(), ended=ended,
                          error_msg=""))
post("running", 1)
while not board.cancellations():
    for job_id in board.preview_wishes():
        board.post_preview(job_id, b"image")
    time.sleep(0.01)
post("cancelled", 5, ended=time.time())
"""


def entry(number: int = 1, **changes: Any) -> BoardEntry:
    fields: dict[str, Any] = {
        "job_id": f"job-{number}",
        "pid": os.getpid(),
        "model": "sd_base",
        "task_id": f"task-{number}",
        "state": "running",
        "step": 0,
        "steps": 4,
        "image_num": 1,
        "images_done": 0,
        "arrived": time.time(),
        "ended": None,
        "error_msg": "",
    }
    return BoardEntry(**{**fields, **changes})


@pytest.fixture
def board(tmp_path: Path) -> Iterator[JobBoard]:
    opened = JobBoard(tmp_path / "runtime")
    yield opened
    opened.close()


@pytest.fixture
def engine_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process with a running job of the task ``theirs``."""
    with subprocess.Popen([sys.executable, "-c", ENGINE, str(tmp_path / "runtime")]) as process:
        yield process
        process.kill()


def states(board: JobBoard, task_id: str | None = None) -> list[str]:
    return [found.state for found in board.entries(task_id)]


def test_an_entry_is_read_as_it_was_written(board: JobBoard) -> None:
    now = time.time()
    written = entry(task_id="'; DROP TABLE jobs; --", error_msg="汉\0\n", step=3, ended=now, arrived=now - 3)
    board.post(written)
    assert board.entries() == [written]
    assert written.elapsed_seconds == pytest.approx(3.0)


def test_a_later_report_replaces_the_former(board: JobBoard) -> None:
    board.post(first := entry(state="queued"))
    board.post(entry(state="running", step=3, arrived=first.arrived))
    (found,) = board.entries("task-1")
    assert (found.state, found.step, found.arrived) == ("running", 3, first.arrived)


def test_the_newest_comes_first_and_a_task_may_have_several_jobs(board: JobBoard) -> None:
    for number in (1, 2, 3):
        board.post(entry(number, task_id="same" if number != 2 else "other", arrived=float(number)))
    assert [found.job_id for found in board.entries()] == ["job-3", "job-2", "job-1"]
    assert [found.job_id for found in board.entries("same")] == ["job-3", "job-1"]
    assert board.entries("none") == []


def test_cancel_reaches_all_jobs_in_flight_of_the_task_and_no_other(board: JobBoard) -> None:
    for number, (task_id, ended) in enumerate([("a", None), ("a", None), ("a", 1.0), ("b", None)]):
        board.post(entry(number, task_id=task_id, ended=ended))
    board.cancel("a")
    assert sorted(board.cancellations()) == ["job-0", "job-1"]
    board.post(entry(0, task_id="a", state="cancelled", ended=time.time()))
    assert board.cancellations() == ["job-1"]


def test_a_preview_is_wanted_once_for_each_wish(board: JobBoard) -> None:
    board.post(entry(1))
    assert board.preview_wishes() == []
    board.want_preview("task-1")
    assert board.preview_wishes() == ["job-1"]
    board.post_preview("job-1", b"image")
    assert board.preview_wishes() == []
    assert board.entries("task-1")[0].preview == b"image"
    assert board.entries()[0].preview is None, "a list of all jobs carries no images"


def test_another_processs_jobs_are_watched_and_cancelled(
    board: JobBoard, engine_process: subprocess.Popen[bytes]
) -> None:
    until(lambda: states(board) == ["running"])
    board.want_preview("theirs")
    until(lambda: board.entries("theirs")[0].preview == b"image")
    board.cancel("theirs")
    assert engine_process.wait(WITHIN) == 0
    (found,) = board.entries("theirs")
    assert (found.state, found.step) == ("cancelled", 5)


def test_the_jobs_of_a_killed_process_are_lost(board: JobBoard, engine_process: subprocess.Popen[bytes]) -> None:
    board.post(entry(1, task_id="ours"))
    until(lambda: len(states(board)) == 2)
    engine_process.kill()
    # Not waited for yet: a dead child whose parent has not looked is dead all the same.
    until(lambda: states(board, "theirs") == ["failed"])
    engine_process.wait()
    (found,) = board.entries("theirs")
    assert found.error_msg == "the model process died; send the request again"
    assert found.ended is not None
    assert states(board, "ours") == ["running"]


def test_jobs_of_a_former_process_with_this_number_are_forgotten(board: JobBoard) -> None:
    """In a container that is started again, the processes have the numbers that they had before."""
    board.post(entry(1, task_id="former", arrived=1.0))
    board.post(entry(2, task_id="another", arrived=1.0, pid=os.getppid()))
    board.post(entry(3, task_id="ours", arrived=10.0))
    board.cancel("former")
    board.forget_before(os.getpid(), born=10.0)
    assert sorted(found.task_id for found in board.entries()) == ["another", "ours"]
    assert board.cancellations() == []


def test_a_job_that_no_engine_has_is_ended_once(board: JobBoard) -> None:
    board.post(entry(1, step=2))
    board.post(entry(2, state="succeeded", ended=time.time()))
    for job_id in ("job-1", "job-2", "unknown"):
        board.end(job_id, "failed", "the engine died")
    board.end("job-1", "cancelled", "too late")
    found = {shown.job_id: shown for shown in board.entries()}
    assert found.keys() == {"job-1", "job-2"}
    assert (found["job-1"].state, found["job-1"].error_msg, found["job-1"].step) == ("failed", "the engine died", 2)
    assert found["job-1"].ended == pytest.approx(time.time(), abs=WITHIN)
    assert (found["job-2"].state, found["job-2"].error_msg) == ("succeeded", "")


def test_a_job_that_another_engine_runs_again_keeps_its_place(board: JobBoard) -> None:
    """Its second run begins at its first step; whoever has asked for its end still has."""
    board.post(first := entry(1, step=3, pid=os.getppid()))
    board.cancel("task-1")
    board.post(entry(1, step=0, arrived=first.arrived + 5))
    (found,) = board.entries()
    assert (found.step, found.pid, found.arrived) == (0, os.getpid(), first.arrived)
    assert board.cancellations() == ["job-1"]


def test_a_second_board_in_one_process_keeps_the_jobs_of_the_first(board: JobBoard, tmp_path: Path) -> None:
    board.post(entry(1))
    with closing(JobBoard(tmp_path / "runtime")) as second:
        assert states(second) == ["running"]


def test_ended_jobs_are_forgotten_after_the_history(tmp_path: Path) -> None:
    with closing(JobBoard(tmp_path, history_seconds=60.0)) as board, closing(JobBoard(tmp_path)) as longer:
        now = time.time()
        board.post(entry(1, state="succeeded", ended=now - 61))
        board.post(entry(2, state="succeeded", ended=now - 30))
        board.post(entry(3, arrived=now - 10_000))
        assert [states(board, f"task-{number}") for number in (1, 2, 3)] == [[], ["succeeded"], ["running"]]
        assert sorted(found.job_id for found in board.entries()) == ["job-2", "job-3"], (
            "whether or not an engine has swept"
        )
        assert len(longer.entries()) == 3
        board.forget_old()
        assert sorted(found.job_id for found in longer.entries()) == ["job-2", "job-3"]


def use_as_an_engine(board: JobBoard) -> None:
    board.post(entry(1, state="running", step=2))
    board.post_preview("job-1", b"image")
    board.end("job-1", "failed", "")
    board.forget_before(1, 0.0)
    assert board.cancellations() == []
    assert board.preview_wishes() == []
    board.forget_old()


def test_a_deleted_file_does_no_harm_to_an_engine(board: JobBoard, tmp_path: Path) -> None:
    board.post(entry(1))
    for path in (tmp_path / "runtime").iterdir():
        path.unlink()
    (tmp_path / "runtime").rmdir()
    use_as_an_engine(board)


def test_a_spoilt_file_does_no_harm_to_an_engine(board: JobBoard, tmp_path: Path) -> None:
    board.post(entry(1))
    with closing(sqlite3.connect(tmp_path / "runtime" / "jobs.sqlite")) as other:
        other.execute("DROP TABLE jobs")
    use_as_an_engine(board)


def test_a_locked_file_does_no_harm_to_an_engine(board: JobBoard, tmp_path: Path) -> None:
    board.post(entry(1, state="queued"))
    with closing(sqlite3.connect(tmp_path / "runtime" / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        board.post(entry(1, state="running"))
        assert board.cancellations() == []
        other.execute("ROLLBACK")
    board.post(entry(1, state="succeeded", ended=time.time()))
    assert states(board) == ["succeeded"]


def test_a_closed_board_does_no_harm_to_an_engine(board: JobBoard) -> None:
    board.close()
    use_as_an_engine(board)


def test_the_directory_is_its_owners_alone(board: JobBoard, tmp_path: Path) -> None:
    assert (tmp_path / "runtime").stat().st_mode & 0o777 == 0o700


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)  # to give the directory away takes root
    with pytest.raises(PermissionError, match="belongs to another user"):
        JobBoard(tmp_path)


def test_closing_while_in_use_is_safe(tmp_path: Path) -> None:
    """They are told, and the process lives; the tests' own if not."""
    for number in range(30):
        board = JobBoard(tmp_path / str(number))
        began = threading.Barrier(4)

        def look(board: JobBoard = board, began: threading.Barrier = began) -> None:
            began.wait()
            for _ in range(50):
                board.cancellations()
                board.preview_wishes()

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        began.wait()
        board.close()
        for thread in threads:
            thread.join()
        assert board.cancellations() == []


def test_requests_in_flight_are_known(board: JobBoard) -> None:
    assert not board.has_requests()
    board.post(entry(0, state="running", image_num=0))  # a background build
    assert not board.has_requests()
    board.post(entry(1, state="queued"))
    assert board.has_requests()
    board.post(entry(1, state="succeeded", ended=time.time()))
    assert not board.has_requests()
