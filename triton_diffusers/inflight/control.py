"""Per-row ControlNets of a step and the sum of their residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from triton_diffusers.engines import ControlNet, Residuals
from triton_diffusers.errors import EngineFailure
from triton_diffusers.families.conditioning import Inputs, select


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """One ControlNet with its control ``image``, float32 (3, height, width) in 0 … 1, and its ``scale``.

    It is active from ``start`` to ``end``, as fractions of the image's steps.
    """

    net: ControlNet
    image: torch.Tensor
    scale: float
    start: float = 0.0
    end: float = 1.0

    def is_active(self, step: int, steps: int) -> bool:
        """Return True if a step of ``steps`` lies wholly between start and end, as in diffusers."""
        return self.start <= step / steps and (step + 1) / steps <= self.end


def residuals_of(
    controls: Sequence[Sequence[Control]], latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs
) -> Residuals | None:
    """Return the scaled sum of the residuals of each row's ``controls``; None if no row has any.

    Rows are the denoiser call's: latents (n, latent channels, h, w), timesteps (n,) and other inputs. Each ControlNet
    is called once, with its rows.

    Raises:
        EngineFailure: a residual is not finite.
    """
    uses: dict[ControlNet, list[tuple[int, Control]]] = {}
    for row, active in enumerate(controls):
        for control in active:
            uses.setdefault(control.net, []).append((row, control))
    total: list[torch.Tensor] = []
    for net, use in uses.items():
        rows = torch.tensor([row for row, _ in use], device=latents.device)
        images = torch.stack([control.image for _, control in use])
        scales = torch.tensor([control.scale for _, control in use], device=latents.device)[:, None, None, None]
        chosen = [row for row, _ in use]
        made = net(latents[rows], timesteps[chosen], select(inputs, chosen), images)
        if not all(residual.isfinite().all() for residual in made):
            raise EngineFailure("a ControlNet gave NaN or infinite values; try another one, or another precision")
        if not total:
            total = [torch.zeros(len(latents), *residual.shape[1:], device=latents.device) for residual in made]
        for summed, residual in zip(total, made, strict=True):
            summed.index_add_(0, rows, residual * scales)
    return tuple(total) if total else None
