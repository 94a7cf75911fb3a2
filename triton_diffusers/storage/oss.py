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
from functools import partial
from typing import Any
from urllib.parse import quote

import oss2
import requests

from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.attempts import Faults
from triton_diffusers.storage.bucket import FAULTS, OssAddress, fault_text, hint_of, open_bucket
from triton_diffusers.storage.protocol import NameTaken, StoredResult, is_plain_prefix

logger = logging.getLogger(__name__)

_TAKEN = 409
_TOO_MANY = 429
# Answered with status 400, though a retry may succeed.
_TRANSIENT_CODES = frozenset({"RequestTimeout", "InvalidDigest"})
# The object that every start writes and removes as a trial.
_TRIAL = ".triton-diffusers"


def open_oss(settings: Settings) -> OssStore:
    """Return the bucket and prefix of the setting ``store``; nothing is sent yet. Raises ``SettingsError``."""
    bucket_name, _, prefix = settings.store.removeprefix("oss://").partition("/")
    prefix = prefix.strip("/")
    if not oss2.is_valid_bucket_name(bucket_name) or (prefix and not is_plain_prefix(prefix)):
        raise SettingsError(f"{PREFIX}STORE: {settings.store!r} is invalid: oss://bucket/prefix is expected")
    bucket = open_bucket(bucket_name, settings)
    host = f"{bucket_name}.oss-{OssAddress.of(bucket_name, settings).region}.aliyuncs.com"
    return OssStore(bucket, prefix, settings.store_url or f"https://{host}/{quote(prefix)}", settings.oss_attempts)


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
            _FAULTS.retrying(put, f"{self._where(key)} cannot be uploaded", self._attempts)
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

        return _FAULTS.retrying(get, f"{self._where(key)} cannot be read", self._attempts)

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        key = self._prefix + stored.name
        remove = partial(self._bucket.delete_object, key)
        _FAULTS.retrying(remove, f"{self._where(key)} cannot be removed", self._attempts)

    def _where(self, key: str) -> str:
        return f"oss://{self._bucket.bucket_name}/{key}"

    def _holds(self, key: str, data: bytes) -> bool:
        """Return True if exactly these data are stored under a key."""
        crc = oss2.utils.Crc64()
        crc.update(data)
        head = self._bucket.head_object(key)
        return bool(head.headers.get("x-oss-hash-crc64ecma") == str(crc.crc))


def _is_transient(error: Exception) -> bool:
    if isinstance(error, oss2.exceptions.RequestError | oss2.exceptions.InconsistentError | requests.RequestException):
        return True
    status, code = getattr(error, "status", 0), getattr(error, "code", "")
    return status >= 500 or status == _TOO_MANY or code in _TRANSIENT_CODES


_FAULTS = Faults(FAULTS, _is_transient, fault_text)
