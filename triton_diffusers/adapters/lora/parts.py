"""The tensors of one layer in a file, checked before any is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from triton_diffusers.adapters.files import is_plain, named
from triton_diffusers.adapters.lora.layer import LoraError

MAX_RANK = 1024


class LayerParts:
    """The parts of a layer's change by role (``down``, ``alpha``), for a weight of the shape ``target``.

    ``keys`` are the parts' names in the file ``tensors``. Methods raise ``LoraError``, which names them.
    """

    def __init__(
        self, path: str, target: Sequence[int], keys: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self.path, self.target, self.keys = path, tuple(target), keys
        # Shapes are checked before any weight is read: a crafted file may claim far more elements than it holds.
        self._weights = {part: tensors[key] for part, key in keys.items()}
        for part, weight in self._weights.items():
            _check(keys[part], weight)

    def __contains__(self, part: str) -> bool:
        return part in self.keys

    @property
    def fan_in(self) -> int:
        """Return the layer's inputs times the size of its kernel."""
        return math.prod(self.target[1:])

    def shape(self, part: str) -> tuple[int, ...]:
        """Return a part's shape, without the kernel of a 1×1 convolution."""
        return _without_ones(self._weights[part].shape)

    def rank(self, part: str, axis: int) -> int:
        """Return the size of an axis of a part, which is a rank."""
        shape = self.shape(part)
        rank = shape[axis] if len(shape) > axis else 0
        if not 1 <= rank <= MAX_RANK:
            raise LoraError(f"{self.named(part)}: its rank is {rank}; expected 1 to {MAX_RANK}")
        return rank

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise ``LoraError`` unless parts have these shapes; kernels of 1×1 are optional."""
        misfits = [part for part, shape in shapes.items() if self.shape(part) != _without_ones(shape)]
        if misfits:
            has = ", ".join(str(tuple(self._weights[part].shape)) for part in misfits)
            raise LoraError(f"{self.named(*misfits)}: {has} does not match this model's layer of {self.target}")

    def take(self, part: str, *shape: int, dtype: torch.dtype | None = torch.float32) -> torch.Tensor:
        """Return a copy of a part as ``shape``; with ``dtype=None`` in the precision of the file."""
        weight = self._weights[part]
        taken = weight.to(dtype or weight.dtype, copy=True).reshape(shape).contiguous()
        self.check_finite(part, taken)
        return taken

    def number(self, part: str) -> float:
        """Return a part that is one number."""
        weight = self._weights[part]
        if weight.numel() != 1 or not math.isfinite(number := float(weight.item())):
            raise LoraError(f"{self.named(part)}: it is not a finite number")
        return number

    def check_finite(self, part: str, weight: torch.Tensor) -> None:
        """Raise ``LoraError`` if a part's values are not finite."""
        if not weight.isfinite().all():
            raise LoraError(f"{self.named(part)}: it contains NaN or infinite values")

    def named(self, *parts: str) -> str:
        """Return the names of parts in the file, for a message; without ``parts`` all names."""
        return named([self.keys[part] for part in parts or self.keys])


def _check(key: str, weight: torch.Tensor) -> None:
    if not is_plain(weight) or weight.is_complex() or not (weight.is_floating_point() or weight.numel() == 1):
        raise LoraError(f"{named([key])}: {weight.dtype} weights are unsupported")


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without the kernel of a 1×1 convolution, which is a linear layer of the channels."""
    return tuple(shape[:2]) if all(side == 1 for side in shape[2:]) else tuple(shape)
