"""What somebody might have scribbled."""

from __future__ import annotations

import cv2
import numpy as np

from triton_diffusers.preprocess.hed import Hed
from triton_diffusers.preprocess.networks import Networks
from triton_diffusers.preprocess.registry import Pixels
from triton_diffusers.preprocess.sizes import Map, grey

_SMOOTHING = 3.0  # pixels
_LEAST = 127.0  # of 255, for an edge that is drawn
_LEAST_INK = 4  # of 255, for a pixel of a stroke
# A pixel and its neighbours to both sides, in four directions.
_LINES = tuple(
    np.ascontiguousarray(line, dtype=np.uint8)
    for line in (np.eye(3), np.eye(3)[::-1], np.ones((1, 3)), np.ones((3, 1)))
)


class Scribble:
    """The ridges of soft edges as thick, hard, white strokes on black."""

    def __init__(self, networks: Networks) -> None:
        self._hed = Hed(networks)

    def process(self, pixels: Pixels) -> Pixels:
        return grey(strokes(self._hed.process(pixels)[:, :, 0].astype(np.float32)))


def strokes(edges: Map) -> Map:
    """Where the strokes are, boolean (height, width), for soft edges, float32 of 0 … 255.

    They go along the ridges: pixels that are not below their neighbours on both sides, in one direction at least.
    """
    smooth = cv2.GaussianBlur(edges, (0, 0), _SMOOTHING)
    ridge = np.any([cv2.dilate(smooth, line) == smooth for line in _LINES], axis=0) & (smooth > _LEAST)
    ink = cv2.GaussianBlur(ridge.astype(np.uint8) * 255, (0, 0), _SMOOTHING)
    return np.asarray(ink > _LEAST_INK)
