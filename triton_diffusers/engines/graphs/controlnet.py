"""ControlNet graph without weights, shared by all ControlNets of a base model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.func import functional_call

from triton_diffusers.adapters.controlnet import CONTROLNET, HINT, network_for, usual_channels
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.projections import linear_projections
from triton_diffusers.engines.graphs.unet import unet_inputs

_MAX_CHANNELS = 4096


class ControlNetModule(nn.Module):
    """ControlNet as a function of latents, timesteps, hidden states, control images and weights.

    Inputs are latents (n, c, h, w), timesteps (n,), states (n, tokens, width) and images (n, 3, height, width). Outputs
    are the unscaled residuals of the skip connections and of the middle. ``network`` may be on the ``meta`` device.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.names = tuple(network.state_dict())
        self._network = [network]  # in a list, so that its parameters are not registered here

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        images: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        dtype = weights[0].dtype
        latents, states, images = (tensor.to(dtype) for tensor in (latents, states, images))
        (network,) = self._network
        with linear_projections(network):
            skips, middle = functional_call(
                network,
                dict(zip(self.names, weights, strict=True)),
                (latents, timesteps, states, images),
                {"return_dict": False},
            )
        return tuple(residual.float() for residual in (*skips, middle))


def controlnet_graph(unet: Any, pixels_per_latent: int) -> Graph:
    """Return the graph of ControlNets for a UNet, for latents of any size and for RGB images.

    The channels of the image layers are dynamic; everything else is given by the UNet.
    """
    channels = usual_channels(pixels_per_latent)
    network = network_for(unet.config, {}, channels)
    module = ControlNetModule(network)
    latents, timesteps, states = unet_inputs(network.config)
    rows, _, *sides = latents.example.shape
    images = Input(
        "pictures",
        torch.zeros(rows, network.config.conditioning_channels, *(pixels_per_latent * side for side in sides)),
        {0: ROWS, 2: pixels_per_latent * latents.dynamic[2], 3: pixels_per_latent * latents.dynamic[3]},
    )
    free = _free_channels(len(channels))
    weights = tuple(
        Input(name, torch.zeros(tensor.shape), free.get(name, {})) for name, tensor in network.state_dict().items()
    )
    outputs = [f"residual_{index}" for index in range(len(network.controlnet_down_blocks) + 1)]
    return Graph(CONTROLNET, module, (latents, timesteps, states, images), tuple(outputs), weights)


def _free_channels(levels: int) -> dict[str, dict[int, Any]]:
    """Return the dynamic dimensions of weights, which differ between ControlNets."""
    sizes = [Dim(f"picture_{level}", min=2, max=_MAX_CHANNELS) for level in range(levels)]
    free = {
        "conv_in.weight": {0: sizes[0]},
        "conv_in.bias": {0: sizes[0]},
        "conv_out.weight": {1: sizes[-1]},
    }
    for level, (size, larger) in enumerate(pairwise(sizes)):
        for layer, out in ((2 * level, size), (2 * level + 1, larger)):
            free[f"blocks.{layer}.weight"] = {0: out, 1: size}
            free[f"blocks.{layer}.bias"] = {0: out}
    return {HINT + name: axes for name, axes in free.items()}
