"""Encoding of a request's prompts for each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.adapters.lora.set import LoraKey
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.engines import Engine
from triton_diffusers.errors import EngineFailure, InvalidRequest, shown
from triton_diffusers.families.conditioning import STATES, Conditioning, EncodedText, Inputs
from triton_diffusers.prompts import (
    MAX_WEIGHT,
    Chunk,
    Prompt,
    PromptReader,
    Tokens,
    has_and,
    script_warnings,
    split_and,
    split_tags,
    texts_by_step,
)
from triton_diffusers.settings import Settings
from triton_diffusers.util.cache import LruCache, one

_MAX_CACHED_CHUNKS = 256

_NEGATIVE = "negative_prompt"
_WEIGHTS = f"weights lie between {-MAX_WEIGHT:g} and {MAX_WEIGHT:g}"


class PromptEncoder:
    """Prompt encoder of one engine, with an LRU cache of chunks."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._reader = PromptReader(engine.tokenizer, settings.max_prompt_chunks)
        # Keys hold everything that the states depend on except attention weights, which are cheap to apply.
        self._cache: LruCache[tuple[Tokens, int, LoraKey], Inputs] = LruCache(_MAX_CACHED_CHUNKS, one)

    def encode(
        self, request: GenerationRequest, size: tuple[int, int], loras: LoraSet | None, warnings: list[str]
    ) -> Conditioning:
        """Return the conditioning of a request's images, which are sampled at ``size``.

        Long prompts span several chunks; the shorter texts of a step are padded with empty chunks. Truncated text,
        limited weights and ineffective tags are added to ``warnings``; LoRA tags are ignored. Distilled models get the
        prompt's states only.

        Raises:
            InvalidRequest: ``clip_skip`` exceeds the text encoder's layers, or the prompts have too many texts.
            EngineFailure: states are not finite.
        """
        if not 1 <= request.clip_skip <= self._engine.family.text_layers:
            limit = f"must be between 1 and {self._engine.family.text_layers}, the layers of this model's text encoder"
            raise InvalidRequest("clip_skip", request.clip_skip, limit)
        rows, weights = self._rows(request, warnings)
        schedules = self._schedules(rows, request.steps)
        prompts = {text: self._reader.read(text) for schedule in schedules for text in dict.fromkeys(schedule)}
        self._check_chunks(prompts.values())
        warnings.extend(_cuts(rows, schedules, prompts))
        warnings.extend(_limits(rows, schedules, prompts))
        if not request.warnings:
            for field in dict.fromkeys(row.field for row in rows):
                text = " ".join(row.text for row in rows if row.field == field)
                warnings.extend(script_warnings(field, text, self._engine.tokenizer))

        family = self._engine.family

        def encode(chunk: Chunk) -> Inputs:
            return self._encode(chunk, request.clip_skip, loras)

        encoded = {text: _joined([encode(chunk) for chunk in prompt.chunks]) for text, prompt in prompts.items()}
        empty = {text: family.empty_negative(encoded[text]) for text in encoded if not text.strip()}
        negative = {**encoded, **empty}
        uneven = len({len(prompt.chunks) for prompt in prompts.values()}) > 1
        return Conditioning(
            steps=tuple(
                zip(
                    *(
                        [(negative if row.field == _NEGATIVE else encoded)[text] for text in schedule]
                        for row, schedule in zip(rows, schedules, strict=True)
                    ),
                    strict=True,
                )
            ),
            empty=encode(self._reader.empty)[STATES] if uneven else None,
            weights=weights,
            shared=family.shared_inputs(request, size),
        )

    def _rows(self, request: GenerationRequest, warnings: list[str]) -> tuple[list[_Row], tuple[float, ...]]:
        """Return the prompts of a denoiser call's rows, negative first, and the weights of the positive ones."""
        prompt, _ = split_tags(request.prompt)
        parts = split_and(prompt)
        limit = self._settings.max_prompt_parts
        if len(parts) > limit:
            raise InvalidRequest("prompt", f"{len(parts)} prompts joined by AND", f"at most {limit}")
        guidance = self._engine.family.guidance
        if guidance.single_row and len(parts) > 1:
            rule = "expected one: this model's guidance is part of its UNet, so prompts cannot be joined"
            raise InvalidRequest("prompt", f"{len(parts)} prompts joined by AND", rule)
        rows = [_Row("prompt", part.text) for part in parts]
        warnings.extend(
            f"prompt: the AND weight of {shown(part.text)} was limited to {part.weight:g}: {_WEIGHTS}"
            for part in parts
            if part.limited
        )
        if guidance.single_row:
            return rows, (1.0,)
        if guidance.is_guided(request) or len(parts) > 1:
            negative, tags = split_tags(request.negative_prompt)
            warnings.extend(
                f"negative_prompt: {shown(tag.text)} has no effect here; write it in prompt" for tag in tags[:1]
            )
            if has_and(negative):
                warnings.append("negative_prompt: AND is an ordinary word here; only prompt can join prompts")
            rows.insert(0, _Row(_NEGATIVE, negative))
        return rows, tuple(part.weight for part in parts)

    def _schedules(self, rows: Sequence[_Row], steps: int) -> list[list[str]]:
        """Return the texts of each row, one per step."""
        limit = self._settings.max_prompt_texts
        schedules: list[list[str]] = []
        seen: set[str] = set()
        for row in rows:
            schedule = []
            for text in texts_by_step(row.text, steps):
                seen.add(text)
                if len(seen) > limit:
                    raise InvalidRequest(
                        row.field,
                        f"more than {limit} different texts",
                        f"[from:to:when], [a|b] and AND may produce at most {limit} per request (max_prompt_texts)",
                    )
                schedule.append(text)
            schedules.append(schedule)
        return schedules

    def _check_chunks(self, prompts: Iterable[Prompt]) -> None:
        """Limit the text encoder's work to that of two prompts of maximum length."""
        limit = 2 * self._settings.max_prompt_chunks
        number = len({chunk for prompt in prompts for chunk in prompt.chunks})
        if number > limit:
            raise InvalidRequest(
                "prompt",
                f"{number} different chunks of {self._reader.capacity} tokens",
                f"[from:to:when], [a|b] and AND may produce at most {limit} per request (twice max_prompt_chunks)",
            )

    def _encode(self, chunk: Chunk, clip_skip: int, loras: LoraSet | None) -> Inputs:
        """Return a chunk's hidden states (1, tokens, width) and other inputs.

        They are cached because empty and negative chunks recur. Chunks are encoded one by one, so that the result does
        not depend on the batch, down to the last bit.
        """
        key = (chunk.tokens, clip_skip, loras.text_key if loras else ())
        encoded = self._cache.get(key)
        if encoded is None:
            encoded = self._engine.encode_prompts([chunk.tokens], clip_skip, loras)
            if not all(value.isfinite().all() for value in encoded.values()):
                raise EngineFailure(
                    "the model's text encoder gave NaN or infinite values; try another precision, or no LoRA"
                )
            self._cache.put(key, encoded)
        return {**encoded, STATES: self._engine.family.weigh(encoded[STATES], chunk.weights)}


def _joined(chunks: Sequence[Inputs]) -> EncodedText:
    """Return a text of these chunks; its first one gives the inputs of the whole text, as in other tools."""
    whole = {name: value for name, value in chunks[0].items() if name != STATES}
    return EncodedText(tuple(chunk[STATES] for chunk in chunks), whole)


@dataclass(frozen=True, slots=True)
class _Row:
    """Prompt of a row of denoiser calls, and its request field."""

    field: str
    text: str


def _cuts(rows: Sequence[_Row], schedules: Sequence[Sequence[str]], prompts: Mapping[str, Prompt]) -> Iterable[str]:
    """Yield a warning for each row with a truncated text."""
    for row, schedule in zip(rows, schedules, strict=True):
        cut = (warning for text in dict.fromkeys(schedule) if (warning := prompts[text].warning(row.field)))
        yield from islice(cut, 1)


def _limits(rows: Sequence[_Row], schedules: Sequence[Sequence[str]], prompts: Mapping[str, Prompt]) -> Iterable[str]:
    """Yield a warning for each row with a limited attention weight."""
    for row, schedule in zip(rows, schedules, strict=True):
        if limited := next((prompts[text].limited for text in dict.fromkeys(schedule) if prompts[text].limited), ""):
            yield f"{row.field}: the attention weight of {shown(limited)} was limited: {_WEIGHTS}"
