"""Compiled graphs whose weights are inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from triton_diffusers.engines.compilers.protocol import CompiledGraph, IncompatibleWeights

if TYPE_CHECKING:
    from triton_diffusers.engines.graphs import Graph

_FILE = "weights.json"


class BoundGraph:
    """A graph with fixed weights, passed at each call; for compilers that cannot compile them in."""

    def __init__(self, graph: CompiledGraph, weights: tuple[torch.Tensor, ...]) -> None:
        self._graph, self._weights = graph, weights

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._graph(*inputs, *self._weights)

    def release(self) -> None:
        self._graph.release()


def write_shapes(graph: Graph, folder: Path) -> None:
    """Write the names and example shapes of a graph's weights, if any, next to its files."""
    if graph.weights:
        shapes = {port.name: list(port.example.shape) for port in graph.weights}
        (folder / _FILE).write_text(json.dumps(shapes), encoding="utf-8")


def in_order(weights: Mapping[str, torch.Tensor], folder: Path) -> tuple[torch.Tensor, ...]:
    """Return the weights in the order of the graph's inputs.

    Raises:
        KeyError: a weight is missing.
    """
    return tuple(weights[name] for name in _shapes(folder))


def check_shapes(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Raise ``IncompatibleWeights`` if a shape differs from the compiled graph's example."""
    for name, shape in _shapes(folder).items():
        if list(weights[name].shape) != shape:
            raise IncompatibleWeights(f"{name} is {tuple(weights[name].shape)}, expected {tuple(shape)} as compiled")


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return shapes
