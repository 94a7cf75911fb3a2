"""UNet graphs: the whole network, and its outermost layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from triton_diffusers.adapters.lora import UNET
from triton_diffusers.engines.graph_names import UNET_SHALLOW
from triton_diffusers.engines.graphs.dynamic_shapes import any_size
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import lora_applied, lora_inputs, lora_layouts
from triton_diffusers.engines.graphs.projections import linear_projections
from triton_diffusers.engines.graphs.residuals import residual_inputs, residuals_added
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.guidance import GUIDANCE
from triton_diffusers.families.unet import ShallowUNet, predict_whole

_MAX_LATENT_SIDE = 1024
_MAX_TOKENS = 77 * 64


class UNetModule(nn.Module):
    """Whole UNet with LoRA and ControlNet residuals as inputs.

    Inputs are latents (n, c, h, w), timesteps (n,), those of ``conditioning_names``, LoRA's down and up, and residuals.
    Outputs are the prediction (n, c, h, w) and deep features (n, d, h, w).
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.layouts = lora_layouts(UNET, unet)
        self.names = conditioning_names(unet.config)

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, *others: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # Timesteps keep their precision: bfloat16 cannot distinguish a thousand of them.
        inputs, others = _conditioning(self.names, self.unet.dtype, others)
        count = 2 * len(self.layouts)
        packed, residuals = others[:count], others[count:]
        with (
            any_size(self.unet),
            linear_projections(self.unet),
            lora_applied(self.layouts, UNET, self.unet, packed),
            residuals_added(self.unet, residuals),
        ):
            prediction, deep = predict_whole(self.unet, latents.to(self.unet.dtype), timesteps, inputs)
        return prediction.float(), deep.float()


class ShallowUNetModule(nn.Module):
    """Outermost layers of a UNet; inputs as ``UNetModule``, with deep features (n, d, h, w) before LoRA's."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.names = conditioning_names(unet.config)
        self.unet = ShallowUNet(unet)
        self.layouts = lora_layouts(UNET, self.unet)

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        dtype = self.unet.conv_in.weight.dtype
        inputs, (deep, *packed) = _conditioning(self.names, dtype, others)
        with linear_projections(self.unet), lora_applied(self.layouts, UNET, self.unet, packed):
            prediction: torch.Tensor = self.unet(latents.to(dtype), timesteps, inputs, deep.to(dtype))
        return prediction.float()


def unet_graph(unet: Any) -> Graph:
    """Return the graph with the weights of ``unet``, for latents of any size."""
    module = UNetModule(unet)
    inputs = unet_inputs(unet.config)
    residuals = residual_inputs(unet, inputs[0].example)
    return Graph(UNET, module, (*inputs, *lora_inputs(module.layouts), *residuals), ("prediction", "deep"))


def shallow_unet_graph(unet: Any) -> Graph:
    """Return the graph with the weights of the outermost layers of ``unet``, for latents of any size."""
    module = ShallowUNetModule(unet)
    latents, *others = unet_inputs(unet.config)
    rows, _, *sides = latents.example.shape
    deep = Input("deep", torch.zeros(rows, module.unet.deep_channels, *sides), latents.dynamic)
    return Graph(UNET_SHALLOW, module, (latents, *others, deep, *lora_inputs(module.layouts)), ("prediction",))


def unet_inputs(config: Any) -> tuple[Input, ...]:
    """Return the inputs that all networks of a UNet's ``config`` share."""
    tokens = Dim("tokens", min=1, max=_MAX_TOKENS)
    # Only tracing needs more than one latent on the lowest level; the graph accepts smaller sides.
    min_side = 2 ** len(config.block_out_channels)
    height, width = (Dim(name, min=min_side, max=_MAX_LATENT_SIDE) for name in ("height", "width"))
    inputs = (
        Input("latents", torch.zeros(4, config.in_channels, 26, 18), {0: ROWS, 2: height, 3: width}),
        Input("timesteps", torch.zeros(4), {0: ROWS}),
        Input(STATES, torch.zeros(4, 77, config.cross_attention_dim), {0: ROWS, 1: tokens}),
    )
    width = config.get("time_cond_proj_dim")  # a ControlNet's config has no such key
    return inputs if width is None else (*inputs, Input(GUIDANCE, torch.zeros(4, width), {0: ROWS}))


def conditioning_names(config: Any) -> tuple[str, ...]:
    """Return the names of a UNet's inputs besides latents and timesteps, in the order of its graphs."""
    return tuple(port.name for port in unet_inputs(config)[2:])


def _conditioning(
    names: tuple[str, ...], dtype: torch.dtype, inputs: tuple[torch.Tensor, ...]
) -> tuple[Inputs, tuple[torch.Tensor, ...]]:
    """Split the named inputs, in the precision ``dtype``, from the inputs that follow them."""
    own, others = inputs[: len(names)], inputs[len(names) :]
    return {name: value.to(dtype) for name, value in zip(names, own, strict=True)}, others
