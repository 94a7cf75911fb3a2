"""A ControlNet in PyTorch."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel

from triton_diffusers.controlnet import ControlNetWeights
from triton_diffusers.engines.protocol import Residuals


class EagerControlNet:
    """diffusers' own network, on a device and in a precision, with weights that fit it."""

    def __init__(self, weights: ControlNetWeights, device: torch.device, dtype: torch.dtype) -> None:
        with torch.device("meta"):
            network = ControlNetModel.from_config(weights.config)
        converted = {name: tensor.to(device, dtype, copy=True) for name, tensor in weights.tensors.items()}
        network.load_state_dict(converted, assign=True)
        self._network = network.to(memory_format=torch.channels_last).eval()
        self._device, self._dtype = device, dtype
        self.nbytes = sum(parameter.nbytes for parameter in network.parameters())

    @torch.inference_mode()
    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, states: torch.Tensor, pictures: torch.Tensor
    ) -> Residuals:
        skips, middle = self._network(
            latents.to(self._device, self._dtype),
            timesteps.to(self._device),
            states.to(self._device, self._dtype),
            pictures.to(self._device, self._dtype, memory_format=torch.channels_last),
            return_dict=False,
        )
        return tuple(residual.float().cpu() for residual in (*skips, middle))
