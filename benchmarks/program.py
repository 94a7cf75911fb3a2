"""A program that a benchmark runs to its end, or ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from benchmarks.servers import ROOT

_LAST_CHARACTERS = 600
_LOOK_SECONDS = 0.01
# A caller's own limit on threads is not to limit what is measured.
_NOT_INHERITED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH")


class ProgramFailed(RuntimeError):
    """It has not ended well; the message says how, with the last of what it said."""


class Program:
    """A process that runs, or has stopped itself (``SIGSTOP``) so that others may work; made by ``running``."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    def hands_over(self, until: float) -> bool:
        """Wait until it stops itself; false if it has ended, or it is ``until`` on the monotonic clock."""
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(ChildProcessError):  # it has ended just now
                if os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOHANG):
                    return True
            time.sleep(_LOOK_SECONDS)
        return False

    def resume(self) -> None:
        """Let it run again."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> None:
        """Wait for its end. Raises ``ProgramFailed`` if it fails or takes longer."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProgramFailed("not done in time") from None
        if code:
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip()[-_LAST_CHARACTERS:]
            raise ProgramFailed(f"ended with {code}: {last}")


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], *, passed: Sequence[int] = ()) -> Iterator[Program]:
    """Run a program in the project's folder, and end all that it has started with the context.

    ``environment`` comes on top of ours; ``passed`` are open files that it gets, under the same numbers.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            yield Program(process, said)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
