"""Retries: their errors, number and pauses."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from triton_diffusers_client.errors import ClientError, RequestTimeoutError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Longer timeouts would overflow the system's clocks.
_MAX_TIMEOUT = 1e9
_MIN_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 8.0


def pause_before(retry: int) -> float:
    """Return the seconds to wait before the n-th retry (1, 2, …): doubling, with jitter, so that clients spread."""
    return min(_MAX_PAUSE_SECONDS, _MIN_PAUSE_SECONDS * 2.0 ** (retry - 1)) * random.uniform(0.75, 1.0)  # noqa: S311


def checked_timeout(seconds: float | None) -> float | None:
    """Return a timeout; None for one without end. Raises ``ValueError`` for an invalid one."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds) or seconds <= 0:
        raise ValueError(f"timeout: {seconds!r} is invalid: it must be a number of seconds, more than 0")
    return float(seconds) if seconds < _MAX_TIMEOUT else None


@dataclass(frozen=True, slots=True)
class Attempts:
    """At most ``retries`` tries after the first one, all of them and the pauses within ``timeout`` seconds."""

    timeout: float | None
    retries: int

    def within(self, timeout: float | None) -> Attempts:
        """Return these attempts within another timeout, if one is given. Raises ``ValueError``."""
        return self if timeout is None else Attempts(checked_timeout(timeout), self.retries)

    def run(
        self,
        attempt: Callable[[float | None], T],
        *,
        sleep: Callable[[float], None] = time.sleep,
        worth_it: Callable[[ClientError], bool] = lambda error: True,
    ) -> T:
        """Return the result of ``attempt``, which is given the seconds that are left.

        Raises what ``attempt`` raised: at once if it is not retryable, or ``worth_it`` says no to it, or if there are
        no more retries, or no time.
        """
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        retry = 0
        while True:
            try:
                return attempt(seconds_left(deadline))
            except ClientError as error:
                retry += 1
                pause = self.pause_after(error, retry, deadline, worth_it=worth_it(error))
            sleep(pause)

    def pause_after(self, error: ClientError, retry: int, deadline: float | None, *, worth_it: bool) -> float:
        """Return the seconds to wait before the n-th retry (1, 2, …); raise the error if there shall be none."""
        pause = max(pause_before(retry), error.retry_after or 0.0)
        in_time = deadline is None or time.monotonic() + pause < deadline
        if retry > self.retries or not (error.retryable and in_time and worth_it):
            raise error
        logger.warning("%s; trying again in %.1f s (%d of %d)", error, pause, retry, self.retries)
        return pause


def seconds_left(deadline: float | None) -> float | None:
    """Return the seconds until a deadline; None without one. Raises ``RequestTimeoutError`` if it is over."""
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise RequestTimeoutError("the time for this request is over")
    return seconds
