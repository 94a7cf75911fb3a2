"""A cache that is bounded by the memory of what it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol


class Sized(Protocol):
    """Knows its own memory."""

    @property
    def nbytes(self) -> int: ...


class LruCache:
    """Forgets what was used longest ago when it holds more than ``most_bytes``; the latest is always held."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any | None:
        """What is held under a key, if anything."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: Hashable, value: Sized) -> None:
        """Hold a value, in place of an earlier one of that key."""
        if key in self._entries:
            self._bytes -= self._entries.pop(key)[1]
        size = value.nbytes
        self._entries[key] = (value, size)
        self._bytes += size
        while self._bytes > self._most_bytes and len(self._entries) > 1:
            self._bytes -= self._entries.popitem(last=False)[1][1]
