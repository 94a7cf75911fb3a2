"""The LoRAs of one call's rows as tensors, usable as inputs of a compiled engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from triton_diffusers.adapters.lora.groups import grouped
from triton_diffusers.adapters.lora.layer import LoraLayer
from triton_diffusers.adapters.lora.set import LoraSet
from triton_diffusers.util.cache import LruCache


@dataclass(frozen=True, slots=True, eq=False)
class LoraBatch:
    """The LoRAs of one layer. A call's rows fall into groups of equal size, and each group has its own weights.

    ``down`` has the shape (groups, rank, in) or (groups, rank, in, height, width); ``up`` has (groups, out, rank).
    Smaller ranks are padded with zeros.
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Return the memory of both weights."""
        return self.down.nbytes + self.up.nbytes

    def add(self, layer: nn.Linear | nn.Conv2d, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Add to the ``output`` of a layer for ``inputs``; both begin with the rows."""
        if isinstance(layer, nn.Conv2d):
            self.add_convolution(layer, inputs, output)
        else:
            self.add_linear(inputs, output)

    def add_linear(self, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Add to the ``output`` (rows, …, out) of a linear layer for ``inputs`` (rows, …, in)."""
        down = self.down.flatten(2)  # the kernel of a 1×1 convolution
        hidden = torch.bmm(inputs.reshape(len(down), -1, down.shape[2]), down.transpose(1, 2))
        self._add_up(hidden, output)

    def add_convolution(self, layer: nn.Conv2d, inputs: torch.Tensor, output: torch.Tensor) -> None:
        """Add to the ``output`` (rows, out, height, width) of a convolution for ``inputs``."""
        # Channels last, like the engine's own: then all but the first convolution is an in-place matrix product.
        pixels = output.permute(0, 2, 3, 1)
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding == (0, 0):
            self.add_linear(inputs.permute(0, 2, 3, 1), pixels)
            return
        # One call per group: a grouped convolution would first have to move the rows of a group into channels.
        parts = zip(inputs.chunk(len(self.down)), self.down, strict=True)
        hidden = torch.cat(
            [functional.conv2d(rows, down, None, layer.stride, layer.padding, layer.dilation) for rows, down in parts]
        )
        self._add_up(hidden.permute(0, 2, 3, 1).reshape(len(self.up), -1, self.up.shape[2]), pixels)

    def _add_up(self, hidden: torch.Tensor, output: torch.Tensor) -> None:
        """Add ``up hidden``, of shape (groups, n, rank), in place."""
        up = self.up.transpose(1, 2)
        if output.is_contiguous():
            output.view(len(up), -1, up.shape[2]).baddbmm_(hidden, up)
        else:
            output += torch.bmm(hidden, up).view(output.shape)


@dataclass(frozen=True, slots=True, eq=False)
class LoraBatches:
    """The ``LoraBatch`` of every changed layer, by module path."""

    layers: Mapping[str, LoraBatch]

    @property
    def nbytes(self) -> int:
        """Return the memory of all weights."""
        return sum(layer.nbytes for layer in self.layers.values())


class LoraStacker:
    """Makes the batches of calls on one model (``unet`` or ``text_encoder``), and caches the latest.

    The rows of a call stay the same from step to step until a request joins or leaves.
    """

    def __init__(self, model: str, device: torch.device, dtype: torch.dtype, cache: LruCache[Any, Any]) -> None:
        self._model, self._device, self._dtype, self._cache = model, device, dtype, cache

    def stack(self, rows: Sequence[LoraSet | None]) -> Mapping[str, LoraBatch]:
        """Return the batches for a call's rows, by module path; empty if no row changes this model."""
        sets = grouped(rows)
        key = (self._model, tuple(None if loras is None else loras.key for loras in sets))
        kept: LoraBatches | None = self._cache.get(key)
        if kept is None:
            layers = [loras.of_model(self._model) if loras is not None else {} for loras in sets]
            paths = {path for found in layers for path in found}
            kept = LoraBatches({path: self._batch([found.get(path) for found in layers]) for path in paths})
            self._cache.put(key, kept)
        return kept.layers

    def _batch(self, layers: Sequence[LoraLayer | None]) -> LoraBatch:
        present = [layer for layer in layers if layer is not None]
        rank, like = max(layer.rank for layer in present), present[0]
        if len(layers) == 1:
            down, up = (weight.to(self._device, self._dtype) for weight in (like.down, like.up))
            return LoraBatch(down[None], up[None])
        down = torch.zeros(len(layers), rank, *like.down.shape[1:], device=self._device, dtype=self._dtype)
        up = torch.zeros(len(layers), len(like.up), rank, device=self._device, dtype=self._dtype)
        for group, layer in enumerate(layers):
            if layer is not None:
                down[group, : layer.rank] = layer.down
                up[group, :, : layer.rank] = layer.up
        return LoraBatch(down, up)
