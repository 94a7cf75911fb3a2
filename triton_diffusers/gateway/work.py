"""The cost of a request, known before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triton_diffusers.api.request import Function, GenerationRequest

_CONTROLNET_FACTOR = 0.35  # of a denoiser call, each
_UNGUIDED_FACTOR = 0.5  # one row of the denoiser instead of two
_PIXELS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Cost of a request: ``image_steps`` are those of all images together."""

    image_steps: int
    megapixel_steps: float


def work_of(request: GenerationRequest) -> Work:
    """Return the work of a request."""
    strength = None if request.function is Function.TEXT_TO_IMAGE else request.denoising_strength
    return _work(
        request.image_num, _steps(request.steps, strength), request.size, request.guided, len(request.controls)
    )


def work_of_parameters(parameters: Mapping[str, Any], images: int) -> Work:
    """Return the work of a finished request, from the reply's ``parameters``, which have the model's own values."""
    left, right, up, down = parameters.get("expand", (0, 0, 0, 0))
    return _work(
        images,
        _steps(parameters["steps"], parameters.get("denoising_strength")),
        (parameters["width"] + left + right, parameters["height"] + up + down),
        parameters["cfg_scale"] > 1,
        len(parameters.get("controlnet_path", ())),
    )


def _steps(steps: int, strength: float | None) -> int:
    return steps if strength is None else math.ceil(steps * strength)


def _work(images: int, steps: int, size: tuple[int, int], guided: bool, controls: int) -> Work:
    """Return steps of all images times megapixels, weighted by what a step calls.

    A request without steps counts as one: its image is decoded and encoded all the same.
    """
    factor = (1.0 if guided else _UNGUIDED_FACTOR) * (1.0 + _CONTROLNET_FACTOR * controls)
    return Work(
        image_steps=images * steps,
        megapixel_steps=images * max(1, steps) * size[0] * size[1] / _PIXELS * factor,
    )
