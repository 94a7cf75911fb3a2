"""Graphs that are recompiled for new shapes."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.unit.conftest import ROOT
from triton_diffusers.engines.compiled import load_compiled
from triton_diffusers.engines.compilers import COMPILERS, Shapes
from triton_diffusers.engines.compilers.loading import LoadingGraphs
from triton_diffusers.engines.compilers.openvino.compiler import FittedGraph
from triton_diffusers.engines.graph_names import VAE_DECODER
from triton_diffusers.settings import Settings


class Fixed:
    """Graph that returns the shapes it was compiled for."""

    released = 0

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert [tensor.shape for tensor in inputs] == list(self.shapes.values())
        return (torch.tensor(inputs[0].numel()),)

    def release(self) -> None:
        self.released += 1


class Compilations:
    """Compiler that records each graph and whether another one was alive."""

    def __init__(self) -> None:
        self.shapes: list[Shapes] = []
        self.beside: list[bool] = []
        self.last: weakref.ref[Fixed] | None = None

    def __call__(self, shapes: Shapes) -> Fixed:
        self.beside.append(self.last is not None and self.last() is not None)
        self.shapes.append(shapes)
        made = Fixed(shapes)
        self.last = weakref.ref(made)
        return made


def test_fitted_graph_is_recompiled_only_for_new_shapes() -> None:
    graph = FittedGraph(["latents", "mask"], compilations := Compilations())
    graph.release()
    assert compilations.shapes == []
    for side in (4, 4, 6, 6, 4):
        assert graph(torch.zeros(1, side), torch.zeros(side))[0] == side
    assert compilations.shapes == [{"latents": (1, side), "mask": (side,)} for side in (4, 6, 4)]
    assert not any(compilations.beside), "the one before it is gone by then"
    graph.release()
    assert compilations.last is not None
    made = compilations.last()
    assert made is not None
    assert made.released == 1


def test_failed_compilation_is_retried() -> None:
    compilations, fails = Compilations(), True

    def compile_or_fail(shapes: Shapes) -> Fixed:
        if fails:
            raise RuntimeError("no memory")
        return compilations(shapes)

    graph = FittedGraph(["latents"], compile_or_fail)
    with pytest.raises(RuntimeError, match="no memory"):
        graph(torch.zeros(3))
    fails = False
    assert graph(torch.zeros(3))[0] == 3


def test_openvino_computes_the_same_of_all_sizes_with_one_file(folders: Mapping[str, Path]) -> None:
    compiler = COMPILERS["openvino"]()
    fitted = compiler.load_fitted(folders[VAE_DECODER], "float32")
    free = compiler.load(folders[VAE_DECODER], "float32")
    for height, width in ((16, 16), (5, 7), (5, 7), (16, 16)):
        latents = torch.randn(1, 4, height, width)
        for _ in range(2):
            torch.testing.assert_close(fitted(latents), free(latents), rtol=0, atol=1e-4)
            fitted.release()


def test_autoencoder_graphs_are_fitted(folders: Mapping[str, Path], tmp_path: Path) -> None:
    settings = Settings(model_dir=ROOT / "models" / "emoji", dtype="float32", runtime_dir=tmp_path)
    engine = load_compiled(settings, LoadingGraphs("openvino", "float32", folders, {}))
    fitted = {name for name, graph in engine._graphs.items() if isinstance(graph, FittedGraph)}
    assert fitted == {"vae_encoder", "vae_decoder"}
