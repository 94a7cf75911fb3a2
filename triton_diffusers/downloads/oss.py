"""Model directories in a bucket of Alibaba Cloud's Object Storage Service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from triton_diffusers.downloads.download import CHUNK, download
from triton_diffusers.downloads.remote import MAX_FILES, Interrupted, RemoteFile, SourceError, Unreachable
from triton_diffusers.settings import Settings, SettingsError

_SERVER_ERROR = 500


class OssFolder:
    """The objects below ``prefix`` in ``bucket``."""

    def __init__(self, bucket: str, prefix: str, settings: Settings) -> None:
        try:
            import oss2
            import requests

            from triton_diffusers.storage.bucket import open_bucket
        except ImportError as error:
            raise SourceError("oss:// needs oss2; install triton-diffusers[oss]") from error
        self._oss2: Any = oss2
        self._faults = (oss2.exceptions.RequestError, requests.RequestException)
        self._name = f"oss://{bucket}/{prefix}"
        try:
            self._bucket = open_bucket(bucket, settings)
        except SettingsError as error:
            raise SourceError(f"{self._name}: {error}") from error
        self._prefix = f"{prefix}/" if prefix else ""

    def files(self) -> Sequence[RemoteFile]:
        found: list[RemoteFile] = []
        try:
            for item in self._oss2.ObjectIteratorV2(self._bucket, prefix=self._prefix):
                if item.key.endswith("/"):  # placeholder for a folder, made by web consoles
                    continue
                found.append(RemoteFile(path=item.key.removeprefix(self._prefix), size=item.size, tag=item.etag))
                if len(found) > MAX_FILES:
                    break
        except self._oss2.exceptions.ServerError as error:
            kind = Unreachable if error.status >= _SERVER_ERROR else SourceError
            raise kind(f"{self._name} cannot be listed: {error.code or error.status}") from error
        except self._faults as error:
            raise Unreachable(f"{self._name} cannot be listed: {type(error).__name__}") from error
        return found

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        download([self._with_hash(file) for file in files], folder, self._open)

    def put(self, path: Path, name: str) -> None:
        """Upload a file as ``name``, replacing an older one; its CRC-64 is checked. Raises ``SourceError``."""
        try:
            self._bucket.put_object_from_file(self._prefix + name, path)
        except self._oss2.exceptions.ServerError as error:
            kind = Interrupted if error.status >= _SERVER_ERROR else SourceError
            raise kind(f"{self._name}: {name} was rejected: {error.code or error.status}") from error
        except (*self._faults, self._oss2.exceptions.InconsistentError) as error:
            raise Interrupted(f"{self._name}: {name} was not sent: {type(error).__name__}") from error

    def delete(self, name: str) -> None:
        """Delete ``name`` if it exists. Raises ``SourceError``."""
        try:
            self._bucket.delete_object(self._prefix + name)
        except (self._oss2.exceptions.ServerError, *self._faults) as error:
            raise SourceError(f"{self._name}: {name} cannot be deleted: {type(error).__name__}") from error

    def _with_hash(self, file: RemoteFile) -> RemoteFile:
        """Return ``file`` with its CRC-64, which only the object's head has."""
        try:
            head = self._bucket.head_object(self._prefix + file.path)
        except (self._oss2.exceptions.ServerError, *self._faults) as error:
            raise SourceError(f"{self._name}: {file.path} cannot be read: {type(error).__name__}") from error
        if head.etag != file.tag:
            raise SourceError(f"{self._name}: {file.path} was changed during the download; start again")
        crc = head.headers.get("x-oss-hash-crc64ecma", "")
        return RemoteFile(path=file.path, size=file.size, tag=file.tag, crc64=crc)

    def _open(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        try:
            answer = self._bucket.get_object(
                self._prefix + file.path, byte_range=(offset, None), headers={"If-Match": f'"{file.tag}"'}
            )
            # Without a checksum here: a resumed download comes in parts, so the complete file is checked in the end.
            while piece := answer.resp.read(CHUNK):
                yield piece
        except self._oss2.exceptions.ServerError as error:
            if error.status < _SERVER_ERROR:
                raise SourceError(f"{self._name}: {file.path} was refused: {error.code or error.status}") from error
            raise Interrupted(f"{file.path}: {error.code or error.status}") from error
        except self._faults as error:
            raise Interrupted(f"{file.path}: {type(error).__name__}") from error
