"""A program that becomes another one, which ends with its parent and gives way to everything else.

``python low_priority.py PARENT PROGRAM ARGUMENT…``. Run as a file of its own, so that a large process need not do this
between fork and exec, with the memory and the locks of all its threads; imports nothing of this library.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
# A tenth of the time on cores that serving wants. The idle priorities would leave it nothing under constant load.
_NICENESS = 10
_FIRST_TO_GO = "1000"  # when memory runs out, see proc(5), oom_score_adj


def main(parent: int, *command: str) -> None:
    """Never returns."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we could ask
        sys.exit("the server has ended")
    os.nice(_NICENESS)  # the priority of reading and writing follows it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    os.execvp(command[0], command)  # noqa: S606 - the command is the server's own


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
