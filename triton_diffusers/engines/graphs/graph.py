"""One of a checkpoint's networks in a form that can be exported: tensors in, tensors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = tuple[torch.Tensor, ...]

_CPU = torch.device("cpu")

ROWS = torch.export.Dim("rows", min=1, max=1024)


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A named input: an ``example`` for the trace, and its dimensions that may differ from call to call."""

    name: str
    example: torch.Tensor
    dynamic: dict[int, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network, its inputs in the order that ``module`` takes them, and what its outputs are called."""

    name: str
    module: nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]

    @property
    def example(self) -> Inputs:
        """Inputs to trace it with."""
        return tuple(graph_input.example for graph_input in self.inputs)

    @torch.no_grad()
    def export(self, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
        """The network in PyTorch's portable form. It is moved to ``device`` and ``dtype`` for good.

        Batch, height, width, LoRA groups and rank stay free.
        """
        return torch.export.export(
            self.module.to(device, dtype).eval(),
            tuple(example.to(device) for example in self.example),
            dynamic_shapes=tuple(graph_input.dynamic for graph_input in self.inputs),
            strict=False,
        )
