"""Trial of an engine before it serves: one tiny image in one step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.checkpoints.errors import one_line
from triton_diffusers.checkpoints.load import LoadError
from triton_diffusers.engines import Engine
from triton_diffusers.errors import EngineFailure
from triton_diffusers.images.encode import to_pixels
from triton_diffusers.inflight.autoencoder import decode
from triton_diffusers.inflight.canvas import Canvas
from triton_diffusers.inflight.job import Sample
from triton_diffusers.inflight.step import advance, predict
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.settings import Settings

_LATENT_SIDE = 8  # UNets halve it three times

logger = logging.getLogger(__name__)


@torch.inference_mode()
def try_out(engine: Engine, settings: Settings) -> None:
    """Generate a tiny image, so that a broken model fails at startup instead of at the first request.

    Call it in the thread that uses the engine afterwards.

    Raises:
        LoadError: the trial failed; names the faulty part.
    """
    family = engine.family
    side = _LATENT_SIDE * family.latents.pixels
    request = GenerationRequest(task_id="trial", prompt="", width=side, height=side, steps=1, guidance_scale=1.0)
    warnings: list[str] = []
    with _part(settings, family.entry.text_encoders[0]):
        conditioning = PromptEncoder(engine, settings).encode(request, request.size, None, warnings)
    with _part(settings, "scheduler"):
        scheduler = family.schedule.make(request.scheduler, request.steps, family.latents.shape(request.size))
    with _part(settings, family.entry.vae):  # inpainting models use its encoder
        start = Canvas(engine, request, None, request.size, warnings).begin(scheduler, torch.Generator().manual_seed(0))
    sample = Sample(
        index=0,
        scheduler=scheduler,
        step_options={},
        latents=start.latents,
        conditioning=conditioning,
        guidance_scale=request.guidance_scale,
        position=start.position,
        condition=start.condition,
    )
    with _part(settings, family.entry.denoiser):
        (prediction,) = predict(engine, [sample], 1)
        advance(family, sample, prediction)
    with _part(settings, family.entry.vae):
        pixels = to_pixels(decode(engine, sample.latents, warnings))
    with _part(settings, "safety_checker"):
        engine.is_unsafe(pixels)
    for warning in warnings:
        logger.warning("%s: %s", settings.model_dir, warning)


@contextmanager
def _part(settings: Settings, name: str) -> Iterator[None]:
    """Convert errors to a ``LoadError`` that names the part of the model."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, EngineFailure) else one_line(error)
        raise LoadError(
            f"{settings.model_dir} cannot generate an image: its {name} failed the trial: {reason}"
        ) from error
