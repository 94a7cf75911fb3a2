"""The UNet for pictures of one size, with guidance and nothing added: a graph of which OpenVINO knows all sizes."""

from __future__ import annotations

from typing import Any

import torch

from triton_diffusers.engines.compilers import CompiledGraph, Shapes
from triton_diffusers.lora import UNET

_ROWS = 2  # one image: without the prompt, and with it
_TOKENS = 77  # one chunk of a prompt


def fixed_name(height: int, width: int) -> str:
    """What the graph for latents of these sides is called."""
    return f"{UNET}-{width}x{height}"


def fixed_shapes(config: Any, height: int, width: int) -> Shapes:
    """The inputs of the graph for latents of these sides, of the UNet that ``config`` describes."""
    return {
        "latents": (_ROWS, config.in_channels, height, width),
        "timesteps": (_ROWS,),
        "states": (_ROWS, _TOKENS, config.cross_attention_dim),
    }


def fixed_takes(latents: torch.Tensor, states: torch.Tensor) -> bool:
    """Whether rows are pairs, and prompts as long as such a graph wants them."""
    return len(latents) % _ROWS == 0 and states.shape[1] == _TOKENS


def predict_fixed(
    graph: CompiledGraph, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and deep features, pair by pair: a core that computes has no use for more rows at once."""
    pairs = zip(*(torch.split(rows, _ROWS) for rows in (latents, timesteps, states)), strict=True)
    predictions, deep = zip(*(graph(*pair) for pair in pairs), strict=True)
    return torch.cat(predictions), torch.cat(deep)
