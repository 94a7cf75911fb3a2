"""Admission of requests to the engine after a crash: each suspect runs alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """A request; ``is_suspect`` if an engine process died while it had it."""

    @property
    def is_suspect(self) -> bool: ...


T = TypeVar("T", bound=Entry)


class Quarantine(Generic[T]):
    """Queue before the engine: while there are suspects, it holds everything else and releases one at a time.

    So if another process dies, exactly one request has been its cause. Not thread-safe.
    """

    def __init__(self) -> None:
        self._suspects: deque[T] = deque()
        self._held: deque[T] = deque()
        self._running: set[T] = set()

    @property
    def held(self) -> int:
        """Number of requests that wait."""
        return len(self._suspects) + len(self._held)

    def add(self, entry: T) -> None:
        """Add a request that has come."""
        (self._suspects if entry.is_suspect else self._held).append(entry)

    def remove(self, entry: T) -> bool:
        """Remove a request that has ended; return True if it had been released."""
        if entry in self._running:
            self._running.remove(entry)
            return True
        for queue in (self._suspects, self._held):
            if entry in queue:
                queue.remove(entry)
        return False

    def release(self) -> Iterator[T]:
        """Yield the requests that may run now; they are running from then on."""
        while not any(entry.is_suspect for entry in self._running):
            if self._suspects:
                if self._running:
                    return
                entry = self._suspects.popleft()
            elif self._held:
                entry = self._held.popleft()
            else:
                return
            self._running.add(entry)
            yield entry
