"""Convolution of a doubled image without computing the doubled image.

Each pixel is repeated four times, so a 3×3 kernel covers only 2×2 distinct pixels. Which taps share a pixel depends on
the parity of row and column: four kernels of 2×2 sums, 16 products per four positions instead of 36.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

from triton_diffusers.engines.graphs.ops import interleave


def can_double(convolution: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Return True if ``convolve_double`` supports this layer: 3×3 taps, output as large as its input."""
    return isinstance(convolution, nn.Conv2d) and (
        convolution.kernel_size == (3, 3)
        and convolution.stride == convolution.padding == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )


def convolve_double(convolution: nn.Conv2d, hidden: torch.Tensor) -> torch.Tensor:
    """Return ``convolution`` of ``hidden`` (n, c, h, w) doubled to 2h, 2w: (n, out, 2h, 2w)."""
    phases = []
    for row in (0, 1):
        rows = _sums(convolution.weight, 2, row)
        for column in (0, 1):
            padded = functional.pad(hidden, (1 - column, column, 1 - row, row))
            phases.append(functional.conv2d(padded, _sums(rows, 3, column), convolution.bias))
    doubled: torch.Tensor = interleave(torch.cat(phases, 1))
    return doubled


def _sums(kernel: torch.Tensor, axis: int, phase: int) -> torch.Tensor:
    """Return the two sums of three taps along ``axis`` for the even (0) or odd (1) positions."""
    first, middle, last = (kernel.narrow(axis, tap, 1) for tap in range(3))
    return torch.cat([first + middle, last] if phase else [first, middle + last], axis)
