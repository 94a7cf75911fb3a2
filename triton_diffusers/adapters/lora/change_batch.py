"""Full-rank changes in a call whose rows have different ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from triton_diffusers.adapters.lora.set import WeightedChanges
from triton_diffusers.adapters.lora.targets import Target


@dataclass(frozen=True, slots=True, eq=False)
class ChangeBatch:
    """The changes of one layer, for each group of rows of equal size.

    They are computed in each call, layer by layer, and dropped: those of a whole model may be as large as the model.
    """

    groups: Sequence[WeightedChanges]

    def add(self, layer: Target, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Add to the ``output`` of a layer for ``inputs``; both begin with the rows."""
        count = len(self.groups)
        for changes, rows, added_to in zip(self.groups, inputs.chunk(count), output.chunk(count), strict=True):
            if changes:
                added_to += _changed(layer, rows, changes)


def _changed(layer: Target, rows: torch.Tensor, changes: WeightedChanges) -> torch.Tensor:
    """Return the layer's output with only its changes as weights, which is their effect: all layers are linear."""
    own, weight, bias = layer.weight, torch.zeros_like(layer.weight, dtype=torch.float32), None
    for change, factor in changes:
        if change.weight is not None:
            weight.add_(change.weight.of(own), alpha=factor)
        if change.bias is not None:
            scaled = change.bias.to(own.device) * factor
            bias = scaled if bias is None else bias + scaled
    return _apply(layer, rows, weight.to(own.dtype), None if bias is None else bias.to(own.dtype))


def _apply(layer: Any, rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if isinstance(layer, nn.Conv2d):
        return functional.conv2d(rows, weight, bias, layer.stride, layer.padding, layer.dilation)
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(rows, layer.normalized_shape, weight, bias, layer.eps)
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(rows, layer.num_groups, weight, bias, layer.eps)
    return functional.linear(rows, weight, bias)
