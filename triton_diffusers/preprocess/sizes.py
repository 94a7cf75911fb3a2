"""Working sizes of networks, and conversions to and from them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from triton_diffusers.preprocess.registry import Pixels

Map = np.ndarray[Any, Any]

_SHORTER_SIDE = 512  # as in the networks' training
_MAX_SIDE = 2048  # of narrow strips
_MULTIPLE = 64


def working_size(width: int, height: int) -> tuple[int, int]:
    """Return a network's input size: the shorter side near 512, the longer at most 2048, multiples of 64."""
    scale = min(_SHORTER_SIDE / min(width, height), _MAX_SIDE / max(width, height))
    across, down = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (width, height))
    return across, down


def to_working_size(pixels: Pixels) -> Pixels:
    """Return the image at its working size."""
    height, width = pixels.shape[:2]
    size = working_size(width, height)
    shrinks = size[0] * size[1] < width * height
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return resized.astype(np.uint8, copy=False)


def to_tensor(pixels: Pixels, device: torch.device) -> torch.Tensor:
    """Return pixels as float32 of 0 … 255, shape (1, 3, height, width)."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float()


def map_at_size_of(pixels: Pixels, values: Map) -> Map:
    """Return a map (height, width[, channels]) at the image's size, interpolated linearly."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))


def grey(values: Map) -> Pixels:
    """Return a map (height, width) of 0 … 1 as grey pixels."""
    level = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)
