"""Folders in buckets, which are read and written: ``oss://bucket/prefix`` and ``s3://bucket/prefix``."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from triton_diffusers.downloads.remote import Remote
from triton_diffusers.settings import Settings

SCHEMES = ("oss", "s3")
FORMS = " or ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)
"""The forms of buckets, for error messages."""


class BucketFolder(Remote, Protocol):
    """A folder in a bucket."""

    def put(self, path: Path, name: str) -> None:
        """Upload a file as ``name``, replacing an older one. Raises ``SourceError``."""
        ...

    def delete(self, name: str) -> None:
        """Delete ``name`` if it exists. Raises ``SourceError``."""
        ...


def is_bucket(place: str) -> bool:
    """Return True if a place is in a bucket."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def open_folder(scheme: str, bucket: str, prefix: str, settings: Settings) -> BucketFolder:
    """Return a folder; nothing is sent yet. Raises ``SourceError``."""
    if scheme == "s3":
        from triton_diffusers.downloads.s3 import S3Folder

        return S3Folder(bucket, prefix, settings)
    from triton_diffusers.downloads.oss import OssFolder

    return OssFolder(bucket, prefix, settings)
