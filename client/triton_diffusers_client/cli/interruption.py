"""Ctrl-C, SIGTERM and a closed terminal as a flag that is polled."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class Interruption:
    """A context in which the first Ctrl-C, SIGTERM or SIGHUP is recorded, and the second raises ``KeyboardInterrupt``.

    ``number`` is the signal's, 0 before there was one. Raised, the first would come between any two instructions: after
    a job was sent and before anyone is ready to cancel it, or in a callback within gRPC, which prints and swallows what
    is raised there. For the main thread.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """True if there was a signal."""
        return self.number != 0

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored by the parent, as by nohup
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.number = number
