"""Images that could not be stored, in a folder on the server."""

from __future__ import annotations

import contextlib
import logging
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from triton_diffusers.errors import StorageFailure
from triton_diffusers.settings import Settings
from triton_diffusers.storage.local import LocalStore
from triton_diffusers.storage.protocol import StoredResult

logger = logging.getLogger(__name__)

_MEGABYTE = 10**6


class UnstoredFolder:
    """A folder that holds images under their names in the store, up to ``max_bytes`` together.

    Usable from several threads. The folder is created with its first image.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> UnstoredFolder:
        """Return the folder for the store of these settings."""
        root = Path(settings.unstored_dir) if settings.unstored_dir else settings.cache_dir / "unstored"
        return cls(
            root.expanduser().absolute() / re.sub(r"[^\w.-]+", "_", settings.store),
            settings.unstored_megabytes * _MEGABYTE,
        )

    def save(self, names: Sequence[str], images: Sequence[bytes]) -> tuple[StoredResult, ...]:
        """Write images under these names. Raises ``StorageFailure`` if the room or the disk does not suffice."""
        with self._lock:
            if sum(self._sizes()) + sum(map(len, images)) > self._max_bytes:
                raise StorageFailure(f"{self._folder} has no room (unstored_megabytes)")
            try:
                store = LocalStore(self._folder)
            except OSError as error:
                raise StorageFailure(f"{self._folder} cannot be written: {error.strerror}") from error
            held: list[StoredResult] = []
            try:
                for name, image in zip(names, images, strict=True):
                    held.append(store.save(name, image, ""))
            except BaseException:
                self.discard(held)
                raise
            return tuple(held)

    def discard(self, held: Sequence[StoredResult]) -> None:
        """Remove images of ``save``."""
        for result in held:
            try:
                self.path(result).unlink(missing_ok=True)
            except OSError as error:  # no result depends on it
                logger.warning("%s cannot be removed: %s", self.path(result), error.strerror)

    def path(self, held: StoredResult) -> Path:
        """Return the file of an image."""
        return self._folder / held.name

    def _sizes(self) -> Iterator[int]:
        for path in self._folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # removed just now
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield status.st_size
