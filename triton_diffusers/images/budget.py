"""A limit on the memory of all requests' input images."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from triton_diffusers.errors import Busy, Cancelled


class MemoryBudget:
    """A budget of ``total`` bytes, of which requests take shares; usable from any thread."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes of all shares."""
        with self._changed:
            return self._used

    def share(self) -> Share:
        """Return an empty share."""
        return Share(self)

    def _add(self, share: Share, nbytes: int) -> bool:
        """Add to a share if there is room; the lock is held."""
        if share.closed:
            raise Cancelled("the job has ended")
        if self._used + nbytes > self.total:
            return False
        self._set(share, share.nbytes + nbytes)
        return True

    def _set(self, share: Share, nbytes: int) -> None:
        self._used += nbytes - share.nbytes
        share.nbytes = nbytes
        self._changed.notify_all()


class Share:
    """Bytes that one request uses; a context manager that closes it."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.nbytes = 0
        self.closed = False

    def add(self, nbytes: int) -> None:
        """Take more bytes at once.

        Raises:
            Busy: the budget has no room.
            Cancelled: the share is closed.
        """
        with self._budget._changed:
            if not self._budget._add(self, nbytes):
                raise Busy(
                    f"images: the {self._budget.total / 1e6:g} MB for input images of all requests are in use;"
                    " send the request again later"
                )

    def wait_for(self, nbytes: int, deadline: float, is_given_up: Callable[[], bool]) -> None:
        """Take more bytes, once there is room for them, until ``deadline`` (monotonic seconds).

        Raises:
            Busy: the deadline has passed.
            Cancelled: it is given up (noticed when other shares change), or the share is closed.
        """
        changed = self._budget._changed
        with changed:
            while not self._budget._add(self, nbytes):
                if not changed.wait(deadline - time.monotonic()):
                    raise Busy("images: no memory to decode them within the time allowed; send the request again later")
                if is_given_up():
                    raise Cancelled("the job has ended")

    def reduce_to(self, nbytes: int) -> None:
        """Return all but ``nbytes`` to the budget."""
        with self._budget._changed:
            self._budget._set(self, min(self.nbytes, nbytes))

    def close(self) -> None:
        """Return all bytes to the budget and accept no more; harmless when repeated."""
        with self._budget._changed:
            self.closed = True
            self._budget._set(self, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
