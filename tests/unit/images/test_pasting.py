"""The original where nothing was to be repainted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from triton_diffusers.images.paste import paste_back, soft_edged

BLACK, WHITE = 0, 255


def pasted(mask: np.ndarray) -> np.ndarray:
    """White drawn over a black original: how much of what was drawn shows, 0 to 255."""
    drawn = np.full((*mask.shape, 3), WHITE, np.uint8)
    original = Image.new("RGB", (mask.shape[1], mask.shape[0]), BLACK)
    return paste_back(drawn, original, soft_edged(Image.fromarray(mask)))[..., 0]


def square(side: int, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_unmasked_pixels_are_unchanged(width: int, height: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    original, drawn = random.integers(0, 256, (2, height, width, 3), np.uint8)
    # Values on both sides of the threshold of one half.
    mask = np.where(random.random((height, width)) < share, 128, 127).astype(np.uint8)
    result = paste_back(drawn, Image.fromarray(original), soft_edged(Image.fromarray(mask)))
    assert result.shape == drawn.shape
    assert result.dtype == np.uint8
    assert np.array_equal(result[mask < 128], original[mask < 128])


def test_white_shows_the_drawn_image_and_black_the_original() -> None:
    drawn = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    original = Image.new("RGB", (90, 70), "red")
    assert np.array_equal(paste_back(drawn, original, soft_edged(Image.new("L", (90, 70), 255))), drawn)
    assert np.array_equal(paste_back(drawn, original, soft_edged(Image.new("L", (90, 70), 0))), np.asarray(original))


def test_the_edge_rises_inside_the_mask_and_is_over_after_a_64th_of_the_image() -> None:
    shown = pasted(square(512, 100, 100, 400, 400))[250]
    edge = shown[100:120].astype(int)
    assert shown[99] == 0
    assert edge[0] > 0
    assert (np.diff(edge[:9]) > 0).all()
    assert (edge[8:] == 255).all()
    assert edge[:9].tolist() == shown[399:390:-1].tolist()


def test_a_small_image_has_an_edge_of_two_pixels() -> None:
    assert pasted(square(32, 8, 8, 24, 24))[16, 6:12].tolist() == [0, 0, 85, 170, 255, 255]


@pytest.mark.parametrize("thickness", [1, 2, 3, 5, 9])
def test_a_thin_line_is_repainted_in_its_middle(thickness: int) -> None:
    shown = pasted(square(1024, 500, 100, 500 + thickness, 900))
    assert shown[500, 500 + thickness // 2] == 255
    assert shown[500, 500] > 0


def test_a_thin_line_beside_a_large_area_does_not_harden_its_edge() -> None:
    mask = square(512, 100, 100, 400, 400)
    mask[10:12, :] = 255
    assert np.array_equal(pasted(mask)[250], pasted(square(512, 100, 100, 400, 400))[250])


def test_the_images_border_has_no_soft_edge() -> None:
    shown = pasted(square(256, 0, 0, 128, 256))
    assert (shown[:, :120] == 255).all()
    assert (shown[:, 128:] == 0).all()


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        paste_back(np.zeros((8, 8, 3), np.uint8), Image.new("RGB", (8, 9)), Image.new("L", (8, 8)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(1, 150), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_edge_is_as_it_is_defined(height: int, width: int, seed: int, share: float) -> None:
    """Compare with the definition, pixel by pixel: the depth, as a share of the greatest one nearby."""
    white = np.random.default_rng(seed).random((height, width)) < share
    edge = max(2, min(height, width) // 64)
    black = np.argwhere(~white)
    depth = np.full((height, width), edge + 1)
    for row, column in np.argwhere(white) if len(black) else ():
        depth[row, column] = min(edge + 1, abs(black - (row, column)).max(1).min())
    depth[~white] = 0
    expected = np.zeros((height, width), np.uint8)
    for row, column in np.argwhere(white):
        around = depth[max(0, row - edge) : row + edge + 1, max(0, column - edge) : column + edge + 1]
        expected[row, column] = depth[row, column] * 255 // around.max()
    assert np.array_equal(np.asarray(soft_edged(Image.fromarray(white.astype(np.uint8) * 255))), expected)
