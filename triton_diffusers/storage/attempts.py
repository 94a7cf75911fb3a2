"""Repeated attempts of requests to a bucket."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from triton_diffusers.errors import StorageFailure
from triton_diffusers.storage.protocol import StoreAway
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Faults:
    """Errors of a bucket's library: their types, which of them may pass, and their texts without secrets.

    The libraries' own messages are left out: some of them hold signed strings.
    """

    types: tuple[type[Exception], ...]
    is_transient: Callable[[Exception], bool]
    text: Callable[[Exception], str]

    def retrying(self, action: Callable[[], T], failure: str, attempts: int) -> T:
        """Return the result of ``action``, retried while its errors may pass. Raises ``StorageFailure``."""
        for attempt in range(1, attempts + 1):
            try:
                return action()
            except self.types as error:
                transient = self.is_transient(error)
                if attempt == attempts or not transient:
                    kind = StoreAway if transient else StorageFailure
                    raise kind(f"{failure}: {self.text(error)}, attempt {attempt} of {attempts}") from None
                logger.warning("%s: %s; trying again", failure, self.text(error))
            time.sleep(backoff(attempt - 1, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True))
        raise AssertionError("there is at least one attempt")
