"""Result stores: a local directory, OSS or S3 behind one interface."""

from __future__ import annotations

from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.keeper import Patience, ResultKeeper
from triton_diffusers.storage.protocol import NameTaken, ResultStore, StoreAway, StoredResult
from triton_diffusers.storage.unstored import UnstoredFolder
from triton_diffusers.util.lazy import Registry

__all__ = [
    "STORES",
    "NameTaken",
    "Patience",
    "ResultKeeper",
    "ResultStore",
    "StoreAway",
    "StoredResult",
    "UnstoredFolder",
    "open_store",
]

# The scheme of the setting ``store`` → a function of the settings. A value without a scheme is a directory.
STORES = Registry(
    "store",
    {
        "file": "triton_diffusers.storage.local:open_local",
        "oss": "triton_diffusers.storage.oss:open_oss",
        "s3": "triton_diffusers.storage.s3:open_s3",
    },
    extras={"oss": "oss", "s3": "s3"},
)


def open_store(settings: Settings) -> ResultStore | None:
    """Return the store of the settings, None if none is set. Raises ``SettingsError`` if it cannot be used."""
    if not settings.store:
        return None
    scheme, separator, _ = settings.store.partition("://")
    if separator and (scheme not in STORES or scheme == "file"):
        raise SettingsError(
            f"{PREFIX}STORE: {settings.store!r} is invalid: expected a directory, oss://bucket/prefix or s3://bucket/prefix"
        )
    store: ResultStore = STORES[scheme if separator else "file"](settings)
    return store
