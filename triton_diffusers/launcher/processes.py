"""The model processes (*stubs*) of one server, read from ``/proc``.

A stub's command line is ``… <repository>/<model>/<version>/model.py <shared memory region> …``; the region's name
begins with the server's own prefix, so a stub is recognised whoever its parent has become.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class ModelProcess:
    """One stub. ``started`` (clock ticks since boot) tells it from a later process with the same number."""

    pid: int
    started: int
    model: str

    @property
    def is_alive(self) -> bool:
        """False once it has ended, even if its exit status has not been collected."""
        status = _status(self.pid)
        return status is not None and status[1] == self.started and status[0] not in "ZX"

    def kill(self) -> None:
        """Kill it, if it still runs."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def model_processes(region_prefix: str, model: str | None = None) -> frozenset[ModelProcess]:
    """Return the living stubs whose shared memory region begins with ``region_prefix``, of one model or of all."""
    return frozenset(
        process for process in _stubs(region_prefix) if process.is_alive and model in (None, process.model)
    )


def _stubs(region_prefix: str) -> Iterator[ModelProcess]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = os.fsdecode((entry / "cmdline").read_bytes()).split("\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        place = next((i for i, word in enumerate(words) if word.startswith(region_prefix)), 0)
        if place and (status := _status(int(entry.name))):
            yield ModelProcess(int(entry.name), status[1], Path(words[place - 1]).parent.parent.name)


def _status(pid: int) -> tuple[str, int] | None:
    """Return state letter and start time of a process, or None if it is gone (see proc(5), ``stat``)."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])
