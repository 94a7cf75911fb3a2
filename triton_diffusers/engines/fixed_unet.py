"""The UNet for pictures of one size, with guidance and nothing added: a graph of which OpenVINO knows all sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from triton_diffusers.engines.compilers import CompiledGraph, Shapes
from triton_diffusers.engines.graph_names import GUIDANCE
from triton_diffusers.lora import UNET

_TOKENS = 77  # one chunk of a prompt


def fixed_name(height: int, width: int) -> str:
    """What the graph for latents of these sides is called."""
    return f"{UNET}-{width}x{height}"


def fixed_rows(config: Any) -> int:
    """Return the rows of one image: without the prompt and with it, or one if guidance is distilled into the UNet."""
    return 2 if config.time_cond_proj_dim is None else 1


def fixed_shapes(config: Any, height: int, width: int) -> Shapes:
    """The inputs of the graph for latents of these sides, of the UNet that ``config`` describes."""
    rows = fixed_rows(config)
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (rows, config.in_channels, height, width),
        "timesteps": (rows,),
        "states": (rows, _TOKENS, config.cross_attention_dim),
    }
    if config.time_cond_proj_dim is not None:
        shapes[GUIDANCE] = (rows, config.time_cond_proj_dim)
    return shapes


def fixed_takes(rows: int, states: torch.Tensor) -> bool:
    """Return True if ``states`` are those of whole images, and prompts are as long as such a graph wants them."""
    return len(states) % rows == 0 and states.shape[1] == _TOKENS


def predict_fixed(graph: CompiledGraph, rows: int, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return predictions and deep features, image by image: a busy core has no use for more rows at once."""
    images = zip(*(torch.split(tensor, rows) for tensor in inputs), strict=True)
    predictions, deep = zip(*(graph(*image) for image in images), strict=True)
    return torch.cat(predictions), torch.cat(deep)
