"""Square views for a checker that crops the centre, and the emoji model's checker on wide images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.emoji.safety import tripping_picture
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.safety import square_views


def test_square_views_of_a_square_is_the_image_alone() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    (view,) = square_views(pixels)
    assert view is pixels


@pytest.mark.parametrize("size", [(64, 65), (64, 96), (64, 128), (100, 333), (16, 140), (128, 63)])
def test_square_views_cover_every_column_of_the_longer_side(size: tuple[int, int]) -> None:
    height, width = size
    short, long = min(size), max(size)
    ramp = np.arange(long, dtype=np.uint16)
    coded = np.stack([ramp // 256, ramp % 256, ramp * 0], -1).astype(np.uint8)  # each place has its own colour
    pixels = np.broadcast_to(coded[None] if width > height else coded[:, None], (height, width, 3))
    whole, *others = square_views(np.ascontiguousarray(pixels))
    first = (long - short) // 2
    seen = set(range(first, first + short))  # visible in the checker's own crop of the whole image
    assert whole.shape == (height, width, 3)
    for view in others:
        assert view.shape == (short, short, 3)
        line = view[0] if width > height else view[:, 0]
        seen.update((line[:, 0].astype(int) * 256 + line[:, 1]).tolist())
    assert seen == set(range(long))


def test_square_views_are_bounded_in_number() -> None:
    views = square_views(np.zeros((16, 2048, 3), np.uint8))
    assert len(views) == 9
    assert {view.shape for view in views[1:]} == {(16, 16, 3)}


@pytest.mark.parametrize("place", [0, 192])
@pytest.mark.parametrize("upright", [False, True])
def test_a_part_that_the_checkers_crop_leaves_out_is_flagged(components: Components, place: int, upright: bool) -> None:
    pixels = np.full((128, 320, 3), 128, np.uint8)
    pixels[:, place : place + 128] = np.asarray(tripping_picture(128, 128))
    engine = EagerEngine(components)
    assert engine.is_unsafe(np.ascontiguousarray(pixels.transpose(1, 0, 2)) if upright else pixels)
    assert not engine.is_unsafe(np.full((128, 320, 3), 128, np.uint8))


def test_the_checker_agrees_with_diffusers_on_a_square(components: Components) -> None:
    def flagged_by_diffusers(image: Image.Image) -> bool:
        extractor: Any = components.feature_extractor
        inputs = extractor([image], return_tensors="pt").pixel_values
        checker: Any = components.safety_checker
        return bool(checker(images=np.zeros((1, 8, 8, 3), np.float32), clip_input=inputs)[1][0])

    engine = EagerEngine(components)
    for image in (tripping_picture(96), Image.new("RGB", (96, 96), "red"), tripping_picture(96).resize((200, 200))):
        assert engine.is_unsafe(np.asarray(image)) == flagged_by_diffusers(image)
