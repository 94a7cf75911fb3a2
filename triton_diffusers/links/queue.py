"""A queue of links, fair between hosts, so that a slow host does not delay the links to others."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from triton_diffusers.errors import Busy


class Fetcher(Protocol):
    """The protocol of ``LinkFetcher``."""

    def host_of(self, field: str, url: str) -> str:
        """Return a link's host. Raises ``InvalidImage`` for an invalid link."""

    def fetch(self, field: str, url: str) -> bytes:
        """Return the body that the link leads to. Raises ``InvalidImage``."""


@dataclass(slots=True, eq=False)
class _Batch:
    """The links of one request; ``left`` of them are not fetched yet. It is ``closed`` once it has a result."""

    take: Callable[[str, bytes], None]
    is_given_up: Callable[[], bool]
    left: int
    closed: bool = False
    result: Future[None] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def needless(self) -> bool:
        """True if its result is no longer needed."""
        return self.closed or self.is_given_up()


@dataclass(frozen=True, slots=True, eq=False)
class _Link:
    field: str
    url: str
    host: str
    batch: _Batch


class LinkQueue:
    """A queue that fetches links in its own threads.

    At most ``places`` links wait or are fetched. One host gets at most half of the places and half of the ``threads``;
    the next link is one whose host has the fewest threads. A link that waits longer than ``patience`` seconds fails its
    request as busy.
    """

    def __init__(self, fetcher: Fetcher, *, threads: int, places: int, patience: float) -> None:
        self._fetcher, self._places, self._patience = fetcher, places, patience
        self._threads, self._threads_per_host = threads, _half(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="links")
        # Guards the next two. Never held while a result is set, since its callbacks take other locks.
        self._lock = threading.Lock()
        self._waiting: list[_Link] = []  # the oldest first
        self._active: Counter[str] = Counter()  # links being fetched, by host

    def fetch(
        self, links: Mapping[str, str], take: Callable[[str, bytes], None], is_given_up: Callable[[], bool]
    ) -> Future[None]:
        """Fetch the links of one request: URLs, each with the field that it came in.

        ``take`` is called with each URL and its body, in any thread. The future ends once all are taken, or with the
        first error of any link: ``InvalidImage``, ``Busy`` after ``patience``, or an error of ``take``. Once
        ``is_given_up`` returns True, the other links are dropped, and the future may never end.

        Raises:
            InvalidImage: a link is malformed.
            Busy: too many links wait already, of all hosts or of one of these.
        """
        batch = _Batch(take, is_given_up, len(links))
        new = [_Link(name, url, self._fetcher.host_of(name, url), batch) for url, name in links.items()]
        with self._lock:
            self._waiting = [link for link in self._waiting if not link.batch.needless]
            self._check_room(new)
            self._waiting += new
        self._start()
        return batch.result

    def stop(self) -> None:
        """Drop the waiting links; return once no link is being fetched."""
        with self._lock:
            self._waiting.clear()
        self._pool.shutdown()

    def _check_room(self, new: Iterable[_Link]) -> None:
        hosts = self._active + Counter(link.host for link in self._waiting)
        for link in new:
            hosts[link.host] += 1
            if hosts[link.host] > _half(self._places):
                raise Busy(f"{link.field}: too many links to {link.host!r} wait already; send the request again later")
        if hosts.total() > self._places:
            raise Busy(f"links: {self._places} wait already, the limit; send the request again later")

    def _start(self) -> None:
        """Start one link for each free thread."""
        with self._lock:
            self._waiting = [link for link in self._waiting if not link.batch.needless]
            late = {link.batch for link in self._waiting if link.batch.since < time.monotonic() - self._patience}
            for batch in late:
                batch.closed = True
            self._waiting = [link for link in self._waiting if not link.batch.closed]
            while self._active.total() < self._threads and (link := self._next()) is not None:
                self._waiting.remove(link)
                self._active[link.host] += 1
                self._pool.submit(self._run, link)
        for batch in late:
            batch.result.set_exception(
                Busy(f"links: not fetched within {self._patience:g} seconds; send the request again later")
            )

    def _next(self) -> _Link | None:
        startable = [link for link in self._waiting if self._active[link.host] < self._threads_per_host]
        return min(startable, key=lambda link: self._active[link.host], default=None)

    def _run(self, link: _Link) -> None:
        batch = link.batch
        error: Exception | None = None
        try:
            batch.take(link.url, self._fetcher.fetch(link.field, link.url))
        except Exception as failure:  # noqa: BLE001  # isolate the failure to this request
            error = failure
        with self._lock:
            self._active -= Counter((link.host,))  # drops the host at 0
            batch.left -= 1
            ends = not batch.closed and (error is not None or not batch.left)
            batch.closed = batch.closed or ends
        self._start()
        if not ends:
            return
        if error is not None:
            batch.result.set_exception(error)
        else:
            batch.result.set_result(None)


def _half(number: int) -> int:
    return max(1, number // 2)
