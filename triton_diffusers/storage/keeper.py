"""Keeping the results of a request: all of its pictures, or none."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from triton_diffusers.errors import StorageFailure
from triton_diffusers.request import GenerationRequest
from triton_diffusers.storage.names import result_names
from triton_diffusers.storage.protocol import NameTaken, ResultStore, StoredResult

logger = logging.getLogger(__name__)

_MOST_NAMES = 5


def _utc() -> datetime:
    return datetime.now(UTC)


class ResultKeeper:
    """Names and stores pictures; without a store it keeps nothing. Usable from several threads.

    Names carry the time in UTC, which is the same on every server and never goes back an hour.
    """

    def __init__(self, store: ResultStore | None, clock: Callable[[], datetime] = _utc) -> None:
        self._store = store
        self._clock = clock

    def keep(self, request: GenerationRequest, images: Sequence[bytes]) -> tuple[StoredResult, ...]:
        """Store a request's encoded pictures, in their order; ``()`` without a store.

        Raises ``StorageFailure``, or ``InvalidRequest`` for a ``save_dir`` that cannot be in this store; what was
        stored before is removed again then.
        """
        if self._store is None:
            return ()
        now = self._clock()
        suffix = ""
        for _ in range(_MOST_NAMES):
            try:
                return self._save_all(self._store, result_names(request, now, suffix), request, images)
            except NameTaken:
                suffix = secrets.token_hex(4)
        raise StorageFailure(f"no free name was found for the results of {request.task_id}")

    def discard(self, stored: Sequence[StoredResult]) -> None:
        """Remove what ``keep`` returned, of a request that got no result after all; what cannot be is logged."""
        if self._store is not None:
            _discard_all(self._store, stored)

    @staticmethod
    def _save_all(
        store: ResultStore, names: Sequence[str], request: GenerationRequest, images: Sequence[bytes]
    ) -> tuple[StoredResult, ...]:
        stored: list[StoredResult] = []
        try:
            for name, image in zip(names, images, strict=True):
                stored.append(store.save(name, image, f"image/{request.output_format.value}"))
        except BaseException:
            _discard_all(store, stored)
            raise
        return tuple(stored)


def _discard_all(store: ResultStore, stored: Sequence[StoredResult]) -> None:
    for result in stored:
        try:
            store.discard(result)
        except StorageFailure:
            logger.exception("%s is left in the store though its request got no result", result.oss_url)
