"""Outpainting's canvas and its mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from triton_diffusers.api.request import Expansion, Fill
from triton_diffusers.images.fit import expand

ADDED = st.integers(0, 40)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), ADDED, ADDED, ADDED, ADDED, st.sampled_from(Fill))
def test_the_image_stays_and_the_mask_is_the_rest(
    width: int, height: int, left: int, right: int, up: int, down: int, fill: Fill
) -> None:
    image = Image.effect_noise((width, height), 80).convert("RGB")
    canvas, mask = expand(image, Expansion(left=left, right=right, up=up, down=down, fill=fill))
    assert canvas.size == mask.size == (left + width + right, up + height + down)
    assert (canvas.mode, mask.mode) == ("RGB", "L")
    inside = np.s_[up : up + height, left : left + width]
    assert np.array_equal(np.asarray(canvas)[inside], np.asarray(image))
    assert not np.asarray(mask)[inside].any()
    assert np.asarray(mask).sum() == 255 * (mask.width * mask.height - width * height)
    # All that is filled in is of the image.
    assert set(np.unique(np.asarray(canvas))) <= set(np.unique(np.asarray(image)))


@pytest.mark.parametrize(
    ("fill", "row"),
    [
        (Fill.COPY, [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 3]),
        (Fill.REFLECT, [3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2, 3]),
    ],
)
def test_copy_repeats_the_edge_and_reflect_mirrors_back_and_forth(fill: Fill, row: list[int]) -> None:
    image = Image.fromarray(np.repeat(np.array([[[1], [2], [3]]], np.uint8), 3, axis=2))
    canvas, _ = expand(image, Expansion(left=3, right=6, up=0, down=1, fill=fill))
    assert np.asarray(canvas)[:, :, 0].tolist() == [row, row]
