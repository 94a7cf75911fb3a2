"""The LoRAs of one request, joined to one set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from triton_diffusers.adapters.lora.layer import LayerChange, Lora, LoraLayer
from triton_diffusers.adapters.lora.targets import TEXT_ENCODER, network_of

LoraKey = tuple[tuple[tuple[str, int, int], float], ...]
WeightedChanges = Sequence[tuple[LayerChange, float]]


@dataclass(frozen=True, slots=True)
class LoraSet:
    """Several LoRAs as one. Sets are equal if their keys are.

    ``layers`` are the low-rank ones by module path, joined along the rank, with each LoRA's weight in ``up``.
    ``changes`` are all others with their weights; each applies to the checkpoint's layer, independent of the rest.
    """

    key: LoraKey
    layers: Mapping[str, LoraLayer] = field(compare=False, repr=False)
    changes: Mapping[str, WeightedChanges] = field(compare=False, repr=False)

    @classmethod
    def of(cls, weighted: Sequence[tuple[Lora, float]]) -> LoraSet:
        """Join LoRAs with their weights."""
        parts: dict[str, list[LoraLayer]] = {}
        changes: dict[str, list[tuple[LayerChange, float]]] = {}
        for lora, weight in weighted:
            for path, layer in lora.layers.items():
                parts.setdefault(path, []).append(LoraLayer(layer.down, layer.up * weight))
            for path, change in lora.changes.items():
                changes.setdefault(path, []).append((change, weight))
        layers = {path: found[0] if len(found) == 1 else _joined(found) for path, found in parts.items()}
        return cls(cls.key_of(weighted), layers, changes)

    @staticmethod
    def key_of(weighted: Sequence[tuple[Lora, float]]) -> LoraKey:
        """Return the key of the set of these LoRAs."""
        return tuple((lora.identity, weight) for lora, weight in weighted)

    @property
    def text_key(self) -> LoraKey:
        """Return the cache key for text embeddings; empty if no text encoder is patched."""
        is_patched = any(network_of(path) == TEXT_ENCODER for path in (*self.layers, *self.changes))
        return self.key if is_patched else ()

    @property
    def nbytes(self) -> int:
        """Return the memory of all layers and changes."""
        changes = sum(change.nbytes for found in self.changes.values() for change, _ in found)
        return changes + sum(layer.nbytes for layer in self.layers.values())

    def of_model(self, model: str) -> Mapping[str, LoraLayer]:
        """Return the layers of one model (``unet`` or ``text_encoder``), by full path."""
        return {path: layer for path, layer in self.layers.items() if path.startswith(f"{model}.")}

    def changes_of(self, model: str) -> Mapping[str, WeightedChanges]:
        """Return the full-rank changes of one model's layers, by full path."""
        return {path: changes for path, changes in self.changes.items() if path.startswith(f"{model}.")}


def _joined(layers: Sequence[LoraLayer]) -> LoraLayer:
    return LoraLayer(torch.cat([layer.down for layer in layers]), torch.cat([layer.up for layer in layers], dim=1))
