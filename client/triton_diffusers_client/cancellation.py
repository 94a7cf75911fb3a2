"""Cancellation of a request from another thread, in any phase."""

from __future__ import annotations

import threading

from triton_diffusers_client.errors import CancelledError
from triton_diffusers_client.transport import Call


class Cancellation:
    """The cancellation of one request through all its attempts and the pauses between them."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._call: Call | None = None

    def attach(self, call: Call) -> None:
        """Register and return the attempt that runs from now on."""
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
        """Sleep; raise ``CancelledError`` as soon as the request is cancelled."""
        if self._requested.wait(seconds):
            raise CancelledError("the request was cancelled")
