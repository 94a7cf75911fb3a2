"""The job board: progress and cancellations, shared by the engine processes and the ``jobs`` model of one server.

A request's connection is busy until its image is done, so progress and cancellation go through an SQLite file in the
runtime directory. Models write the requests that they accept, engines write their progress, and both read
cancellations; ``jobs`` does the opposite. The board is a convenience: a job never fails because its board does.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_FILE = "jobs.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    job_id TEXT PRIMARY KEY, pid INTEGER NOT NULL, model TEXT NOT NULL, task_id TEXT NOT NULL,
    state TEXT NOT NULL, step INTEGER NOT NULL, steps INTEGER NOT NULL,
    image_num INTEGER NOT NULL, images_done INTEGER NOT NULL,
    arrived REAL NOT NULL, ended REAL, error_msg TEXT NOT NULL,
    cancel INTEGER NOT NULL DEFAULT 0, preview_wanted INTEGER NOT NULL DEFAULT 0, preview BLOB
);
CREATE INDEX IF NOT EXISTS jobs_by_task ON jobs (task_id);
"""
_ENTRY = "job_id, pid, model, task_id, state, step, steps, image_num, images_done, arrived, ended, error_msg"
_CHANGING = ("pid", "state", "step", "steps", "images_done", "ended", "error_msg")
_LOST = "the model process died; send the request again"


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """A job on the board. Times are seconds since the epoch; ``ended`` is None while the job is in flight.

    ``pid`` is the process without which nobody waits for the job any more.
    """

    job_id: str
    pid: int
    model: str
    task_id: str
    state: str
    step: int
    steps: int
    image_num: int
    images_done: int
    arrived: float
    ended: float | None
    error_msg: str
    preview: bytes | None = None

    @property
    def elapsed_seconds(self) -> float:
        """Seconds from arrival to now, or to the end of a job that has ended."""
        return max(0.0, (self.ended if self.ended is not None else time.time()) - self.arrived)


class JobBoard:
    """The board in a server's runtime directory; directory and file are created if they are missing.

    Raises ``PermissionError`` if another user owns the directory: its owner could cancel jobs.
    """

    def __init__(self, runtime_dir: Path, history_seconds: float = 600.0) -> None:
        runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if runtime_dir.stat().st_uid != os.getuid():
            raise PermissionError(f"the runtime directory {runtime_dir} belongs to another user; set another")
        self._history_seconds = history_seconds
        # One thread at a time: sqlite3 crashes if two threads share a cached statement, or if one closes what
        # another reads.
        self._lock = threading.RLock()
        # No write waits for the disk: the board is void after a restart.
        self._connection = sqlite3.connect(
            runtime_dir / _FILE, timeout=2.0, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    # The engine's side.

    def forget_before(self, pid: int, born: float) -> None:
        """Drop the jobs of an earlier process with this number.

        A restarted container gives its processes the same numbers again.
        """
        with self._tolerant():
            self._connection.execute("DELETE FROM jobs WHERE pid = ? AND arrived < ?", (pid, born))

    def end(self, job_id: str, state: str, error: str) -> None:
        """End a job that no engine has any more."""
        with self._tolerant():
            self._connection.execute(
                "UPDATE jobs SET state = ?, ended = ?, error_msg = ? WHERE job_id = ? AND ended IS NULL",
                (state, time.time(), error, job_id),
            )

    def forget(self, job_id: str) -> None:
        """Drop a job that no engine has taken."""
        with self._tolerant():
            self._connection.execute("DELETE FROM jobs WHERE job_id = ?", (job_id,))

    def post(self, entry: BoardEntry) -> None:
        """Write an entry, new or changed."""
        values = [getattr(entry, name) for name in _ENTRY.split(", ")]
        changes = ", ".join(f"{name} = excluded.{name}" for name in _CHANGING)
        with self._tolerant():
            self._connection.execute(
                f"INSERT INTO jobs ({_ENTRY}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608
                f" ON CONFLICT DO UPDATE SET {changes}",
                values,
            )

    def post_preview(self, job_id: str, preview: bytes) -> None:
        """Write a preview that was asked for."""
        with self._tolerant():
            self._connection.execute(
                "UPDATE jobs SET preview = ?, preview_wanted = 0 WHERE job_id = ?",
                (preview, job_id),
            )

    def cancellations(self) -> Sequence[str]:
        """Return the ids of the jobs in flight that are to be cancelled."""
        return self._ids("cancel")

    def preview_wishes(self) -> Sequence[str]:
        """Return the ids of the jobs in flight whose preview is wanted."""
        return self._ids("preview_wanted")

    def forget_old(self) -> None:
        """Delete jobs that ended before the history begins."""
        with self._tolerant():
            self._connection.execute("DELETE FROM jobs WHERE ended < ?", (self._forgotten_before,))

    @property
    def _forgotten_before(self) -> float:
        return time.time() - self._history_seconds

    def _ids(self, flag: str) -> Sequence[str]:
        ids: list[str] = []
        with self._tolerant():
            rows = self._connection.execute(f"SELECT job_id FROM jobs WHERE {flag} AND ended IS NULL")  # noqa: S608
            ids.extend(job_id for (job_id,) in rows)
        return ids

    # The side of ``jobs``.

    def entries(self, task_id: str | None = None) -> Sequence[BoardEntry]:
        """Return all entries, or those of one task, newest first, without jobs that ended before the history begins.

        Idle engines delete nothing, so the file may still have such jobs.
        """
        self._mark_lost()
        preview, of_task = ("NULL", "TRUE") if task_id is None else ("preview", "task_id = :task_id")
        with self._lock:
            rows = self._connection.execute(
                f"SELECT {_ENTRY}, {preview} FROM jobs WHERE {of_task} AND (ended IS NULL OR ended >= :since)"  # noqa: S608
                " ORDER BY arrived DESC",
                {"task_id": task_id, "since": self._forgotten_before},
            ).fetchall()
        names = [*_ENTRY.split(", "), "preview"]
        return [BoardEntry(**dict(zip(names, row, strict=True))) for row in rows]

    def has_requests(self) -> bool:
        """Return True if a request is in flight, or if the board cannot be read; a background build does not count."""
        self._mark_lost()
        found: object = True
        with self._tolerant():
            found = self._connection.execute("SELECT 1 FROM jobs WHERE ended IS NULL AND image_num > 0").fetchone()
        return found is not None

    def cancel(self, task_id: str) -> None:
        """Request the cancellation of a task's jobs in flight."""
        with self._lock:
            self._connection.execute("UPDATE jobs SET cancel = 1 WHERE task_id = ? AND ended IS NULL", (task_id,))

    def want_preview(self, task_id: str) -> None:
        """Request a preview of a task's jobs in flight."""
        with self._lock:
            self._connection.execute(
                "UPDATE jobs SET preview_wanted = 1 WHERE task_id = ? AND ended IS NULL", (task_id,)
            )

    def _mark_lost(self) -> None:
        """Mark the jobs of killed processes as ended."""
        with self._tolerant():
            pids = self._connection.execute("SELECT DISTINCT pid FROM jobs WHERE ended IS NULL").fetchall()
            for (pid,) in pids:
                if not _is_alive(pid):
                    self._connection.execute(
                        "UPDATE jobs SET state = 'failed', ended = ?, error_msg = ? WHERE pid = ? AND ended IS NULL",
                        (time.time(), _LOST, pid),
                    )

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            logger.warning("job board: %s", error)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A zombie still accepts signals.
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
