"""A program that becomes another one, which ends with the process that started it.

``python attached.py PARENT SIGNAL PRIORITY PROGRAM ARGUMENT…``. Run as a file of its own, so that a large process need
not do this between fork and exec, with the memory and the locks of all its threads: gRPC's handlers alone abort a
forked process that has live channels. What runs in the new process imports nothing of this library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_NORMAL, _LOW = "normal", "low"
# A tenth of the time on cores that serving wants. The idle priorities would leave it nothing under constant load.
_NICENESS = 10
_FIRST_TO_GO = "1000"  # when memory runs out, see proc(5), oom_score_adj
_CANNOT_START = 127  # as shells have it


def attached(command: Sequence[str], *, death_signal: signal.Signals, low_priority: bool = False) -> list[str]:
    """The command line that this process starts in place of ``command``, to have it end with this process.

    The command keeps the process number and all that it is started with: environment, descriptors, session, group. The
    kernel sends it ``death_signal`` when the *thread* that starts it ends. With ``low_priority`` it gives way to
    everything else. One that cannot be started says ``error: …`` in a line and ends with code 127.
    """
    priority = _LOW if low_priority else _NORMAL
    # Neither the environment nor the packages of Python are for this program: it starts at once, whatever they are.
    return [python(), "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), priority, *command]


def python() -> str:
    """The interpreter. Within Triton this program is a *stub*, which finds its packages as ``python3`` does."""
    running = Path(sys.executable or "")
    return str(running) if running.name.startswith("python") else shutil.which("python3") or "python3"


def _become(parent: int, death_signal: int, priority: str, *command: str) -> None:
    """Returns only if the command cannot be started."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # it ended before we could ask
        sys.exit("error: the process that started this one has ended")
    if priority == _LOW:
        os.nice(_NICENESS)  # the priority of reading and writing follows it
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and then by what it becomes
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the starter's own
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    sys.exit(_CANNOT_START)
