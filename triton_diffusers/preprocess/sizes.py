"""Sizes at which networks look at pictures, and the way there and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from triton_diffusers.preprocess.registry import Pixels

Map = np.ndarray[Any, Any]

_SHORTER_SIDE = 512  # what the networks were made for
_LONGEST_SIDE = 2048  # of narrow strips
_MULTIPLE = 64


def working_size(width: int, height: int) -> tuple[int, int]:
    """Width and height for a network: the shorter side near 512, the longer at most 2048, multiples of 64."""
    scale = min(_SHORTER_SIDE / min(width, height), _LONGEST_SIDE / max(width, height))
    across, down = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (width, height))
    return across, down


def to_working_size(pixels: Pixels) -> Pixels:
    """The picture at its working size."""
    height, width = pixels.shape[:2]
    size = working_size(width, height)
    shrinks = size[0] * size[1] < width * height
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4)
    return resized.astype(np.uint8, copy=False)


def to_tensor(pixels: Pixels, device: torch.device) -> torch.Tensor:
    """Shape (1, 3, height, width), values 0 … 255 in float32."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float()


def map_at_size_of(pixels: Pixels, values: Map) -> Map:
    """A map (height, width) or (height, width, channels) at the picture's size, interpolated linearly."""
    height, width = pixels.shape[:2]
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR))


def grey(values: Map) -> Pixels:
    """A map (height, width) of 0 … 1 as grey pixels."""
    level = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.repeat(level[:, :, None], 3, axis=2)
