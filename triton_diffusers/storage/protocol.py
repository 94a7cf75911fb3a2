"""The protocol of result stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from triton_diffusers.errors import StorageFailure

# Of a key's 1023 or 1024 bytes; the longest result name takes the rest.
_MAX_PREFIX_BYTES = 500


class NameTaken(StorageFailure):
    """The name is taken; the stored object is unchanged."""


class StoreAway(StorageFailure):
    """The store is unavailable or full at the moment; a retry may succeed."""


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One stored image: its name in the store, its URL, and its location."""

    name: str
    image_url: str
    oss_url: str


class ResultStore(Protocol):
    """A store of images by name. Every method may be called from several threads at once."""

    def try_out(self) -> None:
        """Raise ``SettingsError`` unless results can be stored; the message says what to change."""

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """Store ``data`` under ``name``, a relative path with ``/``, as a whole or not at all.

        Raises ``NameTaken``, ``StoreAway``, ``StorageFailure``, or ``InvalidRequest`` if this store cannot have the
        name's folder.
        """

    def locate(self, name: str) -> StoredResult:
        """Return the place of a name, whether anything is stored under it or not."""

    def read(self, name: str) -> bytes:
        """Return what is stored under ``name``. Raises ``NotFound``, ``StoreAway`` or ``StorageFailure``."""

    def discard(self, stored: StoredResult) -> None:
        """Remove a stored image. Raises ``StorageFailure`` if it cannot be removed."""


def is_plain_prefix(prefix: str) -> bool:
    """Return True if ``prefix`` can be the beginning of the keys in a bucket, without a slash at its end."""
    return (
        prefix.isprintable()
        and len(prefix.encode()) <= _MAX_PREFIX_BYTES
        and "\\" not in prefix
        and not {"", ".", ".."} & set(prefix.split("/"))
    )
