"""Ctrl-C as something to ask for, at the moments that suit."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """Within it, the first Ctrl-C is noted; a second one raises ``KeyboardInterrupt``, as ever.

    Raised, the first would come between any two instructions: after a job was sent and before anyone is ready to cancel
    it, or in a callback within gRPC, which prints and swallows what is raised there. For the main thread.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:  # who started us wants no Ctrl-C to reach us
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
