"""Retries: their errors, number and pauses."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from triton_diffusers_client.errors import ClientError, RequestTimeoutError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 8.0


def pause_before(retry: int) -> float:
    """Return the seconds to wait before the n-th retry (1, 2, …): doubling, with jitter, so that clients spread."""
    return min(_MAX_PAUSE_SECONDS, _MIN_PAUSE_SECONDS * 2.0 ** (retry - 1)) * random.uniform(0.75, 1.0)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Attempts:
    """At most ``retries`` tries after the first one, all of them and the pauses within ``timeout`` seconds."""

    timeout: float | None
    retries: int

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
        for retry in range(1, self.retries + 1):
            try:
                return attempt(_left(deadline))
            except ClientError as error:
                pause = pause_before(retry)
                in_time = deadline is None or time.monotonic() + pause < deadline
                if not (error.retryable and in_time and worth_it(error)):
                    raise
                logger.warning("%s; trying again in %.1f s (%d of %d)", error, pause, retry, self.retries)
            sleep(pause)
        return attempt(_left(deadline))


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise RequestTimeoutError("the time for this request is over")
    return seconds
