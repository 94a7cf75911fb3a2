"""Functions to be called after a change of the table."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Listeners:
    """A thread-safe set of listeners; ``watch`` runs in a thread while there are any, until ``stopped`` is set."""

    def __init__(self, watch: Callable[[threading.Event], None]) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._listeners: dict[object, Callable[[], object]] = {}
        self._stopped: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def add(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Add a listener, and return a function that removes it."""
        key = object()
        with self._lock:
            self._listeners[key] = listener
            if self._stopped is None:
                self._stopped = threading.Event()
                self._thread = threading.Thread(
                    target=self._watch, args=(self._stopped,), name="job-table-watch", daemon=True
                )
                self._thread.start()
        return lambda: self._remove(key)

    def notify(self) -> None:
        """Call all listeners."""
        with self._lock:
            listeners = list(self._listeners.values())
        for listener in listeners:
            try:
                listener()
            except Exception:  # one listener's failure is not the others'
                logger.exception("job table: a listener failed")

    def close(self) -> None:
        """Remove all listeners, and wait for the thread's end."""
        with self._lock:
            self._listeners.clear()
        self._stop_if_unused()

    def _remove(self, key: object) -> None:
        with self._lock:
            self._listeners.pop(key, None)
        self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        with self._lock:
            if self._listeners or self._stopped is None:
                return
            self._stopped.set()
            thread, self._thread, self._stopped = self._thread, None, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5.0)
