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
    """A network, its inputs in the order that ``module`` takes them, and what its outputs are called.

    ``weights`` are inputs after the others, if what is compiled is to have none of its own: they stay the same from
    call to call.
    """

    name: str
    module: nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    weights: tuple[Input, ...] = ()

    @property
    def example(self) -> Inputs:
        """Inputs to trace it with."""
        return tuple(port.example for port in (*self.inputs, *self.weights))

    @torch.no_grad()
    def export(self, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
        """The network in PyTorch's portable form. It is moved to ``device`` and ``dtype`` for good.

        Batch, height, width, LoRA groups and rank stay free.
        """
        return torch.export.export(
            _Flat(self.module.to(device, dtype).eval()),
            (
                *(port.example.to(device) for port in self.inputs),
                *(port.example.to(device, dtype) for port in self.weights),
            ),
            dynamic_shapes=(tuple(port.dynamic for port in (*self.inputs, *self.weights)),),
            strict=False,
        )


class _Flat(nn.Module):
    """A module of which the trace sees one list of inputs, whatever the names and the number of its own."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)
