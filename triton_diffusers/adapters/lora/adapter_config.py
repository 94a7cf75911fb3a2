"""PEFT's scales of LoRA layers, as diffusers writes them into a file's metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from triton_diffusers.adapters.lora.layer import LoraError

_METADATA_KEY = "lora_adapter_metadata"
_PEFT_ALPHA = 8  # PEFT's default


class AdapterConfig:
    """The scales in a file's metadata, if any. Methods raise ``LoraError``."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        try:
            config = json.loads(metadata.get(_METADATA_KEY) or "{}")
        except (ValueError, RecursionError) as error:
            raise LoraError(f"its {_METADATA_KEY} is not JSON") from error
        if not isinstance(config, dict):
            raise LoraError(f"its {_METADATA_KEY} is not an object")
        self._models: dict[str, dict[str, Any]] = {}
        for key, value in config.items():
            model, _, name = key.partition(".")
            self._models.setdefault(model, {})[name] = value

    def scale(self, path: str, rank: int) -> float | None:
        """Return the factor of a layer's weights; None if the metadata does not cover its model."""
        model, _, inner = path.partition(".")
        config = self._models.get(model)
        if config is None:
            return None
        alpha = config.get("lora_alpha", _PEFT_ALPHA)
        patterns = config.get("alpha_pattern") or {}
        if not isinstance(patterns, dict):
            raise LoraError(f"the alpha_pattern of its {_METADATA_KEY} is not an object")
        for pattern, value in patterns.items():
            # PEFT reads these as regular expressions; from a file they are accepted as plain names only.
            name = pattern.removeprefix("^").removeprefix("text_model.")
            if f".{inner}".endswith(f".{name}"):
                alpha = value
                break
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise LoraError(f"an alpha of its {_METADATA_KEY} is not a number")
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
