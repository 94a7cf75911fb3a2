"""A ControlNet as a compiled graph."""

from __future__ import annotations

import torch

from triton_diffusers.controlnet import ControlNetWeights
from triton_diffusers.engines.compilers import CompiledGraph
from triton_diffusers.engines.protocol import Residuals


class CompiledControlNet:
    """Runs ``graph``, which has the ``weights``, in a ``precision`` of its own."""

    def __init__(self, weights: ControlNetWeights, graph: CompiledGraph, precision: str) -> None:
        self._graph = graph
        self._is_bgr = weights.config["controlnet_conditioning_channel_order"] == "bgr"
        itemsize = 4 if precision == "float32" else 2
        self.nbytes = sum(tensor.numel() for tensor in weights.tensors.values()) * itemsize

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor, pictures: torch.Tensor
    ) -> Residuals:
        pictures = pictures.flip(1) if self._is_bgr else pictures
        return self._graph(latents, timesteps.float(), states.float().cpu(), pictures)
