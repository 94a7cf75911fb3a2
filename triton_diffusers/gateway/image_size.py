"""Sizes of encoded images, read from their headers."""

from __future__ import annotations

import io

import imagesize


def image_size(image: bytes) -> tuple[int, int]:
    """Return the width and height of an encoded image, upright; -1 each if its header cannot be read."""
    try:
        width, height = imagesize.get(io.BytesIO(image))
    except Exception:  # noqa: BLE001  # a caller's bytes; the model says what is wrong with them
        return -1, -1
    return width, height
