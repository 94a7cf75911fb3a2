"""A low-priority background command that is monitored, and ends with the server."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from triton_diffusers.util.process import attached

_GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
_KILLED = "it was killed; perhaps the machine ran out of memory"


class BackgroundProcess:
    """Runs a command once. ``run`` is called by the thread that waits for it, ``stop`` by any other."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        """``log`` receives each line of the command's output."""
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log = log
        self._last_line = ""
        # Guards both fields: nothing starts after a stop, and no process is signalled after it was reaped.
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self) -> str | None:
        """Run the command to its end. Returns None if it succeeded, otherwise the reason in one line.

        The kernel kills the command when the calling *thread* ends, so also when this process is killed.
        """
        try:
            process = self._start()
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        if process is None:
            return "the server is stopping"
        # In its own thread: descendants of the command may keep its output open after it has exited.
        reader = threading.Thread(target=self._read, args=(process.stdout,), name="build log", daemon=True)
        reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._changed:
            _signal_all(process, signal.SIGKILL)
            code = process.wait()
            self._process = None
            self._changed.notify_all()
        reader.join(_GRACE_SECONDS)
        if code < 0:
            return _KILLED if code == -signal.SIGKILL else f"it was ended by {signal.Signals(-code).name}"
        return None if code == 0 else self._last_line or f"exit code {code}"

    def stop(self) -> None:
        """Stop the command and its descendants; returns when it has ended, within a few seconds."""
        with self._changed:
            self._stopped = True
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._process is not None:
                    _signal_all(self._process, number)
                    self._changed.wait_for(lambda: self._process is None, _GRACE_SECONDS)

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
                # A process group, so that all end together, but not a session: Linux autogroups give each session
                # an equal share of the CPU, whatever its priority (sched(7)).
                process_group=0,
            )
        return self._process


def _signal_all(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
