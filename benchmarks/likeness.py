"""Structural similarity of pictures (Wang, Bovik, Sheikh and Simoncelli, 2004)."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

_SIDE, _DEVIATION = 11, 1.5  # of the Gaussian window, in pixels
_STABLE = (0.01**2, 0.03**2)  # of values in 0 … 1


def ssim_of(one: Image.Image, other: Image.Image) -> float:
    """Return the mean over all windows and channels of two pictures of a size; 1 if they are equal."""
    first, second = (_channels(picture) for picture in (one, other))
    means = _blurred(first), _blurred(second)
    variances = _blurred(first**2) - means[0] ** 2, _blurred(second**2) - means[1] ** 2
    covariance = _blurred(first * second) - means[0] * means[1]
    luminance = (2 * means[0] * means[1] + _STABLE[0]) / (means[0] ** 2 + means[1] ** 2 + _STABLE[0])
    structure = (2 * covariance + _STABLE[1]) / (variances[0] + variances[1] + _STABLE[1])
    return float((luminance * structure).mean())


def _channels(picture: Image.Image) -> torch.Tensor:
    """(3, 1, height, width) in 0 … 1."""
    values = np.asarray(picture.convert("RGB"), np.float64) / 255
    return torch.from_numpy(values).permute(2, 0, 1)[:, None]


def _blurred(channels: torch.Tensor) -> torch.Tensor:
    places = torch.arange(_SIDE, dtype=channels.dtype) - _SIDE // 2
    window = torch.exp(-(places**2) / (2 * _DEVIATION**2))
    window = window / window.sum()
    return functional.conv2d(functional.conv2d(channels, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
