"""The square views of an image that a safety checker has to see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

# Per side. The image costs the checker one call per view; a longer side than these cover is squeezed into them.
_MAX_SIDE_VIEWS = 4


def square_views(pixels: Array) -> list[Array]:
    """Return uint8 views (height, width, 3) that together show all of an image to a checker that crops the centre.

    The first is the whole image, of which the checker sees the central square, as in diffusers' pipelines. The others
    are squares that cover both ends of the longer side; a square image has none.
    """
    axis = int(pixels.shape[1] > pixels.shape[0])
    long, short = pixels.shape[axis], pixels.shape[1 - axis]
    uncovered = math.ceil((long - short) / 2)  # pixels at each end
    count = min(math.ceil(uncovered / short), _MAX_SIDE_VIEWS)
    if not count:
        return [pixels]
    length = max(short, math.ceil(uncovered / count))
    starts = np.linspace(0, max(0, uncovered - length), count).round().astype(int).tolist()
    starts += [long - start - length for start in starts]
    parts = [np.take(pixels, range(start, start + length), axis) for start in starts]
    if length > short:
        parts = [np.asarray(Image.fromarray(part).resize((short, short))) for part in parts]
    return [pixels, *parts]
