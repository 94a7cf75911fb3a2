"""Square views of an image for a safety checker."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

# Each view costs a call of the checker. Longer sides are squeezed to fit into these.
_MAX_SIDE_VIEWS = 4


def square_views(pixels: Array) -> list[Array]:
    """Return uint8 views (height, width, 3) that together cover an image for a checker that crops the centre.

    The first is the whole image, whose central square the checker sees, as in diffusers' pipelines. The others are
    squares along the longer side, including both ends; square images have none.
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
