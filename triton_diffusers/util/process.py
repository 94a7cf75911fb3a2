"""Start child processes that end with their parent.

Run as a script, ``python process.py PARENT SIGNAL PRIORITY PROGRAM ARGUMENT…``, this file asks the kernel for the death
signal and becomes PROGRAM. A large process with threads cannot do this safely between fork and exec: gRPC's fork
handlers, for one, abort a process that has live channels. The script imports nothing of this library.
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
# About a tenth of a core that serving wants, too. An idle priority would leave nothing under constant load.
_NICENESS = 10
_MAX_OOM_SCORE = "1000"  # killed first when memory runs out: proc(5), oom_score_adj
_CANNOT_START = 127  # the exit code of shells


def attached(command: Sequence[str], *, death_signal: signal.Signals, low_priority: bool = False) -> list[str]:
    """Return the command line to start instead of ``command``, so that it ends with this process.

    The command keeps its process number, environment, descriptors, session and group. The kernel sends it
    ``death_signal`` when the *thread* that started it ends. With ``low_priority`` it yields to everything else. A
    command that cannot be started prints ``error: …`` and exits with code 127.
    """
    priority = _LOW if low_priority else _NORMAL
    # -I -S: it starts at once, without the environment's settings and without site packages.
    return [python(), "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), priority, *command]


def python() -> str:
    """Return the path of the interpreter. Triton's *stub* is none itself; it uses the packages of ``python3``."""
    running = Path(sys.executable or "")
    return str(running) if running.name.startswith("python") else shutil.which("python3") or "python3"


def _become(parent: int, death_signal: int, priority: str, *command: str) -> None:
    """Become ``command``; return only if it cannot be started."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent:  # the parent ended before the call above
        sys.exit("error: the process that started this one has ended")
    if priority == _LOW:
        os.nice(_NICENESS)  # the I/O priority follows
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_MAX_OOM_SCORE, encoding="ascii")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would keep that
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the starter's own
    except OSError as error:
        print(f"error: {command[0]} cannot be started: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    sys.exit(_CANNOT_START)
