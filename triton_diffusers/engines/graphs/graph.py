"""Exportable form of a network: tensors in, tensors out."""

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
    """A named input with an ``example`` for tracing and its dynamic dimensions."""

    name: str
    example: torch.Tensor
    dynamic: dict[int, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A network with its inputs, in the order of ``module``'s arguments, and its output names.

    ``weights`` are additional inputs of a graph compiled without weights; they are equal in all calls.
    """

    name: str
    module: nn.Module
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    weights: tuple[Input, ...] = ()

    @property
    def example(self) -> Inputs:
        """Example inputs for tracing."""
        return tuple(port.example for port in (*self.inputs, *self.weights))

    @torch.no_grad()
    def export(self, device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> torch.export.ExportedProgram:
        """Return the exported network; moves ``module`` to ``device`` and ``dtype`` permanently.

        Batch, height, width, LoRA groups and rank are dynamic.
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
    """Wrapper whose inputs are one list, so that tracing does not depend on their names and number."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)
