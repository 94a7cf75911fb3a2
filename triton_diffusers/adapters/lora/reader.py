"""Read a file's tensors as a LoRA's layers for the loaded model.

Supported are kohya's sd-scripts and LyCORIS (``lora_unet_….lora_down.weight``), diffusers' older layouts
(``unet.….processor.to_q_lora.down.weight``, ``….lora_linear_layer.down.weight``) and PEFT's
(``unet.….lora_A.weight``). Anything that does not fit the model is an error: a partly applied LoRA would give a wrong
image.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from triton_diffusers.adapters.files import named
from triton_diffusers.adapters.lora.adapter_config import AdapterConfig
from triton_diffusers.adapters.lora.kinds import PARTS, read_layer
from triton_diffusers.adapters.lora.layer import LayerChange, LoraError, LoraLayer
from triton_diffusers.adapters.lora.names import LayerNames
from triton_diffusers.adapters.lora.parts import LayerParts

_KEY = re.compile(r"(?P<layer>.+?)(?:[._]lora|\.lora_linear_layer)?\.(?P<part>" + "|".join(map(re.escape, PARTS)) + ")")
# Adapter names that PEFT leaves in some keys.
_ADAPTER = re.compile(r"\.default(?=\.weight$|\.bias$|$)")
_BUNDLED = re.compile(r"bundle_emb\.(?P<name>[^.]+)\..+")
_OTHER_KINDS = {
    "oft_": "OFT",
    "boft_": "BOFT",
    "vera_lambda_": "VeRA",
    ".ia3_l": "IA3 of PEFT",
    "lora_te2_": "a LoRA for SDXL",
    "text_encoder_2.": "a LoRA for SDXL",
}


class LoraContents(NamedTuple):
    """The contents of a file: ``layers`` of low rank and other ``changes``, by module path, and names of embeddings."""

    layers: Mapping[str, LoraLayer]
    changes: Mapping[str, LayerChange]
    embeddings: tuple[str, ...]


class LoraReader:
    """Reads LoRAs for one model, whose layers' weights have the shapes ``targets``."""

    def __init__(self, targets: Mapping[str, tuple[int, ...]]) -> None:
        self._targets = targets
        self._names = LayerNames(targets)

    def read(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> LoraContents:
        """Return the contents as copies, with all factors in float32. Raises ``LoraError``."""
        config = AdapterConfig(metadata)
        embeddings = {match["name"] for key in tensors if (match := _BUNDLED.fullmatch(key))}
        layers, changes = {}, {}
        for path, keys in self._parts(tensors).items():
            layer, change = read_layer(LayerParts(path, self._targets[path], keys, tensors), config)
            if layer is not None:
                layers[path] = layer
            if change is not None:
                changes[path] = change
        if not layers and not changes:
            raise LoraError("it has no LoRA weights")
        return LoraContents(layers, changes, tuple(sorted(embeddings)))

    def _parts(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, Mapping[str, str]]:
        """Return the keys of each layer's parts, by module path. Raises ``LoraError`` for a key that fits no layer."""
        parts: dict[str, dict[str, str]] = {}
        unknown = []
        for key in tensors:
            if _BUNDLED.fullmatch(key):
                continue
            match = _KEY.fullmatch(_ADAPTER.sub("", key))
            path = self._names.find(match["layer"]) if match else None
            # A checkpoint has such keys too, for the weights themselves.
            is_whole = match is not None and match["part"] == "weight" and f"{match['layer']}.on_input" not in tensors
            if match is None or path is None or is_whole:
                unknown.append(key)
            elif (earlier := parts.setdefault(path, {}).setdefault(PARTS[match["part"]], key)) != key:
                raise LoraError(f"two of its keys mean the same: {named([earlier, key])}")
        if unknown:
            kinds = {kind for key in unknown for mark, kind in _OTHER_KINDS.items() if mark in key}
            hint = f" (it is {' and '.join(sorted(kinds))}, which is unsupported)" if kinds else ""
            raise LoraError(f"it has keys that fit no layer of this model: {named(unknown)}{hint}")
        return parts
