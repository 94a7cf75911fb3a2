"""Splitting of chunked linear layers, such as values and gates of feed-forward networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.openvino.compiler import _core
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input
from triton_diffusers.engines.graphs.ops import add_lora

IN, OUT = 12, 20


class Gated(nn.Module):
    """Layer whose halves are read; ``reads`` names further readers."""

    def __init__(self, reads: str, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self._reads = nn.Linear(IN, 2 * OUT, bias=bias), reads

    def forward(self, data: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        whole = self.layer(data)
        if self._reads == "before LoRA":
            whole = add_lora(whole, data, down, up, down) + whole.mean()
        elif self._reads != "without LoRA":
            whole = add_lora(whole, data, down, up, down)
        values, gates = whole.chunk(2, dim=1 if self._reads == "other halves" else -1)
        gated = values * nn.functional.gelu(gates)
        return gated + whole.mean() if self._reads == "the whole" else gated


def graph(module: nn.Module) -> Graph:
    rank = torch.export.Dim("rank", min=0, max=64)
    return Graph(
        "a graph",
        module.eval(),
        (
            Input("data", torch.randn(4, 6, IN), {0: ROWS}),
            Input("down", torch.randn(1, 3, IN), {1: rank}),
            Input("up", torch.randn(1, 2 * OUT, 3), {2: rank}),
        ),
        ("result",),
    )


def widths(folder: Path) -> set[int]:
    """Return the last dimensions of all intermediate results with three dimensions."""
    model = _core().read_model(folder / "graph.xml")
    shapes = [op.output(0).get_partial_shape() for op in model.get_ops() if op.get_type_name() in ("MatMul", "Add")]
    return {shape[2].get_length() for shape in shapes if shape.rank.get_length() == 3 and not shape[2].is_dynamic}


@pytest.mark.parametrize(
    ("module", "apart"),
    [
        (Gated(""), True),
        (Gated("", bias=False), True),
        (Gated("without LoRA"), True),
        (Gated("the whole"), False),
        (Gated("before LoRA"), False),
        (Gated("other halves"), False),
    ],
    ids=lambda value: f"{value._reads or 'halves'}" if isinstance(value, Gated) else str(value),
)
def test_chunked_linear_layers_are_split(module: Gated, apart: bool, tmp_path: Path) -> None:
    compiler = COMPILERS["openvino"]()
    compiler.compile(graph(module), tmp_path, "float32")
    assert (2 * OUT not in widths(tmp_path)) is apart
    compiled = compiler.load(tmp_path, "float32")
    for rows, rank in ((3, 0), (2, 5)):
        call = torch.randn(rows, 6, IN), torch.randn(1, rank, IN), torch.randn(1, 2 * OUT, rank)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(*call)[0], module(*call), rtol=1e-5, atol=1e-4)


class Bare(nn.Module):
    """Gated layer whose weight is an input."""

    def forward(self, data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        values, gates = nn.functional.linear(data, weight).chunk(2, dim=-1)
        return values * gates


def test_a_layer_without_weights_of_its_own_stays_whole(tmp_path: Path) -> None:
    data, weight = torch.randn(4, 6, IN), torch.randn(2 * OUT, IN)
    compiler = COMPILERS["openvino"]()
    bare = Graph("bare", Bare(), (Input("data", data, {0: ROWS}),), ("result",), (Input("weight", weight, {}),))
    compiler.compile(bare, tmp_path, "float32")
    (computed,) = compiler.bind(tmp_path, "float32", {"weight": weight})(data)
    torch.testing.assert_close(computed, Bare()(data, weight), rtol=0, atol=1e-4)
