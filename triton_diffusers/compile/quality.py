"""How much two sets of pictures are alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

BEST = 100.0  # dB; what equal pictures are given, whose ratio is infinite


def psnr_of(one: Image.Image, other: Image.Image) -> float:
    """Peak signal-to-noise ratio of two pictures of 8 bits, in dB; 0 if they differ in size."""
    if one.size != other.size:
        return 0.0
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    error = float(np.mean(difference**2))
    return min(BEST, 10 * math.log10(255**2 / error)) if error else BEST


def compare(one: Path, other: Path, names: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Of each probe, the PSNR of that of its pictures which came out least alike; files are by name in two folders."""
    return {
        probe: min(psnr_of(_read(one / file), _read(other / file)) for file in files) for probe, files in names.items()
    }


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
