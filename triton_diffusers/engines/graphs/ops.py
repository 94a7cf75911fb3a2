"""Custom operations for LoRA, ControlNet residuals and doubling.

Compilers replace them by optimised code. If traced into their parts, PyTorch would have to prove that rows divide into
groups and that sizes are equal or 1, which takes minutes or fails.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

ADD_LORA = "triton_diffusers::add_lora"
ADD_CONVOLUTION_LORA = "triton_diffusers::add_convolution_lora"
ADD_RESIDUAL = "triton_diffusers::add_residual"
INTERLEAVE = "triton_diffusers::interleave"


@torch.library.custom_op(ADD_LORA, mutates_args=())
def add_lora(
    output: torch.Tensor, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor, packed: torch.Tensor
) -> torch.Tensor:
    """Return a layer's ``output`` for ``inputs``, plus ``up (down inputs)``.

    Both are (rows, …, out) and (rows, …, in) or, with four dimensions, pixels: (rows, out, h, w) and (rows, in, h, w).
    ``down`` is (groups, rank, in), ``up`` (groups, out, rank). Rows are a multiple of groups; rank 0 has one group.
    ``packed`` (groups, rank, any) contains the ``down`` of all layers, so that values derived from its sizes are
    computed once for all of them.
    """
    if down.shape[1] == 0:
        return output.clone()
    if output.dim() == 4:
        last = output.permute(0, 2, 3, 1), inputs.permute(0, 2, 3, 1)
        return _sum(*last, down, up).permute(0, 3, 1, 2).contiguous()
    return _sum(output, inputs, down, up)


@add_lora.register_fake
def _(
    output: torch.Tensor, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor, packed: torch.Tensor
) -> torch.Tensor:
    return torch.empty_like(output)


def _sum(output: torch.Tensor, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    hidden = torch.bmm(inputs.reshape(len(down), -1, down.shape[2]), down.transpose(1, 2))
    added = torch.bmm(hidden, up.transpose(1, 2))
    return output + added.view(output.shape)


@torch.library.custom_op(ADD_CONVOLUTION_LORA, mutates_args=())
def add_convolution_lora(
    output: torch.Tensor,
    inputs: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    packed: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Return a convolution's ``output`` for ``inputs``, plus ``up`` of a convolution with ``down``.

    ``output`` is (rows, out, …), ``inputs`` (rows, in, h, w). ``down`` is (groups, rank, taps · in), ordered by the
    taps of the ``kernel``. Everything else is as in ``add_lora``.
    """
    if down.shape[1] == 0:
        return output.clone()
    kernels = down.reshape(*down.shape[:2], *kernel, inputs.shape[1]).permute(0, 1, 4, 2, 3)
    convolved = [
        functional.conv2d(functional.conv2d(rows, own, None, stride, padding, dilation), own_up[..., None, None])
        for rows, own, own_up in zip(inputs.chunk(len(down)), kernels, up, strict=True)
    ]
    return output + torch.cat(convolved)


@add_convolution_lora.register_fake
def _(
    output: torch.Tensor,
    inputs: torch.Tensor,
    down: torch.Tensor,
    up: torch.Tensor,
    packed: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    return torch.empty_like(output)


@torch.library.custom_op(ADD_RESIDUAL, mutates_args=())
def add_residual(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Return ``hidden`` (n, channels, h, w) plus a ``residual`` that broadcasts to its shape."""
    return hidden + residual


@add_residual.register_fake
def _(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(hidden)


@torch.library.custom_op(INTERLEAVE, mutates_args=())
def interleave(phases: torch.Tensor) -> torch.Tensor:
    """Return the four channel groups of ``phases`` (n, 4c, h, w) as the pixels of 2×2 blocks: (n, c, 2h, 2w)."""
    rows, channels, height, width = phases.shape
    apart = phases.reshape(rows, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return apart.clone(memory_format=torch.contiguous_format).view(rows, channels // 4, 2 * height, 2 * width)


@interleave.register_fake
def _(phases: torch.Tensor) -> torch.Tensor:
    rows, channels, height, width = phases.shape
    return phases.new_empty(rows, channels // 4, 2 * height, 2 * width)
