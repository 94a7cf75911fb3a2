"""Putting the original back wherever it was not to be repainted."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]


def paste_back(drawn: Array, original: Image.Image, mask: Image.Image) -> Array:
    """What was drawn where the mask is white (128 and above), and exactly the original's pixels elsewhere.

    ``drawn`` is uint8 (height, width, 3) of the size of ``original`` (RGB) and ``mask`` (L); a picture that was drawn
    at another size is resized by the caller first. At the mask's edge the original passes into what was drawn; all of
    that is inside the white part. The edge is as wide as a 64th of the picture's shorter side, at least 2 pixels, and
    narrower in a part of the mask that is itself narrow, so that a thin line is repainted, too.
    """
    picture = Image.fromarray(drawn)
    if not picture.size == original.size == mask.size:
        raise ValueError(f"drawn {picture.size}, original {original.size} and mask {mask.size} differ in size")
    share = _share(np.asarray(mask) >= 128, max(2, min(mask.size) // 64))
    return np.array(Image.composite(picture, original, Image.fromarray(share)))


def _share(white: Array, width: int) -> Array:
    """How much of what was drawn shows, 0 … 255, for a boolean mask and the width of its edge in pixels."""
    depth = _depth(white, width + 1)
    deepest = _maximum_around(depth, width)
    # ``deepest`` is 0 only where the depth is.
    share: Array = depth.astype(np.uint16) * 255 // np.maximum(deepest, 1)
    return share.astype(np.uint8)


def _depth(white: Array, most: int) -> Array:
    """How many pixels (rows, columns or diagonals, at most ``most``) a white pixel is away from a black one; uint8.

    The picture's own border is no edge: nothing outside of it could be kept.
    """
    depth = white.astype(np.uint8)
    inside = depth
    for _ in range(most - 1):
        inside = _minimum_of_neighbours(inside)
        depth = depth + inside
    return depth


def _minimum_of_neighbours(values: Array) -> Array:
    """The least of each pixel and its eight neighbours."""
    for axis in (0, 1):
        padded = np.pad(values, [(1, 1) if side == axis else (0, 0) for side in (0, 1)], "edge")
        middle, before, after = (_part(padded, axis, start, values.shape[axis]) for start in (1, 0, 2))
        values = np.minimum(np.minimum(before, after), middle)
    return values


def _maximum_around(values: Array, reach: int) -> Array:
    """The greatest value at most ``reach`` rows and columns away."""
    for axis in (0, 1):
        length = values.shape[axis]
        padded = np.pad(values, [(reach, reach) if side == axis else (0, 0) for side in (0, 1)])
        # The window's width doubles, until a last, overlapping step makes it 2 · reach + 1.
        window, covered = 2 * reach + 1, 1
        while covered < window:
            shift = min(covered, window - covered)
            rest = padded.shape[axis] - shift
            padded = np.maximum(_part(padded, axis, 0, rest), _part(padded, axis, shift, rest))
            covered += shift
        values = _part(padded, axis, 0, length)
    return values


def _part(values: Array, axis: int, start: int, length: int) -> Array:
    return values[start : start + length] if axis == 0 else values[:, start : start + length]
