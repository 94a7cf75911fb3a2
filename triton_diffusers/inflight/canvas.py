"""Initial latents of images, from noise or from an input image with noise.

Random draws follow the order of diffusers' pipelines (text to image, ``Img2Img``, ``Inpaint``), so that equal seeds
give equal images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine
from triton_diffusers.families.schedules import Schedule
from triton_diffusers.images.inputs import SourceImages
from triton_diffusers.inflight.autoencoder import encode

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

    def restore(self, schedule: Schedule, drawn: torch.Tensor, scheduler: Any, position: int) -> torch.Tensor:
        """Return ``drawn`` (channels, h, w) with the unmasked part at the noise level of the step at ``position``."""
        unmasked = self.latents
        if position < len(scheduler.timesteps):
            unmasked = schedule.noised(scheduler, unmasked[None], self.noise[None], position)[0]
        return (1 - self.mask) * unmasked + self.mask * drawn

    def to(self, device: torch.device) -> InpaintContext:
        """Return the context on a device."""
        return InpaintContext(self.latents.to(device), self.noise.to(device), self.mask.to(device))


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
        self._family, self._device = engine.family, engine.device
        width, height = size
        self._shape = self._family.latents.shape(size)
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
                self._mask = _latent_mask(hidden, self._family.latents.pixels).to(self._device)
                seen = image * ~hidden
        if self._family.needs_mask:
            # Without a mask, the whole image is masked: zeros, which is grey.
            self._visible = encode(engine, seen, warnings)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (channels, h, w) of the latents."""
        return self._shape

    def begin(self, scheduler: Any, generator: torch.Generator) -> InitialState:
        """Return the initial state of one image, drawn with its ``generator``, and set the scheduler's first step."""
        if self._unchanged:
            return InitialState(torch.zeros(self._shape), len(scheduler.timesteps))
        schedule = self._family.schedule
        if self._source is None:
            noise = self._noise(generator)
            return InitialState(schedule.pure_noise(scheduler, noise), condition=self._condition(None))
        position = schedule.start(scheduler, self._steps, self._strength)
        only_noise = self._mask is not None and self._strength >= 1
        source = None if only_noise and self._visible is not None else self._sample(self._source, generator)
        noise = self._noise(generator)
        if only_noise or source is None:
            latents = schedule.pure_noise(scheduler, noise)
        else:
            latents = schedule.noised(scheduler, source[None], noise[None], position)[0]
        if self._mask is None:
            return InitialState(latents, position, condition=self._condition(None))
        if self._visible is not None:
            return InitialState(latents, position, condition=self._condition(generator))
        self._noise(generator)  # diffusers draws for the masked image even if the UNet does not use it
        return InitialState(latents, position, None if source is None else InpaintContext(source, noise, self._mask))

    def _noise(self, generator: torch.Generator) -> torch.Tensor:
        return self._family.latents.draw(self._shape, generator).to(self._device)

    def _sample(self, moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        mean, deviation = moments
        drawn: torch.Tensor = mean + deviation * self._noise(generator)
        return drawn

    def _condition(self, generator: torch.Generator | None) -> torch.Tensor | None:
        if self._visible is None:
            return None
        mask = torch.ones(1, *self._shape[1:], device=self._device) if self._mask is None else self._mask
        return torch.cat([mask, self._visible[0] if generator is None else self._sample(self._visible, generator)])


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
