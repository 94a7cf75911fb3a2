"""OpenVINO graphs in int8: accuracy, calibration, and the layers that stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.engines.test_openvino import added, inputs, relative_error, small, small_inputs, tiny
from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.compilers.openvino.compiler import _core
from triton_diffusers.engines.graphs import Graph, Input
from triton_diffusers.engines.graphs.graph import ROWS


def test_int8_is_accurate_and_needs_calibration(tmp_path: Path) -> None:
    graph, compiler = small(), COMPILERS["openvino"]()
    with pytest.raises(ValueError, match="calibration"):
        compiler.compile(graph, tmp_path, "int8")
    plain = [small_inputs(rows, 1, 0) for rows in (1, 2)]
    compiler.compile(graph, tmp_path, "int8", plain)
    compiled = compiler.load(tmp_path, "int8")
    for call in (plain[1], small_inputs(4, 2, 4)):
        with torch.inference_mode():
            expected = graph.module(*call)
        (computed,) = compiled(*call)
        assert 1e-4 < relative_error(computed, expected) < 0.2


def test_int8_keeps_the_text_encoders_weights_small(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
    data = torch.randn(4, 7, 256)
    graph = Graph("text_encoder", module, (Input("data", data, {0: ROWS}),), ("states",))
    COMPILERS["openvino"]().compile(graph, tmp_path, "int8")
    assert (tmp_path / "graph.bin").stat().st_size < 1.1 * (256 * 512 * 2)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    run = _core().compile_model(tmp_path / "graph.xml", "CPU", options).get_runtime_model()
    weights = [node.get_input_element_type(1) for node in run.get_ops() if layer(node)["layerType"] == "FullyConnected"]
    assert [str(kind) for kind in weights] == ["<Type: 'uint8_t'>"] * 2, "they stay small in memory"
    with torch.inference_mode():
        expected = module(data[:3])
    (computed,) = COMPILERS["openvino"]().load(tmp_path, "int8")(data[:3])
    assert 0 < relative_error(computed, expected) < 0.02


def layer(node: Any) -> dict[str, str]:
    """Return OpenVINO's type of a layer that it runs."""
    return {key: value.astype(str) for key, value in node.get_rt_info().items()}


class Attending(nn.Module):
    """One layer of self-attention with heads of 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        heads = [layer(latents).unflatten(2, (2, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
        output: torch.Tensor = self.out(nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
        return output


INT8 = ({"u8"}, {"i8"}, {"u8", "i8"})


@pytest.mark.parametrize("has_int8_products", [None, False])
def test_int8_leaves_attention_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_int8_products: bool | None
) -> None:
    """Keep attention fused; otherwise all products of queries and keys are in memory, gigabytes for large images."""
    if has_int8_products is not None:  # as on processors without
        monkeypatch.setattr(COMPILERS["openvino"], "_has_int8_products", has_int8_products)
    latents = torch.randn(4, 20, 16)
    rows, tokens = ROWS, torch.export.Dim("tokens", min=2)
    graph, compiler = (
        Graph("unet", Attending(), (Input("latents", latents, {0: rows, 1: tokens}),), ("out",)),
        COMPILERS["openvino"](),
    )
    compiler.compile(graph, tmp_path, "int8", [(latents,)])
    compiled = compiler.load(tmp_path, "int8")
    layers = [layer(node) for node in compiled._compiled.get_runtime_model().get_ops()]
    assert "Softmax" not in {one["layerType"] for one in layers}
    products = {one["runtimePrecision"] for one in layers if one["layerType"] == "FullyConnected"}
    assert products in INT8, "it is quantized"
    attention = {one["runtimePrecision"] for one in layers if one["layerType"] == "Subgraph"}
    assert (attention & {"u8", "i8"} != set()) == compiler._has_int8_products
    with torch.inference_mode():
        assert 0 < relative_error(compiled(latents)[0], graph.module(latents)) < 0.05


def test_int8_of_one_size_is_that_of_all(tmp_path: Path) -> None:
    """Keep the quantization of the sum of a layer and a LoRA when the LoRA input is stripped."""
    graph, compiler = tiny("1.5"), COMPILERS["openvino"]()
    data = inputs(graph, 2, 1, (16, 16), 0)
    compiler.compile(graph, tmp_path, "int8", [data])
    shapes = {given.name: tuple(tensor.shape) for given, tensor in zip(graph.inputs[:3], data, strict=False)}
    fixed = compiler.load(tmp_path, "int8", shapes=shapes)
    with torch.inference_mode():
        exact = graph.module(*data)[0]
    of_all, of_one = (
        relative_error(computed[0], exact) for computed in (compiler.load(tmp_path, "int8")(*data), fixed(*data[:3]))
    )
    assert 0 < of_one < 1.2 * of_all < 0.2
    layers = [layer(node) for node in fixed._compiled.get_runtime_model().get_ops()]
    assert "FullyConnected" in {one["layerType"] for one in layers if one["runtimePrecision"] in ("u8", "i8")}


def test_int8_has_no_range_for_residuals(tmp_path: Path) -> None:
    """Calibrate with inputs of which half have no residuals."""
    graph = added()
    latents, residual = torch.randn(2, 4, 16, 12), torch.randn(2, 64, 16, 12) * 0.3
    none = torch.zeros(1, 1, 1, 1)
    compiler = COMPILERS["openvino"]()
    compiler.compile(graph, tmp_path, "int8", [(latents, none), (latents, residual)])
    compiled = compiler.load(tmp_path, "int8")
    for call in ((latents, none), (latents, residual), (latents, residual * 0.5), (latents[:1], residual[1:])):
        with torch.inference_mode():
            expected = graph.module(*call)
        (computed,) = compiled(*call)
        assert 1e-4 < relative_error(computed, expected) < 0.2
