"""The UNet as a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import LoraLayout, lora_applied
from triton_diffusers.engines.graphs.sides import all_sides
from triton_diffusers.lora import UNET

_LARGEST_SIDE = 1024  # latents
_MOST_TOKENS = 77 * 64


class UNetModule(nn.Module):
    """Latents (n, c, h, w), timesteps (n,), states (n, tokens, width), LoRA's down and up → prediction (n, c, h, w)."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.layout = LoraLayout.of(UNET, unet)

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        lora_down: torch.Tensor,
        lora_up: torch.Tensor,
    ) -> torch.Tensor:
        # Timesteps stay as they are: a thousand of them need more than bfloat16 has.
        latents, states = (tensor.to(self.unet.dtype) for tensor in (latents, states))
        with all_sides(self.unet), lora_applied(self.layout, UNET, self.unet, lora_down, lora_up):
            prediction: torch.Tensor = self.unet(latents, timesteps, states, return_dict=False)[0]
        return prediction.float()


def unet_graph(unet: Any) -> Graph:
    """A graph on the weights of ``unet``, for latents of any size."""
    module = UNetModule(unet)
    tokens = Dim("tokens", min=1, max=_MOST_TOKENS)
    config = unet.config
    # Only for the trace, which wants more than one latent on the lowest level; the graph takes less.
    least = 2 ** len(config.block_out_channels)
    height, width = Dim("height", min=least, max=_LARGEST_SIDE), Dim("width", min=least, max=_LARGEST_SIDE)
    return Graph(
        UNET,
        module,
        (
            Input("latents", torch.zeros(4, config.in_channels, 26, 18), {0: ROWS, 2: height, 3: width}),
            Input("timesteps", torch.zeros(4), {0: ROWS}),
            Input("states", torch.zeros(4, 77, config.cross_attention_dim), {0: ROWS, 1: tokens}),
            *module.layout.inputs(),
        ),
        ("prediction",),
    )
