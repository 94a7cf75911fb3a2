"""Storing the results of a request: all of its images, or none."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.errors import InvalidRequest, StorageFailure
from triton_diffusers.storage.names import result_names
from triton_diffusers.storage.protocol import NameTaken, ResultStore, StoreAway, StoredResult
from triton_diffusers.storage.unstored import UnstoredFolder
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

_MAX_NAMES = 5
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 15.0
_TICK_SECONDS = 0.1


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits of waiting for an unavailable store: ``seconds``, or until ``is_wanted`` or ``is_stopping`` ends it.

    ``report`` is called with the reason for the wait.
    """

    seconds: float = 0.0
    is_wanted: Callable[[], bool] = lambda: True
    is_stopping: Callable[[], bool] = lambda: False
    report: Callable[[str], None] = lambda message: None

    def pause(self, seconds: float) -> bool:
        """Sleep; return False as soon as waiting is of no use."""
        end = time.monotonic() + seconds
        while self.is_wanted() and not self.is_stopping():
            if (left := end - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, _TICK_SECONDS))
        return False


@dataclass(frozen=True, slots=True)
class _Held:
    """Images kept on the server; ``told`` tells the caller where they are, or why they are lost."""

    told: str
    results: tuple[StoredResult, ...] = ()


class ResultKeeper:
    """The part that names and stores result images, if there is a store. Usable from several threads.

    Names carry the UTC time, which is the same on every server and has no daylight saving. Images that cannot be stored
    are held in ``unstored`` from the first failure on, so that no result is lost.
    """

    def __init__(
        self,
        store: ResultStore | None,
        unstored: UnstoredFolder | None = None,
        clock: Callable[[], datetime] = _utc,
    ) -> None:
        self._store = store
        self._unstored = unstored
        self._clock = clock

    def keep(
        self, request: GenerationRequest, images: Sequence[bytes], patience: Patience = Patience()
    ) -> tuple[StoredResult, ...]:
        """Store a request's encoded images, in their order; ``()`` without a store.

        Raises ``StorageFailure``, whose message says where the images are held, or ``InvalidRequest`` for a
        ``save_dir`` that this store cannot have; images stored before the error are removed.
        """
        if self._store is None:
            return ()
        now = self._clock()
        deadline = time.monotonic() + patience.seconds
        held: _Held | None = None
        attempt = 0
        while True:
            try:
                stored = self._keep_once(self._store, request, images, now)
            except StorageFailure as error:
                held = held or self._hold(request, images, now)
                pause = backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS)
                if isinstance(error, StoreAway) and time.monotonic() + pause < deadline:
                    patience.report(f"waiting for the store: {error}")
                    if patience.pause(pause):
                        attempt += 1
                        continue
                if not patience.is_wanted():
                    self._release(held)
                    raise
                raise StorageFailure(f"{error}; {held.told}") from error
            except BaseException:
                self._release(held)
                raise
            self._release(held)
            return stored

    def _keep_once(
        self, store: ResultStore, request: GenerationRequest, images: Sequence[bytes], now: datetime
    ) -> tuple[StoredResult, ...]:
        suffix = ""
        for _ in range(_MAX_NAMES):
            try:
                return self._save_all(store, result_names(request, now, suffix), request, images)
            except NameTaken:
                suffix = secrets.token_hex(4)
        raise StorageFailure(f"no free name was found for the results of {request.task_id}")

    def _hold(self, request: GenerationRequest, images: Sequence[bytes], now: datetime) -> _Held:
        if self._unstored is None:
            return _Held("the images are lost")
        # A suffix, since another request of this task may have been held in the same second.
        names = result_names(request, now, secrets.token_hex(4))
        try:
            results = self._unstored.save(names, images)
        except (StorageFailure, InvalidRequest) as error:
            logger.error("the images of task %s are lost: %s", request.task_id, error)
            return _Held(f"the images are lost: {error}")
        first = self._unstored.path(results[0])
        others = f" and {len(results) - 1} more there" if len(results) > 1 else ""
        logger.warning("the images of task %s are held on this server: %s%s", request.task_id, first, others)
        return _Held(f"on the server, the images are held as {first}{others}", results)

    def _release(self, held: _Held | None) -> None:
        if held is not None and self._unstored is not None:
            self._unstored.discard(held.results)

    def discard(self, stored: Sequence[StoredResult]) -> None:
        """Remove results of ``keep`` whose request failed afterwards; failures to remove are logged."""
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
