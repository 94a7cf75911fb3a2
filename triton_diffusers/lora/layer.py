"""The one form that every LoRA file becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from triton_diffusers.weight_files import WeightError


class LoraError(WeightError):
    """A LoRA file cannot be used with this model; the message says why, and names keys."""


@dataclass(frozen=True, slots=True, eq=False)
class LoraLayer:
    """What is added to one layer: ``up (down x)``, with every scale in ``up``.

    ``down`` has the shape (rank, in) for a linear layer and (rank, in, height, width) for a convolution; ``up`` has
    (out, rank) for both.
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        """Rows of ``down``."""
        return len(self.down)

    @property
    def nbytes(self) -> int:
        """Memory of both weights."""
        return self.down.nbytes + self.up.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """One LoRA file, in float32. ``layers`` go by the path of the module: ``unet.mid_block.….to_q``.

    ``identity`` tells it from every other file and from its own earlier versions.
    """

    identity: tuple[str, int, int]
    layers: Mapping[str, LoraLayer]

    @property
    def nbytes(self) -> int:
        """Memory of all layers."""
        return sum(layer.nbytes for layer in self.layers.values())

    def only(self, model: str) -> Lora:
        """Return what the file changes of one model (``unet`` or ``text_encoder``), as a LoRA of its own."""
        name, size, modified = self.identity
        layers = {path: layer for path, layer in self.layers.items() if path.startswith(f"{model}.")}
        return replace(self, identity=(f"{name}#{model}", size, modified), layers=layers)
