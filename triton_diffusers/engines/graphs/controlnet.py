"""A ControlNet as a graph without weights: one for all ControlNets of a base model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim
from torch.func import functional_call

from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.unet import unet_inputs

CONTROLNET = "controlnet"

_PICTURE_LAYERS = "controlnet_cond_embedding."
_MOST_CHANNELS = 4096


class ControlNetModule(nn.Module):
    """Latents (n, c, h, w), timesteps (n,), states (n, tokens, width), pictures (n, 3, height, width), and weights.

    Gives the residuals of the skip connections and of the middle, unscaled. ``network`` may be without memory.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.names = tuple(network.state_dict())
        self._network = [network]  # hidden in a list: its own parameters are none of this module's

    def forward(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        states: torch.Tensor,
        pictures: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        dtype = weights[0].dtype
        latents, states, pictures = (tensor.to(dtype) for tensor in (latents, states, pictures))
        skips, middle = functional_call(
            self._network[0],
            dict(zip(self.names, weights, strict=True)),
            (latents, timesteps, states, pictures),
            {"return_dict": False},
        )
        return tuple(residual.float() for residual in (*skips, middle))


def controlnet_graph(network: Any) -> Graph:
    """A graph of a ``diffusers.ControlNetModel``, for latents of any size and for pictures in the order RGB.

    How many channels the layers have that read the picture is free.
    """
    module = ControlNetModule(network)
    latents, timesteps, states = unet_inputs(network.config)
    channels = network.config.conditioning_embedding_out_channels
    per_latent = 2 ** (len(channels) - 1)
    rows, _, *sides = latents.example.shape
    pictures = Input(
        "pictures",
        torch.zeros(rows, network.config.conditioning_channels, *(per_latent * side for side in sides)),
        {0: ROWS, 2: per_latent * latents.dynamic[2], 3: per_latent * latents.dynamic[3]},
    )
    free = _free_channels(network)
    weights = tuple(Input(name, torch.zeros(shape), free.get(name, {})) for name, shape in _shapes(network).items())
    outputs = [f"residual_{index}" for index in range(len(network.controlnet_down_blocks) + 1)]
    return Graph(CONTROLNET, module, (latents, timesteps, states, pictures), tuple(outputs), weights)


def _shapes(network: Any) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _free_channels(network: Any) -> dict[str, dict[int, Any]]:
    """By weight, the dimensions that one ControlNet may have otherwise than another."""
    sizes = [Dim(f"picture_{level}", min=2, max=_MOST_CHANNELS) for level in range(len(network.config.conditioning_embedding_out_channels))]
    layers = {"conv_in": (sizes[0], None), "conv_out": (None, sizes[-1])}
    for level, (size, larger) in enumerate(zip(sizes, sizes[1:])):
        layers[f"blocks.{2 * level}"] = (size, size)
        layers[f"blocks.{2 * level + 1}"] = (larger, size)
    free = {}
    for layer, (out, into) in layers.items():
        free[f"{_PICTURE_LAYERS}{layer}.weight"] = {axis: size for axis, size in ((0, out), (1, into)) if size is not None}
        free[f"{_PICTURE_LAYERS}{layer}.bias"] = {0: out} if out is not None else {}
    return free
