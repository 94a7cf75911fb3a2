"""Fit an image and its mask to the request's size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from triton_diffusers.api.request import Expansion, Fill, ResizeMode

Size = tuple[int, int]
Box = tuple[float, float, float, float]


def fit(image: Image.Image, size: Size, mode: ResizeMode) -> Image.Image:
    """Return an RGB image of ``size`` (width, height): stretched, cropped, or scaled down and padded with white."""
    if image.size == size:
        return image
    return _place(image, image.size, size, mode, Image.Resampling.LANCZOS, "white")


def fit_mask(mask: Image.Image, source_size: Size, size: Size, mode: ResizeMode) -> Image.Image:
    """Return a mask (L) of ``size`` that covers the same parts of the fitted image as of the one of ``source_size``.

    A mask of another size than its image is stretched to it. Padding is black, so it is not repainted.
    """
    # BOX is the mean of an area: mostly white stays white, and edges get no new values, as they would from LANCZOS.
    return _place(mask, source_size, size, mode, Image.Resampling.BOX, "black")


def _place(
    image: Image.Image, source_size: Size, size: Size, mode: ResizeMode, filter_: Image.Resampling, padding: str
) -> Image.Image:
    box, inner = _geometry(source_size, size, mode)
    across, down = image.width / source_size[0], image.height / source_size[1]
    # Rounding must not exceed the image.
    own_box = (
        box[0] * across,
        box[1] * down,
        min(box[2] * across, image.width),
        min(box[3] * down, image.height),
    )
    resized = _scaled(image, own_box, inner, filter_)
    if inner == size:
        return resized
    canvas = Image.new(image.mode, size, padding)
    canvas.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _scaled(image: Image.Image, box: Box, size: Size, filter_: Image.Resampling) -> Image.Image:
    """Scale a part of an image to ``size``, the axis that shrinks first.

    Pillow scales rows first: a single tall column would become a wide image of as many rows before it shrinks.
    """
    left, top, right, bottom = box
    if right - left < size[0] and bottom - top > size[1]:
        image = image.resize((image.width, size[1]), filter_, box=(0, top, image.width, bottom))
        top, bottom = 0, size[1]
    return image.resize(size, filter_, box=(left, top, right, bottom))


def _geometry(source: Size, size: Size, mode: ResizeMode) -> tuple[Box, Size]:
    """Return the visible part of the source, in its pixels, and the size to which that part is scaled."""
    ratios = size[0] / source[0], size[1] / source[1]
    whole = (0.0, 0.0, float(source[0]), float(source[1]))
    if mode is ResizeMode.STRETCH:
        return whole, size
    if mode is ResizeMode.CROP:
        scale = max(ratios)
        width, height = min(source[0], size[0] / scale), min(source[1], size[1] / scale)
        left, top = (source[0] - width) / 2, (source[1] - height) / 2
        return (left, top, left + width, top + height), size
    scale = min(1.0, *ratios)
    return whole, (max(1, round(source[0] * scale)), max(1, round(source[1] * scale)))


_PADDINGS: dict[Fill, Literal["edge", "symmetric"]] = {Fill.COPY: "edge", Fill.REFLECT: "symmetric"}


def expand(image: Image.Image, expansion: Expansion) -> tuple[Image.Image, Image.Image]:
    """Return the RGB image with the expansion's pixels added and filled, and a mask (L): white on the new pixels.

    ``reflect`` mirrors at the edge, repeatedly if more is added than the image has.
    """
    sides = ((expansion.up, expansion.down), (expansion.left, expansion.right))
    canvas = np.pad(np.asarray(image), (*sides, (0, 0)), _PADDINGS[expansion.fill])
    mask = np.pad(np.zeros((image.height, image.width), np.uint8), sides, constant_values=255)
    return Image.fromarray(canvas), Image.fromarray(mask)
