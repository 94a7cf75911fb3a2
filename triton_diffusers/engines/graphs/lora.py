"""LoRA as graph inputs: concatenated ``down`` and ``up`` weights of many layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from triton_diffusers.adapters.lora import lora_modules
from triton_diffusers.engines.graphs.graph import Input
from triton_diffusers.engines.graphs.ops import add_convolution_lora, add_lora

_Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor]

MAX_RANK = 4096  # sum over a row's LoRAs


@dataclass(frozen=True, slots=True, eq=False)
class LoraLayout:
    """Layers that share one pair of LoRA inputs, with their sizes (in, out).

    ``down`` has the shape (groups, rank, sum of all in), ``up`` (groups, sum of all out, rank). A call's rows form
    ``groups`` of equal size, each with its own weights. Rank 0 means no LoRA. Inputs of a convolution count once per
    tap of its kernel, and are ordered by tap in ``down``.
    """

    sizes: Mapping[str, tuple[int, int]]
    name: str = "lora"

    @property
    def ins(self) -> list[int]:
        """Number of inputs of each layer."""
        return [size for size, _ in self.sizes.values()]

    @property
    def outs(self) -> list[int]:
        """Number of outputs of each layer."""
        return [size for _, size in self.sizes.values()]

    def empty(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs for calls without LoRA."""
        return torch.zeros(1, 0, sum(self.ins)), torch.zeros(1, sum(self.outs), 0)

    def inputs(self) -> tuple[Input, Input]:
        """Return ``down`` and ``up`` as graph inputs for tracing."""
        groups = torch.export.Dim(f"{self.name}_groups", min=1, max=1024)
        rank = torch.export.Dim(f"{self.name}_rank", min=0, max=MAX_RANK)
        return (
            Input(f"{self.name}_down", torch.zeros(2, 3, sum(self.ins)), {0: groups, 1: rank}),
            Input(f"{self.name}_up", torch.zeros(2, sum(self.outs), 3), {0: groups, 2: rank}),
        )


def lora_layouts(name: str, module: nn.Module) -> tuple[LoraLayout, ...]:
    """Return the layouts of the module ``name``, whose weights may be on the ``meta`` device.

    The first holds pointwise layers, the second, if any, other convolutions. Most LoRAs have none of the latter, and
    their rank may differ.
    """
    layers = dict(lora_modules(name, module))
    sizes = {path: (math.prod(layer.weight.shape[1:]), layer.weight.shape[0]) for path, layer in layers.items()}
    pointwise = {path: size for path, size in sizes.items() if is_pointwise(layers[path])}
    others = {path: size for path, size in sizes.items() if path not in pointwise}
    layouts = (LoraLayout(pointwise), LoraLayout(others, "convolution_lora"))
    return tuple(layout for layout in layouts if layout.sizes)


def lora_inputs(layouts: Sequence[LoraLayout]) -> tuple[Input, ...]:
    """Return the graph inputs of all layouts, in order."""
    return tuple(port for layout in layouts for port in layout.inputs())


def is_pointwise(layer: nn.Linear | nn.Conv2d) -> bool:
    """Return True if a layer is a matrix product at each position."""
    return isinstance(layer, nn.Linear) or (layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0))


@contextmanager
def lora_applied(
    layouts: Sequence[LoraLayout], name: str, module: nn.Module, packed: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Add LoRA to ``module`` inside this context; traced code depends on the ``packed`` tensors only.

    These are ``down`` and ``up`` of each layout.
    """
    layers = dict(lora_modules(name, module))
    precision = next(module.parameters()).dtype
    tensors = iter([tensor.to(precision) for tensor in packed])
    handles = []
    for layout, down, up in zip(layouts, tensors, tensors, strict=True):
        parts = zip(layout.sizes, torch.split(down, layout.ins, 2), torch.split(up, layout.outs, 1), strict=True)
        handles += [layers[path].register_forward_hook(_adding(own, own_up, down)) for path, own, own_up in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(down: torch.Tensor, up: torch.Tensor, packed: torch.Tensor) -> _Hook:
    def add(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor
        if is_pointwise(layer):
            summed = add_lora(output, inputs[0], down, up, packed)
        else:
            shape = layer.kernel_size, layer.stride, layer.padding, layer.dilation
            summed = add_convolution_lora(output, inputs[0], down, up, packed, *shape)
        return summed

    return add
