"""Ending a request from another thread, wherever it is just then."""

from __future__ import annotations

import threading

from triton_diffusers_client.errors import CancelledError
from triton_diffusers_client.transport import Call


class Cancellation:
    """Stands for a request through all its attempts: on the wire, or waiting for the next try."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._call: Call | None = None

    def attach(self, call: Call) -> None:
        """Return the attempt that is under way from now on."""
        with self._lock:
            self._call = call
        if self._requested.is_set():
            call.cancel()

    def cancel(self) -> None:
        """End the request with ``CancelledError``."""
        self._requested.set()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    def check(self) -> None:
        """Raise ``CancelledError`` if the request is cancelled."""
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Wait that long; raises ``CancelledError`` as soon as the request is cancelled."""
        if self._requested.wait(seconds):
            raise CancelledError("the request was cancelled")
