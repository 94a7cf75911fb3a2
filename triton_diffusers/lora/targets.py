"""Which layers of a checkpoint a LoRA can change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

UNET = "unet"
TEXT_ENCODER = "text_encoder"


def lora_modules(name: str, module: Any) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """A model's linear and (ungrouped, zero-padded) convolution layers, by their paths below ``name``."""
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
        ):
            yield f"{name}.{path}", layer
