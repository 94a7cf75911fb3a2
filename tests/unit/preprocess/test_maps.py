"""Conversion of known network outputs to control images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from triton_diffusers.preprocess import sizes
from triton_diffusers.preprocess.depth import Depth
from triton_diffusers.preprocess.hed import strokes
from triton_diffusers.preprocess.mlsd import lines
from triton_diffusers.preprocess.networks import Network, Networks
from triton_diffusers.preprocess.normal import Normal
from triton_diffusers.preprocess.registry import Weights

IMAGE = np.zeros((64, 128, 3), np.uint8)


class FixedDepth(Networks):
    """One network that returns a fixed nearness (rows, columns) for every image."""

    def __init__(self, nearness: torch.Tensor) -> None:
        super().__init__(Path(), torch.device("cpu"), 0)
        self._fixed = Network(
            lambda _: SimpleNamespace(predicted_depth=nearness[None]),
            lambda *_, **__: {"pixel_values": torch.zeros(1)},
        )

    def get(self, weights: Weights, load: Callable[[Path], Any]) -> Network:
        return self._fixed


def slope_to_the_right(steepness: float) -> torch.Tensor:
    return (torch.arange(128.0) * steepness).repeat(64, 1)


def test_near_is_white() -> None:
    depth = Depth(FixedDepth(slope_to_the_right(3.0))).process(IMAGE)
    row = depth[32, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert (np.diff(row) >= 0).all()


def test_constant_depth_is_black() -> None:
    assert not Depth(FixedDepth(torch.ones(64, 128))).process(IMAGE).any()


def test_a_surface_facing_us_is_blue_in_the_first_channel() -> None:
    normal = Normal(FixedDepth(torch.ones(64, 128))).process(IMAGE)
    assert (normal == [255, 127, 127]).all()


def test_a_slope_to_the_right_is_red_in_the_last_channel() -> None:
    normal = Normal(FixedDepth(slope_to_the_right(2.0))).process(IMAGE)
    # Sobel's sum is eight times the slope: 16 against 2π.
    length = np.hypot(16, 2 * np.pi)
    expected = [127.5 + 127.5 * 2 * np.pi / length, 127.5, 127.5 + 127.5 * 16 / length]
    assert np.abs(normal[32, 100] - np.array(expected)).max() <= 1
    assert (normal[32, 20] == [255, 127, 127]).all(), "the background is flat"


def test_lines_are_sorted_by_score() -> None:
    found = torch.zeros(5, 32, 48)
    found[0] = -10.0
    found[0, 10, 20] = 3.0
    found[1:, 10, 20] = torch.tensor([-5.0, -2.0, 5.0, 2.0])
    found[0, 10, 21] = 2.0  # beside a higher score
    found[1:, 10, 21] = 9.0
    found[0, 25, 40] = 5.0  # the highest score
    found[1:, 25, 40] = torch.tensor([-1.0, 0.0, 1.0, 0.0])
    found[0, 5, 5] = 4.0  # zero length
    assert lines(found).tolist() == [[39.0, 25.0, 41.0, 25.0], [15.0, 8.0, 25.0, 12.0]]


def test_lines_are_at_most_200() -> None:
    found = torch.zeros(5, 64, 64)
    found[0, ::3, ::3] = 1 + torch.rand(22, 22)
    found[1], found[3] = -3.0, 3.0
    assert len(lines(found)) == 200


def test_strokes_follow_ridges() -> None:
    """A hill's ridges are the four lines through its top."""
    rows, columns = np.mgrid[-100:101, -100:101]
    hill = (255 * np.exp(-(rows**2 + columns**2) / (2 * 40**2))).astype(np.float32)
    found = strokes(hill)
    for down, across in [(0, 0), (0, 40), (40, 0), (28, 28), (-28, 28), (4, 40)]:
        assert found[100 + down, 100 + across]
    for down, across in [(18, 40), (-18, 40), (40, 18), (0, 70)]:
        assert not found[100 + down, 100 + across]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)), ((768, 512), (768, 512)), ((1024, 1024), (512, 512)), ((128, 128), (512, 512)),
        ((640, 480), (704, 512)), ((2048, 512), (2048, 512)), ((2048, 64), (2048, 64)), ((1, 2048), (64, 2048)),
        ((1, 1), (512, 512)),
    ],
)  # fmt: skip
def test_working_sizes_are_bounded_multiples(
    size: tuple[int, int], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "_SHORTER_SIDE", 512)
    monkeypatch.setattr(sizes, "_MAX_SIDE", 2048)
    assert sizes.working_size(*size) == expected
