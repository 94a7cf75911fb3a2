"""Routes that list models, samplers and adapters, and those that describe the server."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request

from triton_diffusers.gateway.access.caller import A1111, caller_of
from triton_diffusers.gateway.access.declaration import requires
from triton_diffusers.gateway.dialects.a1111.json_response import AsciiJSONResponse
from triton_diffusers.gateway.dialects.a1111.memory import memory_view
from triton_diffusers.gateway.dialects.a1111.options import options_of
from triton_diffusers.gateway.dialects.a1111.samplers import sampler_views, scheduler_views
from triton_diffusers.gateway.dialects.a1111.styles import read_styles
from triton_diffusers.gateway.dialects.dialect import ServiceDependency
from triton_diffusers.gateway.fleet import Fleet, fleet_of
from triton_diffusers.gateway.service import Service

UPSCALERS: Final = ("None", "Lanczos", "Nearest")
_UPSCALE = 4.0
# With the second name, a client of Python resets the units of its former requests.
_SCRIPTS = ("controlnet", "controlnet m2m")

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], dependencies=[requires(A1111)])


@router.get("/sd-models", summary="List checkpoints (A1111)")
async def sd_models(service: ServiceDependency) -> AsciiJSONResponse:
    """Return the checkpoints that runners serve."""
    names = [checkpoint.name for checkpoint in (await fleet_of(service.table)).checkpoints]
    return AsciiJSONResponse([_model_view(name) for name in names])


def _model_view(name: str) -> dict[str, Any]:
    return {"title": name, "model_name": name, "hash": None, "sha256": None, "filename": name, "config": None}


@router.get("/samplers", summary="List samplers (A1111)")
async def samplers() -> AsciiJSONResponse:
    """Return the samplers."""
    return AsciiJSONResponse(sampler_views())


@router.get("/schedulers", summary="List schedulers (A1111)")
async def schedulers() -> AsciiJSONResponse:
    """Return the schedulers."""
    return AsciiJSONResponse(scheduler_views())


@router.get("/loras", summary="List LoRAs (A1111)")
async def loras(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the LoRAs of the caller's checkpoint, by the names that a prompt's tags take."""
    paths = [PurePosixPath(path) for path in await _adapters(request, service, "loras")]
    return AsciiJSONResponse(
        [{"name": path.stem, "alias": path.stem, "path": str(path), "metadata": {}} for path in paths]
    )


@router.get("/embeddings", summary="List embeddings (A1111)")
async def embeddings(request: Request, service: ServiceDependency) -> AsciiJSONResponse:
    """Return the embeddings of the caller's checkpoint. Their sizes are unknown to the gateway."""
    words = await _adapters(request, service, "embeddings")
    unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}
    return AsciiJSONResponse({"loaded": dict.fromkeys(words, unknown), "skipped": {}})


async def _adapters(request: Request, service: Service, kind: str) -> tuple[str, ...]:
    fleet: Fleet = await fleet_of(service.table)
    options = await options_of(service.table, caller_of(request).owner, fleet)
    found: tuple[str, ...] = getattr(options.checkpoint.description, kind) if options.checkpoint else ()
    return found


@router.get("/prompt-styles", summary="List styles (A1111)")
async def prompt_styles(service: ServiceDependency) -> AsciiJSONResponse:
    """Return the styles of the operator's file."""
    styles = await asyncio.to_thread(read_styles, service.settings.styles_file)
    return AsciiJSONResponse(
        [
            {"name": style.name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
            for style in styles.values()
        ]
    )


@router.get("/upscalers", summary="List upscalers (A1111)")
async def upscalers() -> AsciiJSONResponse:
    """Return the upscalers of the extras."""
    empty = {"model_name": None, "model_path": None, "model_url": None, "scale": _UPSCALE}
    return AsciiJSONResponse([{"name": name, **empty} for name in UPSCALERS])


@router.get("/scripts", summary="List scripts (A1111)")
async def scripts() -> AsciiJSONResponse:
    """Return the extensions that requests may name."""
    return AsciiJSONResponse({"txt2img": list(_SCRIPTS), "img2img": list(_SCRIPTS)})


# Of these a model directory has none, or none that can be chosen.
@router.get("/sd-vae", summary="List autoencoders (A1111)")
@router.get("/hypernetworks", summary="List hypernetworks (A1111)")
@router.get("/face-restorers", summary="List face restorers (A1111)")
@router.get("/realesrgan-models", summary="List RealESRGAN models (A1111)")
@router.get("/latent-upscale-modes", summary="List latent upscalers (A1111)")
@router.get("/script-info", summary="Describe scripts (A1111)")
@router.get("/extensions", summary="List extensions (A1111)")
async def nothing() -> AsciiJSONResponse:
    """Return an empty list."""
    return AsciiJSONResponse([])


@router.post("/refresh-checkpoints", summary="List checkpoints again (A1111)")
@router.post("/refresh-vae", summary="List autoencoders again (A1111)")
@router.post("/refresh-loras", summary="List LoRAs again (A1111)")
async def refresh() -> AsciiJSONResponse:
    """Answer: runners list them again by themselves, every few seconds."""
    return AsciiJSONResponse(None)


@router.get("/memory", summary="Memory of the gateway's machine (A1111)")
async def memory() -> AsciiJSONResponse:
    """Return the memory of the gateway's machine."""
    return AsciiJSONResponse(memory_view())


@router.get("/cmd-flags", summary="Flags of the server (A1111)")
async def cmd_flags() -> AsciiJSONResponse:
    """Return the flags that clients look for."""
    return AsciiJSONResponse({"api": True, "nowebui": True})
