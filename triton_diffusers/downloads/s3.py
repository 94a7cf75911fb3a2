"""Model directories in a bucket of S3, or of a service that is compatible with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from triton_diffusers.downloads.download import CHUNK, download
from triton_diffusers.downloads.remote import MAX_FILES, Interrupted, RemoteFile, SourceError, Unreachable
from triton_diffusers.settings import Settings, SettingsError

_HASH = "sha256"


class S3Folder:
    """The objects below ``prefix`` in ``bucket``. Those that were uploaded by ``put`` have their hash beside them."""

    def __init__(self, bucket: str, prefix: str, settings: Settings) -> None:
        try:
            from triton_diffusers.storage import s3_client
        except ImportError as error:
            raise SourceError("s3:// needs botocore; install triton-diffusers[s3]") from error
        self._s3 = s3_client
        self._name = f"s3://{bucket}/{prefix}"
        try:
            self._client = s3_client.open_client(settings)
        except SettingsError as error:
            raise SourceError(f"{self._name}: {error}") from error
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def files(self) -> Sequence[RemoteFile]:
        found: list[RemoteFile] = []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            for item in (item for page in pages for item in page.get("Contents", ())):
                if item["Key"].endswith("/"):  # placeholder for a folder, made by web consoles
                    continue
                path = item["Key"].removeprefix(self._prefix)
                found.append(RemoteFile(path=path, size=item["Size"], tag=item["ETag"].strip('"')))
                if len(found) > MAX_FILES:
                    break
        except self._s3.FAULTS as error:
            kind = Unreachable if self._s3.is_transient(error) else SourceError
            raise kind(f"{self._name} cannot be listed: {self._s3.fault_text(error)}") from None
        return found

    def fetch(self, files: Sequence[RemoteFile], folder: Path) -> None:
        download([self._with_hash(file) for file in files], folder, self._open)

    def put(self, path: Path, name: str) -> None:
        """Upload a file as ``name``, replacing an older one. Raises ``SourceError``."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._prefix + name, Body=file, Metadata={_HASH: digest}
                )
            except self._s3.FAULTS as error:
                raise self._fault(error, f"{name} was not sent") from None

    def delete(self, name: str) -> None:
        """Delete ``name`` if it exists. Raises ``SourceError``."""
        try:
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except self._s3.FAULTS as error:
            raise self._fault(error, f"{name} cannot be deleted") from None

    def _with_hash(self, file: RemoteFile) -> RemoteFile:
        """Return ``file`` with its SHA-256, which only the object's head may have."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=self._prefix + file.path)
        except self._s3.FAULTS as error:
            raise SourceError(f"{self._name}: {file.path} cannot be read: {self._s3.fault_text(error)}") from None
        if head["ETag"].strip('"') != file.tag:
            raise SourceError(f"{self._name}: {file.path} was changed during the download; start again")
        return RemoteFile(path=file.path, size=file.size, tag=file.tag, sha256=head["Metadata"].get(_HASH, ""))

    def _open(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + file.path, Range=f"bytes={offset}-", IfMatch=f'"{file.tag}"'
            )
            yield from answer["Body"].iter_chunks(CHUNK)
        except self._s3.FAULTS as error:
            raise self._fault(error, f"{file.path} was refused") from None

    def _fault(self, error: Exception, what: str) -> SourceError:
        kind = Interrupted if self._s3.is_transient(error) else SourceError
        return kind(f"{self._name}: {what}: {self._s3.fault_text(error)}")
