"""Convolutions of doubled images without the doubled images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.openvino.compiler import _core
from triton_diffusers.engines.graphs.dynamic_shapes import any_size
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.upsampling import can_double, convolve_double


class Upsampling(nn.Module):
    """diffusers' upsampling as in the autoencoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.upsampler = Upsample2D(8, use_conv=True, out_channels=12)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        with any_size(self):
            larger: torch.Tensor = self.upsampler(pixels)
        return larger


@pytest.mark.parametrize("side", [(1, 1), (2, 5), (7, 4)], ids=str)
def test_convolve_double_matches_diffusers(side: tuple[int, int]) -> None:
    module, pixels = Upsampling().eval(), torch.randn(3, 8, *side)
    with torch.inference_mode():
        expected = module.upsampler(pixels)
        torch.testing.assert_close(module(pixels), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(convolve_double(module.upsampler.conv, pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 4), (9, 9)], ids=str)
def test_upsampling_to_an_explicit_size(size: tuple[int, int]) -> None:
    upsampler, pixels = Upsampling().upsampler.eval(), torch.randn(1, 8, 5, 5)
    with torch.inference_mode():
        expected = upsampler(pixels, output_size=size)
        with any_size(nn.Sequential(upsampler)):
            torch.testing.assert_close(upsampler(pixels, output_size=size), expected, rtol=0, atol=1e-6)


def test_openvino_makes_no_larger_image_before_the_convolution(tmp_path: Path) -> None:
    module = Upsampling().eval()
    sides = {2: torch.export.Dim("height", min=2, max=64), 3: torch.export.Dim("width", min=2, max=64)}
    graph = Graph("upsampling", module, (Input("pixels", torch.zeros(4, 8, 6, 5), {0: ROWS, **sides}),), ("larger",))
    compiler = COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "float32")
    kinds = [op.get_type_name() for op in _core().read_model(tmp_path / "graph.xml").get_ops()]
    assert kinds.count("Convolution") == 4
    assert "Interpolate" not in kinds
    assert kinds.count("Concat") == 1  # convolutions of the quarters; sums of taps are constants
    compiled = compiler.load(tmp_path, "float32")
    for rows, *side in ((1, 3, 9), (2, 8, 8)):
        pixels = torch.randn(rows, 8, *side)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(pixels)[0], module.upsampler(pixels), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        None,
        nn.Linear(2, 2),
        nn.Conv2d(2, 2, 1),
        nn.Conv2d(2, 2, 3),
        nn.Conv2d(2, 2, 3, padding=1, stride=2),
        nn.Conv2d(2, 2, 3, padding=1, groups=2),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_other_layers_are_left_alone(layer: nn.Module | None) -> None:
    assert not can_double(layer)
