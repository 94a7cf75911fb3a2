"""Emoji pictures as tensors, and their composition over plain backgrounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

PICTURE_SIZE = 128
"""Native side of the model's pictures, in pixels."""


def load_pictures(files: Sequence[Path | BinaryIO], size: int = PICTURE_SIZE) -> torch.Tensor:
    """RGBA pictures with premultiplied alpha, uint8 [N, 4, size, size]."""
    pictures = np.empty((len(files), 4, size, size), dtype=np.uint8)
    for index, file in enumerate(files):
        with Image.open(file) as image:
            premultiplied = image.convert("RGBA").convert("RGBa").resize((size, size), Image.Resampling.LANCZOS)
        # Pillow cannot hand out RGBa as an array: read the raw bytes.
        raw = np.frombuffer(premultiplied.tobytes(), dtype=np.uint8)
        pictures[index] = raw.reshape(size, size, 4).transpose(2, 0, 1)
    return torch.from_numpy(pictures)


def compose(
    pictures: torch.Tensor,
    colours: torch.Tensor,
    scale: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Put premultiplied RGBA pictures over plain colours.

    pictures: uint8 [N, 4, S, S]; colours: [N, 3] in -1..1; scale: [N], 1 keeps the size; shift: [N, 2], x and y as a
    fraction of half the side. Returns float [N, 3, S, S] in -1..1.
    """
    layers = pictures.float() / 255.0
    if scale is not None or shift is not None:
        count = len(layers)
        scale = torch.ones(count) if scale is None else scale
        shift = torch.zeros(count, 2) if shift is None else shift
        theta = torch.zeros(count, 2, 3)
        theta[:, 0, 0] = theta[:, 1, 1] = 1.0 / scale
        theta[:, :, 2] = -shift / scale[:, None]
        grid = functional.affine_grid(theta, list(layers.shape), align_corners=False)
        layers = functional.grid_sample(layers, grid, align_corners=False)
    colour, alpha = layers[:, :3], layers[:, 3:]
    # Premultiplied: colour already holds rgb * alpha in 0..1.
    background = (colours[:, :, None, None] + 1.0) / 2.0
    return (colour + background * (1.0 - alpha)).clamp(0.0, 1.0) * 2.0 - 1.0


def to_image(picture: torch.Tensor) -> Image.Image:
    """Return a PIL image of one picture [3, H, W] in -1..1."""
    array = ((picture.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return Image.fromarray(array.permute(1, 2, 0).contiguous().numpy())


def from_image(image: Image.Image) -> torch.Tensor:
    """Return a picture [3, H, W] in -1..1 of a PIL image."""
    array = torch.from_numpy(np.asarray(image.convert("RGB")).copy())
    return array.permute(2, 0, 1).float() / 127.5 - 1.0
