"""Streams of OpenAI's images API: previews as partial images, then the images."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request

from triton_diffusers.errors import TimedOut, TritonDiffusersError
from triton_diffusers.gateway.dialects.openai.replies import error_object, shown_options, usage, warnings
from triton_diffusers.gateway.dialects.openai.translate import Translation
from triton_diffusers.gateway.faults import Refused, fault_of
from triton_diffusers.gateway.image_size import image_size
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.middleware.body import DISCONNECTED
from triton_diffusers.gateway.results import IMAGE, files_of
from triton_diffusers.gateway.service import Service, raise_unless_succeeded

_LOOK_SECONDS = 0.5  # between looks for a preview; runners report as often
_KEEPALIVE_SECONDS = 10.0


class ImageStream:
    """The events of one job. ``kind`` is ``image_generation`` or ``image_edit``."""

    def __init__(self, request: Request, service: Service, job: Job, translation: Translation, kind: str) -> None:
        self._request, self._service, self._translation, self._kind = request, service, translation, kind
        self._job = job
        self._wanted = translation.options.partial_images
        self._sent = 0
        self._last = b""

    async def events(self) -> AsyncIterator[bytes]:
        """Send the events; an error is one, too. A caller who hangs up leaves the job."""
        try:
            async for event in self._previews():
                yield event
            raise_unless_succeeded(self._job)
            async for event in self._images():
                yield event
        except (Refused, TritonDiffusersError) as error:
            fault = self._translation.fault_in_callers_words(fault_of(error))
            yield _event("error", {"error": error_object(fault)})
        finally:
            if not self._job.state.has_ended:
                await asyncio.shield(self._service.leave(self._job.id))

    async def _previews(self) -> AsyncIterator[bytes]:
        """Send partial images until the job has ended. Raises: TimedOut. Refused: the caller's key has ended."""
        clock = asyncio.get_running_loop().time
        deadline, last_event = clock() + self._service.settings.sync_seconds, clock()
        while not self._job.state.has_ended and not self._request.scope[DISCONNECTED].is_set():
            if clock() >= deadline:
                raise TimedOut(self._service.settings.sync_seconds)
            preview = await self._next_preview()
            if preview or clock() - last_event >= _KEEPALIVE_SECONDS:
                yield self._partial(preview) if preview else KEEPALIVE_COMMENT
                last_event = clock()
            self._job = await self._service.table.wait_for_end(self._job.owner, self._job.id, _LOOK_SECONDS)
            await self._service.authenticator.authenticate(self._request)

    async def _next_preview(self) -> bytes:
        """Return a preview that is new and due; empty if there is none."""
        if self._sent == self._wanted:
            return b""
        table, job = self._service.table, self._job
        await table.want_preview(job.owner, job.id)
        # Evenly spread over the steps, and a little early: runners report what was a moment ago.
        if job.progress.fraction < (self._sent + 1) / (self._wanted + 2):
            return b""
        blob = await table.preview(job.owner, job.id)
        return blob.data if blob is not None and blob.data != self._last else b""

    def _partial(self, preview: bytes) -> bytes:
        self._last = preview
        width, height = image_size(preview)
        data = {
            "b64_json": base64.b64encode(preview).decode(),
            "partial_image_index": self._sent,
            "created_at": int(self._job.created),
            "background": "opaque",
            "output_format": "jpeg",
            "quality": self._translation.options.quality,
            "size": f"{width}x{height}",
        }
        self._sent += 1
        return _event(f"{self._kind}.partial_image", data)

    async def _images(self) -> AsyncIterator[bytes]:
        job, translation = self._job, self._translation
        for number in range(len(files_of(job, IMAGE))):
            image, _ = await self._service.results.read(job, number)
            data = {
                "b64_json": base64.b64encode(image).decode(),
                "created_at": int(job.created),
                **shown_options(job, translation, image),
                "usage": usage(job),
                "warnings": warnings(job, translation),
            }
            yield _event(f"{self._kind}.completed", data)


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps({"type": kind, **data}, ensure_ascii=False), event=kind)
