"""Cost of unused LoRA inputs: shapes once for all layers, and nothing as large as a layer's output."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests import lora_files
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.openvino.compiler import _core
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.lora import lora_applied, lora_inputs, lora_layouts

CHANNELS = 16


class Layers(nn.Module):
    """Several pointwise layers of both kinds."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolutions = nn.Sequential(*(nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(layers)))
        self.linear = nn.Sequential(*(nn.Linear(CHANNELS, CHANNELS) for _ in range(layers)))
        self.layouts = lora_layouts("unet", self)

    def forward(self, pixels: torch.Tensor, *packed: torch.Tensor) -> torch.Tensor:
        with lora_applied(self.layouts, "unet", self, packed):
            tokens = self.convolutions(pixels).flatten(2).transpose(1, 2)
            output: torch.Tensor = self.linear(tokens)
        return output


def compiled(layers: int, folder: Path) -> tuple[Layers, Any]:
    module = Layers(layers).eval()
    pixels = Input("pixels", torch.zeros(4, CHANNELS, 6, 5), {0: ROWS})
    compiler = COMPILERS["openvino"]()
    folder.mkdir()
    compiler.compile(Graph("layers", module, (pixels, *lora_inputs(module.layouts)), ("tokens",)), folder, "float32")
    return module, compiler.load(folder, "float32")


def operations(folder: Path) -> Counter[str]:
    return Counter(op.get_type_name() for op in _core().read_model(folder / "graph.xml").get_ops())


@pytest.mark.parametrize(("rows", "groups", "rank"), [(1, 1, 0), (4, 1, 0), (4, 1, 3), (4, 2, 3), (3, 3, 1)])
def test_openvino_lora_matches_pytorch(rows: int, groups: int, rank: int, tmp_path: Path) -> None:
    module, graph = compiled(2, tmp_path / "graph")
    size = 4 * CHANNELS
    call = torch.randn(rows, CHANNELS, 6, 5), torch.randn(groups, rank, size), torch.randn(groups, size, rank)
    with torch.inference_mode():
        torch.testing.assert_close(graph(*call)[0], module(*call), rtol=1e-4, atol=1e-3)


def test_lora_sizes_are_computed_once(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    compiled(1, few)
    compiled(5, many)
    for found in (operations(few), operations(many)):
        assert found["Maximum"] == 1
        assert found["Multiply"] == 1


def test_without_lora_no_image_is_put_into_another_order(tmp_path: Path) -> None:
    """Read only one position of each input with a LoRA."""
    compiled(2, tmp_path / "graph")
    model = _core().read_model(tmp_path / "graph" / "graph.xml")
    transposed = [op for op in model.get_ops() if op.get_type_name() == "Transpose"]
    read = [op.input_value(0).get_node().get_type_name() for op in transposed]
    # Per convolution: inputs to the LoRA and back, plus this test's own flattening.
    assert sorted(read) == sorted(["Slice", "Reshape"] * 2 + ["Reshape"])


class Convolutions(nn.Module):
    """Kernels of every kind that a UNet might have, and one without padding."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        kernels = (
            nn.Conv2d(6, 8, 3, padding=1),
            nn.Conv2d(8, 10, 3, stride=2, padding=1),
            nn.Conv2d(10, 8, 3),
            nn.Conv2d(8, 8, 1, stride=2),
            nn.Conv2d(8, 4, (3, 1), padding=(2, 0), dilation=2),
        )
        self.layers = nn.Sequential(*kernels[:layers])
        self.layouts = lora_layouts("unet", self)

    def forward(self, pixels: torch.Tensor, *packed: torch.Tensor) -> torch.Tensor:
        with lora_applied(self.layouts, "unet", self, packed):
            output: torch.Tensor = self.layers(pixels)
        return output


def convolutions(layers: int = 5) -> Graph:
    module = Convolutions(layers).eval()
    sides = {axis: torch.export.Dim(f"side_{axis}", min=16, max=512) for axis in (2, 3)}
    pixels = Input("pixels", torch.zeros(4, 6, 34, 26), {0: ROWS, **sides})
    return Graph("convolutions", module, (pixels, *lora_inputs(module.layouts)), ("outputs",))


def test_convolutions_have_loras_too(tmp_path: Path) -> None:
    check_convolutions(convolutions(), "openvino", tmp_path)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`isinstance.treespec:FutureWarning")
def test_convolutions_have_loras_in_inductors_packages_too(tmp_path: Path) -> None:
    check_convolutions(convolutions(layers=1), "inductor", tmp_path)


def check_convolutions(graph: Graph, compiler: str, folder: Path) -> None:
    COMPILERS[compiler]().compile(graph, folder, "float32")
    compiled = COMPILERS[compiler]().load(folder, "float32")
    for rows, groups, rank, *side in ((1, 1, 0, 16, 16), (4, 1, 0, 33, 18), (4, 2, 3, 16, 21), (6, 3, 5, 32, 40)):
        pixels = torch.randn(rows, 6, *side)
        packed = lora_files.random_inputs(graph.module.layouts, groups, rank)
        with torch.inference_mode():
            expected, plain = graph.module(pixels, *packed), graph.module.layers(pixels)
        torch.testing.assert_close(compiled(pixels, *packed)[0], expected, rtol=0, atol=1e-4)
        assert rank == 0 or (expected - plain).abs().max() > 0.01


def test_without_lora_no_convolution_reads_or_writes_an_image(tmp_path: Path) -> None:
    """Cut its inputs to one position before anything else reads them."""
    COMPILERS["openvino"]().compile(convolutions(), tmp_path, "float32")
    model = _core().read_model(tmp_path / "graph.xml")
    folds = [op for op in model.get_ops() if op.get_friendly_name().startswith("lora_fold_")]
    assert len(folds) == 5
    kinds = Counter(op.get_type_name() for op in model.get_ops())
    assert kinds["Slice"] == 5
    assert kinds["Convolution"] == 10
