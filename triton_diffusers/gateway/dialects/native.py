"""The native interface: jobs as resources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triton_diffusers.api.schema import request_schema
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.access.caller import NATIVE, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.dialect import Dialect, ServiceDependency, read_body
from triton_diffusers.gateway.dialects.native_views import (
    ErrorReply,
    ErrorView,
    JobList,
    JobView,
    QueueView,
    job_view,
)
from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.jobs.job import MAX_NUMBER, Job, JobState, NewJob
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import MODELS, JobOrigin, model_for, new_job
from triton_diffusers.gateway.webhooks.fields import SCHEMA, read_webhook
from triton_diffusers.settings import Settings

NAME = NATIVE

_PRIORITIES = range(-100, 101)
_ERRORS: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorReply, "description": "Any error."}}
_PREVIEW_SECONDS = 0.5  # between looks for a preview that was asked for

router = APIRouter(prefix="/api", tags=["jobs"], responses=_ERRORS, dependencies=[requires(NATIVE)])

Wait = Annotated[float, Query(ge=0, description="Seconds to wait for the job's end.")]


def _body_schema() -> dict[str, Any]:
    schema = request_schema(Settings.model_construct(), optional=("task_id",))
    schema["properties"] |= {
        "model": {"description": "Model; empty: one that has the request's fields.", "enum": ["", *MODELS]},
        "priority": {
            "description": "Higher ones of an owner are served first.",
            "type": "integer",
            "minimum": _PRIORITIES.start,
            "maximum": _PRIORITIES.stop - 1,
            "default": 0,
        },
        "webhook": SCHEMA,
    }
    return schema


_BODY = _body_schema()
_BATCH = {
    "type": "object",
    "properties": {
        "jobs": {"type": "array", "items": _BODY, "minItems": 1},
        "webhook": {**SCHEMA, "description": "Webhook of the jobs that have none of their own."},
    },
    "required": ["jobs"],
}


def _takes(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("/jobs", status_code=202, openapi_extra=_takes(_BODY), summary="Submit a job")
async def submit(request: Request, response: Response, service: ServiceDependency, wait: Wait = 0.0) -> JobView:
    """Accept a job and return it, with its path in ``Location``. Repeats with one ``Idempotency-Key`` are one job."""
    origin = service.origin(request, NAME, body=await _keyed_body(request))
    base_url = service.base_url(request)
    wanted = await read_body(request, lambda body: _new_job(read_object(body), origin, service, base_url))
    (submitted,) = await service.submit(caller_of(request), [wanted])
    response.headers["Location"] = f"/api/jobs/{submitted.job.id}"
    return await _view(request, service, await _waited(service, submitted.job, wait))


@router.post("/jobs/batch", status_code=202, openapi_extra=_takes(_BATCH), summary="Submit several jobs")
async def submit_batch(request: Request, service: ServiceDependency) -> JobList:
    """Accept all of the jobs, or none."""
    origin = service.origin(request, NAME, body=await _keyed_body(request))
    base_url = service.base_url(request)
    jobs = await read_body(request, lambda body: _new_jobs(read_object(body), origin, service, base_url))
    submitted = await service.submit(caller_of(request), jobs)
    return JobList(jobs=[_plain_view(request, service, each.job) for each in submitted])


@router.get("/jobs", summary="List jobs, the newest first")
async def list_jobs(
    request: Request,
    service: ServiceDependency,
    state: Annotated[list[JobState], Query()] = [],  # noqa: B006  # FastAPI copies it
    task_id: str | None = None,
    cursor: Annotated[int | None, Query(ge=0, le=MAX_NUMBER)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobList:
    """Return the caller's jobs: those in one of the states, with this label."""
    page = await service.table.jobs(caller_of(request).owner, state, task_id, cursor, limit)
    return JobList(jobs=[_plain_view(request, service, job) for job in page.jobs], cursor=page.cursor)


@router.get("/jobs/{job_id}", summary="Return a job")
async def get_job(request: Request, service: ServiceDependency, job_id: str, wait: Wait = 0.0) -> JobView:
    """Return a job as it is, or with ``wait`` as soon as it has ended."""
    job = await service.table.get(caller_of(request).owner, job_id)
    return await _view(request, service, await _waited(service, job, wait))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job")
async def cancel(request: Request, service: ServiceDependency, job_id: str) -> JobView:
    """Cancel a job: a queued one ends at once, a running one when its runner has stopped it."""
    return await _view(request, service, await service.table.cancel(caller_of(request).owner, job_id))


@router.post("/jobs/{job_id}/rerun", summary="Queue a dead job again")
async def rerun(request: Request, service: ServiceDependency, job_id: str) -> JobView:
    """Queue a job again that was given up after its last attempt."""
    return await _view(request, service, await service.table.rerun(caller_of(request).owner, job_id))


@router.delete("/jobs/{job_id}", status_code=204, summary="Delete a job and its images")
async def delete(request: Request, service: ServiceDependency, job_id: str) -> None:
    """Delete a job that has ended. Images go first, so that none is left that nothing names."""
    owner = caller_of(request).owner
    job = await service.table.get(owner, job_id)
    if job.state.has_ended:
        await service.results.discard(job)
    await service.table.delete(owner, job_id)


@router.get("/jobs/{job_id}/preview", response_class=Response, summary="Return a preview of a running job")
async def preview(request: Request, service: ServiceDependency, job_id: str, wait: Wait = 0.0) -> Response:
    """Return a small image of the first unfinished image, or status 204 if there is none yet."""
    owner = caller_of(request).owner
    deadline = asyncio.get_running_loop().time() + min(wait, service.settings.max_wait_seconds)
    await service.table.want_preview(owner, job_id)
    while True:
        blob = await service.table.preview(owner, job_id)
        if blob is not None:
            return Response(blob.data, media_type=blob.media_type, headers={"Cache-Control": "no-store"})
        job = await service.table.get(owner, job_id)
        if job.state.has_ended or asyncio.get_running_loop().time() >= deadline:
            return Response(status_code=204)
        await asyncio.sleep(_PREVIEW_SECONDS)


@router.get("/queue", summary="Return the load of all pools")
async def queue(service: ServiceDependency) -> list[QueueView]:
    """Return what waits and runs, of all owners together."""
    return [QueueView.from_load(load) for load in await service.table.load()]


def _new_job(document: dict[str, Any], origin: JobOrigin, service: Service, base_url: str) -> NewJob:
    model, priority = document.pop("model", None) or "", document.pop("priority", None) or 0
    if not isinstance(model, str):
        raise InvalidRequest("model", model, "must be text")
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in _PRIORITIES:
        rule = f"must be a whole number between {_PRIORITIES.start} and {_PRIORITIES.stop - 1}"
        raise InvalidRequest("priority", priority, rule)
    webhook = read_webhook(document.pop("webhook", None), service.webhooks, base_url)
    new = new_job(document, origin, service.limits, model=model_for(document, model), priority=priority)
    return replace(new, webhook=webhook)


def _new_jobs(document: Mapping[str, Any], origin: JobOrigin, service: Service, base_url: str) -> list[NewJob]:
    documents = document.get("jobs")
    most = service.settings.max_batch_jobs
    if not isinstance(documents, list) or not 1 <= len(documents) <= most:
        raise InvalidRequest("jobs", documents, f"must be a list of 1 to {most} requests")
    webhook = read_webhook(document.get("webhook"), service.webhooks, base_url)
    jobs = []
    for number, each in enumerate(documents):
        if not isinstance(each, dict):
            raise InvalidRequest(f"jobs[{number}]", each, "must be a JSON object")
        try:
            new = _new_job(each, origin.numbered(number), service, base_url)
        except InvalidRequest as error:
            error.field = f"jobs[{number}].{error.field}"
            error.args = (f"jobs[{number}].{error}",)
            raise
        jobs.append(replace(new, webhook=new.webhook or webhook))
    return jobs


async def _keyed_body(request: Request) -> bytes:
    """Return the body if it is to be that of each repeat; without a key, equal requests are jobs of their own."""
    return await request.body() if "idempotency-key" in request.headers else b""


async def _waited(service: Service, job: Job, wait: float) -> Job:
    seconds = min(wait, service.settings.max_wait_seconds)
    return await service.table.wait_for_end(job.owner, job.id, seconds) if seconds else job


async def _view(request: Request, service: Service, job: Job) -> JobView:
    position = await service.table.position(job.owner, job.id) if job.state is JobState.QUEUED else None
    return job_view(job, service.results, service.base_url(request), position)


def _plain_view(request: Request, service: Service, job: Job) -> JobView:
    return job_view(job, service.results, service.base_url(request))


def render(fault: Fault) -> Response:
    """Return a fault in the native form."""
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    body = ErrorReply(error=ErrorView.from_fault(fault)).model_dump(exclude_none=True)
    return JSONResponse(body, fault.status, headers)


DIALECT = Dialect(NAME, router, lambda path: True, render)
