"""What LoRA and ControlNets add, as operations of a graph.

A compiler replaces them by what is best there; traced operation by operation, PyTorch would have to prove that rows
divide into groups, which takes it minutes or fails, and that sizes are equal or 1.
"""

from __future__ import annotations

import torch

ADD_LORA = "triton_diffusers::add_lora"
ADD_RESIDUAL = "triton_diffusers::add_residual"


@torch.library.custom_op(ADD_LORA, mutates_args=())
def add_lora(output: torch.Tensor, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """``output`` (rows, …, out) of a layer that was given ``inputs`` (rows, …, in), plus ``up (down inputs)``.

    ``down`` is (groups, rank, in), ``up`` (groups, out, rank); rows are a multiple of groups.
    """
    if down.shape[1] == 0:
        return output.clone()
    hidden = torch.bmm(inputs.reshape(len(down), -1, down.shape[2]), down.transpose(1, 2))
    added = torch.bmm(hidden, up.transpose(1, 2))
    return output + added.view(output.shape)


@add_lora.register_fake
def _(output: torch.Tensor, inputs: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(output)


@torch.library.custom_op(ADD_RESIDUAL, mutates_args=())
def add_residual(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """``hidden`` (n, channels, h, w) plus a ``residual`` of the same shape, or with sizes of 1 in it."""
    return hidden + residual


@add_residual.register_fake
def _(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(hidden)
