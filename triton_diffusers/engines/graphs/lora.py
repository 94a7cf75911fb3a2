"""LoRA as two inputs of a graph: all layers' ``down`` side by side, and all layers' ``up`` one below the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from triton_diffusers.engines.graphs.graph import Input
from triton_diffusers.engines.graphs.ops import add_lora
from triton_diffusers.lora import lora_modules

_Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]

MOST_RANK = 4096  # of all of a row's LoRAs together


@dataclass(frozen=True, slots=True, eq=False)
class LoraLayout:
    """Which layers of a model can have LoRA in its graph, in order, with the sizes (in, out) of each.

    ``down`` has the shape (groups, rank, sum of all in), ``up`` (groups, sum of all out, rank). A call's rows fall into
    ``groups`` of equal size, which have their own weights each. Rank 0 is no LoRA.
    """

    sizes: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, name: str, module: nn.Module) -> LoraLayout:
        """The linear layers and 1×1 convolutions of a module that is called ``name`` (weights may be ``meta``)."""
        targets = {path: layer for path, layer in lora_modules(name, module) if is_pointwise(layer)}
        return cls({path: (layer.weight.shape[1], layer.weight.shape[0]) for path, layer in targets.items()})

    @property
    def ins(self) -> list[int]:
        """Inputs of each layer."""
        return [size for size, _ in self.sizes.values()]

    @property
    def outs(self) -> list[int]:
        """Outputs of each layer."""
        return [size for _, size in self.sizes.values()]

    def empty(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The inputs of a call without LoRA."""
        return torch.zeros(1, 0, sum(self.ins)), torch.zeros(1, sum(self.outs), 0)

    def inputs(self) -> tuple[Input, Input]:
        """``down`` and ``up`` as inputs of a graph, as they are traced."""
        groups, rank = torch.export.Dim("groups", min=1, max=1024), torch.export.Dim("rank", min=0, max=MOST_RANK)
        return (
            Input("lora_down", torch.zeros(2, 3, sum(self.ins)), {0: groups, 1: rank}),
            Input("lora_up", torch.zeros(2, sum(self.outs), 3), {0: groups, 2: rank}),
        )


def is_pointwise(layer: nn.Linear | nn.Conv2d) -> bool:
    """Whether a layer is a matrix product at each place."""
    return isinstance(layer, nn.Linear) or (layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0))


@contextmanager
def lora_applied(
    layout: LoraLayout, name: str, module: nn.Module, down: torch.Tensor, up: torch.Tensor
) -> Iterator[None]:
    """Within this, ``module`` adds LoRA. What is traced here depends on the two tensors and nothing else."""
    layers = dict(lora_modules(name, module))
    precision = next(module.parameters()).dtype
    down, up = down.to(precision), up.to(precision)
    parts = zip(layout.sizes, torch.split(down, layout.ins, 2), torch.split(up, layout.outs, 1), strict=True)
    handles = [layers[path].register_forward_hook(_adding(own, own_up, down)) for path, own, own_up in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(down: torch.Tensor, up: torch.Tensor, packed: torch.Tensor) -> _Hook:
    def add(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = add_lora(output, inputs[0], down, up, packed)
        return summed

    return add
