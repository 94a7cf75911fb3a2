"""A least-recently-used cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def nbytes(value: Any) -> int:
    """Return a value's memory in bytes."""
    return int(value.nbytes)


def one(_: object) -> int:
    """Return 1, so that entries are counted."""
    return 1


class LruCache(Generic[K, V]):
    """A cache that evicts the least recently used entries above ``max_size``; the latest one always stays.

    ``size_of`` gives an entry's size: its memory, or 1 each. Not thread-safe.
    """

    def __init__(self, max_size: int, size_of: Callable[[V], int] = nbytes) -> None:
        self._max_size, self._size_of = max_size, size_of
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """Return the value of a key, which counts as a use, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: K, value: V) -> None:
        """Add or replace a value."""
        if key in self._entries:
            self._size -= self._entries.pop(key)[1]
        size = self._size_of(value)
        self._entries[key] = (value, size)
        self._size += size
        while self._size > self._max_size and len(self._entries) > 1:
            self._size -= self._entries.popitem(last=False)[1][1]
