"""Events and images of jobs: the parts of the native interface that are not JSON documents."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from triton_diffusers.errors import NotFound
from triton_diffusers.gateway.access.caller import NATIVE, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.dialect import ServiceDependency
from triton_diffusers.gateway.faults import Refused
from triton_diffusers.gateway.jobs.errors import JobNotFound, TableUnavailable
from triton_diffusers.gateway.jobs.job import MAX_NUMBER, Job, JobEvent
from triton_diffusers.gateway.service import Service

router = APIRouter(prefix="/api", tags=["jobs"], dependencies=[requires(NATIVE)])

# A connection that broke on the way is noticed by sending only.
_KEEPALIVE_SECONDS = 10.0
_EVENT_ID = re.compile(r"[0-9]{1,20}")
_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_IMAGE_HEADERS = {
    "Cache-Control": "private, max-age=86400, immutable",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'",
}


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, summary="Follow a job")
async def events(
    request: Request,
    service: ServiceDependency,
    job_id: str,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Send the job's events as server-sent events until it has ended; ``Last-Event-ID`` continues after an event.

    Status 204 tells a browser that there is nothing more, so that it does not connect again.
    """
    job = await service.table.get(caller_of(request).owner, job_id)
    after = min(int(last_event_id), MAX_NUMBER) if _EVENT_ID.fullmatch(last_event_id) else 0
    if job.state.has_ended and after >= job.event:
        return Response(status_code=204)
    return StreamingResponse(
        _stream(request, service, job, after), media_type="text/event-stream", headers=_STREAM_HEADERS
    )


async def _stream(request: Request, service: Service, job: Job, after: int) -> AsyncIterator[bytes]:
    while True:
        try:
            new = await service.table.wait_for_events(job.owner, job.id, after, _KEEPALIVE_SECONDS)
            await service.authenticator.authenticate(request)  # the key may have ended meanwhile
        except (JobNotFound, TableUnavailable, Refused):
            return  # the client connects again and is told
        for event in new:
            yield _encoded(event)
            after = event.number
        if not new:
            yield KEEPALIVE_COMMENT
        elif (await service.table.get(job.owner, job.id)).state.has_ended and not await service.table.events(
            job.owner, job.id, after
        ):
            return


def _encoded(event: JobEvent) -> bytes:
    data = json.dumps({**event.data, "at": event.at}, ensure_ascii=False)
    return format_sse_event(data_str=data, event=event.kind, id=str(event.number))


@router.get(
    "/jobs/{job_id}/images/{name}",
    response_class=Response,
    summary="Return a result image",
    dependencies=[requires(NATIVE, signed=True)],
)
async def image(
    request: Request, service: ServiceDependency, job_id: str, name: str, expires: str = "", signature: str = ""
) -> Response:
    """Return an image, ``<number>.<extension>``, to its owner or to the bearer of a signed URL."""
    signed = bool(signature) and service.results.allows(request.scope["path"], expires, signature)
    if signature and not signed:
        raise NotFound("signature: the URL has expired or was changed")
    job = await service.table.get(None if signed else caller_of(request).owner, job_id)
    number = name.partition(".")[0]
    if not (number.isascii() and number.isdecimal() and len(number) <= 4):
        raise NotFound(f"image: job {job.id} has no image {name[:80]!r}")
    data, media_type = await service.results.read(job, int(number))
    return Response(data, media_type=media_type, headers=_IMAGE_HEADERS)
