"""LoRAs on PyTorch modules, for one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from triton_diffusers.lora import LoraBatch, LoraSet, LoraStacker, lora_modules
from triton_diffusers.lru import LruCache

_Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]


class LoraHooks:
    """Makes a module compute with LoRA within a call, by hooks that are gone when the call is over."""

    def __init__(self, name: str, module: Any, cache: LruCache) -> None:
        parameter = next(module.parameters())
        self._modules = dict(lora_modules(name, module))
        self._stacker = LoraStacker(name, parameter.device, parameter.dtype, cache)

    @contextmanager
    def applied(self, rows: Sequence[LoraSet | None] | None) -> Iterator[None]:
        """Within this, the module's rows have these LoRAs; it must be called with exactly so many rows."""
        handles: list[torch.utils.hooks.RemovableHandle] = []
        try:
            if rows is not None and any(rows):
                for path, batch in self._stacker.stack(rows).items():
                    handles.append(self._modules[path].register_forward_hook(_adding(batch)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def _adding(batch: LoraBatch) -> _Hook:
    """A hook that adds to what its layer has computed."""

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            batch.add_convolution(layer, inputs[0], output)
        else:
            batch.add_linear(inputs[0], output)

    return add
