"""What a result store can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from triton_diffusers.errors import StorageFailure


class NameTaken(StorageFailure):
    """Something is stored under that name already, and stays as it is."""


class StoreAway(StorageFailure):
    """The store cannot be reached, or has no room, for now; the same may succeed later."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One stored image: its name in the store, where it can be fetched, and where it lies."""

    name: str
    image_url: str
    oss_url: str


class ResultStore(Protocol):
    """Keeps images by name. Every method may be called from several threads at once."""

    def try_out(self) -> None:
        """Raise ``SettingsError`` unless results can be stored; the message says what to change."""

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """Store ``data`` under ``name``, a relative path with ``/``, wholly or not at all.

        Raises ``NameTaken``, ``StoreAway``, ``StorageFailure``, or ``InvalidRequest`` if the name's folder cannot be in
        this store.
        """

    def locate(self, name: str) -> StoredResult:
        """Return the place of a name, whether anything is stored under it or not."""

    def read(self, name: str) -> bytes:
        """Return what is stored under ``name``. Raises ``NotFound``, ``StoreAway`` or ``StorageFailure``."""

    def discard(self, stored: StoredResult) -> None:
        """Remove what ``save`` returned; raises ``StorageFailure`` if that cannot be done."""
