"""Calls of an engine with plain tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.engines import Batch, Engine, Residuals
from triton_diffusers.families.conditioning import STATES
from triton_diffusers.families.guidance import GUIDANCE
from triton_diffusers.prompts import Tokens


def predict(
    engine: Engine,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    states: torch.Tensor,
    loras: Sequence[LoraSet | None] | None = None,
    deep: torch.Tensor | None = None,
    residuals: Residuals | None = None,
    guidance: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the engine's prediction and deep features for these rows."""
    inputs = {STATES: states} if guidance is None else {STATES: states, GUIDANCE: guidance}
    return engine.predict(
        Batch(latents=latents, timesteps=timesteps, inputs=inputs, loras=loras, deep=deep, residuals=residuals)
    )


def encode(engine: Engine, chunks: Sequence[Tokens], clip_skip: int, loras: LoraSet | None = None) -> torch.Tensor:
    """Return the engine's hidden states of these chunks."""
    return engine.encode_prompts(chunks, clip_skip, loras)[STATES]
