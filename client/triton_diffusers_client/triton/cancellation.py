"""Cancellation of a request from another thread, in any phase."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from triton_diffusers_client.errors import CancelledError, ClientError
from triton_diffusers_client.triton.transport import Call


class Cancellation:
    """The cancellation of one request through all its attempts and the pauses between them."""

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._call: Call | None = None

    @contextmanager
    def calling(self, begin: Callable[[], Call]) -> Iterator[Call]:
        """Begin a call that ``cancel`` ends; raise ``CancelledError`` if the request is cancelled already."""
        with self._lock:
            self.check()
            self._call = call = begin()
        try:
            yield call
        except ClientError:
            self._forget()
            raise
        # Not after another exception, such as Ctrl-C: the call may still be on its way to the server.
        self._forget()

    def request(self) -> None:
        """Begin no more calls; the one that runs continues."""
        with self._lock:
            self._requested.set()

    def cancel(self) -> None:
        """End the request with ``CancelledError``."""
        self.request()
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()

    @property
    def unanswered(self) -> bool:
        """True if a call has begun and the server has not answered it."""
        with self._lock:
            return self._call is not None

    def check(self) -> None:
        """Raise ``CancelledError`` if the request is cancelled."""
        self.sleep(0)

    def sleep(self, seconds: float) -> None:
        """Sleep; raise ``CancelledError`` as soon as the request is cancelled."""
        if self._requested.wait(seconds):
            raise CancelledError("the request was cancelled")

    def _forget(self) -> None:
        with self._lock:
            self._call = None
