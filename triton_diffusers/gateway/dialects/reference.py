"""The reference's REST interface: one JSON object in, one out, when the images are finished.

A service is addressed as ``POST /api/predict/<service>``, or as ``POST /``, which is where a service is called from
inside its own host. Errors have the reference's codes, which are HTTP statuses as well.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from triton_diffusers.gateway.access.caller import REFERENCE, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.dialect import Dialect, ServiceDependency, read_body
from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.jobs.job import Job, NewJob
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.gateway.results import CONTROL_IMAGE
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import CONTROLNET, model_for, new_job

NAME = REFERENCE

_PATH = re.compile(r"/|/api/predict/.*")
_MAX_MESSAGE_CHARS = 200
# Statuses with a meaning for proxies and retrying clients; all other errors have the reference's code as status.
_HTTP_STATUSES = frozenset((401, 403, 404, 405, 408, 409, 413, 415, 421, 429, 499, 503, 504))
_OUTPUTS = ("seed", "prompt", "is_nsfw", "use_blade", "profile", "queue_seconds", "run_seconds")

router = APIRouter(tags=["reference"], dependencies=[requires(REFERENCE)])


@router.post("/", summary="Draw, and wait for the images (reference)")
@router.post("/api/predict/{name}", summary="Draw, and wait for the images (reference)")
async def predict(request: Request, service: ServiceDependency, name: str = "") -> JSONResponse:
    """Answer a request of the reference's clients."""

    def read(body: bytes) -> NewJob:
        document = read_object(body)
        model = service_model(service, name) or model_for(document)
        return new_job(document, service.origin(request, NAME, body=body, waiting=True), service.limits, model=model)

    wanted = await read_body(request, read)
    (submitted,) = await service.submit(caller_of(request), [wanted])
    job = await service.wait(request, submitted.job)
    return JSONResponse(await reply(request, service, job))


def service_model(service: Service, name: str) -> str:
    """Return the model of a service's name; empty if the request's fields decide."""
    if name in service.settings.services:
        return service.settings.services[name]
    return CONTROLNET if "control" in name.lower() else ""


async def reply(request: Request, service: Service, job: Job) -> dict[str, Any]:
    """Return the reference's reply for a job that has succeeded."""
    outputs = (job.result or {})["outputs"]
    values = {
        "success": 1,
        "task_id": job.label,
        "image_url": service.results.urls(job, service.base_url(request))[: job.images],
        "oss_url": service.results.places(job),
        **{name: outputs[name] for name in _OUTPUTS},
        "warnings": [*job.request["warnings"], *outputs["warnings"]],
    }
    if job.request["use_base64"]:
        values["images_base64"] = await service.results.base64(job)
    if controls := await service.results.base64(job, CONTROL_IMAGE):
        values["control_images_base64"] = controls
    return values


def render(fault: Fault) -> Response:
    """Return a fault in the reference's form."""
    status = fault.status if fault.status in _HTTP_STATUSES else fault.code
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    content = {"success": 0, "error_code": fault.code, "error_msg": fault.message[:_MAX_MESSAGE_CHARS]}
    return JSONResponse(content, status, headers)


DIALECT = Dialect(NAME, router, lambda path: _PATH.fullmatch(path) is not None, render)
