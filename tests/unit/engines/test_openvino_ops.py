"""Lowering of operations for OpenVINO; unsupported ones are traced again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import pytest
import torch
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.compilers import COMPILERS
from triton_diffusers.engines.graphs.graph import ROWS, Graph, Input

WEIGHT = torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0))

WORDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "conv2d": lambda x: functional.conv2d(x, WEIGHT),
    "conv2d with all": lambda x: functional.conv2d(x, WEIGHT[:, :1], torch.arange(6.0), 2, (1, 2), 2, 3),
    "group_norm": lambda x: functional.group_norm(x, 3),
    "group_norm with all": lambda x: functional.group_norm(x, 1, torch.arange(3.0), torch.ones(3), 0.5),
    "group_norm of three dimensions": lambda x: functional.group_norm(
        x.reshape(x.shape[0], 3, 20), 3, torch.arange(3.0)
    ),
    "layer_norm": lambda x: functional.layer_norm(x, (4, 5)),
    "layer_norm with all": lambda x: functional.layer_norm(x, (5,), torch.arange(5.0), torch.ones(5), 0.5),
    "chunk": lambda x: torch.cat(x.chunk(2, dim=3)[::-1], dim=3),
    "pad": lambda x: functional.pad(x, (0, 1, 2, 0)),
    "pad with a value": lambda x: functional.pad(x, (0, 1), value=2.5),
    "reshape": lambda x: x.transpose(1, 2).reshape(x.shape[0], -1),
    "contiguous": lambda x: x.transpose(1, 2).contiguous() + 1,
    "dropout": lambda x: functional.dropout(x, 0.5, training=False) * 2,
    "to": lambda x: (x * 3).to(torch.int32).to(torch.float32),
}
OTHERS: dict[str, Callable[[torch.Tensor], Any]] = {
    "in place": lambda x: _written(x.clone()),
    "pad by reflection": lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect"),
}


def _written(x: torch.Tensor) -> torch.Tensor:
    view = x[:, 0]
    view.mul_(2)
    return x + 1


class Module(nn.Module):
    def __init__(self, compute: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self._compute = compute

    def forward(self, data: torch.Tensor) -> Any:
        return self._compute(data)


def assert_computed(compute: Callable[[torch.Tensor], Any], folder: Path) -> None:
    data, compiler = torch.randn(4, 3, 4, 5, generator=torch.Generator().manual_seed(1)), COMPILERS["openvino"]()
    compiler.compile(
        Graph("a graph", Module(compute), (Input("data", data, {0: ROWS}),), ("result",)), folder, "float32"
    )
    (computed,) = compiler.load(folder, "float32")(data[:3])
    torch.testing.assert_close(computed, compute(data[:3]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", WORDS)
def test_lowered_operations_match_pytorch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(TorchFXPythonDecoder, "from_exported_program")
    assert_computed(WORDS[name], tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_unsupported_operations_are_traced_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced, trace = [], TorchFXPythonDecoder.from_exported_program

    def counted(*args: Any, **options: Any) -> Any:
        traced.append(args)
        return trace(*args, **options)

    monkeypatch.setattr(TorchFXPythonDecoder, "from_exported_program", counted)
    assert_computed(OTHERS[name], tmp_path)
    assert len(traced) == 1


def test_group_norm_has_no_data_dependent_shapes(tmp_path: Path) -> None:
    """Avoid data-dependent shapes, with which OpenVINO keeps more memory."""
    sides = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    module = nn.GroupNorm(2, 6)
    data = torch.randn(3, 6, 8, 7)
    COMPILERS["openvino"]().compile(
        Graph("a graph", module, (Input("data", data, {0: ROWS, **sides}),), ("result",)), tmp_path, "float32"
    )
    model = openvino.Core().read_model(tmp_path / "graph.xml")
    kinds = [op.get_type_name() for op in model.get_ops()]
    assert "MVN" in kinds
    assert not {"ShapeOf", "GroupNormalization"} & set(kinds)
    (computed,) = COMPILERS["openvino"]().load(tmp_path, "float32")(data[:2, :, :5])
    with torch.inference_mode():
        torch.testing.assert_close(computed, module(data[:2, :, :5]), rtol=0, atol=1e-4)
