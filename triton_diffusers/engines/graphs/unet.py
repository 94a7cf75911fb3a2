"""The UNet as two graphs: the whole of it, and its outermost layers alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from triton_diffusers.adapters.lora import UNET
from triton_diffusers.engines.graph_names import GUIDANCE, UNET_SHALLOW
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import lora_applied, lora_inputs, lora_layouts
from triton_diffusers.engines.graphs.projections import linear_projections
from triton_diffusers.engines.graphs.residuals import residual_inputs, residuals_added
from triton_diffusers.engines.graphs.sides import all_sides
from triton_diffusers.engines.shallow import ShallowUNet, predict_whole

_LARGEST_SIDE = 1024  # latents
_MOST_TOKENS = 77 * 64


class UNetModule(nn.Module):
    """Latents (n, c, h, w), timesteps (n,), states (n, tokens, width), LoRA's down and up, residuals of ControlNets.

    Embeddings of guidance scales (n, width) come after the states, if the UNet takes them. Gives the prediction
    (n, c, h, w) and the deep features (n, d, h, w).
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.layouts = lora_layouts(UNET, unet)

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        *others: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        guidance, others = _guidance(self.unet, others)
        count = 2 * len(self.layouts)
        packed, residuals = others[:count], others[count:]
        # Timesteps stay as they are: a thousand of them need more than bfloat16 has.
        latents, states = (tensor.to(self.unet.dtype) for tensor in (latents, states))
        with (
            all_sides(self.unet),
            linear_projections(self.unet),
            lora_applied(self.layouts, UNET, self.unet, packed),
            residuals_added(self.unet, residuals),
        ):
            prediction, deep = predict_whole(self.unet, latents, timesteps, states, guidance=guidance)
        return prediction.float(), deep.float()


class ShallowUNetModule(nn.Module):
    """The inputs of ``UNetModule``, with deep features (n, d, h, w) before LoRA's → prediction (n, c, h, w)."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = ShallowUNet(unet)
        self.layouts = lora_layouts(UNET, self.unet)

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        guidance, (deep, *packed) = _guidance(self.unet, others)
        dtype = self.unet.conv_in.weight.dtype
        latents, states, deep = (tensor.to(dtype) for tensor in (latents, states, deep))
        with linear_projections(self.unet), lora_applied(self.layouts, UNET, self.unet, packed):
            prediction: torch.Tensor = self.unet(latents, timesteps, states, deep, guidance)
        return prediction.float()


def unet_graph(unet: Any) -> Graph:
    """A graph on the weights of ``unet``, for latents of any size."""
    module = UNetModule(unet)
    inputs = unet_inputs(unet.config)
    residuals = residual_inputs(unet, inputs[0].example)
    return Graph(UNET, module, (*inputs, *lora_inputs(module.layouts), *residuals), ("prediction", "deep"))


def shallow_unet_graph(unet: Any) -> Graph:
    """A graph on the weights of the outermost layers of ``unet``, for latents of any size."""
    module = ShallowUNetModule(unet)
    latents, *others = unet_inputs(unet.config)
    rows, _, *sides = latents.example.shape
    deep = Input("deep", torch.zeros(rows, module.unet.deep_channels, *sides), latents.dynamic)
    return Graph(UNET_SHALLOW, module, (latents, *others, deep, *lora_inputs(module.layouts)), ("prediction",))


def unet_inputs(config: Any) -> tuple[Input, ...]:
    """Return the inputs that the networks of a UNet's ``config`` have in common."""
    tokens = Dim("tokens", min=1, max=_MOST_TOKENS)
    # Only for the trace, which wants more than one latent on the lowest level; the graph takes less.
    least = 2 ** len(config.block_out_channels)
    height, width = Dim("height", min=least, max=_LARGEST_SIDE), Dim("width", min=least, max=_LARGEST_SIDE)
    inputs = (
        Input("latents", torch.zeros(4, config.in_channels, 26, 18), {0: ROWS, 2: height, 3: width}),
        Input("timesteps", torch.zeros(4), {0: ROWS}),
        Input("states", torch.zeros(4, 77, config.cross_attention_dim), {0: ROWS, 1: tokens}),
    )
    width = config.get("time_cond_proj_dim")  # a ControlNet's config has no such key
    return inputs if width is None else (*inputs, Input(GUIDANCE, torch.zeros(4, width), {0: ROWS}))


def _guidance(unet: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
    """Split the embeddings of guidance scales, in the precision of ``unet``, from the inputs that follow them."""
    projection = unet.time_embedding.cond_proj
    if projection is None:
        return None, inputs
    return inputs[0].to(projection.weight.dtype), inputs[1:]
