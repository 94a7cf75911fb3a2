"""Results in a bucket of Alibaba Cloud's Object Storage Service.

A PUT is atomic, and with ``x-oss-forbid-overwrite`` a name is written only once. Data are checked twice: by OSS
(Content-MD5), and by the CRC64 in OSS's answer. An attempt whose answer is lost may have succeeded; if the next one
finds the name taken, the object's CRC64 tells whether it is the same image.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import oss2
import requests

from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.bucket import FAULTS, OssAddress, fault_text, hint_of, open_bucket
from triton_diffusers.storage.protocol import NameTaken, StoreAway, StoredResult
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
_TAKEN = 409
_TOO_MANY = 429
# Answered with status 400, though a retry may succeed.
_TRANSIENT_CODES = frozenset({"RequestTimeout", "InvalidDigest"})
# The object that every start writes and removes as a trial.
_TRIAL = ".triton-diffusers"
# Of a key's 1023 bytes; the longest result name takes the rest.
_MAX_PREFIX_BYTES = 500


def open_oss(settings: Settings) -> OssStore:
    """Return the bucket and prefix of the setting ``store``; nothing is sent yet. Raises ``SettingsError``."""
    bucket_name, _, prefix = settings.store.removeprefix("oss://").partition("/")
    prefix = prefix.strip("/")
    if not oss2.is_valid_bucket_name(bucket_name) or (prefix and not _is_plain(prefix)):
        raise SettingsError(f"{PREFIX}STORE: {settings.store!r} is invalid: oss://bucket/prefix is expected")
    bucket = open_bucket(bucket_name, settings)
    host = f"{bucket_name}.oss-{OssAddress.of(bucket_name, settings).region}.aliyuncs.com"
    return OssStore(bucket, prefix, settings.store_url or f"https://{host}/{quote(prefix)}", settings.oss_attempts)


def _is_plain(prefix: str) -> bool:
    return (
        prefix.isprintable()
        and len(prefix.encode()) <= _MAX_PREFIX_BYTES
        and "\\" not in prefix
        and not {"", ".", ".."} & set(prefix.split("/"))
    )


class OssStore:
    """Images below ``prefix`` of a bucket, shown at ``public_url``."""

    def __init__(self, bucket: Any, prefix: str, public_url: str, attempts: int) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._public_url = public_url.rstrip("/")
        self._attempts = attempts

    def try_out(self) -> None:
        """See ``ResultStore``. Every needed permission is tried; an OSS that is out of order only causes a warning."""
        key = self._prefix + _TRIAL
        try:
            self._bucket.put_object(key, b"")
            self._bucket.head_object(key)
            self._bucket.delete_object(key)
        except FAULTS as error:
            if isinstance(error, oss2.exceptions.ServerError) and _is_transient(error):
                logger.warning("%s cannot be tried out: %s", self._where(key), fault_text(error))
                return
            hint = hint_of(error, self._bucket.endpoint)
            why = fault_text(error) + (f"; {hint}" if hint else "")
            raise SettingsError(f"{PREFIX}STORE: {self._where(self._prefix)!r} is invalid: {why}") from None

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """See ``ResultStore``."""
        key = self._prefix + name
        headers = {
            "Content-Type": content_type,
            "Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            "x-oss-forbid-overwrite": "true",
        }
        unsure = False  # True once an earlier attempt may have stored it

        def put() -> None:
            nonlocal unsure
            try:
                self._bucket.put_object(key, data, headers=headers)
            except oss2.exceptions.InconsistentError:
                self._bucket.delete_object(key)  # our own, since the name was free, and damaged
                raise
            except FAULTS as error:
                if getattr(error, "status", None) != _TAKEN:
                    unsure = unsure or _is_transient(error)
                    raise
                if not (unsure and self._holds(key, data)):
                    raise NameTaken(f"{self._where(key)} is stored already") from None

        try:
            self._retrying(put, f"{self._where(key)} cannot be uploaded")
        except StorageFailure:
            if unsure:
                with contextlib.suppress(*FAULTS):
                    if self._holds(key, data):
                        self._bucket.delete_object(key)
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
                return bytes(self._bucket.get_object(key).read())
            except oss2.exceptions.NoSuchKey:
                raise NotFound(f"{name} is not in the store") from None

        return self._retrying(get, f"{self._where(key)} cannot be read")

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        key = self._prefix + stored.name
        self._retrying(lambda: self._bucket.delete_object(key), f"{self._where(key)} cannot be removed")

    def _where(self, key: str) -> str:
        return f"oss://{self._bucket.bucket_name}/{key}"

    def _holds(self, key: str, data: bytes) -> bool:
        """Return True if exactly these data are stored under a key."""
        crc = oss2.utils.Crc64()
        crc.update(data)
        head = self._bucket.head_object(key)
        return bool(head.headers.get("x-oss-hash-crc64ecma") == str(crc.crc))

    def _retrying(self, action: Callable[[], T], failure: str) -> T:
        """Return the result of ``action``, retried while its errors may pass. Raises ``StorageFailure``.

        OSS's own messages are left out: some of them hold signed strings.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except FAULTS as error:
                if attempt == self._attempts or not _is_transient(error):
                    kind = StoreAway if _is_transient(error) else StorageFailure
                    raise kind(f"{failure}: {fault_text(error)}, attempt {attempt} of {self._attempts}") from None
                logger.warning("%s: %s; trying again", failure, fault_text(error))
            time.sleep(backoff(attempt - 1, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True))
        raise AssertionError("there is at least one attempt")


def _is_transient(error: Exception) -> bool:
    if isinstance(error, oss2.exceptions.RequestError | oss2.exceptions.InconsistentError | requests.RequestException):
        return True
    status, code = getattr(error, "status", 0), getattr(error, "code", "")
    return status >= 500 or status == _TOO_MANY or code in _TRANSIENT_CODES
