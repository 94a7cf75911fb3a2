"""ControlNet residuals as inputs of a UNet graph: one per skip connection, then one for the middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from triton_diffusers.engines.graphs.graph import Input
from triton_diffusers.engines.graphs.ops import add_residual

# Without ControlNets: zeros of size 1 that broadcast, at no memory cost.
_UNUSED = (1, 1, 1, 1)


def residual_inputs(unet: Any, latents: torch.Tensor) -> tuple[Input, ...]:
    """Return residual inputs for a UNet traced with ``latents``; any size in them may also be 1."""
    rows, _, *sides = latents.shape
    inputs = []
    for index, (channels, halvings) in enumerate(_places(unet.config)):
        shape = [rows, channels, *(-(-side // 2**halvings) for side in sides)]
        # One dimension per level: tracing need not relate the sides of different levels.
        free = {axis: Dim(f"residual_{index}_{axis}", min=1, max=2**15) for axis in range(4)}
        inputs.append(Input(f"residual_{index}", torch.zeros(shape), free))
    return tuple(inputs)


def no_residuals(unet: Any) -> tuple[torch.Tensor, ...]:
    """Return the inputs for calls without ControlNets."""
    return tuple(torch.zeros(_UNUSED) for _ in _places(unet.config))


@contextmanager
def residuals_added(unet: Any, residuals: Sequence[torch.Tensor]) -> Iterator[None]:
    """Add residuals to ``unet`` where diffusers would, inside this context; they may broadcast."""
    *skips, middle = (residual.to(unet.dtype) for residual in residuals)

    def add_skips(block: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        hidden = keywords["res_hidden_states_tuple"]
        own = [skips.pop() for _ in hidden][::-1]
        added = tuple(add_residual(*pair) for pair in zip(hidden, own, strict=True))
        return inputs, {**keywords, "res_hidden_states_tuple": added}

    def add_middle(block: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = add_residual(output, middle)
        return summed

    handles = [block.register_forward_pre_hook(add_skips, with_kwargs=True) for block in unet.up_blocks]
    handles.append(unet.mid_block.register_forward_hook(add_middle))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _places(config: Any) -> list[tuple[int, int]]:
    """Return the channels and the number of halvings at each skip connection and the middle."""
    channels, per_block = config.block_out_channels, config.layers_per_block
    places = [(channels[0], 0)]
    for level, width in enumerate(channels):
        layers = per_block if isinstance(per_block, int) else per_block[level]
        places += [(width, level)] * layers
        if level < len(channels) - 1:
            places.append((width, level + 1))
    return [*places, places[-1]]
