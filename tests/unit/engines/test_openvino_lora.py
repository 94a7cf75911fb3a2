"""What a LoRA that nobody uses costs: shapes once for all layers, and nothing as large as a layer's output."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.openvino import _core
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import LoraLayout, lora_applied

CHANNELS = 16


class Layers(nn.Module):
    """Some pointwise layers of both kinds."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolutions = nn.Sequential(*(nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(layers)))
        self.linear = nn.Sequential(*(nn.Linear(CHANNELS, CHANNELS) for _ in range(layers)))
        self.layout = LoraLayout.of("unet", self)

    def forward(self, pixels: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        with lora_applied(self.layout, "unet", self, down, up):
            tokens = self.convolutions(pixels).flatten(2).transpose(1, 2)
            output: torch.Tensor = self.linear(tokens)
        return output


def compiled(layers: int, folder: Path) -> tuple[Layers, Any]:
    module = Layers(layers).eval()
    pixels = Input("pixels", torch.zeros(4, CHANNELS, 6, 5), {0: ROWS})
    compiler = COMPILERS["openvino"]()
    folder.mkdir()
    compiler.compile(Graph("layers", module, (pixels, *module.layout.inputs()), ("tokens",)), folder, "float32")
    return module, compiler.load(folder, "float32")


def operations(folder: Path) -> Counter[str]:
    return Counter(op.get_type_name() for op in _core().read_model(folder / "graph.xml").get_ops())


@pytest.mark.parametrize(("rows", "groups", "rank"), [(1, 1, 0), (4, 1, 0), (4, 1, 3), (4, 2, 3), (3, 3, 1)])
def test_it_adds_what_pytorch_adds(rows: int, groups: int, rank: int, tmp_path: Path) -> None:
    module, graph = compiled(2, tmp_path / "graph")
    size = 4 * CHANNELS
    call = torch.randn(rows, CHANNELS, 6, 5), torch.randn(groups, rank, size), torch.randn(groups, size, rank)
    with torch.inference_mode():
        torch.testing.assert_close(graph(*call)[0], module(*call), rtol=1e-4, atol=1e-3)


def test_sizes_are_found_out_once_for_all_layers(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    compiled(1, few)
    compiled(5, many)
    for found in (operations(few), operations(many)):
        assert found["Maximum"] == 1
        assert found["Multiply"] == 1


def test_without_lora_no_picture_is_put_into_another_order(tmp_path: Path) -> None:
    """Of the inputs that have a LoRA, one place is read."""
    compiled(2, tmp_path / "graph")
    model = _core().read_model(tmp_path / "graph" / "graph.xml")
    transposed = [op for op in model.get_ops() if op.get_type_name() == "Transpose"]
    read = [op.input_value(0).get_node().get_type_name() for op in transposed]
    # For each convolution, inputs to the LoRA and back; and this test's own flattening.
    assert sorted(read) == sorted(["Slice", "Reshape"] * 2 + ["Reshape"])
