"""Read and cache the LoRA files of a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triton_diffusers.adapters.files import WeightError, WeightFinder, opened
from triton_diffusers.adapters.lora.layer import Lora
from triton_diffusers.adapters.lora.reader import LoraReader
from triton_diffusers.adapters.places import LORA_IN_FOLDER, LORA_SUFFIXES
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.util.cache import LruCache
from triton_diffusers.util.files import file_identity

_FIELD = "lora_path"


class LoraStore:
    """Reads LoRAs for one model, and caches them in ``cache`` until their file changes."""

    def __init__(
        self,
        model_dir: Path,
        targets: Mapping[str, tuple[int, ...]],
        *,
        cache: LruCache[Any, Any],
        max_file_bytes: int,
    ) -> None:
        self._finder = WeightFinder(model_dir.resolve(), _FIELD, LORA_SUFFIXES, LORA_IN_FOLDER)
        self._reader = LoraReader(targets)
        self._cache = cache
        self._max_file_bytes = max_file_bytes

    def get(self, path: str) -> Lora:
        """Return the LoRA at a path relative to the model directory. Raises ``InvalidRequest`` and ``NotFound``."""
        file = self._finder.find(path)
        identity = file_identity(file)
        kept: Lora | None = self._cache.get(file)
        if kept is not None and kept.identity == identity:
            return kept
        try:
            with opened(file, self._max_file_bytes) as (tensors, metadata):
                lora = Lora(identity, *self._reader.read(tensors, metadata))
        except WeightError as error:
            raise InvalidRequest(_FIELD, path, str(error)) from error
        self._cache.put(file, lora)
        return lora
