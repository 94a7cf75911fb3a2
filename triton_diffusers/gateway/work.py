"""The cost of a request, known before it runs."""

from __future__ import annotations

import math

from triton_diffusers.api.request import Function, GenerationRequest

_CONTROLNET_FACTOR = 0.35  # of a denoiser call, each
_UNGUIDED_FACTOR = 0.5  # one row of the denoiser instead of two
_PIXELS = 1e6


def steps_per_image(request: GenerationRequest) -> int:
    """Return the sampling steps that each image takes."""
    if request.function is Function.TEXT_TO_IMAGE:
        return request.steps
    return math.ceil(request.steps * request.denoising_strength)


def megapixel_steps(request: GenerationRequest) -> float:
    """Return the work of a request: steps of all images times megapixels, weighted by what a step calls.

    A request without steps counts as one: its image is decoded and encoded all the same.
    """
    width, height = request.size
    factor = (1.0 if request.guided else _UNGUIDED_FACTOR) * (1.0 + _CONTROLNET_FACTOR * len(request.controls))
    return request.image_num * max(1, steps_per_image(request)) * width * height / _PIXELS * factor
