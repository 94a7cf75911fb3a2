"""Full-rank changes of weights, or changes that depend on the weight itself.

Each holds the content of its file, which may be a hundredth of the change, and computes the change when it is applied.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from triton_diffusers.adapters.lora.layer import LoraLayer, WeightChange

# Avoids a division by zero.
_MIN_NORM = torch.finfo(torch.float32).eps


@dataclass(frozen=True, slots=True, eq=False)
class DenseChange:
    """A difference of full size, in the precision of its file."""

    difference: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Return the memory of the difference."""
        return self.difference.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the difference."""
        return self.difference.to(weight.device, torch.float32)


@dataclass(frozen=True, slots=True, eq=False)
class HadamardChange:
    """LoHa: two low-rank changes, multiplied elementwise."""

    first: LoraLayer
    second: LoraLayer

    @property
    def nbytes(self) -> int:
        """Return the memory of both factors."""
        return self.first.nbytes + self.second.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product, which does not depend on ``weight``."""
        return self.first.of(weight).mul_(self.second.of(weight))


@dataclass(frozen=True, slots=True, eq=False)
class KroneckerChange:
    """LoKr: the Kronecker product of ``blocks`` (a, b) and ``block`` (out ÷ a, in ÷ b, …)."""

    blocks: torch.Tensor
    block: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Return the memory of both factors."""
        return self.blocks.nbytes + self.block.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product, which does not depend on ``weight``."""
        blocks, block = self.blocks.to(weight.device), self.block.to(weight.device)
        return torch.kron(blocks.reshape(*blocks.shape, *[1] * (block.dim() - 2)), block)


@dataclass(frozen=True, slots=True, eq=False)
class ScaledChange:
    """IA3: ``factors`` times the weight, one for each output or, of shape (1, in, …), for each input."""

    factors: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Return the memory of the factors."""
        return self.factors.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return ``weight`` times the factors."""
        return weight.float() * self.factors.to(weight.device)


@dataclass(frozen=True, slots=True, eq=False)
class GeneralizedChange:
    """GLoRA: ``inner`` (in, in) is applied to a layer's inputs before its weight, and ``outer`` is added."""

    inner: LoraLayer
    outer: LoraLayer

    @property
    def nbytes(self) -> int:
        """Return the memory of both changes."""
        return self.inner.nbytes + self.outer.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return ``weight inner + outer``."""
        up, down = self.inner.up.to(weight.device), self.inner.down.to(weight.device)
        mixed = torch.einsum("or...,ri->oi...", torch.einsum("oi...,ir->or...", weight.float(), up), down)
        return mixed.add_(self.outer.of(weight))


@dataclass(frozen=True, slots=True, eq=False)
class DoraChange:
    """DoRA: with ``change`` the weight gets the norms ``magnitude``, one for each output or, (1, in, …), each input."""

    change: WeightChange
    magnitude: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Return the memory of the change and of the norms."""
        return self.change.nbytes + self.magnitude.nbytes

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the difference between the weight with these norms and ``weight``."""
        changed = self.change.of(weight) + weight
        others = [axis for axis in range(weight.dim()) if self.magnitude.shape[axis] == 1]
        norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True).add_(_MIN_NORM)
        return changed.mul_(self.magnitude.to(weight.device) / norm).sub_(weight)
