"""From a file's tensors to a LoRA's layers, for the model at hand.

Read are kohya's sd-scripts and LoCon (``lora_unet_….lora_down.weight``), diffusers' older layouts
(``unet.….processor.to_q_lora.down.weight``, ``….lora_linear_layer.down.weight``) and PEFT's
(``unet.….lora_A.weight``). Whatever does not fit the model is an error: a LoRA that is applied in part makes a picture
that nobody asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch

from triton_diffusers.lora.adapter_config import AdapterConfig
from triton_diffusers.lora.layer import LoraError, LoraLayer
from triton_diffusers.lora.names import LayerNames
from triton_diffusers.weight_files import is_plain, named

LARGEST_RANK = 1024

_KEY = re.compile(
    r"(?P<layer>.+?)(?:[._]lora|\.lora_linear_layer)?\."
    r"(?:(?P<down>lora_down\.weight|lora_A(?:\.default)?\.weight|down\.weight)"
    r"|(?P<up>lora_up\.weight|lora_B(?:\.default)?\.weight|up\.weight)"
    r"|(?P<mid>lora_mid\.weight)|(?P<alpha>alpha))"
)
_OTHER_KINDS = {
    ".hada_": "LoHa",
    ".lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    ".on_input": "IA3",
    "lora_te2_": "a LoRA for SDXL",
    "text_encoder_2.": "a LoRA for SDXL",
}


class LoraReader:
    """Reads LoRAs for one model, whose layers' weights have the shapes ``targets``."""

    def __init__(self, targets: Mapping[str, tuple[int, ...]]) -> None:
        self._targets = targets
        self._names = LayerNames(targets)

    def read(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Mapping[str, LoraLayer]:
        """The layers, in float32 and in memory of their own. Raises ``LoraError``."""
        config = AdapterConfig(metadata)
        parts: dict[str, dict[str, str]] = {}
        unknown = []
        for key in tensors:
            match = _KEY.fullmatch(key)
            path = self._names.find(match["layer"]) if match else None
            if match is None or path is None or match.lastgroup is None:
                unknown.append(key)
            elif (earlier := parts.setdefault(path, {}).setdefault(match.lastgroup, key)) != key:
                raise LoraError(f"two of its keys mean the same: {named([earlier, key])}")
        if unknown:
            kinds = {kind for key in unknown for mark, kind in _OTHER_KINDS.items() if mark in key}
            hint = f" (it is {' and '.join(sorted(kinds))}, which is not served)" if kinds else ""
            raise LoraError(f"it has keys that fit no layer of this model: {named(unknown)}{hint}")
        if not parts:
            raise LoraError("it has no LoRA weights")
        return {path: self._layer(path, keys, tensors, config) for path, keys in parts.items()}

    def _layer(
        self, path: str, keys: Mapping[str, str], tensors: Mapping[str, torch.Tensor], config: AdapterConfig
    ) -> LoraLayer:
        """One layer; ``keys`` are the names of its parts."""
        if missing := {"down", "up"} - keys.keys():
            raise LoraError(f"it has no {missing.pop()} weight beside {named(list(keys.values()))}")
        weights = {part: tensors[key] for part, key in keys.items()}
        for part, weight in weights.items():
            _check(keys[part], weight)
        # Shapes are looked at before any weight is: a crafted file may claim far more elements than it brings.
        rank, (out, width, *kernel) = weights["down"].shape[:1], self._targets[path]
        shapes = {part: _without_ones(weight.shape) for part, weight in weights.items()}
        wanted = {"up": (out, *rank), "down": (*rank, width, *kernel)}
        if "mid" in weights:
            wanted = {"up": (out, *rank), "down": (*rank, width), "mid": (*rank, *rank, *kernel)}
        misfits = [keys[part] for part, shape in wanted.items() if shapes[part] != _without_ones(shape)]
        if misfits:
            has = ", ".join(str(tuple(tensors[key].shape)) for key in misfits)
            raise LoraError(f"{named(misfits)}: {has} does not fit this model's layer of {self._targets[path]}")
        if not 1 <= rank[0] <= LARGEST_RANK:
            raise LoraError(f"{named([keys['down']])}: its rank is {rank[0]}; 1 to {LARGEST_RANK} are served")

        down = weights["down"].to(torch.float32, copy=True)
        up = weights["up"].float().reshape(out, *rank)
        if "mid" in weights:  # a 1×1 convolution before the kernel's own, nothing between them: one convolution
            mid = weights["mid"].float().reshape(*rank, *rank, *kernel)
            down = torch.einsum("or...,ri->oi...", mid, down.reshape(*rank, width))
        layer = LoraLayer(
            down.reshape(*rank, width, *kernel).contiguous(), (up * _scale(path, keys, weights, config)).contiguous()
        )
        for part, weight in (("down", layer.down), ("up", layer.up)):
            if not weight.isfinite().all():
                raise LoraError(f"{named([keys[part]])}: it has values that are no finite numbers")
        return layer


def _scale(path: str, keys: Mapping[str, str], weights: Mapping[str, torch.Tensor], config: AdapterConfig) -> float:
    """alpha / rank, or 1 where the file names no alpha."""
    rank = len(weights["down"])
    if "alpha" not in weights:
        said = config.scale(path, rank)
        return 1.0 if said is None else said
    if weights["alpha"].numel() != 1 or not math.isfinite(alpha := float(weights["alpha"].item())):
        raise LoraError(f"{named([keys['alpha']])}: it is not a finite number")
    return alpha / rank


def _check(key: str, weight: torch.Tensor) -> None:
    if not is_plain(weight) or weight.is_complex() or not (weight.is_floating_point() or weight.numel() == 1):
        raise LoraError(f"{named([key])}: {weight.dtype} weights are not served")


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the kernel of a 1×1 convolution, which is a linear layer of the channels."""
    return tuple(shape[:2]) if all(side == 1 for side in shape[2:]) else tuple(shape)
