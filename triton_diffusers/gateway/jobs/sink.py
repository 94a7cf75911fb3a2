"""Interface of the sinks: logs of ended jobs, read by groups of consumers.

A sink is made by the first job that names it (``NewJob.sink``). Jobs that succeed, fail, die or expire append one
entry, in the transaction that ends them. Entries are numbered from 1 without gaps, in the order in which they appear.

Each group gets every entry, and within a group each entry is sent to one consumer at a time, in the order of numbers.
An entry that is not committed returns to its group when its consumer disconnects or is silent for ``CONSUMER_SECONDS``.
It is deleted when all groups have committed it, and with its job or the job's result.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

CONSUMER_SECONDS = 30.0
MAX_DELIVERIES = 5


class ConsumerReplaced(Exception):
    """A later connection of the same consumer has taken its place, or it was silent for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkEntry:
    """An ended job in a sink; ``deliveries`` counts how often its group was sent it."""

    number: int
    job_id: str
    tags: Mapping[str, str]
    created: float
    deliveries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A connection of a consumer of a group."""

    sink: str
    group: str
    name: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """A consumer as ``attributes`` shows it."""

    group: str
    name: str
    window: int
    pending: int
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkAttributes:
    """State of a sink; ``first`` and ``last`` are None if it is empty."""

    length: int
    first: int | None
    last: int | None
    groups: Sequence[str] = ()
    consumers: Sequence[ConsumerState] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPosition:
    """Place of an entry in its group: sent to ``consumer``, or with ``waiting`` entries before it."""

    consumer: str | None
    waiting: int


class SinkStore(Protocol):
    """The sinks of a job table. Methods are synchronous, thread-safe and durable, as those of ``JobStore``."""

    def connect(self, sink: str, group: str, consumer: str, window: int) -> Consumer:
        """Connect a consumer that takes up to ``window`` entries at a time.

        An earlier connection of the same name ends, and its uncommitted entries return to the group.
        """
        ...

    def disconnect(self, consumer: Consumer) -> None:
        """Return a consumer's uncommitted entries to its group; nothing if it was replaced."""
        ...

    def take(
        self, consumer: Consumer, first: int = 0, tags: Mapping[str, str] = ..., *, commit: bool = False
    ) -> Sequence[SinkEntry]:
        """Send entries from number ``first`` on that have all ``tags``, until the window is full.

        With ``commit`` they are committed at once; else it is not durable: a crash of the database sends them again.
        Call it at least every ``CONSUMER_SECONDS / 2``, as a sign of life. It seldom writes when there is nothing.

        Raises: ConsumerReplaced.
        """
        ...

    def commit(self, sink: str, group: str, numbers: Collection[int]) -> int:
        """Commit entries for a group, sent or not; return how many there were."""
        ...

    def reject(self, sink: str, group: str, numbers: Collection[int]) -> int:
        """Return sent entries to the group; after ``MAX_DELIVERIES`` they are committed as undeliverable."""
        ...

    def read(
        self,
        sink: str,
        first: int = 0,
        limit: int = 1,
        tags: Mapping[str, str] = ...,
        job_id: str | None = None,
        *,
        delete: bool = False,
    ) -> Sequence[SinkEntry]:
        """Return entries regardless of groups, and delete them if asked to."""
        ...

    def delete(self, sink: str, numbers: Collection[int]) -> int:
        """Delete entries for all groups; return how many there were."""
        ...

    def truncate(self, sink: str, below: int) -> int:
        """Delete the entries with numbers less than ``below`` for all groups; return how many there were."""
        ...

    def search(self, sink: str, group: str, number: int) -> EntryPosition | None:
        """Return the place of an entry in a group; None if it does not exist or is committed."""
        ...

    def attributes(self, sink: str) -> SinkAttributes:
        """Return the state of a sink."""
        ...
