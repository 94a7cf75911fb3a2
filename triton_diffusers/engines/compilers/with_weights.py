"""A compiled graph whose weights are inputs, with the weights that it is given at every call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from triton_diffusers.engines.compilers.protocol import CompiledGraph
from triton_diffusers.engines.graphs import Graph

_FILE = "weights.json"


class WithWeights:
    """For compilers that have no better use of weights which are known before the first call."""

    def __init__(self, graph: CompiledGraph, weights: tuple[torch.Tensor, ...]) -> None:
        self._graph, self._weights = graph, weights

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._graph(*inputs, *self._weights)


def write_names(graph: Graph, folder: Path) -> None:
    """Write beside a graph's files what its weights are called, if it has any."""
    if graph.weights:
        (folder / _FILE).write_text(json.dumps([port.name for port in graph.weights]), encoding="utf-8")


def in_order(weights: Mapping[str, torch.Tensor], folder: Path) -> tuple[torch.Tensor, ...]:
    """Weights as the graph takes them. Raises ``KeyError`` for one that is missing."""
    return tuple(weights[name] for name in json.loads((folder / _FILE).read_text(encoding="utf-8")))
