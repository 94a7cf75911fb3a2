"""Routes of OpenAI's images API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from triton_diffusers.api.contract import INPUT_BY_NAME
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.access.caller import OPENAI, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.dialect import Dialect, ServiceDependency
from triton_diffusers.gateway.dialects.openai.given import Given, read_document, read_form
from triton_diffusers.gateway.dialects.openai.replies import images_reply, render
from triton_diffusers.gateway.dialects.openai.stream import ImageStream
from triton_diffusers.gateway.dialects.openai.translate import Endpoint, Translation, translate
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.fleet import fleet_of
from triton_diffusers.gateway.jobs.job import NewJob
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import BASE, MODELS, JobOrigin, model_for, new_job

NAME = OPENAI
PREFIX = "/v1"

_STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_CREATED = int(time.time())  # of all models: they are there since this gateway is
_JSON, _FORM = "application/json", "multipart/form-data"

router = APIRouter(prefix=PREFIX, tags=["openai"], dependencies=[requires(OPENAI)])


def _takes(*media_types: str) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "object"}} for media_type in media_types}
    return {"requestBody": {"required": True, "content": content}}


@router.post("/images/generations", openapi_extra=_takes(_JSON), summary="Make images (OpenAI)")
async def generations(request: Request, service: ServiceDependency) -> Response:
    """Make images from a prompt."""
    return await _answer(request, service, Endpoint.GENERATIONS)


@router.post("/images/edits", openapi_extra=_takes(_FORM, _JSON), summary="Change an image (OpenAI)")
async def edits(request: Request, service: ServiceDependency) -> Response:
    """Change an image; with a mask, only what is transparent in it."""
    return await _answer(request, service, Endpoint.EDITS)


@router.post("/images/variations", openapi_extra=_takes(_FORM, _JSON), summary="Vary an image (OpenAI)")
async def variations(request: Request, service: ServiceDependency) -> Response:
    """Change an image without a prompt."""
    return await _answer(request, service, Endpoint.VARIATIONS)


@router.get("/models", summary="List models (OpenAI)")
async def models(service: ServiceDependency) -> JSONResponse:
    """Return the names that ``model`` takes and whose models are ready at a runner."""
    return JSONResponse({"object": "list", "data": [_model_view(name) for name in await _ready_models(service)]})


@router.get("/models/{name:path}", summary="Return a model (OpenAI)")
async def model(service: ServiceDependency, name: str) -> JSONResponse:
    """Return one of the models that are ready."""
    if name not in (ready := await _ready_models(service)):
        raise _unknown_model(name, ready)
    return JSONResponse(_model_view(name))


async def _answer(request: Request, service: Service, endpoint: Endpoint) -> Response:
    given = await _given(request)
    # Equal requests are wishes for several images, as the seed of each is drawn, unless they have one key.
    body = given.canonical() if "idempotency-key" in request.headers else b""
    origin = service.origin(request, NAME, body=body, waiting=True)
    made = await asyncio.to_thread(translate, given, endpoint, service.limits)
    try:
        wanted = await asyncio.to_thread(_new_job, made, origin, service)
    except InvalidRequest as error:
        raise made.in_callers_words(error) from error
    (submitted,) = await service.submit(caller_of(request), [wanted])
    job = submitted.job
    if made.options.stream:
        kind = "image_generation" if endpoint is Endpoint.GENERATIONS else "image_edit"
        stream = ImageStream(request, service, job, made, kind)
        return StreamingResponse(stream.events(), media_type="text/event-stream", headers=_STREAM_HEADERS)
    try:
        job = await service.wait(request, job)
    except Refused as error:
        raise Refused(made.fault_in_callers_words(error.fault)) from error
    return JSONResponse(await images_reply(job, service.results, made, service.base_url(request)))


async def _given(request: Request) -> Given:
    if request.headers.get("content-type", "").startswith(_FORM):
        return await read_form(request)
    return await asyncio.to_thread(read_document, await request.body())


def _new_job(made: Translation, origin: JobOrigin, service: Service) -> NewJob:
    files = {name: sent if INPUT_BY_NAME[name].many else sent[0] for name, sent in made.images.items()}
    document = {**dict.fromkeys(made.unknown, ""), **made.fields}
    name = _model_of(made.model, document | files, service)
    return replace(new_job(document, origin, service.limits, model=name, files=files), tags=made.tags)


def _models(service: Service) -> list[str]:
    return list(dict.fromkeys((*MODELS, *service.settings.services)))


async def _ready_models(service: Service) -> list[str]:
    ready = (await fleet_of(service.table)).models
    named = {name: each.model or BASE for name, each in service.settings.services.items()}
    return [name for name in _models(service) if named.get(name, name) in ready]


def _unknown_model(name: str, known: Sequence[str]) -> Refused:
    rule = f"must be one of: {', '.join(known)}" if known else "no model is ready"
    return Refused(Fault(status=404, message=f"model: {name[:80]!r} is invalid: {rule}", field="model"))


def _model_of(name: str, document: Mapping[str, Any], service: Service) -> str:
    """Return the model of a name, or of a request that names none. Raises ``Refused``."""
    if name in service.settings.services:
        return service.settings.services[name].model or model_for(document)
    if name and name not in MODELS:
        raise _unknown_model(name, _models(service))
    return model_for(document, name)


def _model_view(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "triton-diffusers"}


def _owns(path: str) -> bool:
    return path == PREFIX or path.startswith(f"{PREFIX}/")


DIALECT = Dialect(NAME, router, _owns, render)
