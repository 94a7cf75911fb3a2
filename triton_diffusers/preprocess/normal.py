"""Surface normals, computed from depth."""

from __future__ import annotations

import cv2
import numpy as np

from triton_diffusers.preprocess.depth import Depth, nearness_in_range
from triton_diffusers.preprocess.networks import Networks
from triton_diffusers.preprocess.registry import Pixels
from triton_diffusers.preprocess.sizes import map_at_size_of

_TOWARDS_US = 2 * np.pi  # of a normal before normalisation; slopes are in the depth network's units
_BACKGROUND = 0.4  # of the range of nearness; anything farther is flat


class Normal:
    """Normals as colours, 0 … 255 for -1 … 1, in the order B, G, R: z (towards us), y (down), x (right).

    ControlNets for such normals were trained with that order.
    """

    def __init__(self, networks: Networks) -> None:
        self._depth = Depth(networks)

    def process(self, pixels: Pixels) -> Pixels:
        nearness = self._depth.nearness(pixels)
        slopes = [cv2.Sobel(nearness, cv2.CV_32F, *direction, ksize=3) for direction in ((1, 0), (0, 1))]
        for slope in slopes:
            slope[nearness_in_range(nearness) < _BACKGROUND] = 0
        normals = np.stack([np.full_like(nearness, _TOWARDS_US), slopes[1], slopes[0]], axis=2)
        normals /= np.linalg.norm(normals, axis=2, keepdims=True)
        colours = (normals * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
        return map_at_size_of(pixels, colours).astype(np.uint8, copy=False)
