"""Geometry and scale of latents, compared with diffusers' autoencoder pipeline code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from triton_diffusers.families.latents import LatentFormat


class Config(SimpleNamespace):
    """A config as diffusers has them: attributes, and ``get``."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


@pytest.mark.parametrize(("shift", "expected"), [(None, 0.0), (0.5, 0.5)])
def test_format_of_an_autoencoder(shift: float | None, expected: float) -> None:
    config = Config(latent_channels=16, block_out_channels=(1, 2, 3), scaling_factor=0.25, shift_factor=shift)
    made = LatentFormat.of_autoencoder(config)
    assert (made.channels, made.pixels, made.scale, made.shift) == (16, 4, 0.25, expected)


def test_shape_is_that_of_width_and_height() -> None:
    assert LatentFormat(channels=4, pixels=8).shape((64, 128)) == (4, 16, 8)


@pytest.mark.parametrize(("pixels", "multiple"), [(4, 8), (8, 8), (16, 16)])
def test_multiple_suits_denoiser_and_autoencoder(pixels: int, multiple: int) -> None:
    assert LatentFormat(channels=4, pixels=pixels).multiple == multiple


def test_latents_return_to_the_autoencoder() -> None:
    latents = LatentFormat(channels=2, pixels=8, scale=0.5, shift=3.0)
    mean, deviation = torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    made = latents.from_vae(mean, deviation)
    torch.testing.assert_close(made, torch.cat([(mean - 3.0) * 0.5, deviation * 0.5]))
    torch.testing.assert_close(latents.to_vae(made[:1]), mean)


def test_noise_is_that_of_the_seed() -> None:
    latents = LatentFormat(channels=2, pixels=8)
    drawn = latents.draw((2, 4, 4), torch.Generator().manual_seed(5))
    assert torch.equal(drawn, torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(5))[0])
