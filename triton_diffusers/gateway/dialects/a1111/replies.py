"""Replies of ``txt2img`` and ``img2img``: images, the request, and the web UI's ``info``."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from triton_diffusers.api.request import SEEDS
from triton_diffusers.gateway.dialects.a1111.infotext import texts_of
from triton_diffusers.gateway.dialects.a1111.options import Options
from triton_diffusers.gateway.dialects.a1111.pixels import pasted
from triton_diffusers.gateway.dialects.a1111.samplers import split_scheduler
from triton_diffusers.gateway.dialects.a1111.translate import Translation
from triton_diffusers.gateway.dialects.a1111.workers import in_pixel_thread
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.results import CONTROL_IMAGE, IMAGE, files_of
from triton_diffusers.gateway.service import Service
from triton_diffusers.gateway.submission import ASSUMED

_MAX_ECHOED = 2000  # characters of a text in the repeated request; images are longer
_IMAGES = ("init_images", "mask")


async def images_reply(
    service: Service, job: Job, made: Translation, options: Options, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the reply for a job that has succeeded, or was interrupted: then it has no images."""
    images = await _images(service, job, made)
    infotexts = [(await asyncio.to_thread(texts_of, "images", image)).parameters for image in images]
    maps = await _control_images(service, job) if made.returns_maps else []
    sent = document.get("send_images", True) is not False
    return {
        "images": [base64.b64encode(image).decode() for image in (*images, *maps)] if sent else [],
        "parameters": _echo(document),
        "info": json.dumps(info_of(job, made, options, infotexts)),
    }


async def _images(service: Service, job: Job, made: Translation) -> list[bytes]:
    images = [(await service.results.read(job, number))[0] for number in range(len(files_of(job, IMAGE)))]
    if made.patch is None:
        return images
    quality = made.fields["output_quality"]
    return [await in_pixel_thread(pasted, image, made.patch, quality, service.limits) for image in images]


async def _control_images(service: Service, job: Job) -> list[bytes]:
    return [base64.urlsafe_b64decode(text) for text in await service.results.base64(job, CONTROL_IMAGE)]


def info_of(job: Job, made: Translation, options: Options, infotexts: Sequence[str]) -> dict[str, Any]:
    """Return the values of ``info``, and beside the web UI's the job's id, verdicts and warnings."""
    outputs = (job.result or {}).get("outputs", {})
    used = outputs.get("parameters") or _requested(job, options)
    seeds = [(int(job.request["fields"]["seed"]) + number) % SEEDS for number in range(job.images)]
    sampler, schedule = split_scheduler(str(used["scheduler"]))
    prompt, negative = made.fields["prompt"], made.fields["negative_prompt"]
    return {
        "prompt": prompt,
        "all_prompts": [prompt] * job.images,
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * job.images,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": used["width"],
        "height": used["height"],
        "sampler_name": sampler,
        "cfg_scale": used["cfg_scale"],
        "steps": used["steps"],
        "batch_size": made.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": options.checkpoint_name,
        "sd_model_hash": "",
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": made.fields.get("denoising_strength"),
        "extra_generation_params": {"Schedule type": schedule},
        "index_of_first_image": 0,
        "infotexts": list(infotexts),
        "styles": made.styles,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.created)),
        "clip_skip": made.fields["clip_skip"],
        "is_using_inpainting_conditioning": False,
        "version": f"triton-diffusers {version('triton-diffusers')}",
        "id": job.id,
        "is_nsfw": outputs.get("is_nsfw", []),
        "interrupted": not outputs,
        "warnings": [*made.warnings, *job.request["warnings"], *outputs.get("warnings", ())],
    }


def _requested(job: Job, options: Options) -> dict[str, Any]:
    """Return the values of a job that was not drawn to its end; the model's own where the request has none."""
    defaults = options.checkpoint.description.defaults if options.checkpoint else ASSUMED
    own = {
        "width": defaults.side,
        "height": defaults.side,
        "steps": defaults.steps,
        "cfg_scale": defaults.guidance_scale,
        "scheduler": defaults.scheduler,
    }
    return {name: job.request["fields"].get(name) or value for name, value in own.items()}


def _echo(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request without its images, unless it asks for them."""
    if document.get("include_init_images") is True:
        return dict(document)
    small = {name: _shortened(value) for name, value in document.items()}
    return {**small, **{name: None for name in _IMAGES if name in document}}


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_ECHOED:
        return ""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    return [_shortened(each) for each in value] if isinstance(value, list) else value
