"""Soft edges by a network, and scribbles made of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from triton_diffusers.preprocess.nets.hed import HedNetwork
from triton_diffusers.preprocess.networks import Network, Networks, with_weights
from triton_diffusers.preprocess.registry import HED, Pixels
from triton_diffusers.preprocess.sizes import Map, grey, map_at_size_of, to_tensor, to_working_size

_SMOOTHING = 3.0  # pixels
_MIN_EDGE = 127.0  # of 255, for an edge that is drawn
_MIN_INK = 4  # of 255, for a pixel of a stroke
# A pixel and its neighbours on both sides, in four directions.
_LINES = tuple(
    np.ascontiguousarray(line, dtype=np.uint8)
    for line in (np.eye(3), np.eye(3)[::-1], np.ones((1, 3)), np.ones((3, 1)))
)


class Hed:
    """Edges as probabilities, white on black."""

    def __init__(self, networks: Networks) -> None:
        self._networks = networks

    @torch.inference_mode()
    def process(self, pixels: Pixels) -> Pixels:
        network = self._networks.get(HED, _load)
        edges = network.module(to_tensor(to_working_size(pixels), self._networks.device))
        return grey(map_at_size_of(pixels, edges.cpu().numpy()))


class Scribble:
    """The ridges of soft edges as thick, hard, white strokes on black."""

    def __init__(self, networks: Networks) -> None:
        self._hed = Hed(networks)

    def process(self, pixels: Pixels) -> Pixels:
        return grey(strokes(self._hed.process(pixels)[:, :, 0].astype(np.float32)))


def strokes(edges: Map) -> Map:
    """Return the mask of strokes, boolean (height, width), for soft edges, float32 of 0 … 255.

    Strokes follow the ridges: pixels that are not below both neighbours, in at least one direction.
    """
    smooth = cv2.GaussianBlur(edges, (0, 0), _SMOOTHING)
    ridge = np.any([cv2.dilate(smooth, line) == smooth for line in _LINES], axis=0) & (smooth > _MIN_EDGE)
    ink = cv2.GaussianBlur(ridge.astype(np.uint8) * 255, (0, 0), _SMOOTHING)
    return np.asarray(ink > _MIN_INK)


def _load(folder: Path) -> Network:
    return with_weights(HedNetwork(), folder / "ControlNetHED.pth")
