"""Edges by Canny's method."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from triton_diffusers.preprocess.registry import Pixels


@dataclass(frozen=True)
class Canny:
    """White edges on black, one pixel wide. Thresholds apply to the gradient's magnitude; defaults are ControlNet's."""

    low: float = 100.0
    high: float = 200.0

    def process(self, pixels: Pixels) -> Pixels:
        edges = cv2.Canny(pixels, self.low, self.high).astype(np.uint8, copy=False)
        return np.repeat(edges[:, :, None], 3, axis=2)
