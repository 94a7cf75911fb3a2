"""Geometry and scale of latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_MIN_MULTIPLE = 8  # in pixels; supported by every denoiser


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentFormat:
    """Latents of a checkpoint as the loop has them: ``channels`` channels, one latent for ``pixels`` × ``pixels``.

    The denoiser's latents are ``(values - shift) * scale`` of the autoencoder's.
    """

    channels: int
    pixels: int
    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of_autoencoder(cls, config: Any) -> LatentFormat:
        """Return the format of an ``AutoencoderKL`` by its config."""
        return cls(
            channels=int(config.latent_channels),
            pixels=int(2 ** (len(config.block_out_channels) - 1)),
            scale=float(config.scaling_factor),
            shift=float(config.get("shift_factor") or 0.0),
        )

    @property
    def multiple(self) -> int:
        """Number of pixels that divides the sides of all sampled images."""
        return max(self.pixels, _MIN_MULTIPLE)

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape (channels, h, w) of the latents of an image of this width and height."""
        width, height = size
        return self.channels, height // self.pixels, width // self.pixels

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Return float32 noise (channels, h, w), drawn in the order of diffusers' pipelines."""
        from diffusers.utils.torch_utils import randn_tensor  # slow to import; choosing an engine needs none

        noise: torch.Tensor = randn_tensor((1, *shape), generator=generator, dtype=torch.float32)
        return noise[0]

    def from_vae(self, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        """Return mean and standard deviation (2, channels, h, w) from those of the autoencoder, (1, channels, h, w)."""
        return torch.cat([mean - self.shift if self.shift else mean, deviation]) * self.scale

    def to_vae(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the autoencoder's latents."""
        values = latents / self.scale
        return values + self.shift if self.shift else values
