"""The layers of a checkpoint that a LoRA can change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

UNET = "unet"
TEXT_ENCODER = "text_encoder"


def network_of(path: str) -> str:
    """Return the network of a layer's path; all text encoders are one."""
    network = path.partition(".")[0]
    return TEXT_ENCODER if network.startswith(TEXT_ENCODER) else network


Target = nn.Linear | nn.Conv2d | nn.LayerNorm | nn.GroupNorm


def lora_modules(name: str, module: Any) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Yield a model's linear and (ungrouped, zero-padded) convolution layers, by their paths below ``name``."""
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d)
            and layer.groups == 1
            and layer.padding_mode == "zeros"
            and not isinstance(layer.padding, str)
        ):
            yield f"{name}.{path}", layer


def target_modules(name: str, module: Any) -> Iterator[tuple[str, Target]]:
    """Yield all layers that a file can change: those of ``lora_modules``, and normalizations with weights."""
    yield from lora_modules(name, module)
    for path, layer in module.named_modules():
        if isinstance(layer, nn.LayerNorm | nn.GroupNorm) and layer.weight is not None:
            yield f"{name}.{path}", layer
