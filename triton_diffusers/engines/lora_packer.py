"""LoRAs of a call's rows as graph inputs."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch

from triton_diffusers.adapters.lora import LoraLayer, LoraSet, grouped
from triton_diffusers.engines.graphs import MAX_RANK, LoraLayout
from triton_diffusers.util.cache import LruCache

# Limit of a call's LoRA inputs. All layers are padded to the highest rank, so a small file could need gigabytes.
_MAX_BYTES = 512 * 2**20


class PackedLora:
    """``down`` and ``up`` of all layers, layout by layout (see ``LoraLayout``)."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = tensors

    @property
    def nbytes(self) -> int:
        """Total size in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)


class LoraPacker:
    """Packer of LoRA inputs for one model (``unet`` or ``text_encoder``), with an LRU cache.

    ``part`` holds the layer paths of a partial graph; changes to other layers are ignored.
    """

    def __init__(
        self, model: str, layouts: Sequence[LoraLayout], cache: LruCache[Any, Any], part: Container[str] | None = None
    ) -> None:
        self._model, self._layouts, self._cache, self._part = model, layouts, cache, part
        self._none = PackedLora(tuple(tensor for layout in layouts for tensor in layout.empty()))

    def pack(self, rows: Sequence[LoraSet | None] | None) -> tuple[torch.Tensor, ...] | None:
        """Return the inputs for a call's rows; None if the graph does not support their LoRAs, alone or together."""
        if rows is None or not any(rows):
            return self._none.tensors
        sets = grouped(rows)
        key = (self._layouts, tuple(None if loras is None else loras.key for loras in sets))
        packed: PackedLora | None = self._cache.get(key)
        if packed is None:
            groups = [self._layers(loras) for loras in sets]
            if any(self._is_changed_otherwise(loras) for loras in sets) or not self._fits(groups):
                return None
            packed = self._packed(groups)
            self._cache.put(key, packed)
        return packed.tensors

    def takes(self, loras: LoraSet | None) -> bool:
        """Return True if the graph supports calls whose rows all have these LoRAs.

        It supports low-rank changes only, up to a maximum size.
        """
        return loras is None or (not self._is_changed_otherwise(loras) and self._fits([self._layers(loras)]))

    def _is_changed_otherwise(self, loras: LoraSet | None) -> bool:
        """Return True if a change of the graph's layers is not low-rank."""
        changes = loras.changes_of(self._model) if loras is not None else {}
        return any(self._part is None or path in self._part for path in changes)

    def _layers(self, loras: LoraSet | None) -> Mapping[str, LoraLayer]:
        layers = loras.of_model(self._model) if loras is not None else {}
        return {path: layer for path, layer in layers.items() if self._part is None or path in self._part}

    def _fits(self, groups: Sequence[Mapping[str, LoraLayer]]) -> bool:
        ranks = [_rank(groups, layout) for layout in self._layouts]
        numbers = sum(
            rank * (sum(layout.ins) + sum(layout.outs)) for rank, layout in zip(ranks, self._layouts, strict=True)
        )
        if max(ranks) > MAX_RANK or len(groups) * numbers * torch.float32.itemsize > _MAX_BYTES:
            return False
        return all(any(path in layout.sizes for layout in self._layouts) for layers in groups for path in layers)

    def _packed(self, groups: Sequence[Mapping[str, LoraLayer]]) -> PackedLora:
        if not any(groups):
            return self._none
        return PackedLora(tuple(tensor for layout in self._layouts for tensor in _pack(groups, layout)))


def _pack(groups: Sequence[Mapping[str, LoraLayer]], layout: LoraLayout) -> tuple[torch.Tensor, torch.Tensor]:
    rank = _rank(groups, layout)
    if rank == 0:
        return layout.empty()
    down = torch.zeros(len(groups), rank, sum(layout.ins))
    up = torch.zeros(len(groups), sum(layout.outs), rank)
    places = (pairwise(accumulate(sizes, initial=0)) for sizes in (layout.ins, layout.outs))
    for path, ins, outs in zip(layout.sizes, *places, strict=True):
        for group, layers in enumerate(groups):
            if (layer := layers.get(path)) is not None:
                # For convolutions: all inputs of each tap.
                down[group, : layer.rank, slice(*ins)] = layer.down.movedim(1, -1).flatten(1)
                up[group, slice(*outs), : layer.rank] = layer.up
    return down, up


def _rank(groups: Sequence[Mapping[str, LoraLayer]], layout: LoraLayout) -> int:
    return max((layer.rank for layers in groups for path, layer in layers.items() if path in layout.sizes), default=0)
