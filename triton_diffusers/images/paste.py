"""Paste the original back over the parts that were not masked."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_cdt, maximum_filter

Array = np.ndarray[Any, Any]


def soft_edged(mask: Image.Image) -> Image.Image:
    """Return how much of a drawn image shows, 0 to 255 (L), for its mask (L): 0 wherever the mask is below 128.

    At the mask's edge the original passes into the drawn image, inside the white part only. The edge is a 64th of the
    image's shorter side wide, at least 2 pixels, and narrower in narrow parts of the mask, so that a thin line is
    repainted, too.
    """
    return Image.fromarray(_share(np.asarray(mask) >= 128, max(2, min(mask.size) // 64)))


def paste_back(drawn: Array, original: Image.Image, shown: Image.Image) -> Array:
    """Blend uint8 pixels (height, width, 3) over ``original`` (RGB) by ``shown`` (L), as ``soft_edged`` returns it.

    All three have the same size. Where ``shown`` is 0 the result has exactly the original's pixels.
    """
    image = Image.fromarray(drawn)
    if not image.size == original.size == shown.size:
        raise ValueError(f"drawn {image.size}, original {original.size} and mask {shown.size} differ in size")
    return np.array(Image.composite(image, original, shown))


def _share(white: Array, width: int) -> Array:
    """Return the opacity of the drawn image, 0 … 255, for a boolean mask and the width of its edge in pixels."""
    depth = _depth(white, width + 1)
    deepest = maximum_filter(depth, size=2 * width + 1, mode="nearest")
    # ``deepest`` is 0 only where the depth is.
    share: Array = depth.astype(np.uint16) * 255 // np.maximum(deepest, 1)
    return share.astype(np.uint8)


def _depth(white: Array, most: int) -> Array:
    """Return each white pixel's distance to a black one (rows, columns or diagonals, at most ``most``), as uint8.

    The image's own border is not an edge, since nothing lies beyond it.
    """
    if white.all():
        return np.full(white.shape, most, np.uint8)
    distance: Array = distance_transform_cdt(white, metric="chessboard")
    return np.minimum(distance, most).astype(np.uint8)
