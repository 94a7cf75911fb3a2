"""A command in the background: of low priority, watched, and gone when the server is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from triton_diffusers.util.process import attached

_GRACE = 2.0  # seconds between asking it to end and ending it
_KILLED = "it was killed; perhaps the memory ran out"


class BackgroundProcess:
    """Runs a command once. ``run`` is called by the thread that waits for it, ``stop`` by any other."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """``log`` is given each line that the command writes."""
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log = log
        self._last_line = ""
        # Guards the two: nothing is started once it is stopped, and nothing is signalled once it is gone.
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self) -> str | None:
        """Run the command to its end; None if it succeeded, else why not, in one line.

        The kernel ends it with the *thread* that calls this, and so also with a process that is killed.
        """
        try:
            process = self._start()
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        if process is None:
            return "the server is stopping"
        # A thread of its own: what the command has started may keep its output open when it is gone itself.
        reader = threading.Thread(target=self._read, args=(process.stdout,), name="build log", daemon=True)
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._changed:
            _signal_all(process, signal.SIGKILL)
            code = process.wait()
            self._process = None
            self._changed.notify_all()
        reader.join(_GRACE)
        if code < 0:
            return _KILLED if code == -signal.SIGKILL else f"it was ended by {signal.Signals(-code).name}"
        return None if code == 0 else self._last_line or f"exit code {code}"

    def stop(self) -> None:
        """End it, and all that it has started; returns when it has ended, within a few seconds."""
        with self._changed:
            self._stopped = True
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._process is not None:
                    _signal_all(self._process, number)
                    self._changed.wait_for(lambda: self._process is None, _GRACE)

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                if line.strip():
                    self._last_line = line.strip()
                    self._log(self._last_line)

    def _start(self) -> subprocess.Popen[str] | None:
        with self._changed:
            if self._stopped:
                return None
            self._process = subprocess.Popen(  # noqa: S603 - the command is the server's own
                attached(self._command, death_signal=signal.SIGKILL, low_priority=True),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                # A group, to be ended together, but no session of its own: Linux would give that as much time as this
                # one has, whatever its priority (autogroups, sched(7)).
                process_group=0,
            )
        return self._process


def _signal_all(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
