"""The two forms of LoRA files after reading: low-rank layers, and other changes of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from triton_diffusers.adapters.files import WeightError
from triton_diffusers.adapters.lora.targets import network_of


class LoraError(WeightError):
    """A LoRA file cannot be used with this model; the message is the reason, with keys."""


class WeightChange(Protocol):
    """A change of one layer's weight, stored in its compact form."""

    @property
    def nbytes(self) -> int:
        """Return the memory of the stored form."""

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the change of a layer's own ``weight``, of equal shape and device, in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class LoraLayer:
    """A low-rank change: ``up (down x)`` is added to a layer's output, with every scale in ``up``.

    ``down`` has the shape (rank, in) for a linear layer and (rank, in, height, width) for a convolution; ``up`` has
    (out, rank) for both.
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        """Return the number of rows of ``down``."""
        return len(self.down)

    @property
    def nbytes(self) -> int:
        """Return the memory of both weights."""
        return self.down.nbytes + self.up.nbytes

    @property
    def product(self) -> torch.Tensor:
        """Return the change itself: (out, in) or (out, in, height, width)."""
        product: torch.Tensor = torch.tensordot(self.up, self.down, 1)
        return product

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the change, which does not depend on ``weight``."""
        return self.product.to(weight.device)


@dataclass(frozen=True, slots=True, eq=False)
class LayerChange:
    """A full-rank change of one layer: of its weight, of its ``bias`` (out,), or of both."""

    weight: WeightChange | None = None
    bias: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Return the memory of both changes."""
        return sum(change.nbytes for change in (self.weight, self.bias) if change is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """One LoRA file. ``layers`` and ``changes`` go by the path of the module: ``unet.mid_block.….to_q``.

    ``identity`` is unique for each file and version. ``embeddings`` are the names of bundled embeddings, which are not
    used.
    """

    identity: tuple[str, int, int]
    layers: Mapping[str, LoraLayer]
    changes: Mapping[str, LayerChange] = field(default_factory=dict)
    embeddings: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Return the memory of all layers and changes."""
        return sum(part.nbytes for parts in (self.layers, self.changes) for part in parts.values())

    def only(self, model: str) -> Lora:
        """Return the file's changes of one network (all text encoders are one) as a LoRA of its own."""
        name, size, modified = self.identity
        return replace(
            self,
            identity=(f"{name}#{model}", size, modified),
            layers={path: layer for path, layer in self.layers.items() if network_of(path) == model},
            changes={path: change for path, change in self.changes.items() if network_of(path) == model},
        )
