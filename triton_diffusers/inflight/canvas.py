"""Where an image begins: pure noise, or a job's input picture with noise on it, and what of it has to stay.

The order of the random draws is that of diffusers' pipelines (text to image, ``Img2Img``, ``Inpaint``), so that the
same seed gives the same picture.
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
from triton_diffusers.images.inputs import SourcePictures
from triton_diffusers.inflight.autoencoder import encode
from triton_diffusers.sampling.schedulers import begin_late

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What an inpainted image keeps.

    The input picture's ``latents`` and the ``noise`` put on them, both (channels, h, w), and the ``mask`` (1, h, w),
    which is 1 where the image is drawn anew and else 0.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor

    def restore(self, drawn: torch.Tensor, scheduler: Any, position: int) -> torch.Tensor:
        """``drawn`` (channels, h, w), before the step at ``position``, with the known part as it is at that step."""
        known = self.latents
        if position < len(scheduler.timesteps):
            timestep = scheduler.timesteps[position : position + 1]
            known = scheduler.add_noise(known[None], self.noise[None], timestep)[0]
        return (1 - self.mask) * known + self.mask * drawn


@dataclass(frozen=True, slots=True, eq=False)
class Beginning:
    """An image before its first step, which is the one at ``position`` of the scheduler's timesteps.

    ``latents`` is (channels, h, w). ``condition`` is what an inpainting UNet takes beside them, (channels + 1, h, w):
    the mask and the latents of the masked picture.
    """

    latents: torch.Tensor
    position: int = 0
    known: Known | None = None
    condition: torch.Tensor | None = None


class Canvas:
    """A job's input picture and mask as latents, encoded once for all images of the job."""

    def __init__(
        self,
        engine: Engine,
        request: GenerationRequest,
        pictures: SourcePictures | None,
        size: tuple[int, int],
        warnings: list[str],
    ) -> None:
        """``size`` is the width and height, in pixels, at which images are drawn."""
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
        if pictures is not None and pictures.image is not None:
            picture = _floats(pictures.image, (width, height))
            self._source = encode(engine, picture, warnings)
            if pictures.mask is not None:
                hidden = _binary(pictures.mask, (width, height))
                self._mask = _latent_mask(hidden, per_latent)
                seen = picture * ~hidden
        if engine.unet_channels > engine.latent_channels:
            # Without a mask all is to be drawn, and nothing of the picture is seen: zeros, which is grey.
            self._visible = encode(engine, seen, warnings)

    def begin(self, scheduler: Any, generator: torch.Generator) -> Beginning:
        """The beginning of one image, drawn with its ``generator``; sets the scheduler to its first step."""
        if self._unchanged:
            return Beginning(torch.zeros(self._shape[1:]), len(scheduler.timesteps))
        if self._source is None:
            noise = self._noise(generator)
            return Beginning(noise * scheduler.init_noise_sigma, condition=self._condition(None))
        position = begin_late(scheduler, self._steps, self._strength)
        only_noise = self._mask is not None and self._strength >= 1
        source = None if only_noise and self._visible is not None else _draw(self._source, generator)
        noise = self._noise(generator)
        if only_noise or source is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            timestep = scheduler.timesteps[position : position + 1]
            latents = scheduler.add_noise(source[None], noise[None], timestep)[0]
        if self._mask is None:
            return Beginning(latents, position, condition=self._condition(None))
        if self._visible is not None:
            return Beginning(latents, position, condition=self._condition(generator))
        self._noise(generator)  # diffusers draws for the masked picture, though only an inpainting UNet looks at it
        return Beginning(latents, position, None if source is None else Known(source, noise, self._mask))

    def _noise(self, generator: torch.Generator) -> torch.Tensor:
        noise: torch.Tensor = randn_tensor(self._shape, generator=generator, dtype=torch.float32)
        return noise[0]

    def _condition(self, generator: torch.Generator | None) -> torch.Tensor | None:
        if self._visible is None:
            return None
        mask = torch.ones(1, *self._shape[2:]) if self._mask is None else self._mask
        return torch.cat([mask, self._visible[0] if generator is None else _draw(self._visible, generator)])


def _draw(moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mean, deviation = moments
    noise: torch.Tensor = randn_tensor((1, *mean.shape), generator=generator, dtype=torch.float32)
    drawn: torch.Tensor = mean + deviation * noise[0]
    return drawn


def _floats(image: Image.Image, size: tuple[int, int]) -> Array:
    """An RGB picture as float32 (3, height, width) in -1 … 1."""
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1


def _binary(mask: Image.Image, size: tuple[int, int]) -> Array:
    """A mask as booleans (height, width): true where the picture is drawn anew."""
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.NEAREST)
    return np.asarray(mask) >= 128


def _latent_mask(hidden: Array, per_latent: int) -> torch.Tensor:
    """(1, h, w): one pixel speaks for each latent, as in diffusers; all of them if that would miss the whole mask."""
    sampled = hidden[::per_latent, ::per_latent]
    if not sampled.any():
        height, width = sampled.shape
        sampled = hidden.reshape(height, per_latent, width, per_latent).any(axis=(1, 3))
    return torch.from_numpy(sampled.astype(np.float32))[None]
