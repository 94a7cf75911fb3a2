"""The reference's REST interface: one JSON object in, one out, when the images are finished.

A service is called as ``POST /`` inside its own host, and by its name from outside (``dialects.eas``). Errors have the
reference's codes, which are HTTP statuses as well.
"""

from __future__ import annotations

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
from triton_diffusers.gateway.submission import model_for, new_job

NAME = REFERENCE

_MAX_MESSAGE_CHARS = 200
# Statuses with a meaning for proxies and retrying clients; all other errors have the reference's code as status.
_HTTP_STATUSES = frozenset((401, 403, 404, 405, 408, 409, 413, 415, 421, 429, 499, 503, 504))
_NO_BASE64 = "use_base64: queues carry no images; image_url is where they are"
_OUTPUTS = ("seed", "prompt", "is_nsfw", "use_blade", "profile", "queue_seconds", "run_seconds")

router = APIRouter(tags=["reference"], dependencies=[requires(REFERENCE)])


@router.post("/", summary="Draw, and wait for the images (reference)")
async def predict(request: Request, service: ServiceDependency) -> JSONResponse:
    """Answer a request of the reference's clients."""
    return await draw(request, service, service.settings.service("").model)


async def draw(request: Request, service: Service, model: str = "") -> JSONResponse:
    """Return the reply of a request as soon as its images are finished; an empty model is one that has its fields."""

    def read(body: bytes) -> NewJob:
        document = read_object(body)
        origin = service.origin(request, NAME, body=body, waiting=True)
        return new_job(document, origin, service.limits, model=model or model_for(document))

    wanted = await read_body(request, read)
    (submitted,) = await service.submit(caller_of(request), [wanted])
    job = await service.wait(request, submitted.job)
    return JSONResponse(await reply(service, job, service.base_url(request)))


async def reply(service: Service, job: Job, base_url: str, *, with_images: bool = True) -> dict[str, Any]:
    """Return the reference's reply for a job that has succeeded; images in base64 only ``with_images``."""
    outputs = (job.result or {})["outputs"]
    values = {
        "success": 1,
        "task_id": job.label,
        "image_url": service.results.urls(job, base_url)[: job.images],
        "oss_url": service.results.places(job),
        **{name: outputs[name] for name in _OUTPUTS},
        "warnings": [*job.request["warnings"], *outputs["warnings"]],
    }
    if not with_images:
        values["warnings"] += [_NO_BASE64] if job.request["use_base64"] else []
        return values
    if job.request["use_base64"]:
        values["images_base64"] = await service.results.base64(job)
    if controls := await service.results.base64(job, CONTROL_IMAGE):
        values["control_images_base64"] = controls
    return values


def render(fault: Fault) -> Response:
    """Return a fault in the reference's form."""
    status = fault.status if fault.status in _HTTP_STATUSES else fault.code
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    return JSONResponse(error_reply(fault), status, headers)


def error_reply(fault: Fault) -> dict[str, Any]:
    """Return the reference's reply for a fault."""
    return {"success": 0, "error_code": fault.code, "error_msg": fault.message[:_MAX_MESSAGE_CHARS]}


DIALECT = Dialect(NAME, router, lambda path: path == "/", render)
