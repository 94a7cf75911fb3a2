"""Stop requests to the launcher."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_TICK_SECONDS = 0.2


class StopRequest:
    """Stop requests, by signals that this context manager takes over."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self.on_stop: Callable[[], None] = lambda: None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        self.on_stop()

    def wait(self, seconds: float) -> None:
        """Wait for a stop request, at most ``seconds``."""
        end = time.monotonic() + seconds
        while not self.is_made and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _TICK_SECONDS))

    @property
    def is_made(self) -> bool:
        """True if a stop was requested."""
        return bool(self.signals)

    @property
    def is_urgent(self) -> bool:
        """True if a stop was requested twice."""
        return len(self.signals) > 1
