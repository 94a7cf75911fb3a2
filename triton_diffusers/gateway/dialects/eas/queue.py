"""The interface of a service's two queues, and the attributes that both have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from triton_diffusers.gateway.dialects.eas.frames import Frame
from triton_diffusers.gateway.dialects.eas.queue_call import GROUP_HEADER, PRIORITY_HEADER, USER_HEADER, QueueCall

_MEGABYTE = 10**6


class Queue(Protocol):
    """A queue as its callers see it. Methods raise ``Refused`` for calls that the queue does not have."""

    async def attributes(self) -> Mapping[str, str]:
        """Return the state of the queue."""
        ...

    async def count(self, priority: int | None, tags: Mapping[str, str]) -> int:
        """Return the number of entries, of those that have a priority and all tags."""
        ...

    async def search(self, index: int) -> Mapping[str, object] | None:
        """Return the place of an entry; None if it does not exist."""
        ...

    async def get(self, length: int, *, delete: bool) -> Sequence[Frame]:
        """Return up to ``length`` entries that the call asks for, as soon as there is one or its time is over."""
        ...

    async def commit(self, indexes: Collection[int]) -> None:
        """Take entries off the queue for the caller's group."""
        ...

    async def reject(self, indexes: Collection[int]) -> None:
        """Return entries to the caller's group."""
        ...

    async def delete(self, indexes: Collection[int]) -> None:
        """Delete entries."""
        ...

    async def truncate(self, below: int) -> None:
        """Delete the entries whose indexes are less than ``below``."""
        ...


def common_attributes(
    call: QueueCall, *, name: str, length: int, max_length: int, first: int | None, last: int | None
) -> dict[str, str]:
    """Return the attributes of a queue. Clients take the names of the headers from here."""
    attributes = {
        "meta.backend": "triton-diffusers",
        "meta.name": name,
        "meta.state": "OK",
        "meta.maxPayloadBytes": str(int(call.service.settings.max_body_megabytes * _MEGABYTE)),
        "meta.header.user": USER_HEADER,
        "meta.header.group": GROUP_HEADER,
        "meta.header.priority": PRIORITY_HEADER,
        "stream.approxMaxLength": str(max_length),
        "stream.length": str(length),
    }
    if first is not None and last is not None:
        attributes |= {"stream.firstEntry": str(first), "stream.lastEntry": str(last)}
    return attributes
