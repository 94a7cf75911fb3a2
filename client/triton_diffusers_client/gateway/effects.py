"""Effects: the input and output that an exchange with the gateway needs, performed by a driver.

An exchange is a generator that yields effects and is sent their results, as ``httpx.Auth`` does it. It is written
once, and runs under a driver that blocks and under one that awaits.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Flow = Generator["Effect", Any, T]

ANSWER_SECONDS = 60.0
"""Seconds without a byte after which a connection counts as broken, beyond what a request asks the gateway to wait."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request, and read the whole reply: a ``Reply``."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # they may have an API key
    params: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    seconds: float = ANSWER_SECONDS


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of any status; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """Open a stream of server-sent events: a ``Stream``, or the ``Reply`` if there is none."""

    send: Send


class Stream(Protocol):
    """An open stream of server-sent events; only its driver knows more of it."""


@dataclass(frozen=True, slots=True)
class Next:
    """Wait for the stream's next event: an ``Event``, or None at the stream's end."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    kind: str
    id: str
    data: str


@dataclass(frozen=True, slots=True)
class Close:
    """Close a stream: None."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait: None."""

    seconds: float


Effect = Send | Open | Next | Close | Sleep
