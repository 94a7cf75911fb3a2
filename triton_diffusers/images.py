"""Pictures: encoding, resizing, and the step from a decoder's tensor to pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from triton_diffusers.request import OutputFormat

_ENCODER_OPTIONS: dict[OutputFormat, dict[str, Any]] = {
    # Level 6 costs several times level 1 for a few per cent of the size of a photograph-like picture.
    OutputFormat.PNG: {"compress_level": 1},
    OutputFormat.JPEG: {"quality": 95, "subsampling": 0},
    OutputFormat.WEBP: {"quality": 95, "method": 4},
}


def to_pixels(decoded: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A decoder's float array in -1 … 1, shape (channels, height, width), as uint8 (height, width, channels)."""
    scaled = np.clip(decoded / 2 + 0.5, 0, 1) * 255
    return np.ascontiguousarray(scaled.round().astype(np.uint8).transpose(1, 2, 0))


def encode(pixels: np.ndarray[Any, Any], size: tuple[int, int], output_format: OutputFormat) -> bytes:
    """Encode uint8 pixels (height, width, 3) as a picture of exactly ``size`` (width, height)."""
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, output_format.value, **_ENCODER_OPTIONS[output_format])
    return buffer.getvalue()


def preview(pixels: np.ndarray[Any, Any], longest_side: int = 128) -> bytes:
    """A small JPEG of uint8 pixels (height, width, 3) for a progress display."""
    image = Image.fromarray(pixels)
    image.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=80)
    return buffer.getvalue()
