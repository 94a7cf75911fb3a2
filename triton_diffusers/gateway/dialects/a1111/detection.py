"""Routes of the web UI's ControlNet extension."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from triton_diffusers.api.base64 import decode_base64
from triton_diffusers.api.request import Function
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.access.caller import A1111, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.a1111.json_response import AsciiJSONResponse
from triton_diffusers.gateway.dialects.a1111.options import Options, options_of
from triton_diffusers.gateway.dialects.a1111.units import NONE, module_name
from triton_diffusers.gateway.dialects.a1111.values import text
from triton_diffusers.gateway.dialects.dialect import JSON_BODY, ServiceDependency, read_body
from triton_diffusers.gateway.fleet import fleet_of
from triton_diffusers.gateway.image_size import image_size
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.gateway.results import CONTROL_IMAGE
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import CONTROLNET, new_job
from triton_diffusers.preprocess import PREPROCESSORS
from triton_diffusers.settings import Settings

_VERSION = 3
# The extension's categories and the preprocessors of each, which are also words in the names of its models.
_TYPES: Mapping[str, tuple[str, ...]] = {
    "Canny": ("canny",),
    "Depth": ("depth",),
    "NormalMap": ("normal",),
    "OpenPose": ("openpose",),
    "MLSD": ("mlsd",),
    "Lineart": ("lineart",),
    "SoftEdge": ("hed",),
    "Scribble": ("scribble",),
    "Segmentation": ("seg",),
    "Tile": ("tile",),
}

router = APIRouter(prefix="/controlnet", tags=["a1111"], dependencies=[requires(A1111)])


@router.get("/version", summary="Version of the ControlNet extension (A1111)")
async def extension_version() -> AsciiJSONResponse:
    """Return the version of the extension's API."""
    return AsciiJSONResponse({"version": _VERSION})


@router.get("/settings", summary="Settings of the ControlNet extension (A1111)")
async def extension_settings(service: ServiceDependency) -> AsciiJSONResponse:
    """Return the number of units of a request."""
    return AsciiJSONResponse({"control_net_unit_count": service.limits.max_controlnets})


@router.get("/model_list", summary="List ControlNets (A1111)")
async def model_list(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the ControlNets of the caller's checkpoint."""
    return AsciiJSONResponse({"model_list": list(_controlnets(await _options(request, service)))})


@router.get("/module_list", summary="List preprocessors (A1111)")
async def module_list() -> AsciiJSONResponse:
    """Return the preprocessors."""
    names = _modules()
    detail = {"model_free": False, "sliders": []}
    return AsciiJSONResponse({"module_list": names, "module_detail": dict.fromkeys(names, detail)})


@router.get("/control_types", summary="List kinds of ControlNets (A1111)")
async def control_types(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the extension's categories, with their preprocessors and the ControlNets named like them."""
    models = list(_controlnets(await _options(request, service)))
    views = {"All": _type_view(_modules(), models)}
    for kind, modules in _TYPES.items():
        fitting = [name for name in models if any(module in name.lower() for module in modules)]
        views[kind] = _type_view([NONE, *modules], fitting)
    return AsciiJSONResponse({"control_types": views})


@router.post("/detect", openapi_extra=JSON_BODY, summary="Make control images (A1111)")
async def detect(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return what a preprocessor makes of images; each is a job that draws nothing."""
    controlnets = _controlnets(await _options(request, service))
    if not controlnets:
        raise InvalidRequest("controlnet_module", "", "this server has no ControlNets, and so no preprocessors")
    origin = service.origin(request, A1111, waiting=True)
    document = await read_body(request, read_object)
    given = _images(document, service.settings.max_batch_jobs)
    wanted = await asyncio.to_thread(_detections, document, given, controlnets[0], service.limits)
    images: list[str] = []
    for fields, files in wanted:
        job = new_job(fields, origin.numbered(len(images)), service.limits, model=CONTROLNET, files=files)
        (submitted,) = await service.submit(caller_of(request), [job])
        ended = await service.wait(request, submitted.job)
        made = await service.results.base64(ended, CONTROL_IMAGE)
        images += [base64.b64encode(base64.urlsafe_b64decode(each)).decode() for each in made]
    return AsciiJSONResponse({"images": images, "info": "Success"})


def _images(document: Mapping[str, Any], max_images: int) -> Sequence[Any]:
    given = document.get("controlnet_input_images") or document.get("controlnet_images")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("controlnet_input_images", given, "must be a list of images")
    if len(given) > max_images:
        raise InvalidRequest("controlnet_input_images", f"{len(given)} images", f"at most {max_images}")
    return given


def _detections(
    document: Mapping[str, Any], given: Sequence[Any], controlnet: str, limits: Settings
) -> Sequence[tuple[dict[str, Any], dict[str, bytes]]]:
    """Return the fields and files of a request for each image, which strength 0 returns with its control image."""
    module = module_name("controlnet_module", document.get("controlnet_module", NONE))
    wanted = []
    for place, each in enumerate(given):
        field = f"controlnet_input_images[{place}]"
        image = decode_base64(field, text(field, each), limits)
        width, height = image_size(image)
        fields = {
            "task_id": f"detect-{secrets.token_hex(4)}",
            "prompt": "",
            "func_name": Function.IMAGE_TO_IMAGE.value,
            "denoising_strength": 0.0,
            "width": width,
            "height": height,
            "controlnet_path": [controlnet],
            "process_func": [module],
            "return_control_image": True,
        }
        wanted.append((fields, {"image": image}))
    return wanted


async def _options(request: Request, service: Service) -> Options:
    return await options_of(service.table, caller_of(request).owner, await fleet_of(service.table))


def _controlnets(options: Options) -> Sequence[str]:
    return options.checkpoint.description.controlnets if options.checkpoint else ()


def _modules() -> list[str]:
    return [NONE, *sorted(set(PREPROCESSORS) - {NONE})]


def _type_view(modules: Sequence[str], models: Sequence[str]) -> dict[str, Any]:
    return {
        "module_list": list(modules),
        "model_list": ["None", *models],
        "default_option": modules[1] if len(modules) == 2 else NONE,
        "default_model": models[0] if models else "None",
    }
