"""The denoiser: the network that engines call in every step."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from triton_diffusers.families.conditioning import Inputs

Residuals = tuple[torch.Tensor, ...]
"""Tensors (n, channels, h, w) to add at the denoiser's places for ControlNets, in order."""


class Denoiser(Protocol):
    """A checkpoint's denoiser as a function of latents (n, channels, h, w), timesteps (n,) and named inputs."""

    @property
    def network(self) -> Any:
        """The module whose layers LoRAs change."""

    def whole(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, residuals: Residuals | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the prediction (n, c, h, w), and the deep features (n, d, h, w) for ``shallow``."""

    def shallow(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, deep: torch.Tensor
    ) -> torch.Tensor:
        """Return the prediction (n, c, h, w) by the outermost layers, from deep features of a recent step."""
