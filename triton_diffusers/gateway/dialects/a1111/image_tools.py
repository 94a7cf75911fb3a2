"""Routes that work on images without a model: the text in an image, and resizing."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from triton_diffusers.api.base64 import decode_base64
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.access.caller import A1111
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.a1111.errors import Unsupported
from triton_diffusers.gateway.dialects.a1111.infotext import pairs_of, texts_of
from triton_diffusers.gateway.dialects.a1111.json_response import AsciiJSONResponse
from triton_diffusers.gateway.dialects.a1111.lists import UPSCALERS
from triton_diffusers.gateway.dialects.a1111.pixels import Size, resized
from triton_diffusers.gateway.dialects.a1111.values import number, text, whole
from triton_diffusers.gateway.dialects.a1111.workers import in_pixel_thread, pixel_limits
from triton_diffusers.gateway.dialects.dialect import JSON_BODY, ServiceDependency, read_body
from triton_diffusers.gateway.image_size import image_size
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.settings import Settings

_BY_FACTOR, _TO_SIZE = 0, 1
_MAX_FACTOR = 8.0
_MAX_BATCH_PIXELS = 64_000_000  # the reply holds all images of a batch
_UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "gfpgan_visibility": (0,),
    "codeformer_visibility": (0,),
    "upscaler_2": ("None", ""),
}

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], dependencies=[requires(A1111)])


@router.post("/png-info", openapi_extra=JSON_BODY, summary="Parameters of an image (A1111)")
async def png_info(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the texts in an image, and its parameters as pairs."""

    def read(body: bytes) -> dict[str, Any]:
        image = _image("image", read_object(body).get("image"), service.limits)
        texts = texts_of("image", image)
        return {"info": texts.parameters, "items": texts.others, "parameters": pairs_of(texts.parameters)}

    return AsciiJSONResponse(await read_body(request, read))


@router.post("/extra-single-image", openapi_extra=JSON_BODY, summary="Resize an image (A1111)")
async def extra_single_image(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return an image, resized."""
    document = await read_body(request, read_object)
    limits = pixel_limits(service.limits)
    wanted = await asyncio.to_thread(_resizing, "image", document.get("image"), document, limits)
    return AsciiJSONResponse({"html_info": "", "image": await in_pixel_thread(_resized, wanted, limits)})


@router.post("/extra-batch-images", openapi_extra=JSON_BODY, summary="Resize images (A1111)")
async def extra_batch_images(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return images, resized."""
    document = await read_body(request, read_object)
    limits = pixel_limits(service.limits)
    given = document.get("imageList")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise InvalidRequest("imageList", given, "must be a list of objects with data")
    wanted = await asyncio.to_thread(_resizings, given, document, limits)
    images = [await in_pixel_thread(_resized, each, limits) for each in wanted]
    return AsciiJSONResponse({"html_info": "", "images": images})


@dataclass(frozen=True, slots=True)
class _Resizing:
    """An encoded image of a field, and the size that it gets."""

    field: str
    image: bytes
    size: Size
    method: str


def _resizings(given: Sequence[Mapping[str, Any]], document: Mapping[str, Any], limits: Settings) -> list[_Resizing]:
    wanted = [
        _resizing(f"imageList[{place}].data", each.get("data"), document, limits) for place, each in enumerate(given)
    ]
    if sum(math.prod(each.size) for each in wanted) > _MAX_BATCH_PIXELS:
        rule = f"at most {_MAX_BATCH_PIXELS} pixels together, resized"
        raise InvalidRequest("imageList", f"{len(given)} images", rule)
    return wanted


def _resizing(field: str, value: Any, document: Mapping[str, Any], limits: Settings) -> _Resizing:
    sent = {name: given for name, given in document.items() if given is not None}
    for name, neutral in _UNSUPPORTED.items():
        if name in sent and sent[name] not in neutral:
            raise Unsupported(name, sent[name])
    chosen = text("upscaler_1", sent.get("upscaler_1", UPSCALERS[0]))
    upscaler = chosen.capitalize()
    if upscaler not in UPSCALERS:
        raise InvalidRequest("upscaler_1", chosen, f"must be one of: {', '.join(UPSCALERS)}")
    image = _image(field, value, limits)
    size = image_size(image)
    if upscaler != UPSCALERS[0]:
        size = _target(sent, size, limits)
    return _Resizing(field, image, size, "Lanczos" if upscaler == UPSCALERS[0] else upscaler)


def _resized(wanted: _Resizing, limits: Settings) -> str:
    return base64.b64encode(resized(wanted.field, wanted.image, wanted.size, wanted.method, limits)).decode()


def _target(sent: Mapping[str, Any], size: Size, limits: Settings) -> Size:
    bounded = partial(whole, minimum=1, maximum=limits.max_side * 4)
    if whole("resize_mode", sent.get("resize_mode", _BY_FACTOR), _BY_FACTOR, _TO_SIZE) == _TO_SIZE:
        field = "upscaling_resize_w / upscaling_resize_h"
        target = (
            bounded("upscaling_resize_w", sent.get("upscaling_resize_w", 512)),
            bounded("upscaling_resize_h", sent.get("upscaling_resize_h", 512)),
        )
    else:
        field = "upscaling_resize"
        factor = number(field, sent.get(field, 2.0), 0.01, _MAX_FACTOR)
        target = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    if target[0] * target[1] > limits.max_image_pixels:
        raise InvalidRequest(field, f"{target[0]}×{target[1]}", f"at most {limits.max_image_pixels} pixels")
    return target


def _image(field: str, value: Any, limits: Settings) -> bytes:
    return decode_base64(field, text(field, value or ""), limits)
