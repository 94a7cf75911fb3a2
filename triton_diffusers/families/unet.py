"""UNets as denoisers, and their outermost layers for DeepCache (Ma, Fang and Wang, 2023).

The deep features of a UNet change little between two steps. DeepCache reuses them from an earlier step and runs the
outermost layers only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.families.denoiser import Residuals
from triton_diffusers.families.guidance import GUIDANCE

POOLED, TIME_IDS = "pooled", "time_ids"
"""Names of the pooled text (rows, width) and of the image's sizes (rows, 6) among the inputs of an SDXL UNet."""


class UNetDenoiser:
    """A UNet as engines call it."""

    def __init__(self, unet: Any) -> None:
        self.network = unet
        self._outermost = ShallowUNet(unet)

    def whole(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, residuals: Residuals | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the UNet."""
        return predict_whole(self.network, latents, timesteps, inputs, residuals)

    def shallow(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, deep: torch.Tensor
    ) -> torch.Tensor:
        """Run the outermost layers."""
        prediction: torch.Tensor = self._outermost(latents, timesteps, inputs, deep)
        return prediction


class ShallowUNet(nn.Module):
    """The outermost layers of a UNet (the part that DeepCache runs every step).

    Layers are shared with the UNet and keep their names, so that LoRAs find them.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.conv_in: nn.Conv2d = unet.conv_in
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.add_time_proj: Any = getattr(unet, "add_time_proj", None)
        self.add_embedding: Any = getattr(unet, "add_embedding", None)
        block, last = unet.up_blocks[-1], len(unet.up_blocks[-1].resnets) - 1
        kinds = ("resnets", "attentions") if getattr(block, "attentions", None) else ("resnets",)
        layer = nn.ModuleDict({kind: nn.ModuleDict({str(last): getattr(block, kind)[last]}) for kind in kinds})
        self.up_blocks = nn.ModuleDict({str(len(unet.up_blocks) - 1): layer})
        self.conv_norm_out, self.conv_act, self.conv_out = unet.conv_norm_out, unet.conv_act, unet.conv_out

    @property
    def deep_channels(self) -> int:
        """Number of channels of the deep features."""
        return int(self._layers[0].in_channels) - self.conv_in.out_channels

    @property
    def _layers(self) -> list[Any]:
        """The last resnet and its attention, if any."""
        (block,) = self.up_blocks.children()
        return [layer for kind in block.children() for layer in kind.children()]

    def forward(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, deep: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction (n, c, h, w) from ``deep`` features (n, deep_channels, h, w) of ``predict_whole``."""
        embedding = self.time_embedding(self.time_proj(timesteps).to(latents.dtype), inputs.get(GUIDANCE))
        if self.add_embedding is not None:
            sizes = self.add_time_proj(inputs[TIME_IDS].flatten()).reshape(len(latents), -1)
            added = torch.cat([inputs[POOLED], sizes.to(latents.dtype)], dim=-1)
            embedding = embedding + self.add_embedding(added)
        resnet, *attentions = self._layers
        hidden = resnet(torch.cat([deep, self.conv_in(latents)], dim=1), embedding)
        for attention in attentions:
            hidden = attention(hidden, encoder_hidden_states=inputs[STATES], return_dict=False)[0]
        if self.conv_norm_out is not None:
            hidden = self.conv_act(self.conv_norm_out(hidden))
        prediction: torch.Tensor = self.conv_out(hidden)
        return prediction


def predict_whole(
    unet: Any,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    inputs: Inputs,
    residuals: Residuals | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a UNet's prediction (n, c, h, w) and the deep features for ``ShallowUNet``.

    ``residuals`` of ControlNets are for the skip connections, then the middle.
    """
    deep: list[torch.Tensor] = []

    def keep(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        deep.append(arguments[0][:, : -unet.conv_in.out_channels])

    handle = unet.up_blocks[-1].resnets[-1].register_forward_pre_hook(keep)
    options: dict[str, Any] = {"timestep_cond": inputs.get(GUIDANCE), **added_conditions(inputs)}
    if residuals is not None:
        *skips, middle = residuals
        options |= {"down_block_additional_residuals": skips, "mid_block_additional_residual": middle}
    try:
        prediction: torch.Tensor = unet(
            latents, timesteps, encoder_hidden_states=inputs[STATES], return_dict=False, **options
        )[0]
    finally:
        handle.remove()
    return prediction, deep[0]


def added_conditions(inputs: Inputs) -> dict[str, Any]:
    """Return the keywords of diffusers' networks for the inputs that only SDXL has."""
    if POOLED not in inputs:
        return {}
    return {"added_cond_kwargs": {"text_embeds": inputs[POOLED], "time_ids": inputs[TIME_IDS]}}
