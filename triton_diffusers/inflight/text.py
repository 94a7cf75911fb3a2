"""The prompts of a request as text states."""

from __future__ import annotations

from collections import OrderedDict

import torch

from triton_diffusers.engines import Engine
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.lora import LoraSet
from triton_diffusers.lora.set import LoraKey
from triton_diffusers.prompts import Chunk, PromptReader, Tokens, apply_weights
from triton_diffusers.request import GenerationRequest


class PromptEncoder:
    """Encodes prompts with one engine, and remembers the chunks of the latest ones."""

    _MOST_CACHED_CHUNKS = 256

    def __init__(self, engine: Engine, most_chunks: int) -> None:
        self._engine = engine
        self._reader = PromptReader(engine.tokenizer, most_chunks)
        # By everything that a chunk's states depend on, but for its weights, which are cheap to apply.
        self._cache: OrderedDict[tuple[Tokens, int, LoraKey], torch.Tensor] = OrderedDict()

    def states(self, request: GenerationRequest, loras: LoraSet | None, warnings: list[str]) -> torch.Tensor:
        """Text states (1, tokens, width), or (2, tokens, width) with guidance: negative first.

        A prompt of more chunks is that many times as many tokens; the shorter of the two prompts gets empty chunks.
        What had to be cut is added to ``warnings``. Raises ``InvalidRequest`` for a ``clip_skip`` that the text encoder
        does not have the layers for.
        """
        if not 1 <= request.clip_skip <= self._engine.text_layers:
            limit = f"must be between 1 and {self._engine.text_layers}, the layers of this model's text encoder"
            raise InvalidRequest("clip_skip", request.clip_skip, limit)
        texts = {"prompt": request.prompt}
        if request.guided:
            texts = {"negative_prompt": request.negative_prompt, **texts}
        prompts = {field: self._reader.read(text) for field, text in texts.items()}
        warnings.extend(warning for field, prompt in prompts.items() if (warning := prompt.warning(field)))
        length = max(len(prompt.chunks) for prompt in prompts.values())
        rows = []
        for prompt in prompts.values():
            chunks = [*prompt.chunks, *[self._reader.empty] * (length - len(prompt.chunks))]
            rows.append(torch.cat([self._encode(chunk, request.clip_skip, loras) for chunk in chunks], dim=1))
        return torch.cat(rows)

    def _encode(self, chunk: Chunk, clip_skip: int, loras: LoraSet | None) -> torch.Tensor:
        """A chunk's states (1, tokens, width). Chunks come again (empty and negative ones above all), so they are kept.

        One by one, so that a chunk's states are the same to the bit whatever it is encoded for.
        """
        key = (chunk.tokens, clip_skip, loras.text_key if loras else ())
        states = self._cache.get(key)
        if states is None:
            states = self._cache[key] = self._engine.encode_prompts([chunk.tokens], clip_skip, loras)
            if len(self._cache) > self._MOST_CACHED_CHUNKS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return apply_weights(states, chunk.weights)
