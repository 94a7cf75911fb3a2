"""The LoRAs of a call's rows as inputs of a graph."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch

from triton_diffusers.adapters.lora import LoraLayer, LoraSet, grouped
from triton_diffusers.engines.graphs import MOST_RANK, LoraLayout
from triton_diffusers.util.cache import LruCache

# Of a call's inputs. They are as large for all layers as for the one of the highest rank: a small file could ask for
# gigabytes.
_MOST_BYTES = 512 * 2**20


class PackedLora:
    """All layers' ``down`` and ``up``, as ``LoraLayout`` describes them, layout by layout."""

    def __init__(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self.tensors = tensors

    @property
    def nbytes(self) -> int:
        """Memory of all."""
        return sum(tensor.nbytes for tensor in self.tensors)


class LoraPacker:
    """Makes the LoRA inputs of calls on one model (``unet`` or ``text_encoder``), and keeps the latest of them.

    ``part`` holds the paths of a graph's layers if it is a part of the model: what is changed elsewhere is not its
    concern.
    """

    def __init__(
        self, model: str, layouts: Sequence[LoraLayout], cache: LruCache[Any, Any], part: Container[str] | None = None
    ) -> None:
        self._model, self._layouts, self._cache, self._part = model, layouts, cache, part
        self._none = PackedLora(tuple(tensor for layout in layouts for tensor in layout.empty()))

    def pack(self, rows: Sequence[LoraSet | None] | None) -> tuple[torch.Tensor, ...] | None:
        """The inputs for a call's rows; none if the graph does not take some row's LoRAs, or not all at once."""
        if rows is None or not any(rows):
            return self._none.tensors
        sets = grouped(rows)
        key = (self._layouts, tuple(None if loras is None else loras.key for loras in sets))
        kept: PackedLora | None = self._cache.get(key)
        if kept is None:
            groups = [self._layers(loras) for loras in sets]
            if any(self._is_changed_otherwise(loras) for loras in sets) or not self._fits(groups):
                return None
            kept = self._packed(groups)
            self._cache.put(key, kept)
        return kept.tensors

    def takes(self, loras: LoraSet | None) -> bool:
        """Whether the graph can compute rows that all have these LoRAs.

        It cannot if they change more than by low rank, or if the inputs would be too large.
        """
        return loras is None or (not self._is_changed_otherwise(loras) and self._fits([self._layers(loras)]))

    def _is_changed_otherwise(self, loras: LoraSet | None) -> bool:
        """True if a layer of the graph is changed by something that is not of low rank."""
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
        if max(ranks) > MOST_RANK or len(groups) * numbers * torch.float32.itemsize > _MOST_BYTES:
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
                # Of a convolution, all inputs of each tap.
                down[group, : layer.rank, slice(*ins)] = layer.down.movedim(1, -1).flatten(1)
                up[group, slice(*outs), : layer.rank] = layer.up
    return down, up


def _rank(groups: Sequence[Mapping[str, LoraLayer]], layout: LoraLayout) -> int:
    return max((layer.rank for layers in groups for path, layer in layers.items() if path in layout.sizes), default=0)
