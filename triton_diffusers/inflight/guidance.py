"""Guidance of UNets that take its scale as an input, as those that were distilled from it do."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine

_SCALE = 1000.0  # as for timesteps, which the scale is embedded like


def embed_guidance(engine: Engine, request: GenerationRequest) -> torch.Tensor | None:
    """Return the embedding (1, guidance_width) of the request's guidance scale; None if the UNet takes none."""
    width = engine.guidance_width
    if width is None:
        return None
    # A scale of 1 is no guidance: the UNet was told the weight of what guidance adds.
    scale = torch.tensor([request.guidance_scale - 1.0]) * _SCALE
    embedding: torch.Tensor = get_timestep_embedding(scale, width, downscale_freq_shift=1)
    return embedding


def unused_guidance(engine: Engine, request: GenerationRequest) -> list[str]:
    """Return warnings about what a request asks of guidance that is distilled into the UNet."""
    if engine.guidance_width is None:
        return []
    reason = "this model's guidance is part of its UNet"
    warnings = []
    if request.negative_prompt.strip():
        warnings.append(f"negative_prompt: it has no effect: {reason}")
    if request.profile.guided < 1:
        warnings.append(f"profile {request.profile.name}: it leaves out no guidance: {reason}")
    return warnings
