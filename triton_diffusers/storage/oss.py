"""Results in a bucket of Alibaba Cloud's Object Storage Service.

A PUT is atomic there, and ``x-oss-forbid-overwrite`` makes a name be written once. What is sent is checked twice:
by OSS (Content-MD5), and by the CRC64 that OSS answers. An attempt whose answer is lost may have succeeded all the
same; so when the next one finds the name taken, the object's CRC64 tells whether it is our own.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import oss2
import requests

from triton_diffusers.errors import StorageFailure
from triton_diffusers.oss import open_bucket, region_of
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.protocol import NameTaken, StoredResult

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SHORTEST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_TAKEN = 409
_TOO_MANY = 429
# Answered with status 400, though sending the same again may succeed.
_TRANSIENT_CODES = frozenset({"RequestTimeout", "InvalidDigest"})
_FAULTS = (oss2.exceptions.OssError, requests.RequestException)


def open_oss(settings: Settings) -> OssStore:
    """The bucket and prefix of the setting ``store``. Raises ``SettingsError``.

    Nothing is sent: whether the bucket is there and may be written to shows with the first result.
    """
    bucket_name, _, prefix = settings.store.removeprefix("oss://").partition("/")
    prefix = prefix.strip("/")
    if not oss2.is_valid_bucket_name(bucket_name) or (prefix and not _is_plain(prefix)):
        raise SettingsError(f"{PREFIX}STORE: {settings.store!r} does not fit: oss://bucket/prefix is expected")
    bucket = open_bucket(bucket_name, settings)
    host = f"{bucket_name}.oss-{region_of(settings)}.aliyuncs.com"
    return OssStore(bucket, prefix, settings.store_url or f"https://{host}/{quote(prefix)}", settings.oss_attempts)


def _is_plain(prefix: str) -> bool:
    return prefix.isprintable() and "\\" not in prefix and not {"", ".", ".."} & set(prefix.split("/"))


class OssStore:
    """Pictures below ``prefix`` of a bucket, shown at ``public_url``."""

    def __init__(self, bucket: Any, prefix: str, public_url: str, attempts: int) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._public_url = public_url.rstrip("/")
        self._attempts = attempts

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """See ``ResultStore``."""
        key = self._prefix + name
        headers = {
            "Content-Type": content_type,
            "Content-MD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            "x-oss-forbid-overwrite": "true",
        }
        unsure = False  # whether an earlier attempt may have stored it

        def put() -> None:
            nonlocal unsure
            try:
                self._bucket.put_object(key, data, headers=headers)
            except oss2.exceptions.InconsistentError:
                self._bucket.delete_object(key)  # ours, since no other was there, and damaged
                raise
            except _FAULTS as error:
                if getattr(error, "status", None) != _TAKEN:
                    unsure = unsure or _is_transient(error)
                    raise
                if not (unsure and self._holds(key, data)):
                    raise NameTaken(f"{self._where(key)} is stored already") from None

        try:
            self._retrying(put, f"{self._where(key)} cannot be uploaded")
        except StorageFailure:
            if unsure:
                with contextlib.suppress(*_FAULTS):
                    if self._holds(key, data):
                        self._bucket.delete_object(key)
            raise
        return StoredResult(name, f"{self._public_url}/{quote(name)}", self._where(key))

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        key = self._prefix + stored.name
        self._retrying(lambda: self._bucket.delete_object(key), f"{self._where(key)} cannot be removed")

    def _where(self, key: str) -> str:
        return f"oss://{self._bucket.bucket_name}/{key}"

    def _holds(self, key: str, data: bytes) -> bool:
        """Whether just these data are stored under a key."""
        crc = oss2.utils.Crc64()
        crc.update(data)
        head = self._bucket.head_object(key)
        return bool(head.headers.get("x-oss-hash-crc64ecma") == str(crc.crc))

    def _retrying(self, action: Callable[[], T], failure: str) -> T:
        """What ``action`` returns, tried again while its faults may pass. Raises ``StorageFailure``.

        OSS's own messages are left out: some of them hold what was signed.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except _FAULTS as error:
                if attempt == self._attempts or not _is_transient(error):
                    raise StorageFailure(f"{failure}: {_told(error)}, attempt {attempt} of {self._attempts}") from None
                longest = min(_SHORTEST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)
                logger.warning("%s: %s; trying again", failure, _told(error))
            # A random part of the pause, so that workers that failed together do not come back together.
            time.sleep(random.uniform(longest / 2, longest))  # noqa: S311  # nothing secret
        raise AssertionError("there is at least one attempt")


def _is_transient(error: Exception) -> bool:
    if isinstance(error, oss2.exceptions.RequestError | oss2.exceptions.InconsistentError | requests.RequestException):
        return True
    status, code = getattr(error, "status", 0), getattr(error, "code", "")
    return status >= 500 or status == _TOO_MANY or code in _TRANSIENT_CODES


def _told(error: Exception) -> str:
    """A fault in words that hold no secret."""
    if isinstance(error, oss2.exceptions.RequestError):
        return f"no answer ({type(error.exception).__name__})"
    if isinstance(error, oss2.exceptions.InconsistentError):
        return "it was damaged on the way (CRC64)"
    if isinstance(error, oss2.exceptions.OssError):
        return f"OSS answered {error.status} {error.code} (request {error.request_id or 'unknown'})"
    return f"no answer ({type(error).__name__})"
