"""Load a request's LoRAs as one set for its steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triton_diffusers.adapters.lora.layer import Lora
from triton_diffusers.adapters.lora.set import LoraSet
from triton_diffusers.adapters.lora.store import LoraStore
from triton_diffusers.api.request import GenerationRequest, LoraChoice
from triton_diffusers.errors import shown
from triton_diffusers.settings import Settings
from triton_diffusers.util.cache import LruCache

_MEGABYTE = 2**20
_MAX_NAMED = 3


class LoraLoader:
    """Loads LoRAs for one model, whose layers' weights have the shapes ``targets``. For the engine's thread only."""

    def __init__(self, settings: Settings, targets: Mapping[str, tuple[int, ...]]) -> None:
        self._cache: LruCache[Any, Any] = LruCache(settings.lora_cache_megabytes * _MEGABYTE)
        self._store = LoraStore(
            settings.model_folder,
            targets,
            cache=self._cache,
            max_file_bytes=settings.max_lora_megabytes * _MEGABYTE,
        )

    def load(self, request: GenerationRequest, warnings: list[str] | None = None) -> LoraSet | None:
        """Return the request's LoRAs; None if all have weight 0. Raises ``InvalidRequest`` and ``NotFound``.

        Unused content of files is added to ``warnings``.
        """
        loras = [(self._get(choice), choice.weight) for choice in request.loras]
        if warnings is not None:
            # A file whose weights differ by model appears twice.
            files = {choice.path: lora for choice, (lora, _) in zip(request.loras, loras, strict=True)}
            warnings.extend(warning for path, lora in files.items() for warning in _left_out(path, lora))
        weighted = [(lora, weight) for lora, weight in loras if weight != 0.0]
        if not weighted:
            return None
        key = LoraSet.key_of(weighted)
        kept: LoraSet | None = self._cache.get(key)
        if kept is None:
            kept = LoraSet.of(weighted)
            self._cache.put(key, kept)
        return kept

    def _get(self, choice: LoraChoice) -> Lora:
        lora = self._store.get(choice.path)
        return lora.only(choice.only) if choice.only else lora


def _left_out(path: str, lora: Lora) -> list[str]:
    if not lora.embeddings:
        return []
    names = ", ".join(shown(name) for name in lora.embeddings[:_MAX_NAMED])
    more = len(lora.embeddings) - _MAX_NAMED
    names += f" and {more} more" if more > 0 else ""
    return [
        f"lora_path: {shown(path)} bundles embeddings ({names}), which are not used;"
        " place them in the model's embeddings folder to use them"
    ]
