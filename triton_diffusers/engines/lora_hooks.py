"""LoRAs on PyTorch modules, for one call at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from triton_diffusers.lora import ChangeBatch, LoraBatch, LoraSet, LoraStacker, grouped, target_modules
from triton_diffusers.lru import LruCache

_Hook = Callable[[nn.Module, tuple[Any, ...], torch.Tensor], None]


class LoraHooks:
    """Makes a module compute with LoRA within a call, by hooks that are gone when the call is over."""

    def __init__(self, name: str, module: Any, cache: LruCache) -> None:
        parameter = next(module.parameters())
        self._name = name
        self._modules: dict[str, Any] = dict(target_modules(name, module))
        self._stacker = LoraStacker(name, parameter.device, parameter.dtype, cache)

    @contextmanager
    def applied(self, rows: Sequence[LoraSet | None] | None) -> Iterator[None]:
        """Within this, the module's rows have these LoRAs; it must be called with exactly as many rows."""
        handles: list[torch.utils.hooks.RemovableHandle] = []
        try:
            if rows is not None and any(rows):
                for path, batch in self._batches(rows):
                    handles.append(self._modules[path].register_forward_hook(_adding(batch)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _batches(self, rows: Sequence[LoraSet | None]) -> Iterator[tuple[str, LoraBatch | ChangeBatch]]:
        yield from self._stacker.stack(rows).items()
        groups = [{} if loras is None else loras.changes_of(self._name) for loras in grouped(rows)]
        for path in dict.fromkeys(path for changes in groups for path in changes):
            yield path, ChangeBatch([changes.get(path, ()) for changes in groups])


def _adding(batch: LoraBatch | ChangeBatch) -> _Hook:
    """A hook that adds to what its layer has computed."""

    def add(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        batch.add(layer, inputs[0], output)

    return add
