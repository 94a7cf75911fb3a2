"""Chunks of token ids that fill the text encoder's positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triton_diffusers.prompts.syntax import Span, parse


@dataclass(frozen=True, slots=True)
class Tokens:
    """One input of the text encoder: start, a chunk's tokens, end and padding."""

    ids: tuple[int, ...]
    attention_mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens with their attention weights (1 for start, end and padding)."""

    tokens: Tokens
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The chunks of a prompt, at least one, with its truncated text and the text of limited weights."""

    chunks: tuple[Chunk, ...]
    cut: str
    limited: str = ""

    def warning(self, field: str) -> str | None:
        """Return a warning if the prompt was truncated."""
        return f"{field}: too long, only {len(self.chunks)} chunks were used, cut: {self.cut!r}" if self.cut else None


@dataclass(frozen=True, slots=True)
class _Unit:
    """Inseparable tokens: a single one, or all vectors of a textual-inversion embedding."""

    ids: tuple[int, ...]
    weight: float


class PromptReader:
    """Parser and tokenizer of prompts, for a tokenizer with CLIP's interface."""

    def __init__(self, tokenizer: Any, max_chunks: int) -> None:
        self._tokenizer = tokenizer
        self._max_chunks = max_chunks
        self.capacity = tokenizer.model_max_length - 2  # 75, without start and end
        # BERT's tokenizers, used by Chinese models, have other names for start and end.
        self._begin = tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self._end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        self._embeddings = _multi_vector_embeddings(tokenizer.get_added_vocab())
        self.empty = self._chunk([])

    def read(self, text: str) -> Prompt:
        """Return the chunks of a prompt, at most ``max_chunks``, with the remaining text in ``cut``.

        Chunks are filled completely, even if that splits a phrase; ``BREAK`` ends a chunk early. A text without tokens
        has the chunk ``empty``.
        """
        sections = parse(text)
        tokenized = self._tokenized([span for section in sections for span in section])
        filled: list[list[_Unit]] = []
        for section in sections:
            filled.extend(self._fill([unit for _ in section for unit in next(tokenized)]))
        chunks = tuple(self._chunk(chunk) for chunk in filled[: self._max_chunks])
        rest = [number for chunk in filled[self._max_chunks :] for unit in chunk for number in unit.ids]
        cut = self._tokenizer.decode(rest, skip_special_tokens=True).strip() if rest else ""
        limited = next((span.text for section in sections for span in section if span.limited), "")
        return Prompt(chunks or (self.empty,), cut, limited)

    def _tokenized(self, spans: Sequence[Span]) -> Iterator[list[_Unit]]:
        if spans:
            texts = [span.text for span in spans]
            ids = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            for span, numbers in zip(spans, ids, strict=True):
                yield [_Unit(self._embeddings.get(number, (number,)), span.weight) for number in numbers]

    def _fill(self, units: Iterable[_Unit]) -> Iterator[list[_Unit]]:
        """Yield runs of units that fit into a chunk, never empty."""
        chunk: list[_Unit] = []
        room = self.capacity
        for unit in units:
            if len(unit.ids) > room:
                yield chunk
                chunk, room = [], self.capacity
            chunk.append(unit)
            room -= len(unit.ids)
        if chunk:
            yield chunk

    def _chunk(self, units: Sequence[_Unit]) -> Chunk:
        ids = [number for unit in units for number in unit.ids]
        weights = [unit.weight for unit in units for _ in unit.ids]
        padding = self.capacity - len(ids)
        return Chunk(
            Tokens(
                (self._begin, *ids, self._end, *[self._tokenizer.pad_token_id] * padding),
                (*[1] * (len(ids) + 2), *[0] * padding),
            ),
            (1.0, *weights, *[1.0] * (padding + 1)),
        )


def _multi_vector_embeddings(added: Mapping[str, int]) -> dict[int, tuple[int, ...]]:
    """Return all vectors' ids by the trigger word's id. Diffusers names the second vector of ``word`` ``word_1``.

    Diffusers replaces words in the text. Replacing ids also finds words in another case, and leaves longer words with
    an equal beginning alone.
    """
    embeddings = {}
    for word, first in added.items():
        ids = [first]
        while (following := added.get(f"{word}_{len(ids)}")) is not None:
            ids.append(following)
        if len(ids) > 1:
            embeddings[first] = tuple(ids)
    return embeddings
