"""Results in a bucket of S3, or of a service that is compatible with it.

A PUT is atomic, and with ``If-None-Match: *`` a name is written only once. Data are checked by the service
(``Content-MD5``). An attempt whose answer is lost may have succeeded; if the next one finds the name taken, the
object's own hash, which is kept beside it, tells whether it is the same image.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from functools import partial
from typing import Any
from urllib.parse import quote

from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.attempts import Faults
from triton_diffusers.storage.protocol import NameTaken, StoredResult, is_plain_prefix
from triton_diffusers.storage.s3_client import (
    FAULTS,
    fault_text,
    hint_of,
    is_bucket_name,
    is_transient,
    open_client,
    public_url,
    status_of,
)

logger = logging.getLogger(__name__)

_FAULTS = Faults(FAULTS, is_transient, fault_text)
_MISSING = 404
_TAKEN = 412
# The object that every start writes and removes as a trial.
_TRIAL = ".triton-diffusers"
_HASH = "sha256"
"""Name of the metadata that has an object's hash."""


def open_s3(settings: Settings) -> S3Store:
    """Return the bucket and prefix of the setting ``store``; nothing is sent yet. Raises ``SettingsError``."""
    bucket, _, prefix = settings.store.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if not is_bucket_name(bucket) or (prefix and not is_plain_prefix(prefix)):
        raise SettingsError(f"{PREFIX}STORE: {settings.store!r} is invalid: expected s3://bucket/prefix")
    client = open_client(settings)
    url = settings.store_url or public_url(client, bucket, f"{prefix}/" if prefix else "")
    return S3Store(client, bucket, prefix, url, settings.s3_attempts)


class S3Store:
    """Images below ``prefix`` of a bucket, shown at ``public_url``."""

    def __init__(self, client: Any, bucket: str, prefix: str, public_url: str, attempts: int) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._public_url = public_url.rstrip("/")
        self._attempts = attempts

    def try_out(self) -> None:
        """See ``ResultStore``. Every needed permission is tried; a service out of order only causes a warning."""
        key = self._prefix + _TRIAL
        try:
            self._put(key, b"", "text/plain")
            self._client.head_object(Bucket=self._bucket, Key=key)
            self._try_out_conditions(key)
            self._delete(key)
        except FAULTS as error:
            if is_transient(error) and status_of(error):
                logger.warning("%s cannot be tried out: %s", self._where(key), fault_text(error))
                return
            hint = hint_of(error, self._client.meta.endpoint_url)
            why = fault_text(error) + (f"; {hint}" if hint else "")
            raise SettingsError(f"{PREFIX}STORE: {self._where(self._prefix)!r} is invalid: {why}") from None

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """See ``ResultStore``."""
        key = self._prefix + name
        unsure = False  # True once an earlier attempt may have stored it

        def put() -> None:
            nonlocal unsure
            try:
                self._put(key, data, content_type, IfNoneMatch="*")
            except FAULTS as error:
                if status_of(error) != _TAKEN:
                    unsure = unsure or is_transient(error)
                    raise
                if not (unsure and self._holds(key, data)):
                    raise NameTaken(f"{self._where(key)} is stored already") from None

        try:
            _FAULTS.retrying(put, f"{self._where(key)} cannot be uploaded", self._attempts)
        except StorageFailure:
            if unsure:
                with contextlib.suppress(*FAULTS):
                    if self._holds(key, data):
                        self._delete(key)
            raise
        return self.locate(name)

    def locate(self, name: str) -> StoredResult:
        """See ``ResultStore``."""
        return StoredResult(name, f"{self._public_url}/{quote(name)}", self._where(self._prefix + name))

    def read(self, name: str) -> bytes:
        """See ``ResultStore``."""
        key = self._prefix + name

        def get() -> bytes:
            try:
                return bytes(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())
            except FAULTS as error:
                if status_of(error) == _MISSING:
                    raise NotFound(f"{name} is not in the store") from None
                raise

        return _FAULTS.retrying(get, f"{self._where(key)} cannot be read", self._attempts)

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        key = self._prefix + stored.name
        _FAULTS.retrying(partial(self._delete, key), f"{self._where(key)} cannot be removed", self._attempts)

    def _put(self, key: str, data: bytes, content_type: str, **conditions: str) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=data,
            ContentType=content_type,
            ContentMD5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            Metadata={_HASH: hashlib.sha256(data).hexdigest()},
            **conditions,
        )

    def _try_out_conditions(self, key: str) -> None:
        """Warn if the service overwrites an object in spite of the condition."""
        try:
            self._put(key, b"", "text/plain", IfNoneMatch="*")
        except FAULTS as error:
            if status_of(error) != _TAKEN:
                raise
        else:
            logger.warning("%s: the service ignores If-None-Match; an image may replace another one", self._where(key))

    def _delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=key)

    def _where(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"

    def _holds(self, key: str, data: bytes) -> bool:
        """Return True if exactly these data are stored under a key."""
        head = self._client.head_object(Bucket=self._bucket, Key=key)
        return bool(head["Metadata"].get(_HASH) == hashlib.sha256(data).hexdigest())
