"""Storing the images of a job, under names that every run of the job gives them."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from triton_diffusers.api.request import GenerationRequest, OutputFormat
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.results import CONTROL_IMAGE, IMAGE
from triton_diffusers.storage.names import result_names
from triton_diffusers.storage.protocol import NameTaken, ResultStore, StoreAway, StoredResult
from triton_diffusers.util.backoff import backoff

logger = logging.getLogger(__name__)

_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 15.0


class ResultWriter:
    """Stores images; an unavailable store is waited for, at most ``seconds``."""

    def __init__(self, store: ResultStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    async def save(self, job: Job, outputs: Mapping[str, Any]) -> list[dict[str, str]]:
        """Store the images of a reply, and return the files of the job's result.

        Raises: StorageFailure. InvalidRequest: the job's ``save_dir`` cannot be in this store.
        """
        controls = [base64.urlsafe_b64decode(text) for text in outputs.get("control_images_base64", ())]
        request = _naming_request(job)
        files = await self._save_all(request, job, outputs["images"], IMAGE)
        controls_request = replace(
            request, task_id=f"{request.task_id}_control", image_num=len(controls), output_format=OutputFormat.PNG
        )
        return files + await self._save_all(controls_request, job, controls, CONTROL_IMAGE)

    async def discard(self, files: Sequence[Mapping[str, str]]) -> None:
        """Remove stored files. Raises: StorageFailure."""
        for file in files:
            await asyncio.to_thread(self._store.discard, self._store.locate(file["name"]))

    async def _save_all(
        self, request: GenerationRequest, job: Job, images: Sequence[bytes], kind: str
    ) -> list[dict[str, str]]:
        media_type = f"image/{request.output_format.value}"
        # The job's id makes names unique, and its time of acceptance the same in every run.
        names = result_names(request, datetime.fromtimestamp(job.created, UTC), job.id)
        files = []
        for name, image in zip(names, images, strict=True):
            stored = await self._save(name, image, media_type)
            files.append(
                {
                    "kind": kind,
                    "name": stored.name,
                    "media_type": media_type,
                    "image_url": stored.image_url,
                    "oss_url": stored.oss_url,
                }
            )
        return files

    async def _save(self, name: str, data: bytes, media_type: str) -> StoredResult:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        attempt = 0
        while True:
            try:
                return await asyncio.to_thread(self._store.save, name, data, media_type)
            except NameTaken:  # by an earlier run of the job, whose image is the same
                return self._store.locate(name)
            except StoreAway as error:
                pause = backoff(attempt, first=_MIN_PAUSE_SECONDS, longest=_MAX_PAUSE_SECONDS, jitter=True)
                if loop.time() + pause > deadline:
                    raise
                logger.warning("%s is not stored yet: %s", name, error)
                await asyncio.sleep(pause)
                attempt += 1


def _naming_request(job: Job) -> GenerationRequest:
    """Return a request with the fields that name files."""
    fields = job.request["fields"]
    return GenerationRequest(
        task_id=job.label,
        prompt="",
        width=0,
        height=0,
        image_num=job.images,
        save_dir=fields.get("save_dir", "result"),
        output_format=OutputFormat(fields.get("output_format", "png")),
    )
