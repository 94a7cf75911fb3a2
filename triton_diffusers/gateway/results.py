"""Result images of jobs: their URLs, their bytes, their removal."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from triton_diffusers.errors import NotFound, StorageFailure
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.signing import UrlSigner
from triton_diffusers.storage.protocol import ResultStore

logger = logging.getLogger(__name__)

IMAGE, CONTROL_IMAGE = "image", "control_image"
EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_PUBLIC = ("http", "https")


class Results:
    """The images that runners have stored. ``job.result`` names them in ``files``, in their order."""

    def __init__(self, store: ResultStore, signer: UrlSigner) -> None:
        self._store = store
        self._signer = signer

    def urls(self, job: Job, base_url: str) -> list[str]:
        """Return the URL of each file: the store's own if it has one, else a signed one of this gateway."""
        return [
            file["image_url"] if urlsplit(file["image_url"]).scheme in _PUBLIC else self._signed(job, number, base_url)
            for number, file in enumerate(files_of(job))
        ]

    def places(self, job: Job) -> list[str]:
        """Return the location of each image in the store, such as ``oss://…``, ``s3://…`` or ``file://…``."""
        return [file["oss_url"] for file in files_of(job, IMAGE)]

    def allows(self, path: str, expires: str, signature: str) -> bool:
        """Return True if the query string of a signed URL is valid."""
        return self._signer.allows(path, expires, signature)

    async def read(self, job: Job, number: int) -> tuple[bytes, str]:
        """Return an image of a job and its media type. Raises: NotFound, StorageFailure."""
        files = files_of(job)
        if not 0 <= number < len(files):
            raise NotFound(f"image: job {job.id} has no image {number}")
        return await asyncio.to_thread(self._store.read, files[number]["name"]), files[number]["media_type"]

    async def base64(self, job: Job, kind: str = IMAGE) -> list[str]:
        """Return all images, or control images, as base64 with the URL-safe alphabet."""
        names = [file["name"] for file in files_of(job, kind)]
        images = [await asyncio.to_thread(self._store.read, name) for name in names]
        return [base64.urlsafe_b64encode(data).decode() for data in images]

    async def discard(self, job: Job) -> None:
        """Remove a job's images from the store; one that cannot be removed is logged."""
        for file in files_of(job):
            try:
                await asyncio.to_thread(self._store.discard, self._store.locate(file["name"]))
            except StorageFailure as error:
                logger.error("%s is left in the store: %s", file["oss_url"], error)

    def _signed(self, job: Job, number: int, base_url: str) -> str:
        path = image_path(job, number)
        return f"{base_url}{path}?{self._signer.query(path)}"


def files_of(job: Job, kind: str = "") -> Sequence[Mapping[str, Any]]:
    """Return the files of a job's result, or those of one kind, images first; none if it has no result."""
    files = job.result["files"] if job.result else ()
    return [file for file in files if kind in ("", file["kind"])]


def image_path(job: Job, number: int) -> str:
    """Return the path at which the gateway serves an image."""
    extension = EXTENSIONS[files_of(job)[number]["media_type"]]
    return f"/api/jobs/{job.id}/images/{number}.{extension}"
