"""Initial latents of images, from noise or from an input image with noise.

Random draws follow the order of diffusers' pipelines (text to image, ``Img2Img``, ``Inpaint``), so that equal seeds
give equal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine
from triton_diffusers.images.inputs import SourceImages
from triton_diffusers.inflight.autoencoder import encode
from triton_diffusers.sampling.schedulers import set_start

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class InpaintContext:
    """Unmasked content of an inpainted image.

    ``latents`` of the input image and the ``noise`` added to them are (channels, h, w). ``mask`` (1, h, w) is 1 where
    the image is repainted and 0 elsewhere.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def restore(self, drawn: torch.Tensor, scheduler: Any, position: int) -> torch.Tensor:
        """Return ``drawn`` (channels, h, w) with the unmasked part at the noise level of the step at ``position``."""
        unmasked = self.latents
        if position < len(scheduler.timesteps):
            timestep = scheduler.timesteps[position : position + 1]
            unmasked = scheduler.add_noise(unmasked[None], self.noise[None], timestep)[0]
        return (1 - self.mask) * unmasked + self.mask * drawn


@dataclass(frozen=True, slots=True, eq=False)
class InitialState:
    """Initial state of an image; denoising starts at ``timesteps[position]``.

    ``latents`` is (channels, h, w). ``condition`` (channels + 1, h, w) is the extra input of an inpainting UNet: the
    mask and the latents of the masked image.
    """

    latents: torch.Tensor
    position: int = 0
    inpaint: InpaintContext | None = None
    condition: torch.Tensor | None = None


class Canvas:
    """Input image and mask of a job as latents, encoded once for all of its images."""

    def __init__(
        self,
        engine: Engine,
        request: GenerationRequest,
        sources: SourceImages | None,
        size: tuple[int, int],
        warnings: list[str],
    ) -> None:
        """Encode the input image, if any, at the sampling ``size`` (width and height in pixels)."""
        per_latent = engine.pixels_per_latent
        width, height = size
        self._shape = (1, engine.latent_channels, height // per_latent, width // per_latent)
        self._steps, self._strength = request.steps, request.denoising_strength
        self._source: torch.Tensor | None = None
        self._mask: torch.Tensor | None = None
        self._visible: torch.Tensor | None = None
        seen: Array = np.zeros((3, height, width), np.float32)
        self._unchanged = request.unchanged
        if self._unchanged:
            return
        if sources is not None and sources.image is not None:
            image = channels_first(sources.image, (width, height)) / 127.5 - 1
            self._source = encode(engine, image, warnings)
            if sources.mask is not None:
                hidden = _binary(sources.mask, (width, height))
                self._mask = _latent_mask(hidden, per_latent)
                seen = image * ~hidden
        if engine.unet_channels > engine.latent_channels:
            # Without a mask, the whole image is masked: zeros, which is grey.
            self._visible = encode(engine, seen, warnings)

    def begin(self, scheduler: Any, generator: torch.Generator) -> InitialState:
        """Return the initial state of one image, drawn with its ``generator``, and set the scheduler's first step."""
        if self._unchanged:
            return InitialState(torch.zeros(self._shape[1:]), len(scheduler.timesteps))
        if self._source is None:
            noise = self._noise(generator)
            return InitialState(noise * scheduler.init_noise_sigma, condition=self._condition(None))
        position = set_start(scheduler, self._steps, self._strength)
        only_noise = self._mask is not None and self._strength >= 1
        source = None if only_noise and self._visible is not None else _sample(self._source, generator)
        noise = self._noise(generator)
        if only_noise or source is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            timestep = scheduler.timesteps[position : position + 1]
            latents = scheduler.add_noise(source[None], noise[None], timestep)[0]
        if self._mask is None:
            return InitialState(latents, position, condition=self._condition(None))
        if self._visible is not None:
            return InitialState(latents, position, condition=self._condition(generator))
        self._noise(generator)  # diffusers draws for the masked image even if the UNet does not use it
        return InitialState(latents, position, None if source is None else InpaintContext(source, noise, self._mask))

    def _noise(self, generator: torch.Generator) -> torch.Tensor:
        noise: torch.Tensor = randn_tensor(self._shape, generator=generator, dtype=torch.float32)
        return noise[0]

    def _condition(self, generator: torch.Generator | None) -> torch.Tensor | None:
        if self._visible is None:
            return None
        mask = torch.ones(1, *self._shape[2:]) if self._mask is None else self._mask
        return torch.cat([mask, self._visible[0] if generator is None else _sample(self._visible, generator)])


def _sample(moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mean, deviation = moments
    noise: torch.Tensor = randn_tensor((1, *mean.shape), generator=generator, dtype=torch.float32)
    drawn: torch.Tensor = mean + deviation * noise[0]
    return drawn


def channels_first(image: Image.Image, size: tuple[int, int]) -> Array:
    """Return an RGB image as float32 (3, height, width) in 0 … 255, resized to ``size``."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32).transpose(2, 0, 1)


def _binary(mask: Image.Image, size: tuple[int, int]) -> Array:
    """Return a mask as booleans (height, width), True where the image is repainted."""
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    return np.asarray(mask) >= 128


def _latent_mask(hidden: Array, per_latent: int) -> torch.Tensor:
    """Return the mask (1, h, w) of latents.

    As in diffusers, one pixel decides for each latent; if that misses the whole mask, any masked pixel does.
    """
    sampled = hidden[::per_latent, ::per_latent]
    if not sampled.any():
        height, width = sampled.shape
        sampled = hidden.reshape(height, per_latent, width, per_latent).any(axis=(1, 3))
    return torch.from_numpy(sampled.astype(np.float32))[None]
