"""Routes that draw, and those that follow and stop what is drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from triton_diffusers.errors import Cancelled, InvalidRequest, TimedOut
from triton_diffusers.gateway.access.caller import A1111, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.a1111.json_response import AsciiJSONResponse
from triton_diffusers.gateway.dialects.a1111.options import KIND, checked_changes, options_of, overridden
from triton_diffusers.gateway.dialects.a1111.progress import (
    TASK,
    job_of_task,
    jobs_in_flight,
    preview_of,
    progress_view,
    task_view,
)
from triton_diffusers.gateway.dialects.a1111.replies import images_reply
from triton_diffusers.gateway.dialects.a1111.styles import read_styles
from triton_diffusers.gateway.dialects.a1111.translate import Translation, translate
from triton_diffusers.gateway.dialects.a1111.values import flag, mapping, text, whole
from triton_diffusers.gateway.dialects.a1111.workers import in_pixel_thread, pixel_limits
from triton_diffusers.gateway.dialects.dialect import JSON_BODY, ServiceDependency, read_body
from triton_diffusers.gateway.fleet import fleet_of
from triton_diffusers.gateway.jobs.job import DEFAULT_POOL, JobState, NewJob
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import JobOrigin, model_for, new_job

NAME = A1111

_MAX_TASK_CHARS = 256

router = APIRouter(tags=["a1111"], dependencies=[requires(A1111)])


@router.post("/sdapi/v1/txt2img", openapi_extra=JSON_BODY, summary="Text to image (A1111)")
async def txt2img(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Draw images of a prompt, and wait for them."""
    return await _draw(request, service, with_image=False)


@router.post("/sdapi/v1/img2img", openapi_extra=JSON_BODY, summary="Image to image, or inpainting (A1111)")
async def img2img(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Draw images over an image, or with a mask over a part of it, and wait for them."""
    return await _draw(request, service, with_image=True)


@router.get("/sdapi/v1/progress", summary="Progress of the caller's jobs (A1111)")
async def progress(request: Request, service: ServiceDependency, skip_current_image: bool = False) -> AsciiJSONResponse:
    """Return the progress of the caller's first job in flight, with a preview."""
    jobs = await jobs_in_flight(service.table, caller_of(request).owner)
    preview = await preview_of(service.table, jobs[0]) if jobs and not skip_current_image else None
    return AsciiJSONResponse(progress_view(jobs, preview))


@router.post("/sdapi/v1/interrupt", summary="Cancel the caller's jobs (A1111)")
async def interrupt(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Cancel all of the caller's jobs of this API."""
    for job in await jobs_in_flight(service.table, caller_of(request).owner):
        await service.table.cancel(job.owner, job.id)
    return AsciiJSONResponse({})


@router.post("/sdapi/v1/skip", summary="Cancel the caller's first job (A1111)")
async def skip(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Cancel the job whose progress is shown; the caller's others continue."""
    for job in (await jobs_in_flight(service.table, caller_of(request).owner))[:1]:
        await service.table.cancel(job.owner, job.id)
    return AsciiJSONResponse({})


@router.post("/internal/progress", openapi_extra=JSON_BODY, summary="Progress of one task (A1111)")
async def task_progress(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the progress of the job with a ``force_task_id``."""
    document = await read_body(request, read_object)
    owner = caller_of(request).owner
    last = whole("id_live_preview", document.get("id_live_preview", -1), -1)
    job = await job_of_task(service.table, owner, text("id_task", document.get("id_task", "")))
    wants_preview = job is not None and flag("live_preview", document.get("live_preview", True))
    preview = await preview_of(service.table, job) if job is not None and wants_preview else None
    return AsciiJSONResponse(task_view(job, await jobs_in_flight(service.table, owner), preview, last))


@router.get("/internal/pending-tasks", summary="Tasks that wait (A1111)")
async def pending_tasks(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the tasks of the caller's jobs in flight."""
    tasks = [job.tags.get(TASK, job.id) for job in await jobs_in_flight(service.table, caller_of(request).owner)]
    return AsciiJSONResponse({"size": len(tasks), "tasks": tasks})


@router.get("/internal/ping", summary="Liveness (A1111)")
async def ping() -> AsciiJSONResponse:
    """Answer."""
    return AsciiJSONResponse({})


@router.get("/sdapi/v1/options", summary="The caller's options (A1111)")
async def get_options(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the caller's options."""
    options = await options_of(service.table, caller_of(request).owner, await fleet_of(service.table))
    return AsciiJSONResponse(options.values)


@router.post("/sdapi/v1/options", openapi_extra=JSON_BODY, summary="Change the caller's options (A1111)")
async def set_options(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Keep options, for this caller only."""
    changes = checked_changes(await read_body(request, read_object), await fleet_of(service.table))
    await service.table.call(service.table.store.directory.prefer, caller_of(request).owner, KIND, changes)
    return AsciiJSONResponse(None)


async def _draw(request: Request, service: Service, *, with_image: bool) -> AsciiJSONResponse:
    document = await read_body(request, read_object)
    caller, fleet = caller_of(request), await fleet_of(service.table)
    changes = mapping("override_settings", document.get("override_settings") or {})
    options = overridden(await options_of(service.table, caller.owner, fleet), changes, fleet)
    styles = await asyncio.to_thread(read_styles, service.settings.styles_file)
    translated = partial(translate, document, options, styles, pixel_limits(service.limits), with_image=with_image)
    made = await (in_pixel_thread(translated) if document.get("mask") else asyncio.to_thread(translated))
    origin = service.origin(request, NAME, body=await _keyed_body(request), waiting=True)
    pool = options.checkpoint.pool if options.checkpoint else DEFAULT_POOL
    try:
        wanted = await asyncio.to_thread(_new_job, made, document, origin, service, pool)
    except InvalidRequest as error:
        raise made.in_callers_words(error) from error
    if changes and document.get("override_settings_restore_afterwards") is False:
        kept = checked_changes(changes, fleet)
        await service.table.call(service.table.store.directory.prefer, caller.owner, KIND, kept)
    (submitted,) = await service.submit(caller, [wanted])
    job = submitted.job
    try:
        job = await service.wait(request, job)
    except TimedOut:
        raise
    except Cancelled:
        # The web UI answers an interrupted request like any other.
        job = await service.table.get(job.owner, job.id)
        if job.state is not JobState.CANCELLED:
            raise
    return AsciiJSONResponse(await images_reply(service, job, made, options, document))


async def _keyed_body(request: Request) -> bytes:
    """Return the body if it is to be that of each repeat; without a key, equal requests are jobs of their own."""
    return await request.body() if "idempotency-key" in request.headers else b""


def _new_job(made: Translation, document: Mapping[str, Any], origin: JobOrigin, service: Service, pool: str) -> NewJob:
    job = new_job(made.fields, origin, service.limits, model=model_for(made.fields), files=made.files)
    task = text("force_task_id", document.get("force_task_id") or "")[:_MAX_TASK_CHARS]
    return replace(job, pool=pool, tags={TASK: task} if task else {})
