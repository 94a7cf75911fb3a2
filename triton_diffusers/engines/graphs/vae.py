"""VAE encoder and decoder graphs for one image at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import Dim

from triton_diffusers.engines.graph_names import VAE_DECODER, VAE_ENCODER
from triton_diffusers.engines.graphs.dynamic_shapes import any_size
from triton_diffusers.engines.graphs.graph import Graph, Input
from triton_diffusers.families.latents import LatentFormat

_MIN_LATENTS, _MAX_LATENTS = 2, 1024


class VaeEncoderModule(nn.Module):
    """VAE encoder: pixels (1, 3, height, width) in -1 … 1 → mean and standard deviation (2, c, h, w) of latents."""

    def __init__(self, vae: Any, latents: LatentFormat) -> None:
        super().__init__()
        self.encoder, self.quant_conv, self.format = vae.encoder, vae.quant_conv, latents

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        moments = self.encoder(pixels.to(self.encoder.conv_in.weight.dtype))
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        mean, logarithm = moments.float().chunk(2, dim=1)
        # Bounds of diffusers' DiagonalGaussianDistribution.
        deviation = torch.exp(logarithm.clamp(-30.0, 20.0) / 2)
        return self.format.from_vae(mean, deviation)


class VaeDecoderModule(nn.Module):
    """VAE decoder: the denoiser's latents (1, c, h, w) → pixels (1, 3, height, width) in -1 … 1."""

    def __init__(self, vae: Any, latents: LatentFormat) -> None:
        super().__init__()
        self.decoder, self.post_quant_conv, self.format = vae.decoder, vae.post_quant_conv, latents

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        scaled = self.format.to_vae(latents).to(self.decoder.conv_in.weight.dtype)
        if self.post_quant_conv is not None:
            scaled = self.post_quant_conv(scaled)
        with any_size(self.decoder):
            pixels: torch.Tensor = self.decoder(scaled)
        return pixels.float()


def vae_encoder_graph(vae: Any, latents: LatentFormat) -> Graph:
    """Return the encoder graph, for images whose sides are multiples of a latent."""
    per_latent = latents.pixels
    sides = {
        axis: per_latent * Dim(f"{name}_latents", min=_MIN_LATENTS, max=_MAX_LATENTS)
        for axis, name in ((2, "height"), (3, "width"))
    }
    example = torch.zeros(1, vae.config.in_channels, 12 * per_latent, 10 * per_latent)
    return Graph(VAE_ENCODER, VaeEncoderModule(vae, latents), (Input("pixels", example, sides),), ("moments",))


def vae_decoder_graph(vae: Any, latents: LatentFormat) -> Graph:
    """Return the decoder graph, for latents of any size."""
    sides = {axis: Dim(name, min=_MIN_LATENTS, max=_MAX_LATENTS) for axis, name in ((2, "height"), (3, "width"))}
    example = torch.zeros(1, latents.channels, 12, 10)
    return Graph(VAE_DECODER, VaeDecoderModule(vae, latents), (Input("latents", example, sides),), ("pixels",))
