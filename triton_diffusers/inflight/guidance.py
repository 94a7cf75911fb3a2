"""Guidance scale as an input of distilled UNets."""

from __future__ import annotations

import torch
from diffusers.models.embeddings import get_timestep_embedding

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine

_SCALE = 1000.0  # embedded like a timestep


def embed_guidance(engine: Engine, request: GenerationRequest) -> torch.Tensor | None:
    """Return the embedding (1, guidance_width) of the guidance scale; None if the UNet does not take one."""
    width = engine.guidance_width
    if width is None:
        return None
    # The UNet was trained with the weight of the guidance term, which is 0 at a scale of 1.
    scale = torch.tensor([request.guidance_scale - 1.0]) * _SCALE
    embedding: torch.Tensor = get_timestep_embedding(scale, width, downscale_freq_shift=1)
    return embedding


def unused_guidance(engine: Engine, request: GenerationRequest) -> list[str]:
    """Return warnings about guidance options that a distilled model ignores."""
    if engine.guidance_width is None:
        return []
    reason = "this model's guidance is part of its UNet"
    warnings = []
    if request.negative_prompt.strip():
        warnings.append(f"negative_prompt: it has no effect, since {reason}")
    if request.profile.guided < 1:
        warnings.append(f"profile {request.profile.name}: it skips no guidance, since {reason}")
    return warnings
