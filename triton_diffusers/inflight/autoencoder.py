"""Autoencoder calls with a float32 retry when lower precision overflows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from triton_diffusers.engines import Engine
from triton_diffusers.errors import EngineFailure

Array = np.ndarray[Any, Any]

_OVERFLOW = "the model's autoencoder overflowed in this precision; {} in float32"
_FAILURE = "the model's autoencoder (vae) gave NaN or infinite values for {}, in float32 too"


def encode(engine: Engine, pixels: Array, warnings: list[str]) -> torch.Tensor:
    """Return the finite moments of an image's latents, as ``Engine.encode``.

    A retry in float32 adds a warning.

    Raises:
        EngineFailure: the float32 result is not finite either.
    """
    moments = engine.encode(pixels)
    if moments.isfinite().all():
        return moments
    moments = engine.encode(pixels, precise=True)
    if not moments.isfinite().all():
        raise EngineFailure(_FAILURE.format("the input image"))
    _add(warnings, _OVERFLOW.format("the input image was encoded"))
    return moments


def decode(engine: Engine, latents: torch.Tensor, warnings: list[str]) -> Array:
    """Return the finite image of ``latents``, as ``Engine.decode``.

    A retry in float32 adds a warning.

    Raises:
        EngineFailure: the float32 result is not finite either.
    """
    decoded = engine.decode(latents)
    if np.isfinite(decoded).all():
        return decoded
    decoded = engine.decode(latents, precise=True)
    if not np.isfinite(decoded).all():
        raise EngineFailure(_FAILURE.format("an image"))
    _add(warnings, _OVERFLOW.format("images were decoded"))
    return decoded


def _add(warnings: list[str], warning: str) -> None:
    if warning not in warnings:  # one warning per request
        warnings.append(warning)
