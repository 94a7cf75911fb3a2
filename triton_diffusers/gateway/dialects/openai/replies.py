"""Replies of OpenAI's images API."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from triton_diffusers.api.request import SEEDS
from triton_diffusers.api.statuses import INVALID_IMAGE
from triton_diffusers.gateway.dialects.openai.translate import ResponseFormat, Translation
from triton_diffusers.gateway.faults import Fault
from triton_diffusers.gateway.image_size import image_size
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.results import IMAGE, Results, files_of
from triton_diffusers.gateway.work import work_of_parameters

_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Mapping[int, str] = {
    404: "not_found",
    409: "cancelled",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "server_overloaded",
    504: "timeout",
}
# OpenAI's clients repeat requests with these statuses, though the job has ended: the repeat would be another one.
_FINAL = frozenset((409, 500, 504))


async def images_reply(job: Job, results: Results, translation: Translation, base_url: str) -> dict[str, Any]:
    """Return the reply for a job that has succeeded."""
    options = translation.options
    number = len(files_of(job, IMAGE))
    if options.response_format is ResponseFormat.URL:
        places = [{"url": url} for url in results.urls(job, base_url)[:number]]
        first, _ = await results.read(job, 0)
    else:
        images = [(await results.read(job, index))[0] for index in range(number)]
        places = [{"b64_json": base64.b64encode(image).decode()} for image in images]
        first = images[0]
    return {
        "id": job.id,
        "created": int(job.ended or job.created),
        "model": job.model,
        "data": [{**place, **_particulars(job, index)} for index, place in enumerate(places)],
        **shown_options(job, translation, first),
        "parameters": (job.result or {})["outputs"]["parameters"],
        "usage": usage(job),
        "warnings": warnings(job, translation),
    }


def _particulars(job: Job, index: int) -> dict[str, Any]:
    """Return facts of an image: its seed, the safety checker's verdict, and the prompt if it was translated."""
    outputs = (job.result or {})["outputs"]
    seed = (int(outputs["seed"]) + index) % SEEDS
    found = {"seed": str(seed), "is_nsfw": outputs["is_nsfw"][index]}
    if outputs["prompt"] != job.request["fields"].get("prompt", ""):
        found["revised_prompt"] = outputs["prompt"]
    return found


def shown_options(job: Job, translation: Translation, image: bytes) -> dict[str, str]:
    """Return the options that OpenAI repeats in replies; the size and the format are those of ``image``."""
    width, height = image_size(image)
    return {
        "background": "opaque",
        "output_format": job.request["fields"].get("output_format", "png"),
        "quality": translation.options.quality,
        "size": f"{width}x{height}",
    }


def usage(job: Job) -> dict[str, Any]:
    """Return the cost of a job: no tokens, which OpenAI's clients expect all the same, but megapixel-steps."""
    outputs = (job.result or {})["outputs"]
    return {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
        "megapixel_steps": work_of_parameters(outputs["parameters"], job.images).megapixel_steps,
        "run_seconds": outputs["run_seconds"],
    }


def warnings(job: Job, translation: Translation) -> list[str]:
    """Return what the caller should know: of the fields, of the request, of the model."""
    return [*translation.warnings, *job.request["warnings"], *(job.result or {})["outputs"]["warnings"]]


def error_object(fault: Fault) -> dict[str, Any]:
    """Return the ``error`` object of a fault."""
    return {
        "message": fault.message,
        "type": _type(fault.status),
        "param": fault.field.split(" / ")[0] or None,
        "code": _code(fault),
    }


def render(fault: Fault) -> Response:
    """Return a fault in OpenAI's form."""
    headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after else {}
    if fault.status in _FINAL:
        headers["x-should-retry"] = "false"
    return JSONResponse({"error": error_object(fault)}, fault.status, headers)


def _type(status: int) -> str:
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def _code(fault: Fault) -> str | None:
    if fault.status == 404 and fault.field == "model":
        return "model_not_found"
    if fault.status != 400:
        return _CODES.get(fault.status)
    if fault.code == INVALID_IMAGE:
        return "invalid_image"
    return "invalid_value" if fault.field else None
