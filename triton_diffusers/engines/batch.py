"""Inputs of one denoiser call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.families.conditioning import STATES, Inputs, select
from triton_diffusers.families.denoiser import Residuals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Rows of one call: ``latents`` (n, channels, h, w), ``timesteps`` (n,), and the denoiser's named ``inputs``.

    ``loras`` has one entry per row; rows with equal LoRAs should be adjacent. ``deep`` features (n, d, h, w) of a
    recent step skip all but the outermost layers; those of one engine suit any other of the checkpoint. ``residuals``
    of ControlNets, for all rows, need the whole denoiser. Tensors may be on any device.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    inputs: Inputs
    loras: Sequence[LoraSet | None] | None = None
    deep: torch.Tensor | None = None
    residuals: Residuals | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.latents)

    @property
    def states(self) -> torch.Tensor:
        """Hidden states of the texts (n, tokens, width)."""
        return self.inputs[STATES]

    def rows(self, rows: slice | list[int]) -> Batch:
        """Return some of the rows."""
        loras = self.loras
        if loras is not None:
            loras = loras[rows] if isinstance(rows, slice) else [loras[row] for row in rows]
        return Batch(
            latents=self.latents[rows],
            timesteps=self.timesteps[rows],
            inputs=select(self.inputs, rows),
            loras=loras,
            deep=None if self.deep is None else self.deep[rows],
            residuals=None if self.residuals is None else tuple(residual[rows] for residual in self.residuals),
        )
