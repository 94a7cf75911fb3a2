"""Images and masks at the request's size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from triton_diffusers.api.request import ResizeMode
from triton_diffusers.images.fit import fit, fit_mask

SIDES = st.integers(1, 90)


def halves(width: int, height: int, *, white: str = "right") -> Image.Image:
    """Return a mask with one half white."""
    values = np.zeros((height, width), np.uint8)
    if white == "right":
        values[:, width // 2 :] = 255
    else:
        values[height // 2 :] = 255
    return Image.fromarray(values)


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, SIDES, SIDES, st.sampled_from(ResizeMode))
def test_every_size_comes_out_as_asked(a: int, b: int, c: int, d: int, e: int, f: int, mode: ResizeMode) -> None:
    assert fit(Image.new("RGB", (a, b)), (c, d), mode).size == (c, d)
    mask = fit_mask(Image.new("L", (e, f), 255), (a, b), (c, d), mode)
    assert mask.size == (c, d)
    assert np.asarray(mask).any()


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes(mode: ResizeMode, size: tuple[int, int]) -> None:
    fitted = np.asarray(fit(Image.new("RGB", size, "red"), (64, 48), mode))
    assert (fitted == [255, 0, 0]).all(axis=2).any()


@pytest.mark.parametrize("mode", ResizeMode)
def test_an_image_of_the_right_size_is_untouched(mode: ResizeMode) -> None:
    noise = Image.effect_noise((32, 24), 80)
    assert np.array_equal(np.asarray(fit(noise.convert("RGB"), (32, 24), mode))[..., 0], np.asarray(noise))
    assert np.array_equal(np.asarray(fit_mask(noise, (32, 24), (32, 24), mode)), np.asarray(noise))


def three_bands() -> Image.Image:
    """120×40: red, green and blue squares of 40×40."""
    image = Image.new("RGB", (120, 40), "red")
    image.paste("lime", (40, 0, 80, 40))
    image.paste("blue", (80, 0, 120, 40))
    return image


def test_stretch_shows_all_of_it() -> None:
    fitted = np.asarray(fit(three_bands(), (60, 60), ResizeMode.STRETCH))
    assert [fitted[30, x].tolist() for x in (5, 30, 55)] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_crop_shows_the_middle_and_fills_the_frame() -> None:
    fitted = np.asarray(fit(three_bands(), (60, 60), ResizeMode.CROP)).astype(int)
    assert np.abs(fitted[5:-5, 5:-5] - [0, 255, 0]).max() == 0
    high = np.asarray(fit(three_bands().transpose(Image.Transpose.ROTATE_90), (80, 80), ResizeMode.CROP))
    assert (high[10:-10, 10:-10] == [0, 255, 0]).all()


def test_pad_centres_without_enlarging() -> None:
    fitted = np.asarray(fit(Image.new("RGB", (20, 10), "red"), (40, 30), ResizeMode.PAD))
    assert (fitted[10:20, 10:30] == [255, 0, 0]).all()
    outside = np.ones((30, 40), bool)
    outside[10:20, 10:30] = False
    assert (fitted[outside] == 255).all()


def test_pad_scales_a_larger_image_down_to_fit() -> None:
    fitted = np.asarray(fit(Image.new("RGB", (200, 50), "red"), (100, 100), ResizeMode.PAD))
    red = (fitted == [255, 0, 0]).all(axis=2)
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (37, 61, 0, 99)


def test_a_masks_padding_is_kept() -> None:
    mask = np.asarray(fit_mask(Image.new("L", (20, 10), 255), (20, 10), (40, 30), ResizeMode.PAD))
    assert (mask[10:20, 10:30] == 255).all()
    assert mask.sum() == 255 * 20 * 10


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("mask_size", [(120, 40), (60, 20), (240, 80), (40, 40)])
@pytest.mark.parametrize("size", [(60, 60), (240, 120), (30, 90), (160, 160)])
def test_a_mask_of_any_size_lies_where_it_lay_on_its_image(
    mode: ResizeMode, mask_size: tuple[int, int], size: tuple[int, int]
) -> None:
    image = Image.new("RGB", (120, 40), "blue")
    image.paste("red", (60, 0, 120, 40))
    red = (np.asarray(fit(image, size, mode)) > [128, 255, 128]) | (np.asarray(fit(image, size, mode)) > 128)
    fitted = np.asarray(fit(image, size, mode)).astype(int)
    red = (fitted[..., 0] > 128) & (fitted[..., 1] < 128)
    mask = np.asarray(fit_mask(halves(*mask_size), image.size, size, mode)) >= 128
    assert (red != mask).mean() < 0.02


def test_a_masks_edge_does_not_ring() -> None:
    mask = np.asarray(fit_mask(halves(30, 30), (30, 30), (100, 100), ResizeMode.STRETCH))
    assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("size", [(3, 60_000), (60_000, 3), (40, 900), (900, 40)])
def test_no_intermediate_image_is_larger_than_both_ends(
    size: tuple[int, int], mode: ResizeMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow scales rows first: 3 columns of 60,000 pixels would be 512 columns of as many for a moment."""
    image = Image.effect_noise(size, 60).convert("RGB")
    resize, sizes = Image.Image.resize, []

    def watched(self: Image.Image, to: tuple[int, int], filter_: Any, box: Any) -> Image.Image:
        sizes.append(to[0] * (box[3] - box[1]))  # after the rows
        return resize(self, to, filter_, box)

    monkeypatch.setattr(Image.Image, "resize", watched)
    fitted = fit(image, (512, 512), mode)
    assert max(sizes) <= max(image.width * image.height, 512 * 512)
    monkeypatch.undo()
    if mode is ResizeMode.STRETCH:
        plain = image.resize((512, 512), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(plain, int) - np.asarray(fitted, int)).max() <= 2
