"""The autoencoder's two halves, computed again in float32 where lower precision overflows."""

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
    """Return the moments of an image's latents, as ``Engine.encode``, all finite.

    A second attempt in float32 is told in ``warnings``. Raises ``EngineFailure`` if that fails too.
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
    """Return the image of ``latents``, as ``Engine.decode``, all finite.

    A second attempt in float32 is told in ``warnings``. Raises ``EngineFailure`` if that fails too.
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
    if warning not in warnings:  # one for all images of a request
        warnings.append(warning)
