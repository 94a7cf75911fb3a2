"""A compiled graph whose weights are inputs, with the weights that it is given at every call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from triton_diffusers.engines.compilers.protocol import CompiledGraph, UnfitWeights

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Graph

_FILE = "weights.json"


class WithWeights:
    """For compilers that have no better use of weights which are known before the first call."""

    def __init__(self, graph: CompiledGraph, weights: tuple[torch.Tensor, ...]) -> None:
        self._graph, self._weights = graph, weights

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._graph(*inputs, *self._weights)

    def release(self) -> None:
        self._graph.release()


def write_shapes(graph: Graph, folder: Path) -> None:
    """Write beside a graph's files what its weights are called, if it has any, and the examples' shapes."""
    if graph.weights:
        shapes = {port.name: list(port.example.shape) for port in graph.weights}
        (folder / _FILE).write_text(json.dumps(shapes), encoding="utf-8")


def in_order(weights: Mapping[str, torch.Tensor], folder: Path) -> tuple[torch.Tensor, ...]:
    """Weights as the graph takes them. Raises ``KeyError`` for one that is missing."""
    return tuple(weights[name] for name in _shapes(folder))


def check_shapes(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Raises ``UnfitWeights`` if one has another shape than the example that the graph was compiled with."""
    for name, shape in _shapes(folder).items():
        if list(weights[name].shape) != shape:
            raise UnfitWeights(f"{name} is {tuple(weights[name].shape)}, and was {tuple(shape)} in the compilation")


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return shapes
