"""Outpainting's canvas: a picture with room at its sides, and the mask of that room."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from triton_diffusers.request import Expansion, Fill

_PADDINGS: dict[Fill, Literal["edge", "symmetric"]] = {Fill.COPY: "edge", Fill.REFLECT: "symmetric"}


def expand(image: Image.Image, expansion: Expansion) -> tuple[Image.Image, Image.Image]:
    """The RGB picture with the expansion's pixels added and filled, and its mask (L): white on the new pixels.

    ``reflect`` mirrors at the edge, back and forth where more is added than the picture has.
    """
    sides = ((expansion.up, expansion.down), (expansion.left, expansion.right))
    canvas = np.pad(np.asarray(image), (*sides, (0, 0)), _PADDINGS[expansion.fill])
    mask = np.pad(np.zeros((image.height, image.width), np.uint8), sides, constant_values=255)
    return Image.fromarray(canvas), Image.fromarray(mask)
